"""Sampled designs: the same points for a seed, and as evenly spread or as good as they say."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest

from gblr_hw.sweeps.axes import Axis, Settings
from gblr_hw.sweeps.measure import MEASURED, Row
from gblr_hw.sweeps.samplers import OBJECTIVES, SAMPLERS, Sample, sampled
from gblr_hw.sweeps.space import Space
from simulator.base.errors import InputError

SPACE = Space.of([Axis.parse(text) for text in ("array.rows=1,2,3,4,5,6,7,8", "tokens=1,2,3,4,5,6,7,8", "machine=a,b")])


def rows(points: Sequence[Settings]) -> list[Row]:
    """Fewer cycles in more rows, less energy in fewer tokens; machine b holds nothing of 8 rows."""
    found = []
    for one in points:
        row, tokens = int(one["array.rows"] or 0), int(one["tokens"] or 0)
        bad = one["machine"] == "b" and row == 8
        figures = {"latency_cycles": 100 - row, "energy_pj": float(tokens), "error": None}
        found.append({**one, **dict.fromkeys(MEASURED), **({"error": "too small"} if bad else figures)})
    return found


def rows_of(points: Sequence[Settings]) -> list[Row]:
    """Settings alone."""
    return [dict(one) for one in points]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_seed_gives_the_same_distinct_points_in_the_order_of_the_product(sampler: str) -> None:
    pytest.importorskip("optuna")
    first, again, other = (sampled(SPACE, Sample(24, sampler, seed), rows) for seed in (3, 3, 4))
    assert first == again != other and len(first) == 24
    places = [SPACE.all().index({name: row[name] for name in SPACE.fields}) for row in first]
    assert places == sorted(set(places))


def test_qmc_spreads_points_evenly() -> None:
    pytest.importorskip("optuna")
    values = ",".join(map(str, range(1, 65)))
    grid = Space.of([Axis.parse(f"array.rows={values}"), Axis.parse(f"tokens={values}")])

    def emptiest(sampler: str) -> int:
        """The fewest points in any of 16 squares."""
        found = sampled(grid, Sample(64, sampler, 0), rows_of)
        at = np.array([[(row["array.rows"] - 1) // 16, (row["tokens"] - 1) // 16] for row in found])
        return int(np.histogram2d(*at.T, bins=(np.arange(5), np.arange(5)))[0].min())

    assert emptiest("qmc") >= 3 > emptiest("random")
    few = Space.of([Axis.parse("tokens=1,2,3"), Axis.parse("batch=1,2,3")])
    assert sampled(few, Sample(9, "qmc", 0), rows_of) == few.all()  # also what the sequence does not come to


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_search_finds_more_of_the_front_than_chance(sampler: str) -> None:
    pytest.importorskip("optuna")

    def mean(name: str) -> float:
        found = [row for row in sampled(SPACE, Sample(64, name, 0), rows) if row["error"] is None]
        return float(np.mean([sum(float(row[objective]) for objective in OBJECTIVES) for row in found]))

    assert mean(sampler) < mean("random") - 0.5


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_search_asks_for_as_many_at_a_time_whatever_measures_them(sampler: str) -> None:
    pytest.importorskip("optuna")
    asked: list[int] = []
    sampled(SPACE, Sample(40, sampler, 0), lambda points: (asked.append(len(points)), rows(points))[1])
    assert sum(asked) == 40 and max(asked) <= 16 and len(asked) > 2


def test_without_optuna_its_samplers_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"no package 'optuna'.*pip install 'gblr-hw\[codesign\]', or take random"):
        sampled(SPACE, Sample(2, "qmc", 0), rows)
    assert len(sampled(SPACE, Sample(2, "random", 0), rows)) == 2
