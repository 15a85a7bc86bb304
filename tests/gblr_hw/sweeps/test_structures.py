"""Sweeps over networks: several checkpoints, batches, and families at budgets, each made once for all that share it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gblr_hw import load_checkpoint, lower, save_checkpoint, sweep
from gblr_hw.conversion.conversion import convert
from gblr_hw.frontend.put_weights import put_layers
from gblr_hw.layers.matrix_layers import dense_weights
from gblr_hw.sweeps import bench
from gblr_hw.sweeps.axes import Axis
from gblr_hw.sweeps.space import Space
from simulator import Machine, simulate

EDGE = Machine.load("edge-16")
AXES = {"family": ["dense", "low-rank", "block-sparse"], "budget": [0.3, 0.7], "dram.gb_per_s": [1.6, 6.4]}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    save_checkpoint(nn.Sequential(nn.Linear(48, 64), nn.Linear(64, 48)), path)
    return path


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Those that were made, not looked up."""
    found: list[Any] = []
    real = bench.made
    monkeypatch.setattr(bench, "made", lambda *given: (found.append(given[1]), real(*given))[1])
    return found


def test_a_dense_network_is_one_point_and_takes_no_budget() -> None:
    space = Space.of([Axis.parse(text) for text in ("family=dense,low-rank", "tokens=1,2", "budget=0.3,0.5")])
    assert space.fields == ("family", "budget", "tokens")
    assert [tuple(one.values()) for one in space.all()] == [
        ("dense", None, 1), ("dense", None, 2), ("low_rank", 0.3, 1), ("low_rank", 0.3, 2), ("low_rank", 0.5, 1),
        ("low_rank", 0.5, 2),
    ]  # fmt: skip
    first = Space.of([Axis.parse(text) for text in ("budget=0.3,0.5", "family=low-rank,dense")])
    assert [one["budget"] for one in first.all()] == [0.3, None, 0.5]


def test_families_are_converted_to_as_convert_does_and_once(
    checkpoint: Path, conversions: list[Any], tmp_path: Path
) -> None:
    rows = sweep(checkpoint, EDGE, AXES, tokens=8, work=tmp_path / "w")
    assert len(rows) == 10 and len(conversions) == 4
    for row in rows:
        layers: dict[str, Any] = dict(load_checkpoint(checkpoint))
        machine = EDGE.with_(dram={"gb_per_s": row["dram.gb_per_s"]})
        if row["family"] == "low_rank" and row["budget"] == 0.3:
            assert "the smallest reachable total is" in row["error"] and row["relative_error"] is None
            continue
        if row["family"] != "dense":
            found = convert(layers, machine, row["budget"], family=row["family"])
            lost = sum(float((found[name].matrix() - one.weight).square().sum()) for name, one in layers.items())
            whole = sum(float(one.weight.square().sum()) for one in layers.values())
            assert row["relative_error"] == pytest.approx((lost / whole) ** 0.5, rel=1e-4)
            layers |= found
        else:
            assert row["budget"] is None and row["relative_error"] == 0
        assert row["latency_cycles"] == simulate(lower(layers, machine, tokens=8), machine).latency_cycles
    conversions.clear()
    more = sweep(checkpoint, EDGE, {**AXES, "dram.gb_per_s": [1.6, 6.4, 12.8]}, tokens=8, work=tmp_path / "w")
    assert conversions == [] and [row for row in more if row["dram.gb_per_s"] != 12.8] == rows
    other = {"family": ["block-sparse"], "budget": [0.7], "array.rows,array.cols": [8]}
    sweep(checkpoint, EDGE, other, work=tmp_path / "w")
    assert [(one.rows, one.cols) for one in conversions] == [(8, 8)]  # of another array


@pytest.mark.night
def test_processes_convert_alike(checkpoint: Path) -> None:
    axes = {**AXES, "family": ["dense", "low-rank", "lattice"], "budget": [0.7, 0.9]}
    assert sweep(checkpoint, EDGE, axes, tokens=8, jobs=2) == sweep(checkpoint, EDGE, axes, tokens=8)


def test_a_model_is_converted_with_its_operators(conversions: list[Any]) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(48, 64), nn.LayerNorm(64), nn.Linear(64, 48)).eval(), torch.randn(5, 48)
    axes = {"family": ["dense", "block-sparse"], "budget": [0.5], "vector.lanes": [4, 16]}
    rows = sweep(model, EDGE, axes, example_inputs=x)
    assert len(conversions) == 1 and [row["error"] for row in rows] == [None] * 4
    for row in rows:
        machine = EDGE.with_(vector={"lanes": row["vector.lanes"]})
        student = nn.Sequential(nn.Linear(48, 64), nn.LayerNorm(64), nn.Linear(64, 48)).eval()
        student.load_state_dict(model.state_dict())
        if row["family"] != "dense":
            put_layers(student, convert(dense_weights(model), machine, 0.5, family="block_sparse"), "")
        assert row["latency_cycles"] == simulate(lower(student, machine, example_inputs=(x,)), machine).latency_cycles


def test_checkpoints_are_swept_by_name_and_other_networks_by_a_function(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_checkpoint(nn.Sequential(nn.Linear(16, 16)), other)
    rows = sweep(None, EDGE, {"checkpoint": [checkpoint, other], "tokens": [4, 8]}, work=tmp_path / "w")
    assert [row["source"] for row in rows] == ["net.safetensors"] * 2 + ["other.safetensors"] * 2
    assert rows[2:] == [{**row, "checkpoint": str(other)} for row in sweep(other, EDGE, {"tokens": [4, 8]})]
    model = nn.Linear(16, 8).eval()
    batched = sweep(lambda settings: (model, torch.randn(settings["batch"], 16)), EDGE, {"batch": [1, 9]})
    for row in batched:
        program = lower(model, EDGE, example_inputs=(torch.randn(row["batch"], 16),))
        assert row["latency_cycles"] == simulate(program, EDGE).latency_cycles


def test_a_network_without_dense_layers_has_its_reason_in_the_row(tmp_path: Path, checkpoint: Path) -> None:
    converted = convert(dict(load_checkpoint(checkpoint)), EDGE, 0.5, family="block_sparse")  # type: ignore[arg-type]
    save_checkpoint(converted, tmp_path / "cut.safetensors")
    (row,) = sweep(tmp_path / "cut.safetensors", EDGE, {"family": ["block-sparse"], "budget": [0.5]})
    assert "no dense layer" in row["error"] and row["latency_cycles"] is None
