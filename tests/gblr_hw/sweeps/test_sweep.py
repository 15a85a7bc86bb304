"""Sweeps: every point is what lowering and simulating it by hand gives, wherever and however often it was run."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from analysis.pictures.sweep_picture import draw_sweep
from gblr_hw import lower, save_checkpoint, sweep
from gblr_hw.sweeps import bench
from gblr_hw.sweeps.axes import Axis, machine_fields
from gblr_hw.sweeps.files import load_rows, save_rows
from gblr_hw.sweeps.measure import MEASURED, measure_task
from gblr_hw.sweeps.networks import checkpoint_network
from gblr_hw.sweeps.space import Space
from simulator import Machine, simulate
from simulator.base.errors import InputError
from simulator.machine.area import area_mm2

EDGE = Machine.load("edge-16")
AXES = {"array.rows,array.cols": [8, 16], "dram.gb_per_s": [1.6, 6.4], "tokens": [4, 9]}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    save_checkpoint(nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 16)), path)
    return path


def test_each_row_is_what_one_gets_by_hand(checkpoint: Path) -> None:
    rows = sweep(checkpoint, "edge-16", AXES)
    assert [(row["array.rows"], row["dram.gb_per_s"], row["tokens"]) for row in rows] == [
        (rows_, gb, tokens) for rows_ in (8, 16) for gb in (1.6, 6.4) for tokens in (4, 9)
    ]
    for row in rows:
        side = row["array.rows"]
        machine = EDGE.with_(array={"rows": side, "cols": side}, dram={"gb_per_s": row["dram.gb_per_s"]})
        layers = checkpoint_network(checkpoint).source.layers
        report = simulate(lower(layers, machine, tokens=row["tokens"]), machine)
        assert row["latency_cycles"] == report.latency_cycles and row["dram_bytes"] == report.dram_bytes
        assert row["energy_pj"] == report.energy_pj and row["area_mm2"] == area_mm2(machine).total.mm2
        assert row["error"] is None and tuple(row)[-len(MEASURED) :] == tuple(MEASURED) and row["array.cols"] == side


def test_a_model_is_exported_once_and_swept_whole() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(24, 40), nn.LayerNorm(40), nn.Linear(40, 16)).eval(), torch.randn(5, 24)
    rows = sweep(model, EDGE, ["machine=edge-16,mid-32", "datatypes.accumulator_bits=24,32"], example_inputs=x)
    machine = Machine.load("mid-32").with_(datatypes={"accumulator_bits": 24})
    assert rows[2]["machine"] == "mid-32"
    assert rows[2]["area_mm2"] is None and rows[3]["area_mm2"] > 0  # the table's accumulators have 32 bits
    assert rows[2]["latency_cycles"] == simulate(lower(model, machine, example_inputs=(x,)), machine).latency_cycles
    with pytest.raises(InputError, match="a model's sizes are those of its example inputs"):
        sweep(model, EDGE, ["tokens=4,5"], example_inputs=x)
    with pytest.raises(InputError, match="example_inputs: found nothing"):
        sweep(model, EDGE, ["array.rows=4"])


def test_what_no_machine_can_be_has_its_reason_in_the_row(checkpoint: Path) -> None:
    good, bad = sweep(checkpoint, EDGE, {"array.rows": [16, -4]})
    assert good["error"] is None
    assert "field 'array.rows': found -4" in bad["error"] and bad["latency_cycles"] is None


def test_processes_and_a_killed_worker_give_the_same_rows(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = sweep(checkpoint, EDGE, AXES)
    mark = tmp_path / "died"

    def dies_once(sources: Any, number: int, base: Machine, tokens: int, settings: Any) -> Any:
        if settings["tokens"] == 9 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return measure_task(sources, number, base, tokens, settings)

    monkeypatch.setattr(bench, "measure_task", dies_once)
    assert sweep(checkpoint, EDGE, AXES, jobs=2) == wanted
    assert mark.exists()


def test_a_stopped_sweep_goes_on_and_one_that_grew_measures_what_is_new(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    measured: list[Any] = []
    resumed: list[bool] = []

    def stops(sources: Any, number: int, base: Machine, tokens: int, settings: Any) -> Any:
        measured.append(settings)
        if len(measured) == 3 and not resumed:
            resumed.append(True)
            raise KeyboardInterrupt
        return measure_task(sources, number, base, tokens, settings)

    monkeypatch.setattr(bench, "measure_task", stops)
    with pytest.raises(KeyboardInterrupt):
        sweep(checkpoint, EDGE, AXES, work=work)
    with (work / "points.jsonl").open("ab") as file:
        file.write(b'{"key": "a torn li')
    told: list[int] = []
    rows = sweep(checkpoint, EDGE, AXES, work=work, progress=lambda done, of, what: told.append(done))
    assert len(measured) == 3 + 6 and told == list(range(3, 9))
    assert rows == sweep(checkpoint, EDGE, AXES)
    measured.clear()
    sweep(checkpoint, EDGE, {**AXES, "tokens": [4, 9, 11]}, work=work)
    assert [one["tokens"] for one in measured] == [11] * 4
    measured.clear()
    torch.manual_seed(1)
    save_checkpoint(nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 16)), checkpoint)
    sweep(checkpoint, EDGE, AXES, work=work)
    assert len(measured) == 8  # another network under the same name


@pytest.mark.filterwarnings("default")  # the cluster's own
def test_a_dask_cluster_of_two_workers_gives_the_same_rows(checkpoint: Path) -> None:
    distributed = pytest.importorskip("distributed")
    families = {"family": ["dense", "block-sparse"], "budget": [0.4, 0.8], "dram.gb_per_s": [1.6, 6.4]}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        rows = sweep(checkpoint, EDGE, AXES, scheduler=cluster.scheduler_address)
        converted = sweep(checkpoint, EDGE, families, scheduler=cluster.scheduler_address)
    assert rows == sweep(checkpoint, EDGE, AXES) and converted == sweep(checkpoint, EDGE, families)
    with pytest.raises(InputError, match="a Dask scheduler listens there"):
        sweep(checkpoint, EDGE, AXES, scheduler="nowhere://127.0.0.1:1")


def test_files_hold_the_rows(checkpoint: Path, tmp_path: Path) -> None:
    rows = sweep(checkpoint, EDGE, {"array.rows": [16, -4], "array.scatter": [False, True]})
    save_rows(rows, tmp_path / "a.csv", {})
    with (tmp_path / "a.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["latency_cycles"] for row in read[1:3]] == [str(rows[1]["latency_cycles"]), ""]
    assert float(read[0]["energy_pj"]) == rows[0]["energy_pj"]
    save_rows(rows, tmp_path / "a.json", {"source": "net"})
    found = json.loads((tmp_path / "a.json").read_text())
    assert found == {"format": "gblr-hw sweep", "version": 1, "about": {"source": "net"}, "points": rows}
    assert load_rows(tmp_path / "a.csv") == load_rows(tmp_path / "a.json") == rows
    with pytest.raises(InputError, match="the ending '.txt'; points of a sweep are .csv, .json or .parquet files"):
        save_rows(rows, tmp_path / "a.txt", {})


def test_parquet_holds_the_rows_too(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    good = {**dict.fromkeys(MEASURED), "latency_cycles": 5, "latency_ms": 0.5, "energy_pj": 1.5, "bound": "memory"}
    bad = {**dict.fromkeys(MEASURED), "error": "no"}
    settings = {"budget": [None, 0.5], "array.scatter": [True, False], "tokens": [4, 8], "dram.gb_per_s": [6, 1.5]}
    rows = [
        {"source": "42", **{name: values[at] for name, values in settings.items()}, **figures}
        for at, figures in enumerate((good, bad))
    ]
    for name in ("a.parquet", "b.parquet", "a.csv"):
        save_rows(rows, tmp_path / name, {"source": "42"})
    assert load_rows(tmp_path / "a.parquet") == load_rows(tmp_path / "a.csv") == rows
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    save_rows([dict.fromkeys(row) | {"error": "no"} for row in rows], tmp_path / "empty.parquet", {})  # types stay
    import pyarrow.parquet

    schema = pyarrow.parquet.read_schema(tmp_path / "empty.parquet")
    assert str(schema.field("latency_cycles").type) == "int64" and str(schema.field("area_mm2").type) == "double"
    (tmp_path / "c.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="it is a Parquet file"):
        load_rows(tmp_path / "c.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "d.parquet")
    with pytest.raises(InputError, match="its format is 'gblr-hw sweep'"):
        load_rows(tmp_path / "d.parquet")


def test_without_pyarrow_parquet_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        InputError, match=r"no package 'pyarrow'.*pip install 'gblr-hw\[parquet\]', or take .csv or .json"
    ):
        save_rows([dict.fromkeys(MEASURED)], tmp_path / "a.parquet", {})


def test_points_are_the_product_or_a_part_of_it() -> None:
    space = Space.of([Axis.parse("array.rows,array.cols=1,2,3"), Axis.parse("dram.gb_per_s=1.5,2")])
    assert space.all()[1] == {"array.rows": 1, "array.cols": 1, "dram.gb_per_s": 2}
    drawn = space.drawn(4, seed=3)
    assert len(set(drawn)) == 4 and drawn == sorted(drawn) == space.drawn(4, seed=3) and max(drawn) < space.count
    assert [space.at(space.places(index)) for index in space.drawn(6, seed=1)] == space.all()
    assert all(space.index(space.places(index)) == index for index in range(space.count))
    assert Axis.parse("array.scatter=true,false").values == (True, False)
    assert "dram.gb_per_s" in machine_fields() and "name" not in machine_fields()


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        (["array.rows"], r"--set 'array.rows': found no FIELD=VALUE"),
        (["array.rows=4,"], "no FIELD=VALUE,VALUE"),
        (["rows=4"], r"no field 'rows'; .* Perhaps array.rows"),
        (["widget=4"], r"no field 'widget'; .*`gblr-hw machine show mid-32` prints all"),
        (["array.rows=4,4"], "a value twice"),
        (["array.rows,array.rows=4"], "a field twice"),
        (["array.rows=4", "array.cols,array.rows=4"], "--set array.rows: found it twice"),
        ([], "at least one field varies"),
        (["tokens=0"], "found '0'; tokens and batches are whole numbers from 1"),
        (["family=dense,fractal"], "found 'fractal'; it must be one of dense, low_rank"),
        (
            ["family=lattice", "budget=1.5"],
            "found '1.5'; a budget is a fraction of the dense tiles, above 0 and at most 1",
        ),
        (["family=lattice"], "--set family: found no budget; .* Add --set budget=0.3,0.5"),
        (["budget=0.5"], "--set budget: found no family that takes one; .* Add --set family=dense,lattice"),
        (["family=dense", "budget=0.5"], "no family that takes one"),
        (["machine,array.rows=16"], "'16' for machine, array.rows; fields that change together take the same values"),
        (["batch=1,2"], "--set batch: found a network that it does not tell from another"),
        (["checkpoint=a,b"], "--set checkpoint: found a network that it does not tell from another"),
    ],
)
def test_axes_that_make_no_sense_are_refused(axes: list[str], told: str, checkpoint: Path) -> None:
    with pytest.raises(InputError, match=told):
        sweep(checkpoint, EDGE, axes)
    with pytest.raises(InputError, match="--sample: found 9; 1 to the 2 points"):
        sweep(checkpoint, EDGE, {"tokens": [1, 2]}, sample=9)
    with pytest.raises(InputError, match="--sampler: found 'best'; it is one of random, qmc, tpe, nsga2"):
        sweep(checkpoint, EDGE, {"tokens": [1, 2]}, sample=1, sampler="best")
    with pytest.raises(InputError, match="no point with figures"):
        draw_sweep([], "", "")
