"""Choosing a dense start: the lowest loss of a short trial, dense where that is quick enough already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.study.choose_start import DenseStart, choose_start
from gblr_hw.cost.target import UnreachableTargetError
from gblr_hw.demo.data import digits
from gblr_hw.models.vit import ViT, ViTShape
from gblr_hw.training.loop.loop import EpochRecord
from gblr_hw.training.measure.hardware import Hardware
from gblr_hw.training.recipe import Recipe, TrainedNetwork
from tests.oracles.tile_latency import TileLatency

LATENCY = TileLatency(rows=4, cols=4, tokens=16)
HARDWARE = Hardware(4, 4, LATENCY.tile_cycles, LATENCY)


@dataclass
class _Trials:
    """Stands for training: the loss of each network by its width, and what was asked for."""

    losses: dict[int, float | None]
    asked: list[tuple[int, str, int, float | None]]

    def __call__(
        self, recipe: Recipe, model: Any, train_set: Any, test_set: Any, hardware: Any, target: Any, **kw: Any
    ):
        width = model.shape.width
        self.asked.append((width, recipe.family, recipe.epochs, target))
        loss = self.losses[width]
        if loss is None:
            raise UnreachableTargetError("target", "1", f"width {width} needs more", "Raise the target.")
        return TrainedNetwork(recipe, model, 0.9, (EpochRecord(1, 1, loss, 0.9),), target, 1.0, False, recipe.family)


def starts(*widths: int) -> dict[str, DenseStart]:
    torch.manual_seed(0)
    return {str(width): DenseStart(ViT(ViTShape(width=width, depth=1, heads=2)), HARDWARE) for width in widths}


def test_the_lowest_loss_of_a_short_trial_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = _Trials({8: 0.5, 16: 0.4, 24: 0.4}, [])
    monkeypatch.setattr("benchmarks.study.choose_start.train_network", trials)
    found = starts(24, 16, 8)
    target = LATENCY(found["8"].model)
    assert choose_start(Recipe("learned", epochs=8), found, *digits(), target) == "24"
    assert trials.asked == [(24, "block_sparse", 2, target), (16, "block_sparse", 2, target), (8, "dense", 2, None)]
    trials.losses[8] = 0.3
    assert choose_start(Recipe("lattice", epochs=8), found, *digits(), target) == "8"
    assert trials.asked[3] == (24, "lattice", 2, target)


def test_starts_that_cannot_reach_the_target_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = _Trials({8: None, 16: 0.4}, [])
    monkeypatch.setattr("benchmarks.study.choose_start.train_network", trials)
    assert choose_start(Recipe("learned"), starts(8, 16), *digits(), 1.0) == "16"
    trials.losses[16] = None
    with pytest.raises(UnreachableTargetError, match="width 16 needs more"):
        choose_start(Recipe("learned"), starts(8, 16), *digits(), 1.0)


def test_a_start_trains_towards_the_target_or_stays_dense() -> None:
    start = starts(16)["16"]
    train_set, test_set = (torch.utils.data.Subset(one, range(64)) for one in digits())
    dense = LATENCY(start.model)
    thin = start.train(Recipe("block_sparse", epochs=1), train_set, test_set, 0.5 * dense)
    assert thin.reached <= 0.5 * dense
    whole = start.train(Recipe("block_sparse", epochs=1), train_set, test_set, dense)
    assert (whole.kind, whole.reached) == ("dense", dense)
    assert all(isinstance(whole.model.get_submodule(f"blocks.0.mlp.{name}"), nn.Linear) for name in ("fc1", "fc2"))
