"""What `machine show` says below the machine, and `simulate` by another table."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from gblr_hw.cli import main as cli
from gblr_hw.cli.shared.machine_figures import figure_lines, figures
from simulator.machine.energy_table import EnergyTable
from simulator.machine.machine import Machine
from tests.drawn.strategies import ENERGY_TABLE
from tests.gblr_hw.cli.conftest import Refusal

MID = Machine.load("mid-32")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["gblr-hw", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_show_says_what_it_cannot_say() -> None:
    """A machine outside the table's grid is printed all the same."""
    lines = list(figure_lines(MID.with_(scratchpad={"kib": 65536})))
    assert lines[0].startswith("# No area: machine memory 'scratchpad': kib / banks: found 16384")
    assert any(line.startswith("# No energy: ") for line in lines)
    assert all(line.startswith("#") for line in lines)


def test_show_prints_all_of_it() -> None:
    text = "\n".join(figure_lines(MID))
    for said in (
        "Area at 45 nm", "float lanes", "Peak: 2.05 TOPS", "typical, with its DRAM", "TPU v1, 28 nm", "Eyeriss, 65 nm",
        "Simba, 16 nm", "below, inside our interval", "why it differs", "source: ", EnergyTable.load("cmos-45").sha256[:12],
    ):  # fmt: skip
        assert said in text


def test_show_is_a_machine_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "machine", "show", "edge-16") == 0
    (tmp_path / "own.toml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert Machine.load(tmp_path / "own.toml") == Machine.load("edge-16")


def test_another_table_moves_the_price_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name and by file; the report names the table and its hash."""
    asked = ("simulate", "--gemm", "40x64x96", "-m", "mid-32", "--json")
    found = {}
    own = tmp_path / "own.toml"
    text = ENERGY_TABLE.read_text(encoding="utf-8").replace("[dram.test]", "[dram.lpddr4]")
    own.write_text(text, encoding="utf-8")
    for name, more in (("45", ()), ("22", ("--energy-table", "cmos-22")), ("own", ("--energy-table", own))):
        assert run(monkeypatch, *asked, *more) == 0
        found[name] = json.loads(capsys.readouterr().out)
    assert len({report["latency_cycles"] for report in found.values()}) == 1
    assert found["22"]["energy_pj"] < found["45"]["energy_pj"]
    assert (found["22"]["energy_table"], found["own"]["energy_table"]) == ("cmos-22", "any-size")
    assert found["own"]["energy_table_sha256"] == hashlib.sha256(own.read_bytes()).hexdigest()
    assert set(found["45"]["standing_pj"]) == set(found["45"]["standing_ranges_pj"])
    assert run(monkeypatch, "simulate", "--gemm", "4x5x6", "--gemm", "7x8x9", "--energy-table", "cmos-7") == 0
    assert "each layer on its own; table cmos-7, " in capsys.readouterr().out
    assert run(monkeypatch, *asked[:-1], "--energy-table", "cmos-7") == 0
    said = capsys.readouterr().out
    assert "standing: clock and control" in said and "with what stands in that time" in said


def test_a_table_that_is_not_there_is_refused(refusal: Refusal) -> None:
    said = refusal("simulate", "--gemm", "4x5x6", "--energy-table", "cmos-3")
    assert "energy table 'cmos-3': found no such table or file; a table is one of cmos-22, cmos-45, cmos-7 or a" in said
    assert "Check the name given to --energy-table." in said


def test_figures_are_those_that_are_printed() -> None:
    text, found = "\n".join(figure_lines(MID)), figures(MID)
    assert f"Peak: {found['peak_tops']:,.3g} TOPS" in text
    assert f"typical, with its DRAM       {found['pj_per_mac']['typical_with_dram']['value']:.2f} (" in text
    assert [chip["name"] in text for chip in found["published_chips"]] == 3 * [True]
    assert found["area_mm2"]["total"]["low"] < found["area_mm2"]["total"]["value"]
    assert list(figures(MID.with_(scratchpad={"kib": 65536}))) == ["no_area", "no_energy"]
