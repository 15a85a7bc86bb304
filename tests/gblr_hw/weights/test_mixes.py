"""Mixes of ranks: levels, sums along chains, what is in use, and what factors refuse."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from gblr_hw.weights.mixes import Mixes, carried, carried_back, composed, in_use, joined, mix_levels
from simulator.base.errors import InputError
from tests.drawn.mixed_layers import blast_factors, chain_factors, matrix_and_bias
from tests.drawn.random_programs import generator, seeds


@settings(deadline=None, max_examples=60)
@given(seeds)
def test_chains_against_the_matrix_of_mixes(seed):
    """The sums along all chains are (1 - M)^-1, M the matrix of mixes; the level is its longest power that is not zero."""
    rng = generator(seed)
    factors = chain_factors(rng, int(rng.integers(1, 30)), int(rng.integers(1, 30)))
    mixes, ranks = factors.mixes, factors.ranks
    table = np.zeros((ranks, ranks))
    table[mixes.target, mixes.source] = mixes.value
    chains = np.linalg.inv(np.eye(ranks) - table)
    scale = max(1.0, np.abs(chains).max())
    np.testing.assert_allclose(carried(factors.v, mixes), chains @ factors.v, atol=1e-6 * scale)
    np.testing.assert_allclose(carried_back(factors.u.T, mixes), chains.T @ factors.u.T, atol=1e-6 * scale)
    paths, level = table != 0, np.zeros(ranks, int)
    reach = np.eye(ranks, dtype=bool)
    for length in range(1, ranks + 1):
        reach = (paths.astype(int) @ reach) > 0
        level[reach.any(axis=1)] = length
    np.testing.assert_array_equal(mix_levels(ranks, mixes.source, mixes.target), level)
    linked = np.linalg.matrix_power(np.eye(ranks) + paths, ranks) > 0
    fed, used = linked @ factors.reads.any(axis=1) > 0, linked.T @ factors.writes.any(axis=1) > 0
    np.testing.assert_array_equal(in_use(factors.reads, factors.writes, mixes.source, mixes.target), fed & used)
    both = composed(mixes, mixes)
    twice = np.zeros((ranks, ranks))
    np.add.at(twice, (both.target, both.source), both.value)
    np.testing.assert_allclose(twice, table @ table, atol=1e-9 * scale**2)
    doubled = joined(mixes, mixes)
    np.testing.assert_array_equal(np.stack([doubled.source, doubled.target]), np.stack([mixes.source, mixes.target]))
    np.testing.assert_allclose(doubled.value, 2 * mixes.value)
    matrix, _ = matrix_and_bias(factors)
    np.testing.assert_allclose(factors.matrix(), matrix, atol=1e-5 * max(1, np.abs(matrix).max()))
    np.testing.assert_allclose(
        factors.in_natural_order().stored_matrix(), matrix, atol=1e-5 * max(1, np.abs(matrix).max())
    )


def test_blast_is_its_formula():
    """y_i = B_i sum_j D_ij (C_j x_j)."""
    factors = blast_factors(np.random.default_rng(3), 12, 20, 2, 3)
    b, c, d = factors.u, factors.v, factors.mix_value.reshape(2, 3, 2)  # (i, k, j)
    x, y = np.random.default_rng(4).normal(size=12), np.zeros(20)
    for i in range(2):
        z = sum(d[i, :, j] * (c[3 * j : 3 * j + 3, 6 * j : 6 * j + 6] @ x[6 * j : 6 * j + 6]) for j in range(2))
        y[10 * i : 10 * i + 10] = b[10 * i : 10 * i + 10, 6 + 3 * i : 9 + 3 * i] @ z
    np.testing.assert_allclose(factors.matrix() @ x, y, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mix_source": [0], "mix_target": [1, 2]}, "'mix_source': found 1 sources, 2 targets and 1 values"),
        ({"mix_source": [6]}, "'mix_source': found 6; ranks are 0 to 5"),
        ({"mix_target": [-1]}, "'mix_target': found -1"),
        (
            {"mix_source": [0, 0], "mix_target": [1, 1], "mix_value": [1, 1]},
            "found 0 into 1 behind 0 into 1; mixes are sorted",
        ),
        ({"mix_source": [0, 1], "mix_target": [2, 1], "mix_value": [1, 1]}, "found 1 into 1 behind 0 into 2"),
        ({"mix_value": [np.nan]}, "'mix_value': found NaN or infinity"),
        ({"mix_source": [1]}, "'mix_target': found a circle through rank 1; no rank is mixed into itself"),
        ({"mix_source": [2, 1], "mix_target": [1, 2], "mix_value": [1, 1]}, "found a circle through rank 2"),
        ({"output_order": [0, 0, 1, 2]}, "'output_order': found 4 entries; it names each of 4 outputs once"),
    ],
)
def test_what_factors_refuse(fields, message):
    factors = blast_factors(np.random.default_rng(0), 4, 4, 1, 3)
    given_fields = {"mix_source": [0], "mix_target": [1], "mix_value": [1.0], **fields}
    with pytest.raises(InputError, match=re.escape(message)):
        replace(factors, **{name: np.array(values) for name, values in given_fields.items()})


def test_edges_in_any_order_are_sorted_and_added_up():
    mixes = Mixes.of(np.array([3, 1, 3]), np.array([5, 4, 5]), np.array([1.0, 2.0, 0.5]))
    assert [column.tolist() for column in mixes] == [[1, 3], [4, 5], [2.0, 1.5]]
