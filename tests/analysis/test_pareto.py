"""The front and the hypervolume against their definitions, in exact arithmetic."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.tables.pareto import hypervolume, pareto_front
from simulator.base.errors import InputError

MAGNITUDES = st.sampled_from(
    [0.0, -0.0, 1e-12, 2e-12, 0.5, 1.0, np.nextafter(1.0, 2.0), 3.0, 1e12, 1e12 + 1, -1e-12, -1e12]
)
VALUES = st.one_of(MAGNITUDES, st.integers(-3, 3).map(float), st.floats(-1e15, 1e15))


@st.composite
def clouds(draw, most_objectives=4, most_points=12, values=VALUES):
    count = draw(st.integers(1, most_objectives))
    senses = draw(st.lists(st.sampled_from(["min", "max"]), min_size=count, max_size=count))
    rows = draw(st.lists(st.lists(values, min_size=count, max_size=count), max_size=most_points))
    rows += draw(st.lists(st.sampled_from(rows), max_size=4)) if rows else []
    return rows, senses


def dominates(a, b, senses):
    signs = [1 if s == "min" else -1 for s in senses]
    no_worse = all(s * x <= s * y for s, x, y in zip(signs, a, b, strict=True))
    return no_worse and any(s * x < s * y for s, x, y in zip(signs, a, b, strict=True))


def exact_hypervolume(rows, senses, reference):
    """Sum of all cells of the grid through the points that some point dominates."""
    signs = [1 if s == "min" else -1 for s in senses]
    costs = [[s * Fraction(x) for s, x in zip(signs, row, strict=True)] for row in rows]
    corner = [s * Fraction(x) for s, x in zip(signs, reference, strict=True)]
    axes = [sorted({c[d] for c in costs if c[d] < corner[d]} | {corner[d]}) for d in range(len(senses))]
    total = Fraction(0)
    for cell in itertools.product(*(list(itertools.pairwise(axis)) for axis in axes)):
        if any(all(x <= low for x, (low, _) in zip(c, cell, strict=True)) for c in costs):
            volume = Fraction(1)
            for low, high in cell:
                volume *= high - low
            total += volume
    return total


@settings(deadline=None, max_examples=300)
@given(clouds())
def test_front_is_what_nothing_dominates(cloud):
    rows, senses = cloud
    expected = [i for i, a in enumerate(rows) if not any(dominates(b, a, senses) for b in rows)]
    assert pareto_front(rows, senses).tolist() == expected


@settings(deadline=None, max_examples=150)
@given(clouds(most_objectives=3, most_points=6), st.data())
def test_hypervolume_is_the_sum_of_dominated_cells(cloud, data):
    rows, senses = cloud
    reference = data.draw(st.lists(VALUES, min_size=len(senses), max_size=len(senses)))
    assert hypervolume(rows, senses, reference) == pytest.approx(
        float(exact_hypervolume(rows, senses, reference)), rel=1e-12, abs=0
    )


def test_mixed_magnitudes_keep_their_differences():
    rows = [(1e12, 1e-12), (1e12 + 1, 2e-12), (1e12 + 2, 1.5e-12)]
    assert pareto_front(rows, ("min", "max")).tolist() == [0, 1]
    assert hypervolume(rows, ("min", "max"), (1e12 + 2, 0.0)) == pytest.approx(1e-12 + 2e-12, rel=1e-14)


def test_duplicates_stay_together():
    assert pareto_front([(1, 1), (2, 2), (1, 1), (3, 2)], ("min", "max")).tolist() == [0, 1, 2]
    assert pareto_front([(1, 1), (1, 1)], ("min", "max")).tolist() == [0, 1]


def test_no_points():
    assert pareto_front([], ("min", "max")).tolist() == []
    assert hypervolume(np.zeros((0, 3)), ("min",) * 3, (1, 1, 1)) == 0.0


def test_many_points_in_two_objectives():
    x = np.random.default_rng(0).permutation(200_000).astype(float)
    rows = np.stack([x, -x], axis=1)
    assert len(pareto_front(rows, ("min", "min"))) == len(x)
    assert pareto_front(rows, ("min", "max")).tolist() == [int(np.argmin(x))]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_must_be_finite(bad):
    with pytest.raises(InputError, match=r"values\[1, 0\]: found -?(nan|inf); objectives must be finite"):
        pareto_front([(1.0, 2.0), (bad, 1.0)], ("min", "max"))
    with pytest.raises(InputError, match=r"reference\[0, 1\].*must be finite"):
        hypervolume([(1.0, 2.0)], ("min", "max"), (3.0, bad))


def test_shapes_and_senses_are_checked():
    with pytest.raises(InputError, match=r"shape \(2, 2\); the shape must be \(points, 3\)"):
        pareto_front([(1, 2), (3, 4)], ("min",) * 3)
    with pytest.raises(InputError, match='found \'less\'; a sense is "min" or "max"'):
        pareto_front([(1, 2)], ("min", "less"))
    with pytest.raises(InputError, match=r"reference: found shape \(3,\)"):
        hypervolume([(1, 2)], ("min", "max"), (1, 2, 3))
    with pytest.raises(InputError, match="volume must fit into float64"):
        hypervolume([(-1e300, -1e300)], ("min", "min"), (1e300, 1e300))
