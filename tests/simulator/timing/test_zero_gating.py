"""Cells that hold their multiplier on a code of 0: counted from the program's codes, and nothing else moves."""

from __future__ import annotations

import pytest
import torch

from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.stored import DenseWeights
from simulator.machine.energy import energy_model
from simulator.machine.machine import Machine
from simulator.timing.simulate import simulate
from tests.drawn.strategies import as_stored, generator, layer_weights, small_machine
from tests.oracles.slow_counter import count_accesses

GATING = {"zero_gating": True}


def test_by_hand() -> None:
    """Three of six codes are 0: at 5 rows, 15 multiplications are gone and all 30 additions are left."""
    machine = Machine.load("edge-16")
    weights = {"layer": DenseWeights(torch.tensor([[1.0, 0.001, -1.0], [0.0, 1.0, 0.001]]))}
    program = lower(weights, machine, tokens=5)
    plain, gating = (simulate(program, m) for m in (machine, machine.with_(datatypes=GATING)))
    assert (plain.accesses["mac_active"], plain.accesses["mac_gated"]) == (30, 0)
    assert (gating.accesses["mac_active"], gating.accesses["mac_gated"]) == (15, 15)
    multiply = energy_model(machine).table.data.op["mul_i8"].pj
    saved = plain.energy_by_component["multiply_add"] - gating.energy_by_component["multiply_add"]
    assert saved == pytest.approx(15 * multiply, abs=1e-9)


@pytest.mark.parametrize("seed", (0, 2, 3, 4, 5, 6))
def test_counted_as_the_slow_counter_counts(seed: int) -> None:
    """Wide and narrow tiles of all kinds, several layers; cycles, roofs and all cells are as they were."""
    plain = small_machine(generator(seed), array={"scatter": bool(seed % 3)}).with_(datatypes={"narrow_bits": 4})
    weights = {f"layer{i}": layer_weights(generator(seed + i), plain) for i in range(3)}
    program = as_stored(weights, plain, 4, generator(seed))
    gating = plain.with_(datatypes=GATING)
    assert gating.layout_key == plain.layout_key
    before, after = simulate(program, plain), simulate(program, gating)
    slow = sum(count_accesses(program, gating), start=type(count_accesses(program, gating)[0])())
    assert {name: times for name, times in after.accesses.items() if times} == {n: t for n, t in slow.items() if t}
    assert after.accesses["mac_gated"] > 0
    moved = {"mac_active", "mac_narrow", "mac_gated"}
    assert sum(after.accesses[name] for name in moved) == sum(before.accesses[name] for name in moved)
    assert {n: t for n, t in after.accesses.items() if n not in moved} == {
        n: t for n, t in before.accesses.items() if n not in moved
    }
    for field in ("latency_cycles", "roofline_cycles", "bound", "macs", "utilisation", "multiplications"):
        assert getattr(after, field) == getattr(before, field)
    assert after.energy_pj < before.energy_pj
