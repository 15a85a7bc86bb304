"""Reordering hidden channels: the network's function stays, alike channels meet, and matrices fit better."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from gblr_hw.conversion.conversion import convert
from gblr_hw.conversion.conversion_input import read_layers
from gblr_hw.conversion.reorder import order_hidden
from gblr_hw.weights.stored import DenseWeights
from simulator.base.errors import InputError


def _network(hidden: int = 75) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, hidden), nn.GELU(), nn.Linear(hidden, 13)).double()


def _weights(network: nn.Sequential) -> dict[str, DenseWeights]:
    return {name: DenseWeights(network[int(name)].weight, network[int(name)].bias) for name in ("0", "2")}


def _load(network: nn.Sequential, matrices: dict[str, np.ndarray], biases: dict[str, torch.Tensor | None]) -> None:
    with torch.no_grad():
        for name, matrix in matrices.items():
            network[int(name)].weight.copy_(torch.as_tensor(matrix))
            network[int(name)].bias.copy_(biases[name])


def test_a_reordered_network_computes_the_same() -> None:
    network, inputs = _network(), torch.randn(50, 20, dtype=torch.double)
    wanted = network(inputs).detach()
    problems, biases = read_layers(_weights(network), SimpleNamespace(rows=8, cols=8), None, {"0": "2"})
    assert not np.array_equal(problems["0"].matrix, network[0].weight.detach().numpy())
    _load(network, {name: problem.matrix for name, problem in problems.items()}, biases)
    torch.testing.assert_close(network(inputs), wanted, rtol=1e-5, atol=1e-5)


def test_a_whole_budget_converts_to_the_same_function_in_the_new_order() -> None:
    network, inputs = _network(), torch.randn(50, 20, dtype=torch.double)
    wanted = network(inputs).detach()
    found = convert(_weights(network), SimpleNamespace(rows=8, cols=8), 1.0, hidden={"0": "2"})
    _load(network, {n: w.matrix().numpy() for n, w in found.items()}, {n: w.bias for n, w in found.items()})
    torch.testing.assert_close(network(inputs), wanted, rtol=1e-5, atol=1e-5)


def test_moments_of_the_consumer_follow() -> None:
    network = _network()
    moments = np.diag(np.arange(1.0, 76.0))
    problems, _ = read_layers(_weights(network), SimpleNamespace(rows=8, cols=8), {"2": moments}, {"0": "2"})
    plain, _ = read_layers(_weights(network), SimpleNamespace(rows=8, cols=8), {"2": moments}, {})
    assert problems["2"].energy == pytest.approx(plain["2"].energy)


def test_alike_channels_share_a_chunk() -> None:
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(6), 8))
    producer = rng.normal(size=(6, 40))[group] * rng.choice([-1, 1], size=(48, 1)) + 0.05 * rng.normal(size=(48, 40))
    order = order_hidden(producer, rng.normal(size=(300, 48)), 8)
    assert sorted(order) == list(range(48))
    assert all(len(set(chunk)) == 1 for chunk in group[order].reshape(6, 8))


def test_reordering_lowers_the_error() -> None:
    rng = np.random.default_rng(1)
    group = rng.permutation(np.repeat(np.arange(8), 8))
    subspaces = rng.normal(size=(8, 4, 48))
    producer = np.einsum("hk,hkn->hn", rng.normal(size=(64, 4)), subspaces[group]) + 0.1 * rng.normal(size=(64, 48))
    layers, machine = {"up": producer, "down": rng.normal(size=(24, 64))}, SimpleNamespace(rows=8, cols=8)
    errors = []
    for hidden in ({}, {"up": "down"}):
        found = convert(layers, machine, 0.5, allocation="even", hidden=hidden)
        problems, _ = read_layers(layers, machine, None, hidden)
        errors.append(np.linalg.norm(problems["up"].matrix - found["up"].matrix().numpy()))
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize(
    ("hidden", "text"),
    [
        ({"0": "9"}, "no layer '9'"),
        ({"2": "0"}, "13 outputs and 20 inputs"),
        ({"0": "2", "1": "2"}, "one consumer of two"),
    ],
)
def test_bad_pairs_are_refused(hidden: dict[str, str], text: str) -> None:
    layers = {**_weights(_network()), "1": DenseWeights(torch.ones(75, 20))}
    with pytest.raises(InputError, match=text):
        read_layers(layers, SimpleNamespace(rows=8, cols=8), None, hidden)
