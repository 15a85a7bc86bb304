"""Conversion in order: moments written out, targets by ordinary least squares, and errors made up for."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gblr_hw.conversion.conversion import convert
from gblr_hw.conversion.covariances import collect_covariances
from gblr_hw.conversion.fit.fit_layer import Schedule
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.conversion.fit.fit_whole import tiles_of
from gblr_hw.conversion.fit_one import fit_one
from gblr_hw.conversion.from_dense import FitOptions
from gblr_hw.conversion.in_order.conversion_in_order import _fit, convert_in_order, measured
from gblr_hw.conversion.in_order.one_by_one import convert_by_loss
from gblr_hw.conversion.in_order.pair_moments import PairMoments, pair_moments, shrunk, stages
from gblr_hw.conversion.in_order.runs import Runs
from gblr_hw.weights.stored import DenseWeights, LatticeWeights
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

MACHINE = SimpleNamespace(rows=4, cols=4)
QUICK = Schedule(steps=3, sweeps=2, final_steps=1, final_sweeps=6)
ALL = FitOptions(QUICK)
NAMES = ("query", "key", "up", "down")
SUMS = {"down": "norm"}


class Block(nn.Module):
    """Two projections of one input, gated, and an MLP around which the input goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(16, 16), nn.Linear(16, 16, bias=False)
        self.up, self.down, self.norm = nn.Linear(16, 32), nn.Linear(32, 16), nn.LayerNorm(16)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.query(x) * torch.sigmoid(self.key(x))
        return self.norm(x + self.down(self.dropout(torch.relu(self.up(x)))))


def made() -> tuple[Block, list[Tensor]]:
    torch.manual_seed(0)
    mix = torch.randn(16, 16) * torch.linspace(2, 0.1, 16)
    return Block(), [torch.randn(8, 10, 16) @ mix + 0.5 for _ in range(3)]


def output_error(model: nn.Module, found: dict, batches: list[Tensor]) -> float:
    other = copy.deepcopy(model).eval()
    with torch.no_grad():
        for name, weights in found.items():
            other.get_submodule(name).weight.copy_(weights.matrix())
            if weights.bias is not None:
                other.get_submodule(name).bias.copy_(weights.bias)
        wanted, given = (torch.cat([m.eval()(batch) for batch in batches]) for m in (model, other))
    return float((wanted - given).square().mean())


def test_layers_that_read_the_same_tensor_are_one_stage() -> None:
    model, batches = made()
    assert stages(model, batches, reversed(NAMES)) == [["query", "key"], ["up"], ["down"]]
    assert model.training
    with pytest.raises(InputError, match="layer 'norm': found LayerNorm"):
        stages(model, batches, ["norm"])
    twice = nn.Sequential(model.query, nn.ReLU(), model.query)
    with pytest.raises(InputError, match="layer '0': found 2 runs"):
        stages(twice, batches, ["0"])
    assert not model.query._forward_pre_hooks


