"""``gblr-hw sensitivity``: from reports to sentences and a picture, machines of one's own, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gblr_hw.cli import main as cli
from simulator.machine.machine import Machine
from tests.gblr_hw.cli.conftest import Refusal


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["gblr-hw", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_reports_are_compared(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], refusal: Refusal
) -> None:
    for name, gemm in (("small", "40x64x64"), ("large", "40x64x256")):
        assert run(monkeypatch, "simulate", "--gemm", gemm, "-m", "edge-16", "--report", f"{name}.json") == 0
    capsys.readouterr()
    assert run(monkeypatch, "sensitivity", "small.json", "large.json", "-o", "tornado.png") == 0
    out = capsys.readouterr().out
    assert "On edge-16: small takes less energy than large (0." in out and "any one entry of the table" in out
    assert Path("tornado.png").read_bytes().startswith(b"\x89PNG")
    assert run(monkeypatch, "sensitivity", "large.json", "small.json", "--energy-table", "cmos-7", "--json") == 0
    (claim,) = json.loads(capsys.readouterr().out)
    assert claim["survives"] and claim["said"].startswith("On edge-16") and set(claim["by_dram"]) >= {"ddr4", "hbm2"}
    # A machine of one's own is named in results, and given as its file.
    Path("own.toml").write_text(Machine.load("edge-16").with_(name="own").to_toml())
    for name in ("small", "large"):
        report = json.loads(Path(f"{name}.json").read_text())
        Path(f"{name}.json").write_text(json.dumps({**report, "machine": "own"}))
    said = refusal("sensitivity", "small.json", "large.json")
    assert "results on machine 'own': found no such preset or file" in said and "Give its --machine FILE." in said
    assert run(monkeypatch, "sensitivity", "small.json", "large.json", "--machine", "own.toml") == 0
    assert "On own: small" in capsys.readouterr().out


def test_results_without_events_are_refused_in_a_paragraph(folder: Path, refusal: Refusal) -> None:
    said = refusal("sensitivity", "points.json", "-o", "x.png")
    assert (
        "points.json: point 1: found no counted events; energy under other prices is counted events times those" in said
    )
    assert not Path("x.png").exists()
