"""What stands beside the work: every milliwatt by hand, intervals, temperature, and the report that carries it."""

from __future__ import annotations

import math

import pytest
import torch

from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.stored import DenseWeights
from simulator.base.errors import InputError
from simulator.machine.energy import energy_model
from simulator.machine.energy_table import EnergyTable
from simulator.machine.machine import Machine, preset_names
from simulator.machine.ranged import Ranged
from simulator.machine.standing import STANDING, heat_factor, logic_mm2, register_bits, standing_mw
from simulator.timing.simulate import simulate
from tests.drawn.strategies import ENERGY_TABLE

MID = Machine.load("mid-32")


def small(**changes: object) -> Machine:
    """2 x 3 cells at 0.5 GHz, by the round table of the tests."""
    return MID.with_(
        array={"rows": 2, "cols": 3, "clock_ghz": 0.5, "scatter": False},
        rank_memory={"kib": 1, "banks": 4},
        scratchpad={"kib": 8}, accumulator={"kib": 1}, weight_buffer={"kib": 1},
        vector={"lanes": 5},
        dram={"gb_per_s": 2.0, "kind": "test"},
        energy={"table": str(ENERGY_TABLE), **changes},
    )  # fmt: skip


def test_every_milliwatt_by_hand() -> None:
    """A cell has 2 x 8 + 8 + 32 bits, a vector lane 2 x 32; without scatter there is no network."""
    machine, table = small(), EnergyTable.load(ENERGY_TABLE)
    bits = 6 * 56 + 5 * 64
    assert register_bits(machine) == bits
    # Cells of 0.1 mm; group_size = 2 requantisers and 5 lanes of 1,000 um2, 5 float parts of 2,000.
    area = 6 * 0.01 + 7e-3 + 10e-3
    power = standing_mw(machine, table)
    assert list(power) == list(STANDING)
    values = {name: each.value for name, each in power.items()}
    assert values == pytest.approx(
        {
            "clock_and_control": bits * (0.25 + 0.5 * (0.25 + 0.5)) * 0.5,
            "logic_leakage": area * 100.0 * 1e-3,
            "dram_background": 6.0 * 2.0,
            "dram_refresh": 2.0 * 2.0,
        },
        abs=1e-12,
    )
    assert logic_mm2(machine, table).value == pytest.approx(area, abs=1e-12)
    assert power["clock_and_control"].low == pytest.approx(bits * (0.25 * 0.25) * 0.5, abs=1e-12)
    assert power["clock_and_control"].high == pytest.approx(bits * (0.5 + 1.0 * (0.5 + 1.0)) * 0.5, abs=1e-12)
    assert power["dram_refresh"] == Ranged(4.0, 2.0, 8.0)


def test_the_network_has_registers() -> None:
    """Each bank's stages hold a sum as it leaves the array and a code."""
    bits = register_bits(MID) - register_bits(MID.with_(array={"scatter": False}))
    assert bits == 64 * 6 * (8 + MID.leaving_sum_bits)


def test_power_times_time_is_reported_beside_the_work() -> None:
    machine = small()
    report = simulate(lower({"layer": DenseWeights(torch.ones(3, 2))}, machine, tokens=4), machine)
    power = standing_mw(machine, EnergyTable.load(ENERGY_TABLE))
    assert report.standing_pj == pytest.approx(
        {name: each.value * report.latency_cycles / 0.5 for name, each in power.items()}, abs=1e-9
    )
    assert report.energy_pj == pytest.approx(sum(report.energy_by_component.values()), abs=1e-9)
    assert not set(report.standing_pj) & set(report.energy_by_component)
    for values, ranges in (
        (report.energy_by_component, report.energy_ranges_pj),
        (report.standing_pj, report.standing_ranges_pj),
    ):
        assert set(values) == set(ranges)
        assert all(ranges[name][0] <= value <= ranges[name][1] for name, value in values.items())
    assert report.energy_range_pj == pytest.approx(
        tuple(sum(ends[i] for ends in report.energy_ranges_pj.values()) for i in (0, 1)), abs=1e-6
    )


def test_leakage_doubles_with_the_tables_kelvins() -> None:
    """20 K warmer than the table's 300 K is twice; between 2^(20 / 25) and 2^(20 / 10)."""
    warm = heat_factor(small(temperature_k=320), EnergyTable.load(ENERGY_TABLE))
    assert (warm.value, warm.low, warm.high) == pytest.approx((2.0, 2**0.8, 4.0), abs=1e-12)
    cold = heat_factor(small(temperature_k=280), EnergyTable.load(ENERGY_TABLE))
    assert (cold.value, cold.low, cold.high) == pytest.approx((0.5, 0.25, 2**-0.8), abs=1e-12)
    assert heat_factor(small(), EnergyTable.load(ENERGY_TABLE)) == Ranged(1.0, 1.0, 1.0)
    model, hot = energy_model(small()), energy_model(small(temperature_k=320))
    assert hot.leakage.pj == pytest.approx(2 * model.leakage.pj, abs=1e-12)
    leak = {cost.component: cost.pj for cost in model.standing}["logic_leakage"]
    assert {c.component: c.pj for c in hot.standing}["logic_leakage"] == pytest.approx(2 * leak, abs=1e-12)
    assert hot.events == model.events
    assert math.isclose(model.leakage.high, 3 * model.leakage.pj)  # the table's leak_high_factor
    with pytest.raises(InputError, match="temperature_k = 100; it is 0, or from 200 to 450 kelvin"):
        small(temperature_k=100)


@pytest.mark.parametrize("preset", preset_names())
def test_standing_power_of_every_preset_is_a_part_of_its_busy_power(preset: str) -> None:
    """A sanity bound from outside: published shares of clock and background in an accelerator's power are below half."""
    machine = Machine.load(preset)
    for node in (45, 22, 7):
        priced = machine.with_(energy={"table": f"cmos-{node}"})
        standing = standing_mw(priced, EnergyTable.load(f"cmos-{node}"))
        assert sum(each.value for each in standing.values()) > 0
        assert all(each.low <= each.value <= each.high for each in standing.values())
