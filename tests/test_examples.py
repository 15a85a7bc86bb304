"""The scripts of examples/ run as they stand, and say what their first lines promise."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"


def cycles(text: str) -> list[int]:
    return [int(found.replace(",", "")) for found in re.findall(r"([0-9,]+) cycles", text)]


def _cheaper(said: str) -> None:
    dense, blast = (cycles(part)[0] for part in said.split("blast:"))
    assert blast < dense


def _half(said: str) -> None:
    dense, fitted = cycles(said)
    assert 0.45 * dense < fitted <= 0.5 * dense
    accuracies = [float(found) for found in re.findall(r"([0-9.]+)%", said)]
    assert len(accuracies) == 3 and min(accuracies) > accuracies[0] - 5


def _fewer(said: str) -> None:
    most, least = cycles(said)
    assert most > least
    dense, _, converted, tuned = (float(found) for found in re.findall(r"([0-9.]+)%", said))
    assert min(dense, converted) - 5 < tuned and said.count("cycles, 0.") == 2 and "error of the output 0." in said


def _swept(said: str) -> None:
    assert len(cycles(said)) == 4 + 4 and "mostly wait_weights" in said


def _lowered(said: str) -> None:
    assert "without: node 'soft_sign'" in said
    assert float(said.rpartition(" ")[2]) < 1e-5


CHECKS: dict[str, Callable[[str], None]] = {
    "price_my_module.py": _cheaper,
    "train_to_a_latency.py": _half,
    "convert_a_pretrained_network.py": _fewer,
    "change_the_machine.py": _swept,
    "add_an_operator.py": _lowered,
}


@pytest.mark.parametrize("name", list(CHECKS))
def test_an_example_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(FOLDER / name), run_name="__main__")
    CHECKS[name](capsys.readouterr().out)


def test_every_example_is_run_here() -> None:
    assert {path.name for path in FOLDER.glob("*.py")} == set(CHECKS)
