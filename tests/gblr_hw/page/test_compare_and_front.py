"""`compare` and `front` from Python: what the commands say, of programs and points in memory too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from analysis.page.verdicts import verdicts
from analysis.tables.records import NetworkPoint, save_points
from gblr_hw import compare, front, lower
from gblr_hw.page.results import read_results
from gblr_hw.sweeps.files import save_rows
from gblr_hw.sweeps.measure import MEASURED
from simulator import Machine, Program, simulate
from simulator.base.errors import InputError

EDGE = Machine.load("edge-16")
SLOW = EDGE.with_(name="slow", dram={"gb_per_s": 1.6})


def program(machine: Machine) -> Program:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 300)).eval()
    return lower(model, machine, example_inputs=torch.randn(9, 24))


def point(name: str, cycles: int, accuracy: float, machine: str = "m") -> NetworkPoint:
    return NetworkPoint(name, "dense", accuracy, 10, machine, cycles, 1.0, 2.0)


def test_programs_reports_and_files_are_compared_alike(tmp_path: Path) -> None:
    fast, slow = program(EDGE), program(SLOW)
    slow.save(tmp_path / "slow.program")
    found = compare([fast, slow])
    assert found.names == ("program 1 on edge-16", "program 2 on slow")
    assert found.rows[0].values == (simulate(fast, EDGE).latency_cycles, simulate(slow, SLOW).latency_cycles)
    named = compare({"a": simulate(fast, EDGE), "b": tmp_path / "slow.program"})
    assert named.rows == found.rows and named.names == ("a on edge-16", "b on slow")
    assert compare([fast, tmp_path / "slow.program"]).names == ("program on edge-16", "slow on slow")
    head, columns, _, whole, *operators = repr(named).splitlines()
    assert head == "cycles of 2 programs, operator by operator" and columns.endswith("mostly of")
    assert whole.split()[-2] == "wait_weights" and len(operators) == 2
    assert next(iter(named.to_dataframe()["operator"])) == "all"


def test_other_measures_are_in_whole_numbers_without_a_cause() -> None:
    found = compare([program(EDGE), program(EDGE)], by="energy")
    assert found.table().columns[-1] == "difference"
    assert found.table().rows[0][1] == round(simulate(program(EDGE), EDGE).energy_pj)
    with pytest.raises(InputError, match="by: found 'joules'; it is one of cycles, bytes, energy, macs"):
        compare([program(EDGE), program(EDGE)], by="joules")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="two or more are compared"):
        compare([program(EDGE)])


def test_networks_are_compared_on_one_machine_at_a_time(tmp_path: Path) -> None:
    points = [point("a", 10, 0.9), point("b", 5, 0.8), point("c", 12, 0.9), point("d", 50, 0.1, "other")]
    found = front(points)
    assert [one.name for one in found.points] == ["b", "a", "d"] and [one.name for one in found.others] == ["c"]
    assert repr(found).splitlines()[0] == "front of 4 points: least latency_cycles; most accuracy"
    save_points(points[:2], tmp_path / "p.json")
    assert front([tmp_path / "p.json", *points[2:]]) == found
    assert [one.name for one in front(points, most=["accuracy"]).points] == ["a", "c", "d"]
    assert found.plot().axes and list(found.to_dataframe()["seed"]) == [0, 0, 0]


def test_rows_of_a_sweep_are_compared_in_what_is_named() -> None:
    rows = [
        {"source": "n", "array.rows": 8, "latency_cycles": 9, "energy_pj": 1.0, "area_mm2": 1.0, "error": None},
        {"source": "n", "array.rows": 16, "latency_cycles": 5, "energy_pj": 2.0, "area_mm2": 3.0, "error": None},
        {"source": "n", "array.rows": 32, "latency_cycles": 7, "energy_pj": 3.0, "area_mm2": 2.0, "error": None},
        {"source": "n", "array.rows": 64, "latency_cycles": None, "energy_pj": None, "area_mm2": None, "error": "no"},
    ]
    found = front(rows)
    assert found.table().columns == ["array.rows", "latency_cycles", "energy_pj"]
    assert [row[0] for row in found.table().rows] == [16, 8]
    assert [row["array.rows"] for row in front(rows, least=["latency_cycles", "area_mm2"]).points] == [16, 32, 8]
    (axes,) = found.plot().axes
    assert axes.get_ylim()[1] > 3e-6


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_a_file_of_a_sweep_is_read_whatever_it_is(ending: str, tmp_path: Path) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    figures = dict.fromkeys(MEASURED)
    rows = [
        {
            "source": "n",
            "family": "dense",
            "budget": None,
            **figures,
            "latency_cycles": 9,
            "latency_ms": 2.0,
            "energy_pj": 1.0,
        },
        {
            "source": "n",
            "family": "lattice",
            "budget": 0.5,
            **figures,
            "latency_cycles": 5,
            "latency_ms": 1.0,
            "energy_pj": 2.0,
        },
    ]
    save_rows(rows, tmp_path / f"points.{ending}", {})
    assert list(front(tmp_path / f"points.{ending}").points) == rows[::-1]
    content = read_results([tmp_path / f"points.{ending}"], "", "1")
    assert list(content.swept) == rows and list(content.fields) == ["family", "budget"] and not content.points
    said = verdicts(content)[""]
    assert "(family lattice, budget 0.5)" in said and "(family dense)" in said


def test_points_that_cannot_be_compared_are_refused() -> None:
    row = {"latency_cycles": 5, "energy_pj": 2.0}
    with pytest.raises(InputError, match="points: found none"):
        front([])
    with pytest.raises(InputError, match="networks and a sweep's rows; points of one kind"):
        front([row, point("a", 1, 0.5)])
    with pytest.raises(InputError, match="field 'area_mm2': found None; .*Fields are latency_cycles, energy_pj"):
        front([row], least=["area_mm2"])