def test_moments_are_those_of_the_two_runs_written_out() -> None:
    teacher, batches = made()
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student.up.weight.mul_(0.9)
    masks = {id(batch): torch.rand(8, 10) < 0.6 for batch in batches}
    rows = lambda batch: masks[id(batch)]  # noqa: E731
    runs = [Runs(one, batches) for one in (teacher, student)]
    found = pair_moments(*runs, ["down"], SUMS, rows)["down"]
    own = pair_moments(*runs, ["down"], {}, rows)["down"]
    dense, given = (
        torch.cat([_hidden(model, batch)[rows(batch)] for batch in batches]).double() for model in (teacher, student)
    )
    gap = (dense - given) @ teacher.down.weight.double().T
    count = len(given)
    np.testing.assert_allclose(found.inputs, (given.T @ given / count).detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.mean_input, given.mean(0).detach(), rtol=1e-5, atol=1e-6)
    # The residual is the same in both: behind the sum is missing what is missing behind the layer.
    for one in (found, own):
        np.testing.assert_allclose(one.wanted, (gap.T @ given / count).detach(), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(one.mean_wanted, gap.mean(0).detach(), rtol=1e-3, atol=1e-5)
    # With the residual changed as well, only the sum tells.
    with torch.no_grad():
        student.query.weight.mul_(0.5)
    found, own = (pair_moments(*runs, ["down"], sums, rows)["down"] for sums in (SUMS, {}))
    assert np.abs(found.wanted - own.wanted).max() > 0.01


def _hidden(model: Block, x: Tensor) -> Tensor:
    x = x + model.query(x) * torch.sigmoid(model.key(x))
    return torch.relu(model.up(x))


@pytest.mark.parametrize("with_bias", [True, False])
def test_with_every_tile_a_layer_is_ordinary_least_squares(with_bias: bool) -> None:
    rng = np.random.default_rng(0)
    x, matrix, bias = rng.normal(size=(200, 9)) + 0.4, rng.normal(size=(5, 9)), rng.normal(size=5)
    missing = x @ rng.normal(size=(9, 5)) + 0.3 * rng.normal(size=(200, 5)) + 1
    moments = PairMoments(x.T @ x / 200, missing.T @ x / 200, x.mean(0), missing.mean(0))
    problem = FitProblem(matrix, None, 4, 4)

    def exactly(target: FitProblem) -> LatticeWeights:
        return fit_one(target, 6, "lattice", FitOptions(QUICK))

    start = torch.from_numpy(bias) if with_bias else None
    found = _fit(problem, start, moments, 0.0, exactly)
    design = np.c_[x, np.ones(200)] if with_bias else x
    best = np.linalg.lstsq(design, x @ matrix.T + bias * with_bias + missing, rcond=None)[0]
    np.testing.assert_allclose(found.matrix(), best[:9].T, rtol=1e-4, atol=1e-4)
    if with_bias:
        np.testing.assert_allclose(found.bias, best[9], rtol=1e-4, atol=1e-4)
    pulled = _fit(problem, start, moments, 1e9, exactly)
    np.testing.assert_allclose(pulled.matrix(), matrix, rtol=1e-5, atol=1e-6)


def test_the_whole_budget_gives_the_model_back() -> None:
    model, batches = made()
    before = copy.deepcopy(model.state_dict())
    found = convert_in_order(model, MACHINE, batches, NAMES, 1.0, sums=SUMS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert output_error(model, found, batches) < 1e-10


@pytest.mark.parametrize("family", ["lattice", "rank-groups"])
def test_later_layers_make_up_for_earlier_ones(family: str) -> None:
    model, batches = made()
    dense = {
        name: DenseWeights(model.get_submodule(name).weight.detach(), model.get_submodule(name).bias) for name in NAMES
    }
    moments = collect_covariances(model, batches, NAMES)
    plain = convert(dense, MACHINE, 0.5, moments, family=family, schedule=QUICK)
    seen: list[tuple[int, int, str]] = []
    own, found = (
        convert_in_order(
            model, MACHINE, batches, NAMES, 0.5, sums=sums, family=family, schedule=QUICK,
            progress=lambda *step: seen.append(step),
        )
        for sums in ({}, SUMS)
    )  # fmt: skip
    assert seen[:4] == [(0, 4, "query"), (1, 4, "key"), (2, 4, "up"), (3, 4, "down")]
    assert sum(weights.structure().tile_count(4, 4) for weights in found.values()) == (16 + 16 + 32 + 32) // 2
    errors = [output_error(model, network, batches) for network in (plain, own, found)]
    assert errors[1] < 0.9 * errors[0]
    assert errors[2] < 0.9 * errors[1]
    assert found["key"].bias is None
    kept = convert_in_order(model, MACHINE, batches, NAMES, sums=SUMS, start=plain)
    for name, weights in kept.items():
        for side in ("reads", "writes", "tiles"):
            assert torch.equal(getattr(weights, side), getattr(plain[name], side))
    assert output_error(model, kept, batches) < 0.8 * errors[0]
    with pytest.raises(InputError, match="start: found no layer 'down'"):
        convert_in_order(model, MACHINE, batches, NAMES, start={name: plain[name] for name in NAMES[:3]})


def test_hidden_channels_are_reordered_in_both_layers() -> None:
    model, batches = made()
    found = convert_in_order(model, MACHINE, batches, NAMES, 0.9, hidden={"up": "down"}, schedule=QUICK)
    assert output_error(model, found, batches) < 0.2 * output_error(
        model, {**found, "down": convert_in_order(model, MACHINE, batches, NAMES, 0.9, schedule=QUICK)["down"]}, batches
    )


def test_plain_machines_get_groups_and_a_work_folder_goes_on(tmp_path) -> None:
    torch.manual_seed(0)
    model, batches = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64)), [torch.randn(300, 64)]
    calls = [
        convert_in_order(
            model, Machine.load("plain-32"), batches, ["0", "2"], 0.9, with_dense_tiles=False, schedule=QUICK,
            work=tmp_path,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert len(list((tmp_path / "rank_groups").iterdir())) == 2
    for name in ("0", "2"):
        first, again = (call[name] for call in calls)
        assert torch.equal(first.matrix(), again.matrix())
        assert len(first.reads) and all((part == part[0]).all() for part in first.reads.split(32))


@pytest.mark.parametrize("family", ["blast", "monarch"])
def test_a_family_chosen_whole_in_order(family: str) -> None:
    model, batches = made()
    found = convert_in_order(model, MACHINE, batches, NAMES, 0.8, family=family)
    assert {weights.family for weights in found.values()} == {family}
    assert all(tiles_of(found[name], 4, 4) <= 0.8 * m * n / 16 for name, m, n in (("query", 16, 16), ("up", 32, 16)))
    layers = {name: model.get_submodule(name) for name in NAMES}
    dense = {name: DenseWeights(layer.weight.detach(), layer.bias) for name, layer in layers.items()}
    alone = convert(dense, MACHINE, 0.8, collect_covariances(model, batches, NAMES), family=family)
    assert output_error(model, found, batches) < output_error(model, alone, batches)
    with pytest.raises(InputError, match=f"start: layer 'query': found {family}; only factors of a structure of tiles"):
        convert_in_order(model, MACHINE, batches, NAMES, start=found)


def test_tiles_go_where_the_output_would_lose_most() -> None:
    model, batches = made()
    with torch.no_grad():
        model.up.weight.mul_(0.02)  # the MLP says next to nothing
        model.up.bias.zero_()
        model.down.weight.mul_(0.02)
    tiles = {}
    errors = {}
    for family in ("lattice", "low-rank"):
        for allocation in ("even", "by-loss"):
            found = convert_in_order(
                model, MACHINE, batches, NAMES, 0.6, family=family, allocation=allocation, schedule=QUICK
            )
            key = family, allocation
            tiles[key] = {name: tiles_of(weights, 4, 4) for name, weights in found.items()}
            errors[key] = output_error(model, found, batches)
            assert sum(tiles[key].values()) <= 0.6 * 96
        more = tiles[family, "by-loss"]["query"] - tiles[family, "even"]["query"]
        # What low rank's even shares leave over goes to the query, too, which has all of its tiles then.
        assert more > 0 if family == "lattice" else more == 0
        assert errors[family, "by-loss"] < (0.5 if family == "lattice" else 1.0) * errors[family, "even"]


def test_moments_shrink_as_far_as_their_noise_asks_for() -> None:
    model, rng = nn.Sequential(nn.Linear(6, 6)), np.random.default_rng(0)
    truth = np.diag(np.linspace(1, 3, 6))
    truth[0, 1] = truth[1, 0] = 0.5
    root, errors = np.linalg.cholesky(truth), []
    for _ in range(60):
        x = torch.from_numpy(rng.normal(size=(12, 6)) @ root.T).float()
        runs = Runs(model, [x]), Runs(model, [x])
        moments = pair_moments(*runs, ["0"], {}, None)["0"]
        # The variance of a mean, entry by entry.
        products = np.einsum("ti,tj->tij", x.double().numpy(), x.double().numpy())
        variances = products.var(axis=0) / 12
        assert moments.noise == pytest.approx(variances.sum() - np.trace(variances), rel=1e-4, abs=1e-8)
        drawn = shrunk(moments.inputs, moments.noise)
        np.testing.assert_allclose(np.diag(drawn), np.diag(moments.inputs), atol=1e-12)
        errors.append([np.square(one - truth).sum() for one in (moments.inputs, drawn)])
    plain, better = np.mean(errors, axis=0)
    assert better < 0.8 * plain
    np.testing.assert_allclose(shrunk(moments.inputs, None, 0.25)[0, 1], 0.75 * moments.inputs[0, 1], atol=1e-12)


def test_how_much_is_made_up_for() -> None:
    rng = np.random.default_rng(0)
    x, matrix, missing = rng.normal(size=(200, 9)), rng.normal(size=(5, 9)), rng.normal(size=(200, 5))
    moments = PairMoments(x.T @ x / 200, missing.T @ x / 200, x.mean(0), missing.mean(0))
    fits = [
        _fit(FitProblem(matrix, None, 4, 4), None, moments.made_up(share), 0.0, lambda p: fit_one(p, 6, "lattice", ALL))
        for share in (0.0, 0.5, 1.0)
    ]
    none, half, all_of_it = (fit.matrix().numpy() for fit in fits)
    np.testing.assert_allclose(none, matrix, atol=1e-5)
    np.testing.assert_allclose(half - none, (all_of_it - none) / 2, atol=1e-5)
    assert np.abs(all_of_it - none).max() > 0.01


def test_a_sensitivity_that_is_given_is_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batches = made()
    turns = stages(model, batches, NAMES)
    known = measured(model, batches, turns)
    ask = {"allocation": "by-loss", "schedule": QUICK}
    plain = convert_in_order(model, MACHINE, batches, NAMES, 0.6, **ask)
    monkeypatch.setattr("gblr_hw.conversion.in_order.conversion_in_order.measured", None)
    given = convert_in_order(model, MACHINE, batches, NAMES, 0.6, sensitivity=known, **ask)
    assert all(torch.equal(plain[name].matrix(), given[name].matrix()) for name in NAMES)
    # The same tiles, each layer by itself: errors are not made up for.
    layers = {name: model.get_submodule(name) for name in NAMES}
    dense = {name: DenseWeights(layer.weight.detach(), layer.bias) for name, layer in layers.items()}
    alone = convert_by_loss(dense, MACHINE, known, 0.6, schedule=QUICK)
    assert {name: tiles_of(one, 4, 4) for name, one in alone.items()} == {
        name: tiles_of(one, 4, 4) for name, one in given.items()
    }
    assert all(torch.equal(alone[name].bias, dense[name].bias) for name in NAMES if dense[name].bias is not None)
    evenly = convert(dense, MACHINE, 0.6, known.inputs, schedule=QUICK)
    errors = [output_error(model, network, batches) for network in (given, alone, evenly)]
    assert errors[0] < errors[1] < 1.05 * errors[2]
