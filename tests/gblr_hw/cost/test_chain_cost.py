"""The closed form of layers whose ranks are mixed: within a few percent of the simulator, in the form that lowering takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gblr_hw import BLASTLinear, lower
from gblr_hw.cost.closed_form import MachineCost
from gblr_hw.cost.hardware_cost import HardwareCost
from gblr_hw.cost.stored_forms import cheapest, fixed_counts, part_of
from gblr_hw.lowering.emit.emit import emit
from simulator import Machine, simulate
from simulator.program.operations import Op
from tests.drawn.mixed_layers import blast_factors, lowered


@pytest.mark.parametrize("name", ["mid-32", "plain-32", "edge-16"])
@pytest.mark.parametrize(("sides", "tokens", "blocks", "rank"), [((768, 3072), 197, 3, 128), ((768, 768), 197, 3, 96)])
def test_the_closed_form_follows_the_simulator(name, sides, tokens, blocks, rank):
    machine, factors = Machine.load(name), blast_factors(np.random.default_rng(0), *sides, blocks, rank)
    report = simulate(emit([lowered(factors, machine, tokens)], machine, tokens, {}), machine)
    closed_form = MachineCost(machine, tokens)
    cost = cheapest(part_of(factors, closed_form), closed_form)
    assert float(cost.latency_cycles) == pytest.approx(report.latency_cycles, rel=0.05)
    assert float(cost.energy_pj) == pytest.approx(report.energy_pj, rel=0.05)


def test_counts_are_those_of_the_tiles():
    machine, factors = Machine.load("mid-32"), blast_factors(np.random.default_rng(0), 768, 3072, 3, 128)
    tiles, counts = lowered(factors, machine, 197).tiles, fixed_counts(factors, machine)
    mixing = tiles.kind == Op.MIX
    assert float(counts.mix_tiles) == mixing.sum()
    assert float(counts.mix_reading) == tiles.gathered[mixing].sum()
    assert float(counts.mix_writing) == tiles.scattered[mixing].sum()
    assert float(counts.weights) == tiles.weight_ptr[-1]
    assert float(counts.sharing) == 3 * 128


def test_stages_cost_what_the_simulator_says():
    """More ranks than fit, and more multipliers than the parameter memory holds."""
    torch.manual_seed(0)
    layer, machine = BLASTLinear(768, 3072, 6, 192), Machine.load("edge-16")
    report = simulate(lower(layer, machine, 384), machine)
    cost = HardwareCost(machine, 384)(layer)
    assert len(report.layers) > 1
    assert float(cost.latency_cycles) == pytest.approx(report.latency_cycles, rel=0.05)
    assert float(cost.energy_pj) == pytest.approx(report.energy_pj, rel=0.05)
