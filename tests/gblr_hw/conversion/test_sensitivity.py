"""Gradients' second moments against closed forms; tiles shared by expected loss against every other way to share them."""

from __future__ import annotations

import itertools
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gblr_hw.conversion.fit.fit_layer import QUICK, truncated_layer
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.conversion.fit.fit_weights import Converted, relative_error
from gblr_hw.conversion.fit_one import fit_one
from gblr_hw.conversion.from_dense import FitOptions
from gblr_hw.conversion.in_order.minding import minding
from gblr_hw.conversion.in_order.sensitivity import output_moments
from gblr_hw.conversion.in_order.share_by_loss import BADLY, Sensitivity, loss_by_tiles, share_by_loss
from simulator.base.errors import InputError


class Classifier(nn.Module):
    def __init__(self, *, logits: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.unused, self.last = nn.Linear(5, 6), nn.Linear(5, 2), nn.Linear(6, 4)
        self.logits = logits

    def forward(self, x: Tensor) -> object:
        y = self.last(self.first(x))
        return SimpleNamespace(logits=y) if self.logits else y


def test_of_logits_it_is_the_fisher_information() -> None:
    model, x = Classifier(), torch.randn(40, 500, 5)
    found = output_moments(model, list(x), ["first", "last"])
    with torch.no_grad():
        shares = model(x).logits.softmax(-1).reshape(-1, 4).double()
    wanted = (torch.diag_embed(shares) - shares[:, :, None] * shares[:, None, :]).mean(0).numpy()
    np.testing.assert_allclose(found["last"], wanted, atol=0.01)
    weight = model.last.weight.detach().double().numpy()
    np.testing.assert_allclose(found["first"], weight.T @ wanted @ weight, atol=0.01)
    assert all(one.requires_grad and one.grad is None for one in model.parameters())
    assert model.training


def test_a_head_of_a_vocabulary_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 16_385))
    with pytest.raises(
        InputError, match="layer '1': found 16,385 outputs; by loss a layer has at most 16,384: .* Exclude it"
    ):
        output_moments(model, [torch.randn(2, 2)], ["0", "1"])


def test_half_the_trace_is_the_divergence_that_a_small_error_makes() -> None:
    model, x = Classifier(), torch.randn(40, 500, 5)
    with torch.no_grad():
        dense = model(x).logits.log_softmax(-1).double()
        outputs = output_moments(model, list(x), ["first"])["first"]
        error = 0.05 * torch.randn(6, 5)
        model.first.weight.add_(error)
        moved = model(x).logits.log_softmax(-1).double()
    divergence = float((dense.exp() * (dense - moved)).sum(-1).mean())
    inputs = x.reshape(-1, 5).double()
    moments = (inputs.T @ inputs / len(inputs)).numpy()
    expected = 0.5 * np.trace(outputs @ error.double().numpy() @ moments @ error.double().numpy().T)
    assert expected == pytest.approx(divergence, rel=0.1, abs=1e-6)


def test_other_outputs_count_their_squares_and_padding_does_not_count() -> None:
    model, x = Classifier(logits=False), torch.randn(30, 200, 5)
    batches = list(x)
    masks = {id(one): torch.rand(200) < 0.5 for one in batches}
    found = output_moments(model, batches, ["first", "last"], rows=lambda batch: masks[id(batch)])
    np.testing.assert_allclose(found["last"], np.eye(4), atol=0.1)
    weight = model.last.weight.detach().double().numpy()
    np.testing.assert_allclose(found["first"], weight.T @ weight, atol=0.1)


def test_what_has_no_gradient_is_told() -> None:
    model = Classifier()
    with pytest.raises(InputError, match="layer 'unused': found no gradient"):
        output_moments(model, [torch.randn(3, 5)], ["first", "unused"])
    model.forward = lambda x: "nothing"  # type: ignore[method-assign, assignment]
    with pytest.raises(InputError, match="model: found returns str"):
        output_moments(model, [torch.randn(3, 5)], ["first"])


