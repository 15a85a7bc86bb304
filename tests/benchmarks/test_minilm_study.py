"""Brief distillation: losses written out, structures fixed, the teacher's states come near, the same seed the same bits."""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.minilm.distil import Steps, distil, lessons, loss, with_layers
from benchmarks.minilm.study import METHODS, jobs
from benchmarks.minilm.tables import study_table
from gblr_hw.conversion.conversion import convert
from gblr_hw.conversion.fit.fit_layer import Schedule
from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.weights.stored import DenseWeights

MACHINE = SimpleNamespace(rows=4, cols=4)


class Encoder(nn.Module):
    """Two layers over embedded tokens that returns its states as transformers' encoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(30, 16)
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, output_hidden_states: bool) -> SimpleNamespace:
        assert output_hidden_states
        states = [self.embeddings(input_ids)]
        for layer in self.layers:
            states.append(states[-1] + torch.tanh(layer(states[-1])))
        return SimpleNamespace(hidden_states=tuple(states))


def made() -> tuple[Encoder, dict[str, Tensor], dict]:
    torch.manual_seed(0)
    model = Encoder().eval()
    texts = {"input_ids": torch.randint(0, 30, (40, 6)), "attention_mask": torch.ones(40, 6, dtype=torch.int64)}
    texts["attention_mask"][::3, 4:] = 0
    dense = {f"layers.{i}": DenseWeights(layer.weight, layer.bias) for i, layer in enumerate(model.layers)}
    return model, texts, convert(dense, MACHINE, 0.5, schedule=Schedule(steps=2, sweeps=2, final_steps=0))


def test_students_learn_within_their_structure() -> None:
    model, texts, network = made()
    taught = lessons(model, texts, size=7)
    assert [state.shape for state in taught.states] == [(40, 6, 16)] * 2
    runs = []
    for seed in (0, 0, 1):
        student = with_layers(model, network)
        runs.append((distil(student, taught, Steps(steps=60, batch=16, learning_rate=3e-3), seed), student))
    losses = runs[0][0]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert runs[0][0] == runs[1][0] != runs[2][0]
    for name, weights in network.items():
        layer = runs[0][1].get_submodule(name)
        assert isinstance(layer, LatticeLinear)
        for side in ("reads", "writes", "tiles"):
            assert torch.equal(getattr(layer.weights(), side), getattr(weights, side))
        assert not torch.equal(layer.weights().matrix(), weights.matrix())
    assert torch.equal(runs[0][1].embeddings.weight, model.embeddings.weight)
    assert isinstance(model.layers[0], nn.Linear)


def test_the_loss_is_relative_error_and_cosine_of_what_is_not_masked() -> None:
    wanted = [torch.tensor([[[1.0, 0.0], [3.0, 2.0], [9.0, 9.0]]])]
    given = [torch.tensor([[[1.0, 1.0], [3.0, 2.0], [-7.0, 5.0]]])]
    mask = torch.tensor([[1, 1, 0]])
    # Squared error 1 over the states' spread of 4 about their mean (2, 1); pooled (2, 1.5) against (2, 1).
    cosine = (2 * 2 + 1.5) / np.sqrt((4 + 2.25) * (4 + 1))
    assert float(loss(given, wanted, mask)) == pytest.approx(1 / 4 + 1 - cosine, rel=1e-6)


def test_options_choose_networks_and_the_table_shows_shares_of_dense() -> None:
    none = dict.fromkeys(("method", "family", "tiles", "seed"))
    every = jobs(Namespace(**none))
    assert len(every) == len(set(every))
    assert {job[0] for job in every} == {"dense", *METHODS}
    chosen = jobs(Namespace(**none | {"family": ["lattice"], "tiles": [0.2], "seed": [0]}))
    assert chosen == [(method, "lattice", 0.2, 0) for method in ("converted", "distilled", "in order")]
    assert ("distilled", "rank groups", 0.2, 2) in every
    cost = {"latency_cycles": {"mid-32": 300, "plain-32": 400}}
    rows = [{"method": "dense", "family": "dense", "tiles": 1.0, "seed": 0, "cosine": 1.0, "accuracy": 0.9} | cost]
    for seed in (0, 1):
        less = {"latency_cycles": {"mid-32": 90, "plain-32": 100}}
        row = {
            "method": "distilled",
            "family": "lattice",
            "tiles": 0.2,
            "seed": seed,
            "cosine": 0.8,
            "accuracy": seed,
            "tiles_used": 2073,
        }
        rows.append(row | less)
    line = study_table(rows).splitlines()[-1]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "lattice, distilled", "0.2", "2,073", "2", "0.800", "0.500", "0.300", "0.250"
    ]  # fmt: skip
