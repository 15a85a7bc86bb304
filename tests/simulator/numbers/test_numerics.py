"""Quantisation, saturation and fixed-point requantisation against exact arithmetic with Python integers and fractions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simulator.base.errors import InputError
from simulator.numbers.numerics import code_limit, fixed_point, quantise, requantise, saturate

ratios = st.floats(2.0**-36, 2.0**20)
sums = st.integers(-(2**31), 2**31 - 1)


@pytest.mark.parametrize(("bits", "limit"), [(2, 1), (4, 7), (8, 127)])
def test_symmetric_types_leave_out_the_lowest_code(bits, limit):
    assert code_limit(bits) == limit
    assert quantise(np.array([-1e9, 1e9]), 1.0, bits).tolist() == [-limit, limit]


def test_quantise_rounds_half_to_even():
    assert quantise(np.array([0.5, 1.5, 2.5, -0.5, -1.5, 0.49, 0.51]), 1.0, 8).tolist() == [0, 2, 2, 0, -2, 0, 1]
    assert quantise(np.array([[1.0, 1.0]]), np.array([0.25, 4.0]), 8).tolist() == [[4, 0]]


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_saturation_is_twos_complement(bits):
    edges = np.array([2 ** (bits - 1), 2 ** (bits - 1) - 1, -(2 ** (bits - 1)), -(2 ** (bits - 1)) - 1])
    assert saturate(edges, bits).tolist() == [edges[1], edges[1], edges[2], edges[2]]


@given(ratios)
def test_fixed_point_is_within_half_a_unit(ratio):
    multiplier, shift = (int(x) for x in fixed_point(np.array(ratio)))
    assert 2**25 <= multiplier < 2**26
    assert abs(Fraction(multiplier, 2**shift) - Fraction(ratio)) <= Fraction(ratio) / 2**26


def test_fixed_point_of_zero_and_of_tiny_ratios():
    multiplier, shift = fixed_point(np.array([0.0, 2.0**-40, 2.0**-70, 1e-300]))
    assert (shift >= 1).all()
    assert (shift <= 62).all()
    assert multiplier[0] == 0
    assert multiplier[1] / 2.0 ** shift[1] == 2.0**-40
    assert multiplier[2:].tolist() == [0, 0]


def test_fixed_point_carries_into_the_next_power():
    multiplier, shift = fixed_point(np.array([np.nextafter(1.0, 0.0)]))
    assert (int(multiplier[0]), int(shift[0])) == (2**25, 25)


def test_a_ratio_that_no_right_shift_expresses_is_refused():
    assert fixed_point(np.array([2.0**25 - 1]))[1].tolist() == [1]
    with pytest.raises(InputError, match=r"a ratio of 3.35544e\+07: multipliers lie below 2\^25|3.35544e\+07"):
        fixed_point(np.array([1.0, 2.0**25]))


@given(sums, ratios, st.sampled_from([4, 8]))
@example(2**31 - 1, 2.0**20, 8)
@example(-(2**31), 2.0**20, 8)
@example(-(2**31), np.nextafter(1.0, 0.0), 8)
@example(-1, 0.5, 8)
@example(1, 0.5, 8)
def test_requantise_is_exact_rounding_half_up(value, ratio, bits):
    multiplier, shift = fixed_point(np.array([ratio]))
    exact = floor(Fraction(value * int(multiplier[0]), 2 ** int(shift[0])) + Fraction(1, 2))
    limit = code_limit(bits)
    assert requantise(np.array([value]), multiplier, shift, bits).tolist() == [min(max(exact, -limit), limit)]
