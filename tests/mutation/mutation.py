"""Break every rule by a cycle and look which tests turn red: ``python -m tests.mutation.mutation [--table] [--first]
[--out docs/data/mutants.json]``.

One process imports what is heavy and has no part in it. For every mutant it forks a child that imports the simulator
from changed source, uncompiled, and runs the tests that must fail. Children without a change must pass.
"""

from __future__ import annotations

import argparse
import gc
import importlib.abc
import importlib.util
import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import get_args

import hypothesis.strategies  # noqa: F401 - these are loaded here so that children need not
import numba  # noqa: F401
import pydantic  # noqa: F401
import pytest
import torch  # noqa: F401

from tests.mutation.mutants import MUTANTS, Check, Mutant

ROOT = Path(__file__).parents[2]
BY_HAND = (  # what notices most first; the rest is read only for mutants that survive it
    (
        "tests/simulator/network/test_windows_and_heads.py",
        "tests/simulator/timing/test_engines.py",
        "tests/simulator/program/test_manual.py",
    ),
    (
        "tests/simulator/timing/test_timing.py",
        "tests/simulator/machine/test_machine.py",
        "tests/simulator/program/test_isa.py",
    ),
)
BANKS = (
    (
        "tests/simulator/dram/test_dram_commands.py::test_sequences_by_hand",
        "tests/simulator/dram/test_dram_commands.py::test_a_full_queue_lets_the_next_burst_in_with_a_column_command",
        "tests/simulator/dram/test_dram_commands.py::test_a_run_opens_the_next_row_behind_the_bus_or_waits_for_it",
        "tests/simulator/dram/test_dram_commands.py::test_channels_that_are_alike_until_they_are_told_apart",
        "tests/simulator/dram/test_banked_engine.py::test_a_load_by_hand",
        "tests/simulator/dram/test_banked_engine.py::test_each_byte_of_a_plain_program_has_one_place",
        "tests/simulator/dram/test_banked_engine.py::test_with_dram_model_keeps_the_peak_and_the_latency_of_one_read",
    ),
)
# Other tests of these files: compiled kernels, citations, and agreement on random programs.
NOT_BY_HAND = "not compiled and not cite and not agree and not corpus"
PER_KIND = 60  # seeds of each kind of the corpus; the agreement tests take more


@dataclass(frozen=True)
class Result:
    """``killed_by``: the first test or program that noticed, empty if none did."""

    rule: str
    error: str
    place: str
    check: Check
    killed_by: str


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the simulator from source, with edits, and without compiling its kernels."""

    def __init__(self, mutant: Mutant | None) -> None:
        self.edits = mutant.edits if mutant else ()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = ROOT.joinpath(*fullname.split(".")).with_suffix(".py")
        if not fullname.startswith("simulator.") or not file.is_file():
            return None
        return importlib.util.spec_from_file_location(fullname, file, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        file = Path(str(module.__file__))
        source = edited(module.__name__, file.read_text(encoding="utf-8"), self.edits)
        exec(compile(source, str(file), "exec"), module.__dict__)
        if module.__name__ == "simulator.base.kernels":
            module.__dict__["_few"] = lambda arguments: True  # a compiled kernel would come from a cache


def edited(module: str, source: str, edits: Sequence[object]) -> str:
    """The source of ``module`` with its edits; an edit that does not fit is an error, not a surviving mutant."""
    for edit in edits:
        if edit.module == module:
            found = source.count(edit.old)
            if found != edit.times:
                raise ValueError(
                    f"{module}: {edit.old!r} stands there {found} times, not {edit.times}: adapt tests/mutation/mutants.py"
                )
            source = source.replace(edit.old, edit.new)
    return source


class _FirstFailure:
    name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.name:
            self.name = f"cannot be imported: {report.nodeid}"


def _by_hand(groups: Sequence[Sequence[str]]) -> str:
    first = _FirstFailure()
    for files in groups:
        if not first.name:
            code = pytest.main(["-x", "-p", "no:cacheprovider", "-k", NOT_BY_HAND, *files], plugins=[first])
            if (code != pytest.ExitCode.OK) == (not first.name):
                raise RuntimeError(f"pytest ended with {code!r}, first failure {first.name!r}")
    return first.name


def _agreement() -> str:
    from tests.drawn.corpus import compare

    for seed in range(PER_KIND):
        for kind in ("columns", "soup", "chain", "phases", "networks"):
            found = compare(kind, seed)
            if found:
                return f"{kind} {seed}: {', '.join(what.split(': report')[0] for what in found[:3])}"
    return ""


def run(mutant: Mutant | None, check: Check) -> str:
    """What first notices ``mutant`` in a child of its own; raises RuntimeError if the child breaks."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            sys.meta_path.insert(0, _Changed(mutant))
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                killer = _agreement() if check == "agreement" else _by_hand(BANKS if check == "banks" else BY_HAND)
            os.write(writing, json.dumps(killer).encode())
            code = 0
        except BaseException as error:
            os.write(writing, json.dumps({"broken": f"{type(error).__name__}: {error}"}).encode())
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = json.loads(pipe.read())
    os.waitpid(child, 0)
    if isinstance(answer, dict):
        raise RuntimeError(f"{mutant}: {answer['broken']}")
    return answer


def firsts() -> tuple[Mutant, ...]:
    """The first mutant of each rule in each place."""
    return tuple({(m.rule, m.place): m for m in reversed(MUTANTS)}.values())


def run_all(mutants: Sequence[Mutant]) -> list[Result]:
    """Every mutant's result; raises RuntimeError if a check fails without a mutant, or if this process has imported what
    mutants change: children would have it from here, unchanged.
    """
    imported = [name for name in sys.modules if name.startswith("simulator.")]
    if imported:
        raise RuntimeError(f"{imported[0]} is imported already: mutants would change nothing")
    gc.freeze()  # children need not look through what was imported here
    for check in get_args(Check):
        failed = run(None, check)
        if failed:
            raise RuntimeError(f"unchanged source fails the check '{check}': {failed}")
    return [Result(m.rule, m.error, m.place, m.check, run(m, m.check)) for m in mutants]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="print the table of docs/verification.md, not JSON")
    parser.add_argument("--first", action="store_true", help="only the first mutant of each rule in each place")
    parser.add_argument("--each", type=int, default=1, metavar="N", help="of those only each N-th")
    parser.add_argument("--out", type=Path, help="write the results as JSON; `make docs` makes the table from them")
    os.chdir(ROOT)
    arguments = parser.parse_args()
    outcome = [asdict(one) for one in run_all((firsts() if arguments.first else MUTANTS)[:: arguments.each])]
    # Only now, because these import the simulator.
    from benchmarks.shared.measurement import write_json
    from benchmarks.verification.tables import mutants_table

    print(mutants_table(outcome) if arguments.table else json.dumps(outcome, indent=1))
    write_json(arguments.out, mutants=outcome)
    sys.exit(any(not one["killed_by"] for one in outcome))
