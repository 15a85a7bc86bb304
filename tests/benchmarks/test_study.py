"""The study: which runs it asks for, how its results are kept, and that a run meets its target or says why not."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.shared.result_lines import ResultLines
from benchmarks.study import runs as study_runs
from benchmarks.study import study, tables, trained_out
from benchmarks.study.settings import gather
from gblr_hw.files.checkpoint import load_checkpoint
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.family import FAMILIES, trained
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.timing.simulate import simulate


def _options(**chosen: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"part": None, "machine": None, "family": None, "budget": None, "seed": None, **chosen})


def test_everything_is_asked_for_once() -> None:
    whole = study.jobs(_options())
    assert len(set(whole)) == len(whole)
    settings = [setting for part in study_runs.PARTS.values() for setting in part.settings.values()]
    assert len(whole) == 3 * sum(1 + len(setting.budgets) * len(setting.families) for setting in settings)
    # At least five budgets and three seeds everywhere, every rival for a machine with and one without scatter.
    assert all(len(setting.budgets) >= 5 for setting in settings)
    assert set(study_runs.RIVALS) <= set(study_runs.PARTS["digits"].settings["edge-16"].families)
    assert all(family in study_runs.NETWORKS for setting in settings for family in setting.families)


def test_every_family_is_a_rival_and_is_shown() -> None:
    recipes = [recipe.family for recipe in study_runs.RIVALS.values()]
    wanted = [name for name in trained() if not FAMILIES[name].from_scratch]
    assert [name for name in recipes if name != "dense"] == wanted
    assert {*study_runs.RIVALS, *study_runs.ANY_WIDTH} == set(tables.SHOWN)
    assert study_runs.RIVALS["rank groups"].family == "rank_groups"
    # What is trained from scratch is a rival where there is time for it.
    assert {recipe.family for recipe in study_runs.SCRATCH.values()} | {*wanted, "dense"} == set(trained())
    assert set(study_runs.SCRATCH) <= set(trained_out.FAMILIES)


def test_results_recorded_under_an_old_label_are_those_of_todays(tmp_path: Path) -> None:
    recorded = (Path(__file__).parents[2] / "docs" / "data" / "study.jsonl").read_text()
    assert '"block low rank"' in recorded
    (tmp_path / "study.jsonl").write_text(recorded)
    lines = ResultLines(tmp_path / "study.jsonl", study.KEY)
    wanted = study.jobs(_options(family=["rank groups"]))
    assert wanted and all(lines.has(**dict(zip(study.KEY, job, strict=True))) for job in wanted)
    assert {row["kind"] for row in lines.rows if row["family"] == "rank groups" and "kind" in row} == {"rank_groups"}
    assert gather(lines.rows).of("digits", "rank groups") and not gather(lines.rows).of("digits", "block low rank")
    lines.add({**lines.rows[0], "seed": 99})
    kept = (tmp_path / "study.jsonl").read_text().splitlines()
    assert set(recorded.splitlines()) <= set(kept)  # what was recorded stays so


def test_options_select() -> None:
    chosen = study.jobs(_options(part=["digits"], machine=["edge-16"], family=["ranks", "dense"], seed=[4]))
    assert chosen[:2] == [("digits", "edge-16", "dense", 1.0, 4), ("digits", "edge-16", "ranks", 0.7, 4)]
    assert {job[2] for job in chosen} == {"ranks", "dense"}
    assert study.jobs(_options(part=["fashion-mixer"], budget=[0.6], family=["ranks"], seed=[0])) == [
        ("fashion-mixer", "edge-16", "ranks", 0.6, 0)
    ]


def test_results_are_kept_sorted_and_read_back(tmp_path: Path) -> None:
    lines = ResultLines(tmp_path / "a.jsonl", ("family", "budget"))
    lines.add({"family": "b", "budget": 0.5, "accuracy": 1.0})
    lines.add({"family": "a", "budget": 0.7, "accuracy": 0.5})
    again = ResultLines(tmp_path / "a.jsonl", ("family", "budget"))
    assert [row["family"] for row in again.rows] == ["a", "b"]
    assert again.has(family="b", budget=0.5)
    assert not again.has(family="b", budget=0.7)


@pytest.mark.parametrize(("line", "text"), [("{", "line 1"), ('{"family": "a"}', "no field 'budget'")])
def test_broken_results_are_refused(line: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match="each line is one result in JSON") as caught:
        ResultLines(tmp_path / "a.jsonl", ("family", "budget"))
    assert text in str(caught.value)


def test_the_table_shows_mean_and_range() -> None:
    row = {"part": "digits", "machine": "edge-16", "family": "ranks", "budget": 0.5}
    rows = [{**row, "seed": seed, "accuracy": accuracy} for seed, accuracy in enumerate((0.9, 0.95, 0.97))]
    rows.append({**row, "family": "low rank", "seed": 0, "unreachable": "why"})
    text = study.table(rows)
    assert "94.0 (90.0-97.0)" in text
    assert "not reached" in text


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    part = replace(study_runs.PARTS["digits"], width=64, depth=2, dense_epochs=1, epochs=1)
    monkeypatch.setitem(study_runs.PARTS, "digits", part)
    study_runs._dense_cycles.cache_clear()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("family", ["narrower", "shallower", "rank groups"])
def test_a_run_meets_its_target_and_is_measured_on_every_machine(family: str, tmp_path: Path) -> None:
    row = study_runs.run("digits", "edge-16", family, 0.7, 0, cache_folder=tmp_path)
    dense_cycles = study_runs._dense_cycles("digits", "edge-16", 64, 2)
    assert 0.5 < row["share"] <= 0.7
    assert tuple(row["latency_cycles"]) == tuple(row["energy_pj"]) == study_runs.MEASURED_ON
    assert json.loads(json.dumps(row)) == row
    assert {path.name for path in tmp_path.iterdir()} == {"digits.dense.0.pt", "networks"}
    kept = load_checkpoint(tmp_path / "networks" / f"digits.edge-16.{family.replace(' ', '_')}.0.7.0.safetensors")
    assert "blocks.0.mlp.fc1" in kept
    assert row["latency_cycles"]["edge-16"] == pytest.approx(row["share"] * dense_cycles, abs=0.5)


def test_a_smaller_network_keeps_its_latency_when_trained() -> None:
    """A fresh norm's scale of one takes no cycles, a trained one's does."""
    plan = study_runs.PARTS["digits"]
    machine = Machine.load("edge-16")
    cycles = study_runs._dense_cycles("digits", "edge-16", 64, 1)
    model = plan.build(64, 1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert simulate(lower(model, machine, example_inputs=plan.example), machine).latency_cycles == cycles


@pytest.mark.usefixtures("quick")
def test_a_target_out_of_reach_is_a_result_too(tmp_path: Path) -> None:
    row = study_runs.run("digits", "edge-16", "block sparse", 0.05, 0, cache_folder=tmp_path)
    assert "no fewer would leave all layers alive" in row["unreachable"]
    assert "accuracy" not in row
    row = study_runs.run("digits", "edge-16", "shallower", 0.01, 0, cache_folder=tmp_path)
    assert "no shallower dense network is that quick" in row["unreachable"]


def test_an_interrupted_study_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def run(*job: Any, **options: Any) -> dict[str, Any]:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(job)
        return {**dict(zip(study.KEY, job, strict=True)), "accuracy": 0.5}

    monkeypatch.setattr(study, "_check_data", lambda part, folder: None)
    monkeypatch.setattr(study, "run", run)
    out = tmp_path / "study.jsonl"
    command = ["study", "--part", "fashion-vit", "--family", "ranks", "--seed", "0", "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(out), "--cache", str(tmp_path / "cache")])
    with pytest.raises(KeyboardInterrupt):
        study.main()
    first = list(calls)
    calls.clear()
    calls.append(())  # interrupt after one more
    with pytest.raises(KeyboardInterrupt):
        study.main()
    assert first + calls[1:] == study.jobs(_options(part=["fashion-vit"], family=["ranks"], seed=[0]))[:3]
    assert len(out.read_text().splitlines()) == 3


def test_missing_data_is_told_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "run", None)
    monkeypatch.setattr(sys, "argv", ["study", "--out", str(tmp_path / "a.jsonl"), "--cache", str(tmp_path / "cache"),
                                      "--data", str(tmp_path)])  # fmt: skip
    with pytest.raises(SystemExit, match=r"train-images-idx3-ubyte.gz.*dataset-fashion-mnist.*--part"):
        study.main()
