"""Training: determinism, resuming, stopping on NaN, and that every family meets its latency target."""

from __future__ import annotations

import io
import math
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from gblr_hw.conversion.from_dense import layer_start
from gblr_hw.cost.target import TargetController
from gblr_hw.demo.data import TEST_IMAGES, digits
from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.models.vit import ViT, ViTShape
from gblr_hw.training.annealed_widths import AnnealedWidths
from gblr_hw.training.gblr_start import gblr_from_linear
from gblr_hw.training.loop.loop import LoopSettings, LoopState, QuietHook, accuracy, parameter_groups, train
from gblr_hw.training.measure.hardware import Hardware
from gblr_hw.training.networks import train_network
from gblr_hw.training.recipe import Recipe
from gblr_hw.training.shrink.penalties import HardwarePenalty, WidthPenalty
from gblr_hw.training.shrink.project_training import ProjectionSchedule, lattice_layers
from simulator.base.errors import InputError
from tests.oracles.tile_latency import TileLatency

SHAPE = ViTShape(width=16, depth=1, heads=2)
LATENCY = TileLatency(rows=4, cols=4, tokens=16)


def covered_channels(model: nn.Module) -> Tensor:
    """A smooth stand-in for a latency: channels covered on both sides."""
    layers = [module for module in model.modules() if isinstance(module, GBLRLinear)]
    return torch.stack([(layer.widths[0] * layer.widths[1]).sum() for layer in layers]).sum()


HARDWARE = Hardware(4, 4, LATENCY.tile_cycles, LATENCY, cost=covered_channels)


@pytest.fixture(scope="module")
def small() -> tuple[Dataset, Dataset]:
    train_set, test_set = digits()
    return TensorDataset(*train_set[:192]), TensorDataset(*test_set[:64])


@pytest.fixture(scope="module")
def start(small: tuple[Dataset, Dataset]) -> ViT:
    torch.manual_seed(0)
    model = train_network(Recipe("dense", epochs=2, batch_size=32), ViT(SHAPE), *small, HARDWARE).model
    assert isinstance(model, ViT)
    return model


def test_digits_split_is_fixed_and_disjoint() -> None:
    train_set, test_set = digits()
    assert (len(train_set), len(test_set)) == (1797 - TEST_IMAGES, TEST_IMAGES)
    assert abs(float(train_set.tensors[0].mean())) < 1e-4
    assert test_set.tensors[1][:12].tolist() == digits()[1].tensors[1][:12].tolist()
    assert set(test_set.tensors[1].tolist()) == set(range(10))
    images = {bytes(image.numpy().tobytes()) for image in train_set.tensors[0]}
    assert sum(bytes(image.numpy().tobytes()) in images for image in test_set.tensors[0]) == 0


def test_vit_shapes() -> None:
    model = ViT(ViTShape(width=24, depth=2, heads=3))
    assert model(torch.zeros(5, 8, 8)).shape == (5, 10)
    assert model.shape.tokens == 16


def test_training_is_deterministic_and_learns(small: tuple[Dataset, Dataset]) -> None:
    results = []
    for _ in range(2):
        torch.manual_seed(1)
        model = ViT(SHAPE)
        history = train(model, *small, LoopSettings(5, 16, 1e-2))
        results.append([record.loss for record in history.epochs])
    assert results[0] == results[1]
    assert results[0][-1] < 0.95 * results[0][0]


def test_a_resumed_run_repeats_the_uninterrupted_one(small: tuple[Dataset, Dataset], start: ViT) -> None:
    def fresh() -> tuple[nn.Module, list[ProjectionSchedule]]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), layer_start(nn.Linear(64, 12), "lattice", 4, 4), nn.Linear(12, 10))
        return model, [ProjectionSchedule(0.5 * LATENCY(model), LATENCY, LATENCY.tile_cycles, 4, 4, steps=5)]

    settings = LoopSettings(4, 32)
    whole, hooks = fresh()
    train(whole, *small, settings, hooks)
    states: list[LoopState] = []
    broken, hooks = fresh()

    class Interrupt(QuietHook):
        def loss(self, model: nn.Module, progress: float) -> Tensor | None:
            if progress >= 0.5:
                raise KeyboardInterrupt
            return None

    full = [*hooks, QuietHook()]
    states.append(train(broken, *small, replace(settings), full, resume=None).state)
    again, hooks = fresh()
    with pytest.raises(KeyboardInterrupt):
        train(again, *small, settings, [*hooks, Interrupt()], on_state=lambda state: states.append(state))
    buffer = io.BytesIO()
    torch.save(vars(states[-1]), buffer)
    buffer.seek(0)
    saved: dict[str, Any] = torch.load(buffer, weights_only=True)
    resumed, hooks = fresh()
    assert saved["epoch"] == 2
    train(resumed, *small, settings, [*hooks, QuietHook()], resume=LoopState(**saved))
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_nan_stops_training_at_the_last_good_epoch(small: tuple[Dataset, Dataset]) -> None:
    class Poison(QuietHook):
        def loss(self, model: nn.Module, progress: float) -> Tensor | None:
            return torch.tensor(float("nan")) if progress > 0.6 else None

    torch.manual_seed(0)
    model = ViT(SHAPE)
    history = train(model, *small, LoopSettings(4, 32), [Poison()])
    assert history.diverged
    assert len(history.epochs) == 2
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
    assert accuracy(model, small[1]) == history.epochs[-1].accuracy


