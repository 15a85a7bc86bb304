"""Rounding to few bits: grids against brute force, compensation against a textbook one, and never worse than nearest."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gblr_hw.conversion.bits.compensate import _moved, round_compensating
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.weights.bits.choose_steps import fitting_grid
from gblr_hw.weights.bits.grid import Grid, Rounded, largest_code, plain_grid, round_nearest
from simulator.base.errors import InputError
from simulator.machine.machine import MAX_COLUMN_SHIFT


def problem(m: int, n: int, seed: int = 0, *, weighted: bool = True) -> FitProblem:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(n, n)) * np.exp(rng.normal(size=(n, 1)))
    matrix = rng.normal(size=(m, n)) * np.exp(rng.normal(size=(1, n)))
    return FitProblem(matrix, mix @ mix.T + 0.1 * np.eye(n) if weighted else None, 4, 4)


def error(given_problem: FitProblem, rounded: Rounded) -> float:
    return given_problem.squared_norm(given_problem.matrix - rounded.matrix())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 13), st.integers(2, 8), st.sampled_from([None, 1, 3, 4, 20]), st.integers(0, 99)
)
def test_codes_and_shifts_are_in_range_and_the_matrix_is_theirs(
    m: int, n: int, bits: int, group: int | None, seed: int
) -> None:
    matrix = problem(m, n, seed).matrix
    matrix[0, : n // 2] = 0
    grid = fitting_grid(matrix, bits, group)
    rounded = round_nearest(matrix, grid)
    wide = n if group is None else group
    assert grid.shift.shape == (m, -(-n // wide)) and grid.shift.min() >= 0 and grid.shift.max() <= MAX_COLUMN_SHIFT
    assert (grid.step > 0).all() and np.abs(rounded.codes).max() <= largest_code(bits)
    for i, j in itertools.product(range(m), range(n)):
        spacing = grid.step[i] * 2.0 ** grid.shift[i, j // wide]
        assert rounded.matrix()[i, j] == rounded.codes[i, j] * spacing
        codes = np.arange(-largest_code(bits), largest_code(bits) + 1)
        assert abs(matrix[i, j] - rounded.matrix()[i, j]) == pytest.approx(np.abs(codes * spacing - matrix[i, j]).min())


def test_a_grid_against_trying_them_all() -> None:
    """One row of two groups, three bits: no step of sixteen an octave, with any shifts, loses less."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        matrix, worth = rng.normal(size=(1, 6)) * [1, 1, 1, 5, 5, 5], rng.uniform(0.1, 1, 6)
        found = round_nearest(matrix, fitting_grid(matrix, 3, 3, worth))
        lost = (worth * (matrix - found.matrix()) ** 2).sum()
        for part, shifts in itertools.product(range(-160, 80), ((0, 0), (0, 1), (1, 0), (0, 2), (2, 0), (0, 3))):
            grid = Grid(np.array([2.0 ** (part / 16)]), np.array([shifts]), 3, 3)
            other = (worth * (matrix - round_nearest(matrix, grid).matrix()) ** 2).sum()
            assert lost <= other * (1 + 1e-12)


def test_groups_with_steps_of_their_own_lose_less() -> None:
    matrix = problem(16, 64, weighted=False).matrix
    matrix[:, 32:] *= 16
    whole, groups = (round_nearest(matrix, fitting_grid(matrix, 4, group)) for group in (None, 32))
    plain = round_nearest(matrix, plain_grid(matrix, 4))
    small = [np.linalg.norm(matrix[:, :32] - one.matrix()[:, :32]) for one in (plain, whole, groups)]
    assert small[2] < 0.3 * small[1] <= 0.3 * small[0] * 1.01


def test_moved_errors_against_elimination_by_hand() -> None:
    """Column after column: fix its code, move its error along the inverse of what is left, take it out of the inverse."""
    given_problem = problem(5, 9)
    grid = plain_grid(given_problem.matrix, 4)
    moments = np.asarray(given_problem.moments)
    inverse = np.linalg.inv(moments + 0.01 * np.trace(moments) / 9 * np.eye(9))
    left, codes = given_problem.matrix.copy(), np.zeros((5, 9))
    for j in range(9):
        codes[:, j] = np.clip(np.rint(left[:, j] / grid.step), -7, 7)
        error_now = (left[:, j] - codes[:, j] * grid.step) / inverse[j, j]
        left -= np.outer(error_now, inverse[j])
        inverse -= np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    np.testing.assert_array_equal(_moved(given_problem, grid).codes, codes)


@pytest.mark.parametrize("group", [None, 4])
@pytest.mark.parametrize("seed", range(5))
def test_compensation_is_never_worse_than_nearest_and_no_single_code_helps(group: int | None, seed: int) -> None:
    given_problem = problem(7, 12, seed)
    nearest = round_nearest(
        given_problem.matrix, fitting_grid(given_problem.matrix, 3, group, np.diag(given_problem.moments))
    )
    found = round_compensating(given_problem, 3, group, sweeps=100)
    least = error(given_problem, found)
    assert least < 0.8 * error(given_problem, nearest)
    for i, j, change in itertools.product(range(7), range(12), (-1, 1)):
        codes = found.codes.copy()
        codes[i, j] += change
        if abs(codes[i, j]) <= 3:
            assert error(given_problem, Rounded(codes, found.grid)) >= least * (1 - 2e-6)
    for factor in (0.999, 1.001):
        grid = Grid(found.grid.step * factor, found.grid.shift, found.grid.group, 3)
        assert error(given_problem, Rounded(found.codes, grid)) >= least * (1 - 2e-6)


def test_compensation_is_near_the_best_of_all_codes() -> None:
    """One output of five inputs on three bits: all 7^5 codes at the steps that were found."""
    ratios = []
    for seed in range(8):
        given_problem = problem(1, 5, seed)
        found = round_compensating(given_problem, 3)
        codes = np.array(list(itertools.product(range(-3, 4), repeat=5)), np.int8)
        left = given_problem.matrix - codes * found.grid.step
        best = ((left @ np.asarray(given_problem.moments)) * left).sum(axis=1).min()
        ratios.append(error(given_problem, found) / best)
        assert ratios[-1] >= 1 - 1e-9
    assert np.median(ratios) < 1.2


def test_without_moments_it_is_nearest_and_what_is_on_a_grid_stays() -> None:
    plain = problem(6, 10, weighted=False)
    nearest = round_nearest(plain.matrix, fitting_grid(plain.matrix, 4))
    np.testing.assert_array_equal(round_compensating(plain, 4).matrix(), nearest.matrix())
    rng = np.random.default_rng(0)
    codes = rng.integers(-7, 8, (6, 8)).astype(np.int8)
    codes[:, [0, 4]] = 7  # every group uses its grid to the end
    own = Rounded(codes, Grid(np.full(6, 0.25), rng.integers(0, 3, (6, 2)), 4, 4)).matrix()
    again = round_compensating(FitProblem(own, problem(1, 8).moments, 4, 4), 4, 4)
    np.testing.assert_array_equal(again.matrix(), own)


def test_what_is_refused() -> None:
    for bits in (1, 9):
        with pytest.raises(InputError, match=f"bits: found {bits}; codes have 2 to 8 bits"):
            fitting_grid(np.ones((2, 2)), bits)
