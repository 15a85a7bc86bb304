"""The area model against every size that was synthesised, and its shape between them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simulator.base.errors import InputError
from simulator.machine.area import area_mm2
from simulator.machine.area_parts import PARTS, AreaPart, Term, _table
from simulator.machine.area_table import AreaTable
from simulator.machine.machine import Machine

ROOT = Path(__file__).parents[3]
NETWORK_PARTS = ("scatter_network", "gather_network")
SIDES = {8: "edge-16", 16: "edge-16", 32: "mid-32"}
SYNTHESISED = json.loads((ROOT / "docs/synthesis.json").read_text(encoding="utf-8"))["sides"]


def _machine(side: int, banks: int, scatter: bool = True, cycles: int | None = None) -> Machine:
    preset = Machine.load(SIDES.get(side, "mid-32"))
    cycles = preset.rank_memory.network_cycles if cycles is None else cycles
    return preset.with_(
        name=f"{side}-{banks}",
        array={"rows": side, "cols": side, "scatter": scatter},
        rank_memory={"banks": banks, "network_cycles": cycles if scatter else 0},
    )


def _synthesised(side: int, part: str) -> float:
    return next(row["area_um2"] for row in SYNTHESISED[str(side)] if row["part"] == part) / 1e6


@pytest.mark.parametrize("side", SIDES)
def test_parts_are_near_those_synthesised(side: int) -> None:
    for banks in (side, side * 5 // 4, 2 * side):
        for cycles in (2, Machine.load(SIDES[side]).rank_memory.network_cycles):
            parts = area_mm2(_machine(side, banks, cycles=cycles)).parts
            for way in ("scatter", "gather"):
                name = f"{way} crossbar, {banks} banks, {cycles} cycles"
                assert parts[f"{way}_network"].mm2 == pytest.approx(_synthesised(side, name), rel=0.06), name
        # The last machine has the network that its control was synthesised with.
        whole = parts["control"].mm2 + sum(parts[name].mm2 for name in NETWORK_PARTS)
        assert whole == pytest.approx(_synthesised(side, f"control, {banks} banks"), rel=0.04)
        assert parts["requantisers"].mm2 == pytest.approx(banks * _synthesised(side, "requantiser"), rel=1e-6)
        logic = parts["array"].mm2 + whole + parts["requantisers"].mm2
        measured = _synthesised(side, "array") + _synthesised(side, f"control, {banks} banks")
        assert logic == pytest.approx(measured + banks * _synthesised(side, "requantiser"), rel=0.03)
    plain = area_mm2(_machine(side, 2 * side, scatter=False)).parts
    assert plain["array"].mm2 == pytest.approx(_synthesised(side, "array"), rel=0.01)
    assert plain["control"].mm2 == pytest.approx(_synthesised(side, "control, plain"), rel=0.04)
    assert plain["requantisers"].mm2 == pytest.approx(side * _synthesised(side, "requantiser"), rel=1e-6)
    assert not set(NETWORK_PARTS) & set(plain)


def test_memories_are_bits_times_the_published_cell() -> None:
    parts = area_mm2(Machine.load("mid-32")).parts
    names = ("scratchpad", "accumulator", "rank_memory", "weight_buffer", "parameters")
    # 1,440 KiB at 4.7 um2 a bit: the 55 mm2 of docs/synthesis.md.
    assert sum(parts[name].mm2 for name in names) == pytest.approx((512 + 128 + 512 + 32 + 256) * 8192 * 4.7e-6)


def test_area_grows_with_the_array_the_banks_and_the_stages() -> None:
    by_side = [area_mm2(_machine(side, side)).total.mm2 for side in (8, 16, 32, 64)]
    assert by_side == sorted(by_side) and len(set(by_side)) == 4
    by_banks = [area_mm2(_machine(32, banks)).total.mm2 for banks in (32, 33, 40, 64, 96)]
    assert by_banks == sorted(by_banks) and len(set(by_banks)) == 5
    by_stages = [area_mm2(_machine(32, 64, cycles=cycles)).total.mm2 for cycles in (0, 1, 2, 3, 6)]
    assert by_stages == sorted(by_stages) and len(set(by_stages)) == 5
    assert area_mm2(_machine(32, 32, scatter=False)).total.mm2 < by_banks[0]


def test_range_and_extrapolation_are_told() -> None:
    area = area_mm2(Machine.load("mid-32"))
    assert area.total.low < area.total.mm2 < area.total.high
    assert not area.extrapolated and area_mm2(_machine(64, 64)).extrapolated


def test_the_command_prints_the_parts_and_their_total(tmp_path: Path) -> None:
    from gblr_hw.cli.app import app

    told = json.loads(CliRunner().invoke(app, ["machine", "area", "mid-32", "--json"]).stdout)
    assert told["table"] == "cmos-180" and not told["extrapolated"]
    assert told["mm2"].pop("total")["mm2"] == pytest.approx(sum(part["mm2"] for part in told["mm2"].values()))
    path = tmp_path / "large.toml"
    path.write_text(_machine(64, 64).to_toml(), encoding="utf-8")
    text = CliRunner().invoke(app, ["machine", "area", str(path)]).stdout
    assert "scatter network" in text and "extrapolated: no array of this size" in text


def test_parts_are_listed_by_kind_of_machine() -> None:
    common = ("array", "control", "requantisers", "vector")
    memories = ("scratchpad", "accumulator", "rank_memory", "weight_buffer", "parameters")
    assert tuple(area_mm2(Machine.load("mid-32")).parts) == (*common, *NETWORK_PARTS, *memories)
    assert tuple(area_mm2(Machine.load("plain-32")).parts) == (*common, *memories)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "two words"}, "area part 'two words': its name is an identifier"),
        ({"on": "some"}, "area part 'array': it is on one of every machine, scatter, plain, narrow"),
        ({"terms": ()}, "it has a coefficient or more"),
        ({"terms": (Term("wires.bit", "bits", lambda _: 1),)}, "its coefficients are of the area table's sections logic and memory"),
        ({"terms": (Term("logic.cell", "", lambda _: 1),)}, "every term says what it counts"),
    ],
)  # fmt: skip
def test_an_incomplete_part_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        replace(PARTS[0], **change)


def test_a_machine_has_a_part_once() -> None:
    with pytest.raises(TypeError, match="area part 'array': two entries for one machine"):
        _table([*PARTS, replace(PARTS[0], on="plain")])
    with pytest.raises(TypeError, match="'terms'"):
        AreaPart("probe", "scatter")  # type: ignore[call-arg]


def test_a_new_part_is_an_entry_and_its_coefficient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    probe = AreaPart("probe", "scatter", (Term("logic.probe", "banks", lambda m: m.rank_memory.banks),))
    monkeypatch.setattr("simulator.machine.area_parts.PARTS", (*PARTS, probe))
    monkeypatch.setattr("simulator.machine.area.PARTS", (*PARTS, probe))
    text = (ROOT / "simulator/area_tables/cmos-180.toml").read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("schema = 1", "schema =  1"), encoding="utf-8")
    with pytest.raises(InputError, match=r"logic\.probe: no such entry, and part 'probe' has it"):
        AreaTable.load(path)
    path.write_text(
        f'{text}\n[logic.probe]\num2 = 3e6\nlow = 1e6\nhigh = 4e6\nsource = "synthesis"\n', encoding="utf-8"
    )
    found = area_mm2(Machine.load("mid-32"), AreaTable.load(path)).parts["probe"]
    assert (found.mm2, found.low, found.high) == (192, 64, 256)
    assert "probe" not in area_mm2(Machine.load("plain-32"), AreaTable.load(path)).parts


def test_other_widths_are_refused() -> None:
    narrow = Machine.load("mid-32").with_(datatypes={"weight_bits": 4})
    with pytest.raises(
        InputError, match="4 bit weights, 8 bit activations, 32 bit sums; area table 'cmos-180' is of 8"
    ):
        area_mm2(narrow)
    both = Machine.load("mid-32").with_(datatypes={"narrow_bits": 2})
    with pytest.raises(
        InputError, match="weights of 2 bits; area table 'cmos-180' is of cells for narrow weights of 4"
    ):
        area_mm2(both)


@pytest.mark.parametrize("side", SIDES)
def test_narrow_tiles_cost_what_was_synthesised(side: int) -> None:
    machine = _machine(side, side)
    parts = area_mm2(machine.with_(datatypes={"narrow_bits": 4})).parts
    assert "narrow_tiles" not in area_mm2(machine).parts
    measured = _synthesised(side, "array, narrow tiles") - _synthesised(side, "array")
    measured += side * _synthesised(side, "column shifter")
    assert parts["narrow_tiles"].mm2 == pytest.approx(measured, rel=0.3)
    # Of the array it is a few hundredths: what the fit misses is less than two of them.
    array = _synthesised(side, "array")
    assert abs(parts["narrow_tiles"].mm2 - measured) < 0.02 * array
    assert 0.04 < measured / array < 0.07


def test_bad_tables_name_field_value_and_rule(tmp_path: Path) -> None:
    text = (ROOT / "simulator/area_tables/cmos-180.toml").read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    for old, new, message in (
        ("um2 = 4.7", "um2 = 47.0", r"memory.bit: low <= um2 <= high does not hold \(4.7, 47.0, 9.4\)"),
        ('source = "sram018"', 'source = "hearsay"', "source 'hearsay' is not in"),
        ("um2 = 4.7", "um2 = -1.0", "field 'memory.bit.um2': found -1.0"),
        ("schema = 1", "schema = ", "text that is not TOML"),
        ("[logic.bank]", "[logic.bench]", r"logic\.bank: no such entry, and part 'control' has it"),
        (
            "[memory.bit]",
            '[memory.bit]\num2 = 4.7\nlow = 4.7\nhigh = 9.4\nsource = "sram018"\n[memory.byte]',
            r"memory\.byte: the coefficient of no part",
        ),
    ):
        path.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            AreaTable.load(path)
    with pytest.raises(
        InputError, match="area table 'nowhere': found no such table or file; a table is one of cmos-180"
    ):
        AreaTable.load("nowhere")
