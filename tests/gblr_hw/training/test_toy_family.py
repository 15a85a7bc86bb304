"""A structure family added here, by its entry, its functions and its mark alone, goes all the way through the toolkit."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from analysis.pictures.family_marks import MARKS, Mark, marks
from gblr_hw.cli import main as cli
from gblr_hw.codesign.networks import Networks
from gblr_hw.codesign.report import _family
from gblr_hw.codesign.space import Space
from gblr_hw.conversion.conversion import convert
from gblr_hw.conversion.conversion_input import read_layers
from gblr_hw.conversion.fit.fit_layer import Schedule, truncated_layer
from gblr_hw.conversion.fit.fit_problem import Fit, FitProblem
from gblr_hw.conversion.from_dense import FROM_DENSE, FitOptions, Fitting, FromDense
from gblr_hw.conversion.starts import ranks_start
from gblr_hw.files.checkpoint import load_checkpoint, save_checkpoint
from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.lowering.pipeline import lower
from gblr_hw.models.vit import ViT
from gblr_hw.training.networks import train_network
from gblr_hw.training.recipe import Recipe
from gblr_hw.training.shrink.project_training import lattice_layers
from gblr_hw.weights.collect import weights_of
from gblr_hw.weights.family import FAMILIES, Family, registry
from gblr_hw.weights.stored import DenseWeights
from gblr_hw.weights.structure import Structure
from simulator import Machine, simulate
from simulator.base.errors import InputError
from tests.gblr_hw.training.test_training_runs import HARDWARE, LATENCY, SHAPE, small_sets

MARK = Mark("half rank", "#123456", "$h$")
TOY = {
    "name": "half_rank",
    "label": "half rank",
    "about": "as many ranks as fit into half of the tiles, in the other half nothing",
    "unit": "rank",
    "training": "projection",
    "candidates": (),
    "converted": True,
    "whole": False,
    "square_array": False,
    "stand_in": "low_rank",
}


def half_rank(problem: FitProblem, tiles: int, options: FitOptions) -> tuple[Structure, Fit]:
    return truncated_layer(problem, tiles // 2)


def half_start(linear: nn.Linear, family: str, rows: int, cols: int) -> LatticeLinear:
    return ranks_start(linear, family, rows, cols, min(linear.weight.shape) // 2)


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What adding a family takes: an entry, its functions, its mark."""
    monkeypatch.setitem(MARKS, "half_rank", MARK)
    family = Family(**TOY)  # type: ignore[arg-type]
    assert registry(*FAMILIES.values(), family)["half_rank"] is family
    monkeypatch.setitem(FAMILIES, "half_rank", family)
    least = lambda problem, options: 2 * (problem.chunks_in + problem.chunks_out)  # noqa: E731
    fitting = Fitting(half_rank, least, keeps_runs=False, without_tiles=True)
    monkeypatch.setitem(FROM_DENSE, "half_rank", FromDense(half_start, fitting))  # type: ignore[index]


def test_it_is_trained_saved_lowered_and_drawn(tmp_path: Path) -> None:
    torch.manual_seed(0)
    start, target = ViT(SHAPE), 0.6 * LATENCY(ViT(SHAPE))
    network = train_network(Recipe("half-rank", epochs=2), start, *small_sets(), HARDWARE, target)
    assert (network.kind, network.recipe.family) == ("half_rank", "half_rank")
    assert network.reached <= target
    for layer in lattice_layers(network.model).values():
        alive = layer.structure.reads.any(axis=1)
        assert layer.unit == "rank"
        assert len(alive) == min(layer.in_features, layer.out_features) // 2
        assert layer.structure.reads[alive].all()  # whole ranks go, as its unit says
    save_checkpoint(network.model, tmp_path / "net.safetensors")
    kept = load_checkpoint(tmp_path / "net.safetensors")
    assert {weights.family for weights in kept.values()} == {"dense", "half_rank"}
    machine = Machine.load("edge-16")
    assert simulate(lower(kept, machine, 16), machine).latency_cycles > 0
    assert marks(["half rank"]) == {"half rank": MARK}


def test_it_is_what_a_choice_by_trials_may_find(monkeypatch: pytest.MonkeyPatch) -> None:
    choosing = {**TOY, "name": "choice", "training": "trials", "candidates": ("half_rank",), "converted": False}
    monkeypatch.setitem(FAMILIES, "choice", Family(**choosing))  # type: ignore[arg-type]
    torch.manual_seed(0)
    start, target = ViT(SHAPE), 0.6 * LATENCY(ViT(SHAPE))
    network = train_network(Recipe("choice", epochs=1), start, *small_sets(), HARDWARE, target)
    assert (network.recipe.family, network.kind) == ("choice", "half_rank")


def test_it_is_converted_to_at_a_budget_and_refused_where_another_stands_in() -> None:
    layers = {"a": np.random.default_rng(0).normal(size=(256, 192))}
    found = convert(layers, Machine.load("edge-16"), 0.7, family="half rank")["a"]
    assert found.family == "half_rank"
    assert found.structure().tile_count(16, 16) == 2 * (16 + 12) <= int(0.7 * 192) / 2
    left, values, right = np.linalg.svd(layers["a"])
    ranks = found.u.shape[1]
    np.testing.assert_allclose(found.matrix().numpy(), (left[:, :ranks] * values[:ranks]) @ right[:ranks], atol=1e-5)
    # The dense matrix, which a larger budget would hold, is over the limit, and nothing can be cut from it.
    limit = convert(layers, Machine.load("mid-32"), latency="0.95x-dense", tokens=64, family="half_rank")["a"]
    assert (limit.family, bool(limit.tiles.any()), limit.u.shape[1]) == ("half_rank", False, 32)
    with pytest.raises(InputError, match="Use 'low_rank', or a machine with scatter"):
        convert(layers, Machine.load("plain-32"), 0.7, family="half_rank")


def test_it_is_searched_with_the_machine() -> None:
    space = Space(families=("half-rank", "dense"))
    assert (space.families_of(True), space.families_of(False)) == (("half_rank", "dense"), ("dense",))
    layers = {"a": np.random.default_rng(0).normal(size=(32, 32))}
    problems, biases = read_layers(layers, SimpleNamespace(rows=8, cols=8), None, {})
    networks = Networks(problems, biases, Schedule(), None)
    choice = networks.uniform("half_rank", 8, 0.9)
    (layer,) = networks.layers(choice).values()
    assert (layer.weights.family, choice.shares) == ("half_rank", (0.9,))
    assert _family(SimpleNamespace(network=choice)) == "half rank"  # type: ignore[arg-type]


def test_the_command_line_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint({"a": DenseWeights(torch.randn(128, 96))}, tmp_path / "net.safetensors")
    out = tmp_path / "out.safetensors"
    arguments = ["convert", tmp_path / "net.safetensors", "-o", out, "-m", "edge-16", "--tiles", 0.7, "--json"]
    monkeypatch.setattr("sys.argv", ["gblr-hw", *map(str, arguments), "--family", "half-rank"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    assert json.loads(capsys.readouterr().out)["family"] == "half_rank"
    assert load_checkpoint(out)["a"].family == "half_rank"
    assert weights_of(LatticeLinear.from_weights(load_checkpoint(out)["a"]))["layer"].family == "half_rank"
