"""README's Python runs as it stands, from the first block to the last, and says what its words promise."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[1] / "README.md"
MOST_LINES = 14  # of a block, imports included
PROMISED = ("fit_to_latency(", "convert(model, machine, batches=", "sweep(", "compare(", "front(", "report(")


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_blocks_are_short_and_show_each_function() -> None:
    assert max(len(block.splitlines()) for block in blocks()) <= MOST_LINES
    calls = "".join(line for block in blocks() for line in block.splitlines(True) if not line.startswith("from "))
    assert [one for one in PROMISED if one not in calls] == []


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    here: dict[str, Any] = {}
    for number, block in enumerate(blocks(), start=1):
        exec(compile(block, f"README.md, python block {number}", "exec"), here)
    said = capsys.readouterr().out
    assert here["fitted"].latency_cycles <= 0.6 * here["fitted"].dense_cycles
    assert here["found"].latency_cycles < here["found"].dense_cycles
    assert len(here["rows"]) == 4 and here["best"].points
    assert f"{here['result'].latency_cycles:,} cycles" in said and "front of 4 points" in said
    assert "fitted on edge-16" in said and "error of the output 0." in said
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert here["picture"].axes and here["outputs"] and float(here["accuracy"]) > 0
