"""What measurements leave for documents: several seeds of the demo, a search of machine and structure."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.codesign import summary
from benchmarks.codesign.tables import comparison_table, front_table
from benchmarks.demo.tables import first_seed_table, seeds_table
from benchmarks.demo.three_seeds import rows_of
from simulator import Machine
from simulator.base.errors import InputError


def measurement(name: str, machine: str, accuracy: float, cycles: int) -> Any:
    return SimpleNamespace(
        network=SimpleNamespace(name=name, accuracy=accuracy),
        machine=SimpleNamespace(name=machine),
        report=SimpleNamespace(latency_cycles=cycles, energy_pj=1e6 * cycles),
        int8_accuracy=accuracy - 0.01,
        multiplications=10 * cycles,
    )


def test_rows_of_several_seeds_show_the_first_and_the_mean_of_all() -> None:
    by_seed = [
        [measurement("dense", machine, 0.9 + 0.1 * seed, 100 * (1 + seed)) for machine in ("a", "b")]
        + [measurement("small", machine, 0.8, 50 + 10 * seed) for machine in ("a", "b")]
        for seed in range(2)
    ]
    rows = json.loads(json.dumps(rows_of(by_seed)))
    assert [row["network"] for row in rows] == ["dense", "small"]
    assert rows[0]["accuracies"] == [0.9, 1.0]
    assert rows[1]["machines"]["b"] == {
        "latency_cycles": 50,
        "energy_pj": 5e7,
        "cycles_of_dense": pytest.approx((50 / 100 + 60 / 200) / 2),
        "energy_of_dense": pytest.approx(0.4),
    }
    assert "90.0 / 100.0 | 95.0 |" in seeds_table(rows, (0, 1))
    cells = [cell.strip() for cell in first_seed_table(rows).splitlines()[-1].strip("|").split("|")]
    assert cells == ["small", "80.0 %", "79.0 %", "500", *2 * ["50", "50.0 %", "50 µJ"]]


def pair(machine: Machine, latency_s: float, shares: tuple[float, ...] = (0.3, 0.3)) -> dict[str, Any]:
    return {
        "machine_name": machine.name,
        "family": "block_sparse",
        "shares": list(shares),
        "tile_share": 0.3,
        "error": 0.2,
        "latency_s": latency_s,
        "energy_pj": 1e6,
        "area_mm2": 50.0,
    }


def found() -> dict[str, Any]:
    scatter, plain = Machine.load("mid-32"), Machine.load("plain-32")
    pairs = [{**pair(one, 1e-6 * (at + 1)), "machine": one.to_dict()} for at, one in enumerate((scatter, plain) * 3)]
    row = {"max_error": 0.2, "speedup": 1.5, "speedup_per_area": 0.9}
    sides = {"plain": pair(plain, 3e-6, (0.2, 0.4)), "scatter": pair(scatter, 2e-6)}
    return {
        "front": pairs,
        "comparisons": [
            {**row, "max_area_mm2": 64.0, **sides},
            {**row, "max_area_mm2": 64.0, **sides, "plain": None},
            {**row, "max_area_mm2": 128.0, **sides},
        ],
    }


def test_a_search_is_told_in_the_rows_of_its_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "front.json").write_text(json.dumps(found()))
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["summary", str(tmp_path / "front.json"), "--pairs", "3", "--out", str(out)])
    summary.main()
    data = json.loads(out.read_text())
    (row,) = data["plain_and_scatter"]
    assert row["plain"] == "block sparse, by layer, 30 %, 50 mm2"
    assert row["scatter"] == "block sparse, 30 %, 64 banks, 50 mm2"
    assert [one["latency_us"] for one in data["front"]] == [pytest.approx(x) for x in (1, 3, 6)]
    assert [one["banks"] for one in data["front"]] == [64, 64, None]
    printed = capsys.readouterr().out
    assert printed == comparison_table(data["plain_and_scatter"]) + "\n" + front_table(data["front"])
    assert "|           0.20 | 3.00 us |" in printed
    assert " plain | " in printed.splitlines()[-1]


def test_an_area_that_was_not_compared_is_refused() -> None:
    with pytest.raises(InputError, match=r"--area: found 60; the search compared within \[64\.0, 128\.0\] mm2"):
        summary.comparisons(found(), 60.0)
