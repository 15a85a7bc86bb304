"""Runs as a whole: importance and regrowth, choosing a kind, distillation, energy, going on from a file, processes."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from gblr_hw.conversion.from_dense import layer_start
from gblr_hw.cost.target import TargetController, UnreachableTargetError
from gblr_hw.demo.data import digits
from gblr_hw.layers.chain_linear import ChainLinear
from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.layers.replace import set_module
from gblr_hw.models.vit import ViT, ViTShape
from gblr_hw.training.loop.distil import Distillation
from gblr_hw.training.loop.loop import EpochRecord, LoopSettings, train
from gblr_hw.training.loop.processes import OrderedBatches
from gblr_hw.training.measure.hardware import Hardware, hardware_of
from gblr_hw.training.networks import train_network
from gblr_hw.training.recipe import Recipe, TrainedNetwork
from gblr_hw.training.shrink.importance import GroupScores
from gblr_hw.training.shrink.penalties import HardwarePenalty
from gblr_hw.training.shrink.project_training import ProjectionSchedule, lattice_layers
from gblr_hw.training.shrink.regrow import OpenGradients, regrow
from gblr_hw.weights.structure import Structure
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from tests.gblr_hw.training.test_training import covered_channels
from tests.oracles.tile_latency import TileLatency
from tests.recipes.small_program import small_machine

SHAPE = ViTShape(width=16, depth=1, heads=2)
LATENCY = TileLatency(rows=4, cols=4, tokens=16)
HARDWARE = Hardware(4, 4, LATENCY.tile_cycles, LATENCY, cost=covered_channels)


def small_sets() -> tuple[Dataset, Dataset]:
    train_set, test_set = digits()
    return TensorDataset(*train_set[:192]), TensorDataset(*test_set[:64])


@pytest.fixture(scope="module")
def start() -> ViT:
    torch.manual_seed(0)
    model = train_network(Recipe("dense", epochs=2, batch_size=32), ViT(SHAPE), *small_sets(), HARDWARE).model
    assert isinstance(model, ViT)
    return model


def test_importance_is_the_squared_change_of_the_loss() -> None:
    """Against finite differences: scale one part by 1 - h and see what the loss does."""
    torch.manual_seed(0)
    layer = LatticeLinear(10, 7, Structure.full(7, 10, 3, 4, 3, dense=True), 4, 3).double()
    x, y = torch.randn(6, 10).double(), torch.randn(6, 7).double()

    def loss() -> Tensor:
        return functional.mse_loss(layer(x), y)

    loss().backward()
    scores, h = GroupScores(), 1e-6
    scores.add("a", layer)
    found = scores.importance("a", layer)
    parts = {"tiles": ("dense", 3, 4), "reads": ("v", 1, 4), "writes": ("u", 3, 1)}
    for array, (name, rows, cols) in parts.items():
        worth = getattr(found, array)
        for i, j in [(0, 0), (worth.shape[0] - 1, worth.shape[1] - 1)]:
            parameter = getattr(layer, name)
            # Of u, whose parts are (rank, chunk), rows are channels and columns ranks.
            row, col = (j, i) if array == "writes" else (i, j)
            part = (slice(row * rows, (row + 1) * rows), slice(col * cols, (col + 1) * cols))
            before, first = parameter.detach().clone(), float(loss().detach())
            with torch.no_grad():
                parameter[part] *= 1 - h
            change = (float(loss().detach()) - first) / h
            with torch.no_grad():
                parameter.copy_(before)
            assert worth[i, j] == pytest.approx(change**2, rel=1e-3)


def test_low_rank_is_scored_by_whole_ranks() -> None:
    torch.manual_seed(0)
    layer = layer_start(nn.Linear(8, 8), "low_rank", 4, 4)
    layer(torch.randn(5, 8)).square().mean().backward()
    scores = GroupScores()
    scores.add("a", layer)
    gradient = layer.v.grad
    assert gradient is not None
    whole = (gradient * layer.v).sum(dim=1).square()
    assert np.allclose(scores.importance("a", layer).reads.sum(axis=1), whole.detach().numpy(), rtol=1e-5, atol=1e-7)


def test_regrowth_brings_back_the_tile_with_the_largest_gradient_from_zero() -> None:
    torch.manual_seed(0)
    full = Structure.full(8, 8, 4, 4, 4, dense=True)
    layer = LatticeLinear(8, 8, full, 4, 4)
    tiles, reads = full.tiles.copy(), full.reads.copy()
    tiles[1, 0] = tiles[0, 1] = False
    reads[:, 1] = False
    layer.set_structure(Structure(tiles, reads, full.writes))
    layer.open_gradients = True
    with torch.no_grad():
        assert layer.dense is not None
        layer.dense[4:, :4] = 3.0  # momentum can move what is masked
    layer(torch.randn(4, 8)).sum().backward()
    gradients = OpenGradients()
    gradients.take("a", layer)
    assert layer.dense.grad is not None
    assert not layer.dense.grad[4:, :4].any()
    gradients.sums["a:dense"][4:, :4] = 100.0
    gradients.sums["a:v"][:, 4:] = 50.0
    regrow({"a": layer}, gradients, 1)
    assert layer.structure.tiles.tolist() == [[True, False], [True, True]]
    assert not layer.dense[4:, :4].any()
    regrow({"a": layer}, gradients, 1)
    assert layer.structure.reads.all()
    assert layer.structure.tiles.sum() == 3


@pytest.mark.parametrize("family", ["block_sparse", "lattice"])
def test_with_regrowth_targets_are_met_and_structures_do_regrow(family: str, start: ViT) -> None:
    seen: list[dict[str, Structure]] = []

    class Watch(ProjectionSchedule):
        def after_step(self, model: nn.Module, progress: float, learning_rate: float) -> None:
            super().after_step(model, progress, learning_rate)
            seen.append({name: layer.structure for name, layer in lattice_layers(model).items()})

    model = copy.deepcopy(start)
    for name in ("blocks.0.mlp.fc1", "blocks.0.mlp.fc2"):
        set_module(model, name, layer_start(model.get_submodule(name), family, 4, 4))
    target = 0.6 * LATENCY(model)
    hook = Watch(target, LATENCY, LATENCY.tile_cycles, 4, 4, steps=5, regrow=0.3)
    train(model, *small_sets(), LoopSettings(4, 16), [hook])
    assert target - LATENCY.tile_cycles < LATENCY(model) <= target
    array = "tiles" if family == "block_sparse" else "reads"
    came_back = [
        bool((getattr(after[name], array) & ~getattr(before[name], array)).any())
        for before, after in pairwise(seen)
        for name in after
    ]
    assert any(came_back)
    assert all(layer.packed and not layer.open_gradients for layer in lattice_layers(model).values())


def test_packed_and_masked_runs_train_alike(start: ViT, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, target = Recipe("lattice", epochs=4, batch_size=32), 0.5 * LATENCY(start)
    packed = train_network(recipe, start, *small_sets(), HARDWARE, target)
    monkeypatch.setattr(LatticeLinear, "pack", lambda self, packed=True: None)
    masked = train_network(recipe, start, *small_sets(), HARDWARE, target)
    for a, b in zip(packed.history, masked.history, strict=True):
        assert a.loss == pytest.approx(b.loss, abs=2e-5)


def test_learned_is_the_kind_with_the_lower_loss_in_a_trial(start: ViT, monkeypatch: pytest.MonkeyPatch) -> None:
    trials: list[tuple[str, int]] = []
    losses = {"block_sparse": 0.5, "low_rank": 0.6, "lattice": 0.4}

    def trained(recipe: Recipe, *args: Any) -> TrainedNetwork:
        trials.append((recipe.family, recipe.epochs))
        record = EpochRecord(1, 1, losses[recipe.family], 0.9)
        return TrainedNetwork(recipe, start, 0.9, (record,), 1.0, 1.0, False, recipe.family)

    monkeypatch.setattr("gblr_hw.training.networks.train_network", trained)
    recipe = Recipe("learned", epochs=8)
    network = train_network(recipe, start, *small_sets(), HARDWARE, 1.0)
    assert trials == [("block_sparse", 2), ("low_rank", 2), ("lattice", 2), ("lattice", 8)]
    assert (network.recipe, network.kind) == (recipe, "lattice")
    losses["block_sparse"] = 0.4
    assert train_network(recipe, start, *small_sets(), HARDWARE, 1.0).kind == "block_sparse"
    losses["rank_groups"] = 0.3
    assert train_network(recipe, start, *small_sets(), replace(HARDWARE, scatter=False), 1.0).kind == "rank_groups"


def test_learned_leaves_out_kinds_that_cannot_reach_the_target(start: ViT, monkeypatch: pytest.MonkeyPatch) -> None:
    able: list[str] = ["lattice"]

    def trained(recipe: Recipe, *args: Any) -> TrainedNetwork:
        if recipe.family not in able:
            raise UnreachableTargetError("target", "1", f"{recipe.family} needs more", "Raise the target.")
        return TrainedNetwork(recipe, start, 0.9, (EpochRecord(1, 1, 0.5, 0.9),), 1.0, 1.0, False, recipe.family)

    monkeypatch.setattr("gblr_hw.training.networks.train_network", trained)
    assert train_network(Recipe("learned"), start, *small_sets(), HARDWARE, 1.0).kind == "lattice"
    able.clear()
    with pytest.raises(UnreachableTargetError, match="lattice needs more"):
        train_network(Recipe("learned"), start, *small_sets(), HARDWARE, 1.0)


def test_learned_equals_the_kind_that_it_chose(start: ViT) -> None:
    target = 0.5 * LATENCY(start)
    learned = train_network(Recipe("learned", epochs=4), start, *small_sets(), HARDWARE, target)
    alone = train_network(Recipe(learned.kind, epochs=4), start, *small_sets(), HARDWARE, target)
    for name, value in alone.model.state_dict().items():
        assert torch.equal(learned.model.state_dict()[name], value), name


def test_distillation_is_the_mix_of_its_two_ends() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5))
    images, labels, outputs = torch.randn(4, 5), torch.tensor([0, 1, 2, 0]), torch.randn(4, 3)
    hard = functional.cross_entropy(outputs, labels)
    assert torch.allclose(Distillation(teacher, 0.0)(outputs, images, labels), hard)
    wanted = functional.softmax(teacher[0](images) / 3, dim=1)
    entropy = -(wanted * wanted.log()).sum(dim=1).mean()
    soft = 9 * (functional.cross_entropy(outputs / 3, wanted) - entropy)
    assert torch.allclose(Distillation(teacher, 1.0, 3.0)(outputs, images, labels), soft, atol=1e-5)
    assert torch.allclose(Distillation(teacher, 0.25, 3.0)(outputs, images, labels), 0.75 * hard + 0.25 * soft)
    own = Distillation(teacher, 1.0)(teacher[0](images), images, labels)
    assert float(own.detach()) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(InputError, match="between 0 and 1"):
        Distillation(teacher, 1.5)
    with pytest.raises(InputError, match="it is positive"):
        Distillation(teacher, 0.5, 0.0)


def test_a_recipe_distils_from_its_dense_start(start: ViT) -> None:
    target = 0.5 * LATENCY(start)
    plain = train_network(Recipe("lattice", epochs=2), start, *small_sets(), HARDWARE, target)
    recipe = Recipe("lattice", epochs=2, distil_weight=1.0)
    distilled = train_network(recipe, start, *small_sets(), HARDWARE, target)
    # Only divergence from the start itself is left, which begins at zero.
    assert distilled.history[0].loss < 0.5 * plain.history[0].loss
    assert distilled.reached <= target


@pytest.mark.parametrize("family", ["block_sparse", "lattice", "hardware"])
def test_an_energy_is_met_as_a_latency_is(family: str) -> None:
    machine = Machine.load("edge-16")
    hardware = hardware_of(machine, 64, "pJ")
    torch.manual_seed(0)
    dense = ViT(ViTShape(width=64, depth=1))
    start_pj = hardware.measure(dense)
    target = 0.8 * start_pj
    network = train_network(Recipe(family, epochs=2), dense, *small_sets(), hardware, target)
    assert network.reached == hardware.measure(network.model) <= target
    assert network.reached > target - 2 * hardware.tile_cost
    assert network.reached > 1e6  # picojoules, not cycles


def test_a_tile_costs_about_what_the_hardware_is_told() -> None:
    hardware = hardware_of(Machine.load("edge-16"), 64, "pJ")
    tiles = np.ones((8, 8), bool)
    none = np.zeros((0, 8), bool)
    layer = LatticeLinear(128, 128, Structure(tiles, none, none), 16, 16)
    tiles[2:, 2:] = False
    fewer = LatticeLinear(128, 128, Structure(tiles, none, none), 16, 16)
    assert (hardware.measure(layer) - hardware.measure(fewer)) / 36 == pytest.approx(hardware.tile_cost, rel=0.3)


@pytest.mark.parametrize("family", ["monarch", "blast"])
def test_sizes_are_chosen_for_the_target_and_stay(family: str, start: ViT) -> None:
    hardware = hardware_of(small_machine(), 16)
    dense = hardware.measure(start)
    network = train_network(Recipe(family, epochs=1), start, *small_sets(), hardware, 0.9 * dense)
    layers = {name: one for name, one in network.model.named_modules() if isinstance(one, ChainLinear)}
    assert set(layers) == {
        name for name, one in start.named_modules() if isinstance(one, nn.Linear) and "blocks" in name
    }
    assert network.reached <= 0.9 * dense and network.kind == family
    assert hardware.measure(network.model) == network.reached
    with pytest.raises(UnreachableTargetError, match=f"the least that '{family}' takes is"):
        train_network(Recipe(family, epochs=1), start, *small_sets(), hardware, 0.2 * dense)


class _StopError(Exception):
    pass


@pytest.mark.parametrize("family", ["lattice", "hardware", "width", "gblr_published", "monarch"])
@pytest.mark.parametrize("stop_after", [pytest.param(1, marks=pytest.mark.night), 3])
def test_an_interrupted_run_goes_on_to_the_same_bits(family: str, stop_after: int, tmp_path: Path, start: ViT) -> None:
    recipe = Recipe(family, epochs=4, batch_size=32, penalty_share=0.5, regrow=0.2 * (family == "lattice"))
    hardware = hardware_of(small_machine(), 16) if family == "monarch" else HARDWARE
    target, file = (0.9 if family == "monarch" else 0.55) * hardware.measure(start), tmp_path / "run.pt"
    whole = train_network(recipe, start, *small_sets(), hardware, target)

    def interrupt(record: EpochRecord) -> None:
        if record.epoch > stop_after:
            raise _StopError

    with pytest.raises(_StopError):
        train_network(recipe, start, *small_sets(), hardware, target, interrupt, file)
    torch.manual_seed(77)  # another process has another generator
    seen: list[int] = []
    again = train_network(
        recipe, start, *small_sets(), hardware, target, lambda record: seen.append(record.epoch), file
    )
    assert seen == list(range(stop_after + 1, 5))
    assert again.history == whole.history
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, start: ViT) -> None:
    file, target = tmp_path / "run.pt", 0.55 * LATENCY(start)
    train_network(Recipe("lattice", epochs=1), start, *small_sets(), HARDWARE, target, checkpoint=file)
    with pytest.raises(InputError, match="Give each run a file of its own"):
        train_network(Recipe("lattice", epochs=1), start, *small_sets(), HARDWARE, 0.9 * target, checkpoint=file)
    file.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="holds no training run"):
        train_network(Recipe("lattice", epochs=1), start, *small_sets(), HARDWARE, target, checkpoint=file)


def test_a_run_begun_under_a_familys_old_name_goes_on(tmp_path: Path, start: ViT) -> None:
    file, target, recipe = tmp_path / "run.pt", 0.55 * LATENCY(start), Recipe("rank_groups", epochs=1)
    assert recipe == Recipe("block_low_rank", epochs=1) == Recipe("rank-groups", epochs=1)
    whole = train_network(recipe, start, *small_sets(), HARDWARE, target, checkpoint=file)
    content = torch.load(file, weights_only=True)
    assert "family='rank_groups'" in content["key"]
    content["key"] = content["key"].replace("rank_groups", "block_low_rank")
    torch.save(content, file)
    again = train_network(recipe, start, *small_sets(), HARDWARE, target, checkpoint=file)
    assert again.history == whole.history


def test_dropout_goes_on_alike_after_a_restart() -> None:
    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.5), nn.Linear(16, 10))

    whole, first = model(), model()
    states = []
    train(whole, *small_sets(), LoopSettings(3, 32), on_state=lambda state: states.append(state))
    torch.manual_seed(5)
    train(first, *small_sets(), LoopSettings(3, 32), resume=states[0])
    for name, value in whole.state_dict().items():
        assert torch.equal(first.state_dict()[name], value), name


def test_the_hardware_cost_serves_as_its_own_estimate() -> None:
    from gblr_hw.training.gblr_start import gblr_from_linear

    torch.manual_seed(0)
    model = nn.Sequential(gblr_from_linear(nn.Linear(16, 16)))
    calls: list[int] = []

    def cost(model: nn.Module) -> Tensor:
        calls.append(1)
        return covered_channels(model)

    before = float(covered_channels(model).detach())
    hook = HardwarePenalty(TargetController(0.5 * before), cost, every=1)
    hook.after_step(model, 0.9, 1e-3)
    assert len(calls) == 1
    assert hook.notes()["measure"] == pytest.approx(before)
    assert float(covered_channels(model).detach()) < before


def _run_process(rank: int, processes: int, rendezvous: str, output: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=processes)
    network = _distributed_network()
    torch.save((network.model.state_dict(), [vars(r) for r in network.history]), f"{output}.{rank}")
    distributed.destroy_process_group()


def _distributed_network() -> TrainedNetwork:
    torch.manual_seed(0)
    model = ViT(SHAPE)
    recipe = Recipe("lattice", epochs=3, batch_size=32)
    return train_network(recipe, model, *small_sets(), HARDWARE, 0.5 * LATENCY(model))


@pytest.mark.night
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    multiprocessing.spawn(_run_process, args=(2, str(tmp_path / "meet"), str(tmp_path / "out")), nprocs=2)
    (first, history), (second, _) = (torch.load(tmp_path / f"out.{rank}", weights_only=True) for rank in (0, 1))
    for name, value in first.items():
        assert torch.equal(second[name], value), name
    alone = _distributed_network()
    # Before the first projection only the order of sums differs; later a tie may fall the other way.
    assert history[0]["loss"] == pytest.approx(alone.history[0].loss, rel=1e-3)
    assert history[-1]["loss"] == pytest.approx(alone.history[-1].loss, rel=0.1)


def test_processes_share_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(OrderedBatches(21, 8, 3))
    assert sorted(example for batch in whole for example in batch) == list(range(21))
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr("gblr_hw.training.loop.processes.world", lambda rank=rank: (rank, 2))
        parts.append(list(OrderedBatches(21, 8, 3)))
    assert [len(batch) for batch in parts[0]] == [len(batch) for batch in parts[1]] == [4, 4, 2]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert set(first) | set(second) <= set(batch)
        assert not set(first) & set(second)
    with pytest.raises(InputError, match="multiple of the 2 processes"):
        OrderedBatches(21, 7, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_a_target_is_met_too(start: ViT) -> None:
    target = 0.5 * LATENCY(start)
    network = train_network(Recipe("lattice", epochs=2, device="cuda"), start, *small_sets(), HARDWARE, target)
    assert network.reached <= target
