"""An energy event: what starting a tile costs, an addition of its own for each."""

from __future__ import annotations

from tests.recipes.recipe import Recipe, after

_CALLS = "simulator/timing/accesses.py"

RECIPE = Recipe(
    change="energy event",
    most=3,
    edits=(
        after(
            "simulator/machine/events.py",
            '        Event("dram_write_bytes", "byte", "dram", DramByte(), "stores, in whole bursts"),\n',
            '        Event("tile_starts", "operation", "control", Operations(("add_i32",)), "tiles that run"),\n',
        ),
        after(
            _CALLS,
            '_DRAM_WRITE_BYTES = _uncounted.pop("dram_write_bytes")\n',
            '_TILE_STARTS = _uncounted.pop("tile_starts")\n',
        ),
        after(_CALLS, "    row[_MAC_PADDING] += rows * (costs.cells - weights)\n", "    row[_TILE_STARTS] += 1\n"),
        after(
            "gblr_hw/cost/event_counts.py",
            '    "dram_read_bytes": lambda w: w.moved,\n',
            '    "tile_starts": lambda w: w.tiles * w.blocks,\n',
        ),
    ),
)


def check() -> None:
    import numpy as np
    import torch

    from gblr_hw.cost.hardware_cost import HardwareCost
    from gblr_hw.layers.linear import GBLRLinear
    from simulator import simulate
    from simulator.machine.energy_table import EnergyTable
    from simulator.program.isa import is_any
    from simulator.program.operations import TILE_OPS
    from tests.recipes.small_program import dense_program, small_machine

    machine = small_machine()
    program, _ = dense_program(machine, inputs=7, outputs=6, tokens=3)
    report = simulate(program, machine)
    starts = int(np.count_nonzero(is_any(program.instructions.op, TILE_OPS)))
    assert starts == 4 and report.accesses["tile_starts"] == starts
    price = EnergyTable.load(machine.energy.table).data.op["add_i32"].pj
    np.testing.assert_allclose(report.energy_by_component["control"], starts * price)
    np.testing.assert_allclose(report.energy_pj, sum(report.energy_by_component.values()))
    cost = HardwareCost(machine, 3)(GBLRLinear(12, 12, 4))
    assert torch.isfinite(cost.energy_pj)
