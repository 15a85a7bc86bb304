"""Training for a whole network's cycles: the measure is that of its program, and the estimate steers towards it."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from torch import nn

from gblr_hw.conversion.from_dense import layer_start
from gblr_hw.conversion.starts import ranks_start
from gblr_hw.cost.hardware_cost import HardwareCost
from gblr_hw.demo.data import digits
from gblr_hw.layers.replace import set_module
from gblr_hw.lowering.pipeline import lower
from gblr_hw.models.vit import ViT, ViTShape
from gblr_hw.training.gblr_start import gblr_from_linear
from gblr_hw.training.measure.hardware import hardware_of
from gblr_hw.training.measure.whole_hardware import whole_hardware_of
from gblr_hw.training.networks import train_network
from gblr_hw.training.recipe import Recipe
from gblr_hw.training.swap import matching_linears
from gblr_hw.weights.structure import Structure
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.timing.simulate import simulate

EDGE = Machine.load("edge-16")
IMAGE = (torch.zeros(1, 8, 8),)
TOKENS = 16


@pytest.fixture(scope="module")
def dense() -> ViT:
    torch.manual_seed(0)
    model = ViT(ViTShape(width=64, depth=1)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # A norm's scale that is the same everywhere would take fewer cycles than a trained one.
            parameter.add_(torch.linspace(0.01, 0.02, parameter.numel()).view_as(parameter))
    return model


def thinned(dense: ViT, share: float, seed: int = 0) -> nn.Module:
    """Its layers with a random part of their dense tiles."""
    model, rng = copy.deepcopy(dense), np.random.default_rng(seed)
    for name in matching_linears(model, r"blocks\..*"):
        layer = layer_start(model.get_submodule(name), "block_sparse", 16, 16).eval()
        full = layer.structure
        kept = rng.random(full.tiles.shape) < share
        kept[0, 0] = True
        layer.set_structure(Structure(kept, full.reads, full.writes))
        set_module(model, name, layer)
    return model


@pytest.mark.parametrize("unit", ["cycles", "pJ"])
def test_measure_is_that_of_the_models_own_program(dense: ViT, unit: str) -> None:
    hardware = whole_hardware_of(EDGE, dense, IMAGE, TOKENS, unit)
    mixed = thinned(dense, 0.4)
    set_module(mixed, "blocks.0.attn.qkv", gblr_from_linear(dense.blocks[0].attn.qkv, width=0.3, seed=1).eval())
    set_module(mixed, "blocks.0.mlp.fc1", ranks_start(dense.blocks[0].mlp.fc1, "lattice", 16, 16, 20).eval())
    for model in (dense, mixed):
        report = simulate(lower(model, EDGE, example_inputs=IMAGE), EDGE)
        wanted = report.latency_cycles if unit == "cycles" else report.energy_pj
        assert hardware.measure(model) == wanted
    assert hardware.unit == unit


def test_estimate_is_exact_for_dense_and_ranks_the_rest(dense: ViT) -> None:
    hardware = whole_hardware_of(EDGE, dense, IMAGE, TOKENS)
    assert hardware.quick(dense) == pytest.approx(hardware.measure(dense), rel=1e-6)
    models = [thinned(dense, share, seed) for seed, share in enumerate((0.05, 0.2, 0.35, 0.5, 0.65, 0.8))]
    found = np.array([hardware.quick(model) for model in models])
    wanted = np.array([hardware.measure(model) for model in models])
    assert np.abs(found / wanted - 1).max() < 0.13
    assert kendalltau(found, wanted).statistic > 0.999


def test_activations_on_chip_cost_no_dram() -> None:
    """Weight-bound, the closed form differs by just the bytes of inputs and outputs; energy by their DRAM energy."""
    layer, slow = nn.Linear(64, 96), EDGE.with_(dram={"gb_per_s": 0.01})
    through, stays = (HardwareCost(slow, 16, on_chip=flag)(layer) for flag in (False, True))
    per_cycle = slow.dram_bytes_per_kilocycle / 1000
    assert float(through.latency_cycles - stays.latency_cycles) == pytest.approx(16 * (64 + 96) / per_cycle, rel=1e-3)
    assert float(stays.energy_pj) < float(through.energy_pj)


def test_a_tile_costs_its_weights_where_tokens_are_few() -> None:
    """256 bytes at 8.4 bytes a cycle: 30.5 cycles, more than the 16 rows that stream."""
    assert hardware_of(EDGE, 16).tile_cost == pytest.approx(256 / 8.4, rel=1e-3)
    assert hardware_of(EDGE, 200).tile_cost == 200


def test_training_meets_a_target_of_the_whole_network(dense: ViT) -> None:
    hardware = whole_hardware_of(EDGE, dense, IMAGE, TOKENS)
    train_set, test_set = digits()
    target = 0.6 * hardware.measure(dense)
    recipe = Recipe("block_sparse", epochs=1)
    network = train_network(recipe, dense, train_set, test_set, hardware, target)
    report = simulate(lower(network.model, EDGE, example_inputs=IMAGE), EDGE)
    assert network.reached == report.latency_cycles
    # With less than three tiles to spare: the last one that did not fit may have been of another layer, and moved a block.
    assert target - 3 * hardware.tile_cost < network.reached <= target


def test_a_network_of_other_layers_is_refused(dense: ViT) -> None:
    measure = whole_hardware_of(EDGE, dense, IMAGE, TOKENS).measure
    wider = ViT(ViTShape(width=80, depth=1)).eval()
    with pytest.raises(InputError, match="the exported network has no such layer"):
        measure(wider)
    deeper = ViT(replace(dense.shape, depth=2)).eval()
    with pytest.raises(InputError, match=r"layer 'blocks\.1\.attn\.qkv'"):
        measure(deeper)
