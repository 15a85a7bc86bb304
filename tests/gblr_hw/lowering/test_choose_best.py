"""The choice among forms: bounds that hold, the same choice as timing them all, kernels that are compiled once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from gblr_hw.lowering.choose_best import _least_cycles, _place, choose_best
from gblr_hw.lowering.passes import build_schedule, colour_banks, group_ranks, quantise_weights, rank_scales
from gblr_hw.lowering.passes.block_tokens import block_tokens
from gblr_hw.lowering.passes.choose_form import candidate_forms, numbers, outline
from gblr_hw.lowering.passes.drop_empty import drop_empty
from gblr_hw.lowering.passes.evaluate_masks import evaluate_masks
from gblr_hw.lowering.passes.plan import LayerPlan
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.numbers.numerics import code_limit, quantise
from tests.drawn.strategies import case, generator, layer_weights, seeds, small_machine


def random_plan(seed: int) -> LayerPlan:
    rng = generator(seed)
    machine = small_machine(rng)
    return drop_empty(evaluate_masks("l", layer_weights(rng, machine), machine, int(rng.choice([1, 9, 60]))))


@settings(deadline=None, max_examples=60)
@given(seed=seeds)
def test_the_bound_holds_and_the_best_of_all_is_chosen(seed: int) -> None:
    plan = random_plan(seed)
    costs = []
    for index, form in enumerate(candidate_forms(plan)):
        try:
            outlined = block_tokens(outline(plan, form))
            cost = _place(form, outlined, 10**9).cost
        except InputError:
            continue
        assert _least_cycles(outlined) <= cost[0]
        costs.append((cost, index, form))
    if not costs:
        with pytest.raises(InputError):
            choose_best(plan, 10**9, explain=False)
        return
    wanted = min(costs, key=lambda entry: entry[:2])[2]
    for explain in (False, True):
        best = choose_best(plan, 10**9, explain).best
        np.testing.assert_array_equal(best.form.alive, wanted.alive)
        np.testing.assert_array_equal(best.form.tiles, wanted.tiles)


@settings(deadline=None, max_examples=40)
@given(seed=seeds)
def test_an_outline_is_its_form_without_numbers(seed: int) -> None:
    plan = random_plan(seed)
    matrix = plan.factors.matrix()
    for form in candidate_forms(plan):
        outlined, factors = outline(plan, form), numbers(plan, form)
        np.testing.assert_allclose(factors.matrix(), matrix, atol=1e-4)
        for name in ("reads", "writes", "dense_support"):
            np.testing.assert_array_equal(getattr(outlined.factors, name), getattr(factors, name))
        counted = LayerPlan(plan.name, factors, plan.machine, plan.tokens).structure
        for name in ("reads", "writes", "tiles"):
            np.testing.assert_array_equal(getattr(outlined.structure, name), getattr(counted, name))


def test_forms_that_cannot_win_are_passed_over() -> None:
    passed_over = 0
    for seed in range(80):
        try:
            summary = choose_best(random_plan(seed), 10**9, explain=True).summary
        except InputError:
            continue
        assert summary.count("*") == 1
        passed_over += summary.count("at least")
    assert passed_over > 0


def swapped_until_no_better(touch: np.ndarray, group: np.ndarray, groups: int, sweeps: int) -> int:
    """group_ranks._improve as its docstring has it: pairs of (group, chunk) are counted anew for every swap."""

    def pairs() -> int:
        return sum(len(set(np.nonzero(touch[group == g])[1])) for g in range(groups))

    for _ in range(sweeps):
        before = group.copy()
        for a in range(len(group)):
            for b in range(a + 1, len(group)):
                now = pairs()
                group[[a, b]] = group[[b, a]]
                if pairs() >= now:
                    group[[a, b]] = group[[b, a]]
        if (before == group).all():
            break
    return pairs()


@pytest.mark.parametrize("seed", range(12))
def test_swaps_between_groups_follow_the_plain_definition(seed: int) -> None:
    rng = generator(seed)
    ranks, chunks, size = int(rng.integers(2, 14)), int(rng.choice([1, 5, 64, 65, 130])), int(rng.integers(1, 5))
    touch = rng.random((ranks, chunks)) < rng.choice([0.1, 0.4])
    start = rng.permutation(ranks) // size
    fast, slow = start.copy(), start.copy()
    groups = ceil_div(ranks, size)
    tiles = group_ranks._improve(group_ranks._packed(touch), chunks, fast, groups, 3)
    assert tiles == swapped_until_no_better(touch, slow, groups, 3)
    np.testing.assert_array_equal(fast, slow)


def test_bits_are_counted() -> None:
    rng = generator(0)
    for value in [0, 1, 2**63, 2**64 - 1, *rng.integers(0, 2**63, 200).tolist()]:
        assert group_ranks._ones(np.uint64(value)) == value.bit_count()


def test_codes_are_those_of_quantise() -> None:
    """Ties, saturation and zeros: the kernel rounds as numerics.quantise does."""
    rng = generator(1)
    step = rng.random(200) + 0.01
    values = np.concatenate([(rng.integers(-140, 140, 100) + 0.5) * step[:100], rng.normal(size=100) * 50])
    limit = code_limit(8)
    codes = [rank_scales.code(float(v), float(s), limit) for v, s in zip(values, step, strict=True)]
    np.testing.assert_array_equal(codes, quantise(values, step, 8))


def test_kernels_are_compiled_once() -> None:
    for seed in range(12):
        case(seed, layers=2)
    kernels: tuple[Any, ...] = (
        build_schedule._runs,
        build_schedule._row_cycles,
        colour_banks._balance,
        group_ranks._greedy_order,
        group_ranks._improve,
        quantise_weights._largest_rows,
        rank_scales._sums_of_squares,
        quantise_weights._pack,
    )
    assert {kernel.__name__: len(kernel.signatures) for kernel in kernels if len(kernel.signatures) != 1} == {}
