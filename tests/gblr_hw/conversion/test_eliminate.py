"""Backward elimination of ranks: its losses are those of a refit, and near the best choice of ranks there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gblr_hw.conversion.fit.choose_chunks import share_tiles
from gblr_hw.conversion.fit.eliminate import _eliminate, _eliminate_groups, elimination_curve


def _problem(rng: np.random.Generator, ranks: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    basis, wanted = rng.normal(size=(ranks + 5, ranks)), rng.normal(size=(ranks + 5, width))
    inverse = np.linalg.inv(basis.T @ basis)
    return basis, wanted, inverse


def _left(basis: np.ndarray, wanted: np.ndarray, kept: np.ndarray) -> float:
    if len(kept) == 0:
        return float((wanted**2).sum())
    solution = np.linalg.lstsq(basis[:, kept], wanted, rcond=None)[0]
    return float(((wanted - basis[:, kept] @ solution) ** 2).sum())


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 9), st.integers(0, 999))
def test_losses_are_those_of_refitting_what_is_kept(ranks: int, width: int, seats: int, seed: int) -> None:
    basis, wanted, inverse = _problem(np.random.default_rng(seed), ranks, width)
    order, losses = elimination_curve(inverse, inverse @ basis.T @ wanted, seats)
    assert sorted(order) == list(range(ranks))
    all_ranks = _left(basis, wanted, np.arange(ranks))
    for tiles, loss in enumerate(losses):
        kept = order[max(0, ranks - seats * tiles) :] if tiles else order[:0]
        assert loss == pytest.approx(_left(basis, wanted, kept) - all_ranks, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("groups", [1, 2, 5])
def test_groups_leave_whole_and_lose_what_refitting_says(groups: int) -> None:
    for seed in range(10):
        basis, wanted, inverse = _problem(np.random.default_rng(seed), 3 * groups, 2)
        order, losses = elimination_curve(inverse, inverse @ basis.T @ wanted, 3, grouped=True)
        assert (order.reshape(-1, 3) % 3 == [0, 1, 2]).all()
        all_ranks = _left(basis, wanted, np.arange(3 * groups))
        least = [
            min(_left(basis, wanted, np.flatnonzero(np.isin(np.arange(3 * groups) // 3, some))) for some in chosen)
            for chosen in ([*itertools.combinations(range(groups), kept)] for kept in range(groups + 1))
        ]
        for kept, loss in enumerate(losses):
            left = _left(basis, wanted, order[3 * (groups - kept) :])
            assert loss == pytest.approx(left - all_ranks, rel=1e-6, abs=1e-8)
            # The first to go is the best one to go; further on the order is greedy.
            assert left <= 1.25 * least[kept]
        assert losses[-2] + all_ranks == pytest.approx(least[-2])


def test_close_to_the_best_subset() -> None:
    """Squared error above the best subset's, as a share of it: 0.7 % on average over these cases, 12 % at worst."""
    gaps = []
    for seed in range(20):
        basis, wanted, inverse = _problem(np.random.default_rng(seed), 8, 2)
        order, _ = elimination_curve(inverse, inverse @ basis.T @ wanted, 1)
        for kept in range(1, 8):
            best = min(_left(basis, wanted, np.array(some)) for some in itertools.combinations(range(8), kept))
            gaps.append(_left(basis, wanted, order[8 - kept :]) / best - 1)
    assert min(gaps) > -1e-9
    assert np.mean(gaps) < 0.02


def test_one_compiled_signature() -> None:
    rng = np.random.default_rng(0)
    for ranks in (3, 30):
        basis, wanted, inverse = _problem(rng, ranks, 4)
        elimination_curve(inverse.T, (inverse @ basis.T @ wanted)[:, ::2], 4)
        elimination_curve(inverse.T, (inverse @ basis.T @ wanted)[:, ::2], 3, grouped=True)
    assert len(_eliminate.signatures) == len(_eliminate_groups.signatures) == 1


@given(st.lists(st.lists(st.floats(0, 10), min_size=1, max_size=5), min_size=1, max_size=4), st.integers(0, 12))
def test_shared_tiles_use_the_budget_and_are_best_on_convex_curves(drops: list[list[float]], budget: int) -> None:
    # Losses that fall by less and less: there the steepest descent is exact.
    curves = [np.append(np.cumsum(sorted(drop))[::-1], 0.0) for drop in drops]
    shares = share_tiles(curves, budget)
    assert sum(shares) == min(budget, sum(len(curve) - 1 for curve in curves))
    found = sum(curve[share] for curve, share in zip(curves, shares, strict=True))
    choices = itertools.product(*(range(len(curve)) for curve in curves))
    best = min(sum(c[s] for c, s in zip(curves, choice, strict=True)) for choice in choices if sum(choice) <= budget)
    assert found == pytest.approx(best, abs=1e-9)
