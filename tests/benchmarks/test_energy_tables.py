"""The package's energy tables are what their rules write, but for the grids, which the nightly check makes anew."""

from __future__ import annotations

import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.energy_tables import figures
from benchmarks.energy_tables.build import FOLDER, SOURCES, differences, table_text
from benchmarks.energy_tables.figures import NODES, Figure
from benchmarks.energy_tables.float_lanes import AS_PRICED, float_lanes_table
from simulator.machine.energy_table import EnergyTable
from simulator.machine.events import EVENTS, Operations


def shipped(node: int) -> dict[str, Any]:
    return tomllib.loads((FOLDER / f"cmos-{node}.toml").read_text(encoding="utf-8"))


def again(node: int) -> str:
    """The text that the rules write around the grids that are there."""
    there = shipped(node)
    doubling = there["leakage"]["doubling_k"]
    return table_text(node, there["sram"], {"doubling_k": Figure(**doubling)})


@pytest.mark.parametrize("node", NODES)
def test_a_table_is_what_its_rules_write(node: int) -> None:
    assert (FOLDER / f"cmos-{node}.toml").read_text(encoding="utf-8") == again(node)


def test_there_are_no_other_tables() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == {f"cmos-{node}" for node in NODES}


def entries(table: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every part of a table that has an interval."""
    found, left = [], [("", table)]
    while left:
        name, part = left.pop()
        if "low" in part:
            found.append((name, part))
        left += [(f"{name}.{key}", value) for key, value in part.items() if isinstance(value, dict)]
    return found


@pytest.mark.parametrize("node", NODES)
def test_every_entry_has_a_source_and_an_interval(node: int) -> None:
    table = shipped(node)
    there = entries(table)
    assert len(there) > 28
    for name, entry in there:
        value = next(entry[key] for key in ("pj", "value", "pj_per_bit") if key in entry)
        assert entry["low"] <= value <= entry["high"], name
        assert len(table["sources"][entry["source"]]) > 20, name
    assert table["sram"]["source"] in table["sources"]
    assert table["covers"] and table["excludes"]


def test_all_kinds_of_dram_are_in_all_tables() -> None:
    for node in NODES:
        assert list(EnergyTable.load(f"cmos-{node}").data.dram) == ["ddr4", "lpddr4", "lpddr5", "hbm2"]


def test_intervals_widen_where_figures_are_extrapolated() -> None:
    assert "extrapolated" in shipped(7)["status"]
    for name in ("register_bit", "mul_i8", "add_i32"):
        spread = {node: figures.operations(node)[name].high / figures.operations(node)[name].low for node in NODES}
        assert spread[7] > 1.9 and spread[7] >= spread[22] / 3
    sram = {node: shipped(node)["sram"] for node in NODES}
    assert sram[7]["high_factor"] / sram[7]["low_factor"] > sram[22]["high_factor"] / sram[22]["low_factor"]


def test_between_published_ends_arithmetic_falls_with_the_node() -> None:
    for node, next_node in pairwise(NODES):
        for part in (figures.operations, figures.arithmetic):
            assert all(part(next_node)[name].value < figure.value for name, figure in part(node).items())
    assert figures.operations(45)["mul_i8"].value == 0.2 and figures.operations(7)["mul_i8"].value == 0.07


def test_a_float_lane_multiplies_and_adds_in_float32() -> None:
    """By hand at 45 nm: 3.7 + 0.9; low 1.1 + 0.4 in float16, high twice the value."""
    lane = figures.arithmetic(45)["float_lane"]
    assert (lane.value, lane.low, lane.high) == pytest.approx((4.6, 1.5, 9.2), abs=1e-9)
    for node in NODES:
        of = figures.arithmetic(node)
        assert of["float_lane"].value == pytest.approx(of["mul_f32"].value + of["add_f32"].value, abs=1e-3)
        as_priced = sum(figures.operations(node)[name].value for name in AS_PRICED)
        assert of["float_lane"].low < as_priced < of["float_lane"].high
    assert EVENTS["vector_ops"].price == Operations(AS_PRICED)


def test_float_lanes_are_told_as_shares_of_all_work() -> None:
    row = {"network": "net", "elements": 10, "work": 200.0, "priced": 2.0, "value": 3.0, "low": 1.0, "high": 6.0}
    line = float_lanes_table([row]).splitlines()[2]
    found = [cell.strip() for cell in line.split("|")[1:-1]]
    assert found == ["net", "10", "200.0", "1.0 %", "1.0050 x", "0.9950 x", "1.0200 x"]


def test_dram_powers_follow_from_the_supply_currents() -> None:
    """By hand: DDR4-2400 x8, 44 mA at 1.2 V before 2.4 GB/s; refresh 74 mA for 313 of 4,680 cycles."""
    bit, background, refresh = figures.dram()["ddr4"]
    assert background.value == pytest.approx(52.8 / 2.4, abs=0.01)
    assert refresh.value == pytest.approx(74 * 1.2 * (313 / 4680) / 2.4, abs=0.01)
    assert bit.low == pytest.approx(140.5 * 1.2 / 19.2, abs=0.01)


def test_sources_are_all_cited() -> None:
    text = "".join(again(node) for node in NODES)
    assert [name for name in SOURCES if f'source = "{name}"' not in text] == []


def test_the_check_finds_what_differs() -> None:
    ours = {"a": {"b": [1.0, 2.0], "c": "x"}, "d": 1}
    assert differences(ours, {"a": {"b": [1.0, 2.0005], "c": "x"}, "d": 1}) == []
    assert differences(ours, {"a": {"b": [1.0, 2.1], "c": "y"}}) == [
        "a.b[1]: committed 2.0, made anew 2.1",
        "a.c: committed 'x', made anew 'y'",
        "d: committed 1, made anew None",
    ]


def test_cacti_is_pinned_by_its_hash() -> None:
    text = (Path(figures.__file__).parent / "requirements.txt").read_text(encoding="utf-8")
    assert text.startswith("hwcomponents-cacti==") and "--hash=sha256:" in text