def problems() -> tuple[dict[str, FitProblem], dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    sizes = {"a": (8, 8), "b": (12, 8), "c": (8, 10)}
    made, outputs = {}, {}
    for scale, (name, (m, n)) in zip((5.0, 0.1, 1.0), sizes.items(), strict=True):
        x, g = rng.normal(size=(40, n)), scale * rng.normal(size=(60, m))
        matrix = rng.normal(size=(m, min(m, n))) * 2.0 ** -np.arange(min(m, n)) @ rng.normal(size=(min(m, n), n))
        made[name], outputs[name] = FitProblem(matrix, x.T @ x / 40, 4, 4), g.T @ g / 60
    return made, outputs


def test_losses_are_those_of_truncated_layers() -> None:
    made, outputs = problems()
    for name, problem in made.items():
        losses = loss_by_tiles(problem, outputs[name], whole_ranks=True)
        for tiles in range(len(losses) - 1):
            left = problem.matrix - truncated_layer(problem, tiles)[1].matrix()
            wanted = 0.5 * np.trace(outputs[name] @ left @ problem.moments @ left.T)
            # Four ranks at a time here, as a tile that is begun is paid.
            if tiles % (problem.chunks_in + problem.chunks_out) == 0:
                assert losses[tiles] == pytest.approx(wanted, rel=1e-6, abs=1e-9)
        assert losses[-1] == 0
        free = loss_by_tiles(problem, outputs[name], whole_ranks=False)
        assert (np.diff(free) <= 1e-12).all()
        assert (free <= losses + 1e-12).all()


@pytest.mark.parametrize("whole_ranks", [False, True])
def test_no_other_shares_lose_much_less(whole_ranks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gblr_hw.conversion.in_order.share_by_loss._BOUNDS", ())
    made, outputs = problems()
    curves = {name: loss_by_tiles(one, outputs[name], whole_ranks=whole_ranks) for name, one in made.items()}
    known = Sensitivity(outputs, {name: one.moments for name, one in made.items() if one.moments is not None})
    for budget in (6, 9, 13):
        shares = share_by_loss(made, known, budget, dict.fromkeys(made, 1), whole_ranks=whole_ranks)
        assert sum(shares.values()) <= budget
        assert all(1 <= count < len(curves[name]) for name, count in shares.items())
        ways = itertools.product(*(range(1, len(curve)) for curve in curves.values()))
        totals = [sum(c[t] for c, t in zip(curves.values(), way, strict=True)) for way in ways if sum(way) <= budget]
        found = sum(curves[name][count] for name, count in shares.items())
        assert found <= 1.25 * min(totals) + 1e-9
    with pytest.raises(InputError, match="tile budget: found 2 tiles for 3 layers"):
        share_by_loss(made, known, 2, dict.fromkeys(made, 1), whole_ranks=whole_ranks)


def test_no_layer_is_starved_where_the_budget_can_feed_all() -> None:
    """A layer that hardly counts keeps half of its output all the same, and what is left goes where it counts most."""
    made, outputs = problems()
    known = Sensitivity(outputs, {name: one.moments for name, one in made.items() if one.moments is not None})
    errors = {
        name: np.sqrt(loss_by_tiles(one, 2 * np.eye(len(one.matrix)), whole_ranks=False) / one.energy)
        for name, one in made.items()
    }
    sizes = {name: len(curve) - 1 for name, curve in errors.items()}
    for budget in range(1, sum(sizes.values()) + 1):
        shares = share_by_loss(made, known, budget, dict.fromkeys(made, 0), whole_ranks=False)
        assert sum(shares.values()) <= budget
        worst = max(float(errors[name][count]) for name, count in shares.items())
        for bound in (0.5, 0.6, 0.7, 0.8, 0.9):
            if sum(int(np.argmax(curve <= bound)) for curve in errors.values()) <= budget:
                assert worst <= bound, budget
                break
    free = {"a": 1.0, "b": 0.0, "c": 0.0}  # all for one, were it not for the others' errors
    alone = Sensitivity({name: free[name] * one for name, one in outputs.items()}, known.inputs)
    shares = share_by_loss(made, alone, 10, dict.fromkeys(made, 0), whole_ranks=False)
    assert max(float(errors[name][count]) for name, count in shares.items()) <= 0.5


def test_a_layer_that_its_gradients_would_ruin_is_fitted_in_its_own_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four outputs count, by gradients, and the others hardly do: with so few tiles too little is left of these."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 32))
    problem = FitProblem(rng.normal(size=(32, 32)), x.T @ x / 200, 8, 8)

    def approximate(one: FitProblem, family: str = "lattice") -> Converted:
        return fit_one(one, 10, family, FitOptions(QUICK), None)

    def error(first: int, others: float, family: str = "lattice") -> float:
        counts = np.diag(np.where(np.arange(32) < first, 1.0, others))
        return relative_error(problem, minding(counts, family, partial(approximate, family=family))(problem))

    plain = relative_error(problem, approximate(problem))
    assert plain == error(4, 0.0) < BADLY
    assert plain < error(16, 0.5) <= BADLY  # where nothing comes out badly what counts goes first
    # Ranks that write everything are fitted in all of the gradients' moments, and stay so.
    assert error(4, 0.0, "low_rank") > max(BADLY, relative_error(problem, approximate(problem, "low_rank")))
    monkeypatch.setattr("gblr_hw.conversion.in_order.minding.BADLY", 1.0)
    assert error(4, 0.0) > BADLY
