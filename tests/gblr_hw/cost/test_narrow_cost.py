"""The closed form of layers with narrow tiles (machine.md, A6) follows the simulator."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gblr_hw.cost.hardware_cost import HardwareCost
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.stored import DenseWeights, LatticeWeights, LayerWeights
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.timing.simulate import simulate


class Held(nn.Module):
    """A layer with these weights."""

    def __init__(self, weights: LayerWeights) -> None:
        super().__init__()
        self.held = weights

    def weights(self) -> LayerWeights:
        return self.held


def narrowed(preset: str) -> Machine:
    return Machine.load(preset).with_(datatypes={"narrow_bits": 4})


def dense_and_ranks(ranks: int, size: int, side: int) -> LatticeWeights:
    """Every tile dense and whole ranks beside them."""
    random = torch.Generator().manual_seed(0)
    chunks = size // side
    touched, tiles = torch.ones(ranks, chunks, dtype=torch.bool), torch.ones(chunks, chunks, dtype=torch.bool)
    u, v, dense = (torch.randn(*shape, generator=random) for shape in ((size, ranks), (ranks, size), (size, size)))
    return LatticeWeights(u, v, touched, touched, tiles, dense, None, side, side)


@pytest.mark.parametrize("tokens", [1, 16, 197])
@pytest.mark.parametrize("preset", ["edge-16", "mid-32", "cloud-128"])
def test_narrow_dense_layers(preset, tokens):
    machine = narrowed(preset)
    weights = DenseWeights(torch.randn(768, 384, generator=torch.Generator().manual_seed(1)))
    report = simulate(lower({"layer": weights}, machine, tokens=tokens, weight_bits=4), machine)
    cost = HardwareCost(machine, tokens, weight_bits=4)(Held(weights))
    assert report.tiles == report.layers[0].narrow_tiles
    assert float(cost.latency_cycles) == pytest.approx(report.latency_cycles, rel=0.08)
    assert float(cost.energy_pj) == pytest.approx(report.energy_pj, rel=0.04)


@pytest.mark.parametrize("tokens", [1, 64])
@pytest.mark.parametrize("preset", ["edge-16", "mid-32", "cloud-128"])
def test_wide_ranks_beside_narrow_dense_tiles_stay_ranks(preset, tokens):
    machine = narrowed(preset)
    weights = dense_and_ranks(machine.rows, 768, machine.rows)
    report = simulate(lower({"layer": weights}, machine, tokens=tokens, weight_bits={"dense": 4}), machine)
    cost = HardwareCost(machine, tokens, weight_bits={"dense": 4})(Held(weights))
    chunks = 768 // machine.rows
    assert (report.layers[0].narrow_tiles, report.tiles) == (chunks**2, chunks**2 + 2 * chunks)
    assert float(cost.latency_cycles) == pytest.approx(report.latency_cycles, rel=0.08)
    assert float(cost.energy_pj) == pytest.approx(report.energy_pj, rel=0.05)


def test_fewer_bits_cost_less():
    machine = narrowed("mid-32")
    layer = nn.Linear(512, 512)
    costs = [float(HardwareCost(machine, 1, weight_bits=bits)(layer).latency_cycles) for bits in (4, None)]
    assert costs[0] < 0.6 * costs[1]


def test_a_machine_without_narrow_tiles_is_refused():
    with pytest.raises(InputError, match="has tiles of 8 bits"):
        HardwareCost(Machine.load("mid-32"), 1, weight_bits=4)
