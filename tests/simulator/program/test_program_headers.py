"""Headers of program files that were edited and signed again: every value in every place is a program or one paragraph."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from simulator.base.errors import DeadlockError, InputError
from simulator.program.program import Program
from simulator.program.program_file import _checksum
from simulator.timing.simulate import simulate
from tests.drawn.random_networks import built_network
from tests.drawn.random_programs import generator
from tests.drawn.strategies import case
from tests.oracles.timelines import network as worked_network

OTHERS: tuple[Any, ...] = (
    None, True, 0, 1, -1, 3, 1.5, float("nan"), float("-inf"), 2**40, 10**30, "", "x", [], [0], [[]], {}, {"a": 1}
)  # fmt: skip
GONE = object()


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place inside a JSON value; of the entries of a list, the first two and the last."""
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = sorted({0, 1, len(value) - 1} & set(range(len(value))))
    for key in keys:
        yield (*path, key)
        yield from paths(value[key], (*path, key))


def replaced(header: dict[str, Any], path: tuple[Any, ...], other: Any) -> dict[str, Any]:
    header = copy.deepcopy(header)
    parent: Any = header
    for key in path[:-1]:
        parent = parent[key]
    if other is GONE:
        del parent[path[-1]]
    else:
        parent[path[-1]] = other
    return header


class Forged:
    """A program's file whose header is edited, and signed as if it were ours."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.path = folder / "forged"
        program.save(folder / "whole")
        with safe_open(folder / "whole", framework="numpy") as file:
            self.header = json.loads(file.metadata()["program"])
        self.arrays = load_file(folder / "whole")

    def refusal(self, header: dict[str, Any]) -> str | None:
        """What loading and simulating it is refused with; None if it is a program."""
        signed = {**header, "sha256": _checksum(header, self.arrays)}
        save_file(self.arrays, self.path, metadata={"program": json.dumps(signed)})
        try:
            program = Program.load(self.path)
            simulate(program, program.machine)
        except InputError as error:
            return str(error)
        except DeadlockError:
            return None
        return None


def plain() -> Program:
    return case(22, layers=2, tokens=9, array={"rows": 4, "cols": 6, "scatter": True})[2]


@pytest.mark.parametrize("made", [plain, worked_network, lambda: built_network(generator(12), "soup")[1]])
def test_any_value_in_any_place_is_a_program_or_one_paragraph(made, tmp_path: Path) -> None:
    forged = Forged(made(), tmp_path)
    assert forged.refusal(forged.header) is None
    rng = np.random.default_rng(0)
    refused = 0
    for path in paths({key: value for key, value in forged.header.items() if key != "sha256"}):
        for at in rng.choice(len(OTHERS), 6, replace=False):
            told = forged.refusal(replaced(forged.header, path, OTHERS[at]))
            refused += told is not None
            assert told is None or (len(told) < 1000 and "\n" not in told), path
        if isinstance(path[-1], str) and path[0] != "provenance":
            assert forged.refusal(replaced(forged.header, path, GONE)) is not None or path == ("machine", "description")
    assert refused > 100


@pytest.mark.parametrize(
    ("path", "other", "message"),
    [
        (
            ("tokens",),
            "many",
            "header: field 'tokens': found 'many'; Input should be a valid integer. The program is dam",
        ),
        (("tokens",), True, "header: field 'tokens': found True"),
        (("layers",), None, "header: field 'layers': found None; Input should be a valid list"),
        (("layers", 0, "name"), ["a"], "header: field 'layers.0.name': found ['a']; Input should be a valid string"),
        (("layers", 0, "multiplications"), float("nan"), "field 'layers.0.multiplications': found nan"),
        (("layers", 1, "input_step"), float("inf"), "field 'layers.1.input_step': found inf; Input should be a finite"),
        (("provenance", "forms"), 3, "header: field 'provenance.forms': found 3; Input should be a valid string"),
        (("extra",), 1, "header: field 'extra': found unknown key with value 1; no key 'extra' exists"),
        (("network",), [], "header: field 'network': found []; Input should be a valid dictionary"),
        (("machine", "array", "rows"), "4", "machine: field 'array.rows': found '4'"),
    ],
)
def test_the_message_names_the_field(path, other, message, tmp_path: Path) -> None:
    forged = Forged(plain(), tmp_path)
    assert message in str(forged.refusal(replaced(forged.header, path, other)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net: net["operators"][1].update(kind="magic"), "network: field 'operators.1.kind': found 'magic'; Input sh"),
        (lambda net: net["tensors"].append(net["tensors"][0]), "network: 'tensors': found two of one name; every tensor"),
        (lambda net: net["tensors"][0].update(batch=0), "network: field 'tensors.0.batch': found 0; Input should be"),
        (lambda net: net.update(loops=[]), "network: field 'loops': found unknown key with value []"),
        (lambda net: steps_of(net)[0].update(args=[9]), "step 0: found arguments (9,); a step reads one of the"),
        (lambda net: steps_of(net)[0].update(constant="none"), "step 0: found constant 'none'; a step names a constant of"),
        (lambda net: steps_of(net)[0].update(function="magic"), "vector step 'magic': found no such function"),
    ],
)  # fmt: skip
def test_a_networks_record_is_typed_too(change, message, tmp_path: Path) -> None:
    forged = Forged(worked_network(), tmp_path)
    header = copy.deepcopy(forged.header)
    change(header["network"])
    assert message in str(forged.refusal(header))


def steps_of(network: dict[str, Any]) -> list[dict[str, Any]]:
    return next(operator["steps"] for operator in network["operators"] if operator["steps"])