def test_width_shrinkage_takes_the_same_from_every_block() -> None:
    layer = gblr_from_linear(nn.Linear(16, 16))
    before = layer.widths.detach().clone()
    WidthPenalty(TargetController(1.0), LATENCY).shrink(nn.Sequential(layer), 0.1)
    assert torch.allclose(layer.widths, (before - 0.1).clamp(min=0))


def test_the_published_recipe_anneals_and_shrinks_by_the_learning_rate_while_above_the_budget() -> None:
    layer = GBLRLinear(16, 16, gaussian=False)
    model = nn.Sequential(layer)
    above, layer.gaussian = LATENCY(model) - 1, True
    controller = TargetController(above, strength=0.02)
    hook = AnnealedWidths(model, controller, LATENCY, LATENCY, 4, peak=0.01, sigmas=(1.0, 5.0))
    assert (float(layer.sigma), layer.gaussian) == (1.0, True)
    for progress, rate in ((0.9, 0.1), (0.95, 0.05)):
        hook.after_step(model, progress, rate)
    assert float(layer.sigma) == 3.0  # linearly, two of four steps
    # The target was met after the first shrinkage, ten times the strength as the rate is of the peak; then it rested.
    assert torch.allclose(layer.widths.detach(), torch.full((2, 16), 0.5 - 0.02 * math.exp(0.15) * 10))
    assert layer.gaussian
    layer.widths.data.fill_(0.9)
    hook.finish(model)
    assert not layer.gaussian and LATENCY(model) <= above
    assert hook.notes() == {"measure": LATENCY(model), "sigma": 3.0, "strength": pytest.approx(0.02)}


def test_geometry_has_a_rate_and_an_average_of_its_own() -> None:
    groups = parameter_groups(nn.Sequential(GBLRLinear(4, 4)), LoopSettings(1, geometry_rate=3.0, geometry_beta1=0.0))
    geometry = {id(one) for group in groups if group.get("betas") == (0.0, 0.999) for one in group["params"]}
    assert geometry == {id(one) for group in groups if group["scale"] == 3.0 for one in group["params"]}
    assert len(geometry) == 2


def test_hardware_penalty_descends_the_cost_by_the_strength_on_average() -> None:
    torch.manual_seed(0)
    layer = gblr_from_linear(nn.Linear(16, 16))
    model = nn.Sequential(layer)
    before, cost = layer.widths.detach().clone(), covered_channels(model)
    HardwarePenalty(TargetController(1.0), covered_channels, LATENCY).shrink(model, 0.01)
    assert float(covered_channels(model).detach()) < float(cost.detach())
    assert float((layer.widths - before).abs().mean().detach()) == pytest.approx(0.01, rel=0.05)
    # The wider the other side of a block, the more its width costs.
    change = (before - layer.widths.detach())[0]
    assert change[before[1].argmax()] > change[before[1].argmin()]


