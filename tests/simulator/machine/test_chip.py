"""A machine as a chip: areas and peak by hand, nodes between tables, and what the published chips say."""

from __future__ import annotations

import pytest

from gblr_hw.cli.shared.machine_figures import TYPICAL
from gblr_hw.cli.shared.simulate_gemm import run_gemm
from simulator.base.errors import InputError
from simulator.machine.chip import (
    at_node,
    by_node,
    chip_area_mm2,
    peak_events,
    peak_pj_per_mac,
    peak_tops,
    pj_per_mac,
)
from simulator.machine.energy import energy_model
from simulator.machine.energy_table import EnergyTable
from simulator.machine.machine import Machine, preset_names
from simulator.machine.published_chips import CHIPS
from simulator.machine.ranged import Ranged

MID = Machine.load("mid-32")


def test_the_peak_counts_two_operations_a_cell() -> None:
    assert peak_tops(MID) == pytest.approx(2 * 1024 * 1e9 / 1e12, abs=1e-12)


def test_the_peak_is_what_a_long_layer_comes_to() -> None:
    """The closed form against the simulator: with ever more rows a dense tile takes what the peak says."""
    counts = peak_events(MID)
    report = run_gemm(type(TYPICAL)("long", 2048, 32, 32), MID)
    tiles = 2048
    for event in ("mac_active", "scratchpad_read", "accumulator_write"):
        # The store reads outputs from the scratchpad, too; nothing is added to the first sums.
        extra = tiles if event == "scratchpad_read" else 0
        assert report.accesses[event] == counts[event] * tiles + extra
    assert report.accesses["register_bits"] == pytest.approx(counts["register_bits"] * tiles, rel=0.02, abs=1)
    chip, _ = pj_per_mac(energy_model(MID), counts, 1, 1024)
    assert chip == peak_pj_per_mac(MID)


def test_logic_is_scaled_to_the_floorplan_and_memories_are_macros() -> None:
    area, table = chip_area_mm2(MID), EnergyTable.load("cmos-45")
    pitch = table.data.geometry.cell_pitch_mm
    assert area["array"].value == pytest.approx(1024 * pitch.value**2, abs=1e-9)
    assert area["array"].high == pytest.approx(1024 * pitch.high**2, abs=1e-9)
    assert area["accumulator"].value == pytest.approx(4 * table.sram("accumulator", 32, 256).area_mm2, abs=1e-9)
    assert area["float_lanes"].value == pytest.approx(64 * table.data.geometry.float_lane_um2.value * 1e-6, abs=1e-9)
    assert area["parameters"].value == pytest.approx(area["scratchpad"].value / 2, abs=1e-9)  # 256 of 512 KiB
    with pytest.raises(InputError, match="area table 'cmos-180' is of 8, 8 and 32 bits"):
        chip_area_mm2(MID.with_(datatypes={"weight_bits": 4}))


def test_a_node_between_tables_lies_between_their_figures() -> None:
    figures = {45: Ranged(8.0, 4.0, 16.0), 22: Ranged(2.0, 1.0, 4.0), 7: Ranged(1.0, 0.5, 2.0)}
    for node, figure in figures.items():
        assert at_node(figures, node).value == pytest.approx(figure.value, abs=1e-12)
    middle = at_node(figures, (22 * 45) ** 0.5)
    assert (middle.value, middle.low, middle.high) == pytest.approx((4.0, 2.0, 8.0), abs=1e-9)
    assert at_node(figures, 45 * 45 / 22).value == pytest.approx(32.0, abs=1e-9)  # straight on
    assert at_node(figures, 7 * 7 / 22).value == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("preset", preset_names())
def test_a_smaller_node_takes_less(preset: str) -> None:
    figures = {node: peak for node, (_, peak) in by_node(Machine.load(preset)).items()}
    assert figures[45].value > figures[22].value > figures[7].value
    assert figures[7].high / figures[7].low > figures[22].high / figures[22].low  # what is extrapolated is wider


def test_published_figures_follow_from_their_sources() -> None:
    assert {chip.name for chip in CHIPS} == {"TPU v1", "Eyeriss", "Simba"}
    for chip in CHIPS:
        assert chip.source and chip.differs
        assert chip.peak_pj_per_mac < chip.typical_pj_per_mac
    tpu, eyeriss, simba = CHIPS
    assert tpu.peak_tops / 40.0 == pytest.approx(2.3, abs=0.01)  # TOPS/W
    assert 2 / eyeriss.typical_pj_per_mac == pytest.approx(0.166, abs=0.003)
    assert tpu.peak_tops == pytest.approx(2e-12 * tpu.macs * 700e6, abs=0.5)
    assert 2 / simba.peak_pj_per_mac == pytest.approx(9.09, abs=0.01)


def test_ours_beside_the_nearest_chip() -> None:
    """TPU v1 is the chip most like ours; its own figure at 28 nm lies inside the interval of every preset."""
    for preset in preset_names():
        figures = {node: peak for node, (_, peak) in by_node(Machine.load(preset)).items()}
        ours = at_node(figures, CHIPS[0].node_nm)
        assert ours.low < CHIPS[0].peak_pj_per_mac < ours.high
