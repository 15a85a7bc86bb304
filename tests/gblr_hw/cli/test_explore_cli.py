"""``gblr-hw sweep`` and ``gblr-hw compare`` from the command line."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from gblr_hw.cli import main as cli
from gblr_hw.files.checkpoint import load_checkpoint
from gblr_hw.lowering.pipeline import lower
from simulator import Machine, simulate


def _run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    monkeypatch.setattr("sys.argv", ["gblr-hw", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    found = capsys.readouterr()
    assert not stop.value.code, found.err
    return found.out


def test_a_sweep_writes_its_points_and_a_picture(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (
        "sweep",
        "c.safetensors",
        "--set",
        "tokens=4,9",
        "--set",
        "array.rows=16,-1",
        "-m",
        "m.toml",
        "--work",
        "w",
    )
    said = _run(monkeypatch, capsys, *command, "-o", "x.csv", "--picture", "x.png")
    assert "2 of 4 points have no figures; the first: machine 'edge-16', changed in code: field 'array.rows'" in said
    rows = list(csv.DictReader(Path("x.csv").read_text().splitlines()))
    layers = load_checkpoint("c.safetensors")
    machine = Machine.load("edge-16")
    for row, tokens in ((rows[0], 4), (rows[2], 9)):
        assert int(row["latency_cycles"]) == simulate(lower(layers, machine, tokens=tokens), machine).latency_cycles
    assert Path("x.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(_run(monkeypatch, capsys, *command, "--json"))
    assert found["format"] == "gblr-hw sweep" and [row["tokens"] for row in found["points"]] == [4, 4, 9, 9]


def test_a_model_of_ones_own_is_swept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _run(monkeypatch, capsys, "sweep", "--model", "net.py:build", "--set", "machine=edge-16,mid-32")
    assert said.splitlines()[0].split()[:3] == ["machine", "cycles", "ms"]


def test_families_and_networks_are_swept_and_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    structures = ("--set", "family=dense,block-sparse", "--set", "budget=0.5", "-m", "edge-16")
    shutil.copy("c.safetensors", "d.safetensors")
    outputs = ("-o", "x.csv", "--picture", "x.png")
    both = "checkpoint=c.safetensors,d.safetensors"
    said = _run(monkeypatch, capsys, "sweep", "--set", both, *structures, "--tokens", 4, *outputs)
    assert "relative error" in said.splitlines()[0]
    rows = list(csv.DictReader(Path("x.csv").read_text().splitlines()))
    assert [row["checkpoint"] for row in rows] == ["c.safetensors"] * 2 + ["d.safetensors"] * 2
    assert [(row["family"], row["budget"]) for row in rows[:2]] == [("dense", ""), ("block_sparse", "0.5")]
    _run(monkeypatch, capsys, "report", "x.csv", "-o", "x.html")
    page = Path("x.html").read_text()
    assert '"fields":["checkpoint","family","budget"]' in page.replace(" ", "") and "budget None" not in page


def test_programs_are_compared_operator_by_operator(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layers, machine = load_checkpoint("c.safetensors"), Machine.load("mid-32")
    lower(layers, machine, tokens=4).save("q.program")
    lower({"a": layers["a"]}, machine, tokens=4).save("r.program")
    found = json.loads(_run(monkeypatch, capsys, "compare", "p.program", "q.program", "r.program", "--json"))
    rows = {row["name"]: row for row in found["rows"]}
    assert next(iter(rows)) == "all" and rows["b"]["values"][2] is None and rows["b"]["causes"] == {}
    for index in range(2):
        assert rows["all"]["values"][index] == sum(rows[name]["values"][index] for name in "ab")
        assert sum(cycles[index] for cycles in rows["all"]["causes"].values()) == rows["all"]["values"][index]
    said = _run(monkeypatch, capsys, "compare", "p.program", "q.program", "--top", 1, "--by", "energy")
    assert "1: p on edge-16, in uJ" in said and "1 of 2 operators" in said
    assert "mostly of" in _run(monkeypatch, capsys, "compare", "p.program", "q.program")
