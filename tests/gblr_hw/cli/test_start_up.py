"""What a start of the command line imports: simulating needs neither torch nor a plotting library, and for a small
program no compiler.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gblr_hw.cli.app import _COMMANDS, _load
from gblr_hw.cli.shared.telling import progress_bar
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.stored import DenseWeights
from simulator import Machine

HEAVY = ("torch", "matplotlib", "sklearn", "pandas", "scipy", "numba")
# What a program's simulation does without: drawing on a terminal, SCALE-Sim's counts, listings.
SPARED = ("rich.console", "rich.progress", "simulator.scalesim.systolic_gemm", "simulator.program.listing")
SCRIPT = """
import sys
from gblr_hw.cli.main import main
try:
    main()
finally:
    print(sorted(set(sys.modules) & {*%r}), file=sys.stderr)
"""


def start(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own; the heavy modules that it has loaded are the last line of stderr."""
    command = [sys.executable, "-c", SCRIPT % (HEAVY + SPARED,), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "net.program"
    lower({"a": DenseWeights(torch.ones(40, 50))}, Machine.load("edge-16"), tokens=8).save(path)
    return path


@pytest.mark.parametrize("options", [("--json",), (), ("--report", "{folder}/r.json"), ("--trace", "{folder}/t.json")])
def test_simulate_loads_nothing_heavy(program: Path, options: tuple[str, ...]) -> None:
    done = start("simulate", program, *(option.format(folder=program.parent) for option in options))
    assert done.returncode == 0, done.stderr
    assert "latency_cycles" in done.stdout or "cycles" in done.stdout
    assert done.stderr.splitlines()[-1] == "[]"


def test_a_command_that_draws_loads_what_it_draws_with(program: Path) -> None:
    """The check can fail."""
    done = start("simulate", program, "--bars", program.parent / "bars.png")
    assert done.stderr.splitlines()[-1] == "['matplotlib']"


@pytest.mark.parametrize("arguments", [("--help",), ("machine", "list"), ("show", "{program}")])
def test_light_commands_load_nothing_heavy(program: Path, arguments: tuple[str, ...]) -> None:
    done = start(*(argument.format(program=program) for argument in arguments))
    assert done.returncode == 0, done.stderr
    assert not set(ast.literal_eval(done.stderr.splitlines()[-1])) & set(HEAVY)


@pytest.mark.parametrize(("setting", "code"), [({}, 0), ({"PYDANTIC_DISABLE_PLUGINS": ""}, 2)])
def test_installed_packages_are_not_searched_for_plugins_of_pydantic(
    program: Path, setting: dict[str, str], code: int
) -> None:
    """A search would fail here, as it does where the user's own setting asks for it."""
    broken = f"import importlib.metadata\nimportlib.metadata.distributions = None\n{SCRIPT % ((),)}"
    kept = {name: value for name, value in os.environ.items() if name != "PYDANTIC_DISABLE_PLUGINS"}
    command = [sys.executable, "-c", broken, "simulate", str(program)]
    done = subprocess.run(command, capture_output=True, check=False, cwd=Path(__file__).parents[3], env=kept | setting)
    assert done.returncode == code


def test_help_lists_every_command_and_a_misspelt_one_is_guessed() -> None:
    text = start("--help").stdout
    for name in ("demo", "train", "convert", "lower", "show", "simulate", "front", "machine"):
        assert f"│ {name} " in text
        assert start(name, "--help").returncode == 0
    assert "Did you mean 'simulate'?" in start("simulat").stderr


@pytest.mark.parametrize("name", _COMMANDS)
def test_the_list_says_what_each_command_says_first(name: str) -> None:
    told = " ".join(str(_load(name).help).split())
    assert told.startswith(_COMMANDS[name][1])


def test_a_large_program_is_simulated_by_compiled_kernels(tmp_path: Path) -> None:
    layers = {str(i): DenseWeights(torch.ones(512, 512)) for i in range(5)}
    lowered = lower(layers, Machine.load("edge-16"), tokens=8)
    lowered.save(tmp_path / "large.program")
    assert len(lowered.instructions) > 9000
    done = start("simulate", tmp_path / "large.program")
    assert "numba" in done.stderr.splitlines()[-1]


def test_without_a_terminal_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    for quiet, expected in ((False, "2/4 b\\x1b\n4/4 d\n"), (True, "")):
        now[0] = 0.0
        with progress_bar(quiet) as report:
            for done, (second, what) in enumerate(((3.0, "a"), (11.0, "b\x1b"), (20.0, "c"), (21.0, "d")), start=1):
                now[0] = second
                report(done, 4, what)
        captured = capsys.readouterr()
        assert captured.err == expected and not captured.out
