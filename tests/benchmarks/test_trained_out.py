"""Families trained for longer: which runs are asked for, in what order, and what the tables say of them."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.study import runs as study_runs
from benchmarks.study import trained_out
from benchmarks.study.right_ones import as_text
from benchmarks.study.runs import SCRATCH
from benchmarks.study.settings import gather
from benchmarks.study.trained_out_tables import pairs_table, trained_out_table, verdict

SETTING = ("digits", "edge-16")
PUBLISHED = next(iter(SCRATCH))


def _options(**chosen: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"part": None, "family": None, "budget": None, "times": None, "seed": None, **chosen})


def row(family: str, budget: float, times: int, seed: int, wrong: int, cycles: float = 50.0) -> dict[str, Any]:
    """A line of a network that is wrong on the first images of a hundred, one image further for each seed."""
    right = np.ones(100, dtype=bool)
    right[seed : seed + wrong] = False
    return {
        "part": "digits", "machine": "edge-16", "family": family, "budget": budget, "times": times, "seed": seed,
        "accuracy": float(right.mean()), "right": as_text(right.tolist()), "latency_cycles": {"edge-16": cycles},
        "energy_pj": {"edge-16": 1.0},
    }  # fmt: skip


def test_the_longest_training_comes_first_and_everything_once() -> None:
    jobs = trained_out.jobs(_options())
    assert len(set(jobs)) == len(jobs) == 2 * 3 * 3 * (1 + 2 * len(trained_out.FAMILIES) - 1)
    assert [job[4] for job in jobs if job[:3] == ("digits", "edge-16", "dense") and job[5] == 0] == [4, 1, 2]
    assert trained_out.jobs(_options(family=["low rank"], times=[2], seed=[1])) == [
        ("digits", "edge-16", "low rank", 0.4, 2, 1), ("fashion-vit", "edge-16", "low rank", 0.65, 2, 1)
    ]  # fmt: skip
    assert {job[3] for job in trained_out.jobs(_options(part=["fashion-vit"]))} == {1.0, 0.65, 0.4}


def test_longer_training_is_of_all_epochs() -> None:
    part = study_runs.PARTS["digits"]
    longer = part.longer(4)
    assert (longer.dense_epochs, longer.epochs) == (4 * part.dense_epochs, 4 * part.epochs)
    assert replace(longer, dense_epochs=part.dense_epochs, epochs=part.epochs) == part


def test_tables_say_who_wins() -> None:
    rows = [row("dense", 1.0, times, seed, 5, 100.0) for times in (1, 4) for seed in (0, 1)]
    rows += [row(PUBLISHED, 0.4, times, seed, wrong) for times, wrong in ((1, 40), (4, 4)) for seed in (0, 1)]
    rows += [row("block sparse", 0.4, 4, seed, 5) for seed in (0, 1)]
    rows += [row("automatic choice", 0.4, 4, 0, 30)]
    rows += [row("narrower", 0.32, 4, 0, 3), row("block sparse", 0.32, 4, 0, 3)]
    rows += [{**row("low rank", 0.32, 4, 0, 3), "unreachable": "why"}]
    older = [{**row("low rank", 0.4, 1, seed, 10 * seed), "right": ""} for seed in (0, 1)]
    study = gather([{key: value for key, value in one.items() if key != "right"} for one in older])
    lines = trained_out_table(rows, study, *SETTING).splitlines()
    cells = [cell.strip() for cell in next(line for line in lines if PUBLISHED in line).split("|")[1:-1]]
    assert cells[:2] == [PUBLISHED, "0.4x"] and cells[2].startswith("60.0 (") and cells[3] == "-"
    assert cells[5] == "0.500" and cells[6].startswith("+1.00 (") and cells[7] == "2, 0, 2"
    # A block of four or five images among a hundred comes and goes with the draw.
    low, high = (float(end) for end in cells[4].removeprefix("96.0 (").rstrip(")").split("-"))
    assert 90.0 < low < 94.0 and 99.0 <= high <= 100.0
    # What the study has and this has not, with the range of its seeds.
    (line,) = (line for line in lines if "low rank" in line)
    assert "| 95.0 (90.0-100.0) | - |" in " ".join(line.split())
    is_other = ("block sparse", 0.4)
    other = [
        {**one, "part": "fashion-vit", "budget": 0.65} for one in rows if (one["family"], one["budget"]) == is_other
    ]
    assert trained_out_table([*rows, *other], study, *SETTING).splitlines() == lines
    pairs = pairs_table([*rows, *other]).splitlines()
    assert sum("fashion-vit" in line for line in pairs) == 1
    assert f"less {PUBLISHED}" in pairs[0] and "-26.00 (" in next(line for line in pairs if "automatic" in line[:50])
    said = verdict(rows, *SETTING).splitlines()
    assert (
        f"the highest mean is {PUBLISHED}'s (96.0; seeds 0, 1). Within its interval: block sparse. Below: auto"
        in said[0]
    )
    assert "narrower's (97.0; seeds 0). Within its interval: block sparse. Below: none." in said[1]


def test_a_run_is_kept_with_its_length_and_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Any, ...]] = []

    def run(*job: Any, cache_folder: Path, times: int) -> dict[str, Any]:
        asked.append((*job, times))
        made = row("dense", 1.0, times, job[-1], 5)
        del made["times"]
        return made

    monkeypatch.setattr(trained_out, "run", run)
    chosen = {"part": "digits", "family": "dense", "times": "2", "seed": "0", "out": str(tmp_path / "a.jsonl")}
    command = [word for name, value in chosen.items() for word in (f"--{name}", value)]
    for _ in range(2):
        trained_out.main([*command, "--cache", str(tmp_path / "cache")])
    assert asked == [("digits", "edge-16", "dense", 1.0, 0, 2)]
    assert json.loads((tmp_path / "a.jsonl").read_text())["times"] == 2
    assert "[1/1] digits, edge-16, dense, 1.0, 2, 0: 95.0 %" in capsys.readouterr().out
