"""Parameters of the standards: units, sources, whole clocks; a bad entry does not import."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.dram.mapping import MAPPINGS, resolve_mapping
from simulator.dram.standards import PARAMETERS, STANDARDS, Parameter

DDR4 = STANDARDS["ddr4-3200"]


def test_clocks_of_ddr4_by_hand() -> None:
    """Times over 0.625 ns, rounded up: 13.75 is 22, 32 is 51.2, 45.75 is 73.2, 4.9 is 7.84, 21 is 33.6."""
    assert DDR4.clocks() == {
        "tCL": 22, "tCWL": 16, "tBL": 4, "tRCD": 22, "tRCDW": 22, "tRP": 22, "tRPab": 22, "tRAS": 52, "tRC": 74,
        "tCCD_S": 4, "tCCD_L": 8, "tRRD_S": 4, "tRRD_L": 8, "tFAW": 34, "tWR": 24, "tWTR_S": 4, "tWTR_L": 12,
        "tRTP": 12, "tRTW": 12, "tREFI": 12480, "tRFC": 560,
    }  # fmt: skip


def test_bandwidths_of_channels() -> None:
    peaks = {name: round(standard.gb_per_s, 2) for name, standard in STANDARDS.items()}
    assert peaks == {"ddr4-3200": 25.6, "lpddr4-3200": 6.4, "lpddr5-6400": 12.8, "hbm2-1600": 12.8, "hbm2-2400": 19.2}
    assert DDR4.closed_row_ns == pytest.approx(30.0, abs=1e-9)  # 48 clocks


@pytest.mark.parametrize("name", STANDARDS)
def test_turning_the_bus_round_is_the_sum_that_its_source_says(name: str) -> None:
    standard, t = STANDARDS[name], STANDARDS[name].clocks()
    gap = t["tRTW"] - (t["tCL"] + t["tBL"] - t["tCWL"])
    said = standard.timing["tRTW"].source
    assert f"{t['tCL']} + {t['tBL']} + {gap} - {t['tCWL']}" in said and gap in (1, 2)


def test_a_parameter_is_at_least_its_least() -> None:
    assert Parameter(2.5, "ns", "x", least=4).clocks(1_250_000) == 4
    assert Parameter(12.5, "ns", "x", least=4).clocks(625_000) == 20  # not 21: whole clocks are not rounded up
    assert Parameter(12.6, "ns", "x").clocks(625_000) == 21


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tCL": None}, r"DDR4-x: no entry for \['tCL'\]; unknown none"),
        ({"tXP": Parameter(1, "nCK", "x")}, r"no entry for none; unknown \['tXP'\]"),
        ({"tCL": Parameter(22, "nCK", "")}, "tCL = .* lacks a value, a unit or a source"),
        ({"tCL": Parameter(22, "clk", "x")}, "tCL = .* lacks a value, a unit or a source"),
        ({"tCL": Parameter(0, "nCK", "x")}, "tCL = .* lacks a value, a unit or a source"),
        ({"tCL": Parameter(2.5, "nCK", "x")}, "tCL = 2.5 nCK is not a whole clock"),
        ({"tCCD_L": Parameter(3, "nCK", "x")}, "tCCD_S = 4 is more than tCCD_L = 3"),
        ({"tRFC": Parameter(9000, "ns", "x")}, "tRFC = 14400 is more than tREFI = 12480"),
    ],
)
def test_an_incomplete_standard_is_refused(change: dict[str, Parameter | None], message: str) -> None:
    timing = {name: entry for name, entry in {**DDR4.timing, **change}.items() if entry is not None}
    with pytest.raises(TypeError, match=message):
        replace(DDR4, name="DDR4-x", timing=timing)
    with pytest.raises(TypeError, match="banks = 3 is no power of two"):
        replace(DDR4, banks=3)


def test_every_entry_has_a_source_and_every_parameter_a_meaning() -> None:
    for standard in STANDARDS.values():
        assert list(standard.clocks()) == list(PARAMETERS)
        assert all(len(entry.source) > 8 for entry in standard.timing.values())


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_a_mapping_names_each_place_once(mapping: str) -> None:
    where = resolve_mapping(mapping, DDR4, 4)
    shifts = [(getattr(where, f"{part}_shift"), getattr(where, f"{part}_mask")) for part in MAPPINGS[mapping]]
    places = {tuple(number >> shift & mask for shift, mask in shifts) for number in range(0, 1 << 22, 7)}
    assert len(places) == len(range(0, 1 << 22, 7))
    assert MAPPINGS[mapping][-1] == "channel" and where.channel_shift == 0  # what ``serve_run`` relies on
