"""docs/training.md: its examples run, and what it says of families is what recipes take."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.training.loop.loop import accuracy
from gblr_hw.training.networks import Recipe
from simulator.base.errors import InputError

TEXT = (Path(__file__).parents[3] / "docs/training.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def shown() -> Iterator[dict[str, Any]]:
    """The names that the first example leaves. On one thread, where its small products are quickest."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    exec(EXAMPLES[0], found)
    yield found
    torch.set_num_threads(threads)


def test_the_first_example_meets_its_target(shown: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    dense, lattice = shown["dense"], shown["lattice"]
    assert 0.95 * lattice.target < lattice.reached <= lattice.target == 0.7 * dense.reached
    assert dense.accuracy > 0.9
    assert lattice.accuracy > dense.accuracy - 0.01
    assert [type(layer) for layer in lattice.model[::2]] == [LatticeLinear, LatticeLinear, torch.nn.Linear]


def test_the_first_example_is_short() -> None:
    assert len([line for line in EXAMPLES[0].splitlines() if line]) <= 20


def test_ones_own_model_and_loop_meet_their_targets(shown: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    exec(EXAMPLES[1], shown)
    fitted, (_, test_set) = shown["fitted"], (shown["train_set"], shown["test_set"])
    assert 0.97 * fitted.target_cycles < fitted.latency_cycles <= fitted.target_cycles
    assert accuracy(fitted.model, test_set) > shown["dense"].accuracy - 0.02
    before, shown["mlp"] = shown["mlp"], copy.deepcopy(shown["dense"].model).train()
    exec(EXAMPLES[2], shown)
    shown["mlp"] = before
    assert " cycles, wanted " in capsys.readouterr().out
    assert 0.9 * shown["aim"].target_cycles < shown["aim"].finish() <= shown["aim"].target_cycles


def test_the_loop_of_ones_own_runs_after_it(shown: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    exec(EXAMPLES[3], shown)
    assert shown["names"] == ["0", "2"]
    assert [type(layer) for layer in shown["mlp"][::2]] == [GBLRLinear, GBLRLinear, torch.nn.Linear]
    shrinkage, annealing = shown["hooks"]
    assert shrinkage.steps == annealing.steps == -(-1297 // 64)
    assert shown["mean_width"](shown["mlp"]) < 1
    assert "['0', '2']" in capsys.readouterr().out


def test_every_family_of_the_table_is_a_recipe_and_every_recipe_is_in_it() -> None:
    named = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)
    with pytest.raises(InputError) as caught:
        Recipe("no such family")  # type: ignore[arg-type]
    assert sorted(named) == sorted(caught.value.rule.removeprefix("it must be one of ").split(", "))