@pytest.mark.parametrize(
    "family", ["width", "gblr_published", "hardware", "block_sparse", "low_rank", "rank_groups", "lattice", "learned"]
)
def test_every_family_meets_its_target(family: str, small: tuple[Dataset, Dataset], start: ViT) -> None:
    dense = LATENCY(start)
    target = 0.55 * dense
    recipe = Recipe(family, epochs=4, batch_size=16, penalty_share=0.5)
    network = train_network(recipe, start, *small, HARDWARE, target)
    assert network.reached == LATENCY(network.model) <= target
    assert len(network.history) == 4
    assert [record.epoch for record in network.history] == [1, 2, 3, 4]
    assert not network.diverged
    assert network.accuracy == accuracy(network.model, small[1])
    if network.kind in ("hardware", "block_sparse", "rank_groups", "lattice"):
        assert network.reached > target - LATENCY.tile_cycles
    if family == "low_rank":
        for layer in lattice_layers(network.model).values():
            alive = layer.structure.reads.any(axis=1)
            assert layer.structure.reads[alive].all()
            assert layer.structure.writes[alive].all()
    if family == "rank_groups":
        for layer in lattice_layers(network.model).values():
            reads, writes = layer.structure.reads, layer.structure.writes
            assert (reads == np.repeat(reads[::4], 4, axis=0)).all()
            # The tiles of whole groups are those that ranks packed by chunk would take: no scatter is needed.
            assert layer.structure.tile_count(4, 4) == reads[::4].sum() + writes[::4].sum()
    assert LATENCY(start) == dense


def test_a_latency_with_more_than_tiles_in_it_is_met_too(small: tuple[Dataset, Dataset], start: ViT) -> None:
    def measure(model: nn.Module) -> float:
        ranks = sum(layer.structure.ranks for layer in lattice_layers(model).values())
        return LATENCY(model) + 500 + 3.0 * ranks

    target = 500 + 0.5 * LATENCY(start)
    network = train_network(Recipe("lattice", epochs=1), start, *small, replace(HARDWARE, measure=measure), target)
    assert target - 6 * LATENCY.tile_cycles < network.reached <= target


def test_intervals_can_be_kept(small: tuple[Dataset, Dataset], start: ViT) -> None:
    from gblr_hw.weights.structure import is_interval

    recipe = Recipe("lattice", epochs=1, batch_size=16, intervals_only=True)
    network = train_network(recipe, start, *small, HARDWARE, 0.5 * LATENCY(start))
    for layer in lattice_layers(network.model).values():
        assert is_interval(layer.structure.reads).all()
        assert is_interval(layer.structure.writes).all()


def test_results_travel_between_processes(small: tuple[Dataset, Dataset], start: ViT) -> None:
    network = train_network(Recipe("lattice", epochs=1), start, *small, HARDWARE, 0.5 * LATENCY(start))
    copy = pickle.loads(pickle.dumps(network))
    images = torch.stack([small[1][i][0] for i in range(8)])
    assert torch.equal(copy.model(images), network.model(images))
    assert any(isinstance(module, LatticeLinear) for module in copy.model.modules())
    assert pickle.loads(pickle.dumps(HARDWARE)).tile_cost == 16.0


@pytest.mark.parametrize(
    ("recipe", "target", "text"),
    [
        ({"family": "sparse"}, 1.0, "it must be one of dense, low_rank"),
        ({"family": "kronecker"}, 1.0, "recipe family: found 'kronecker'"),
        ({"family": "low_rank", "intervals_only": True}, 1.0, "recipe intervals_only: found with low rank"),
        ({"family": "learned", "intervals_only": True}, 1.0, "recipe intervals_only: found with automatic choice"),
        (
            {"family": "gblr_published", "distil_weight": 0.5},
            1.0,
            "recipe distil_weight: found 0.5 with GBLR, published",
        ),
        ({"family": "gblr_published", "epochs": 1}, 10.0, "with everything shrunk away"),
        ({"family": "lattice", "epochs": 0}, 1.0, "at least 1"),
        ({"family": "lattice"}, None, "every family but dense needs a latency"),
        ({"family": "lattice", "epochs": 1}, 10.0, "no fewer would leave all layers alive"),
        ({"family": "width", "epochs": 1}, 10.0, "with everything shrunk away"),
        ({"family": "lattice", "layers": "nothing"}, 500.0, "must match a linear layer"),
    ],
)
def test_bad_requests_are_refused(
    recipe: dict[str, Any], target: float | None, text: str, small: tuple[Dataset, Dataset], start: ViT
) -> None:
    with pytest.raises(InputError, match=text):
        train_network(Recipe(**recipe), start, *small, HARDWARE, target)


def test_the_hardware_family_needs_a_cost(small: tuple[Dataset, Dataset], start: ViT) -> None:
    with pytest.raises(InputError, match="descends on it"):
        train_network(Recipe("hardware"), start, *small, replace(HARDWARE, cost=None), 500.0)
