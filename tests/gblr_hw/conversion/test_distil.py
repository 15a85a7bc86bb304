"""A short distillation: losses fall, structures stay, the same seed the same bits, and the dense model is left alone."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gblr_hw.conversion.conversion import convert
from gblr_hw.conversion.fit.fit_layer import Schedule
from gblr_hw.conversion.in_order.conversion_in_order import convert_in_order
from gblr_hw.conversion.in_order.distil import Distillation, _loss, distil
from gblr_hw.weights.stored import LatticeWeights
from simulator.base.errors import InputError

ARRAY = SimpleNamespace(rows=4, cols=4)
QUICK = Schedule(steps=2, sweeps=1, final_steps=0, final_sweeps=2)
NAMES = ("blocks.0", "blocks.1", "blocks.2")


class Net(nn.Module):
    def __init__(self, *, logits: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.head, self.logits = nn.Linear(16, 5), logits

    def forward(self, x: Tensor) -> object:
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return SimpleNamespace(logits=self.head(x)) if self.logits else x


@pytest.mark.parametrize(("logits", "family"), [(True, "lattice"), (False, "lattice"), (True, "monarch")])
def test_students_learn_within_their_structure(logits: bool, family: str) -> None:
    model = Net(logits=logits)
    with torch.no_grad():
        for one in model.parameters():
            one.mul_(2)
    torch.manual_seed(1)
    batches = [torch.randn(20, 16) @ (torch.randn(16, 16) * torch.linspace(1, 0.05, 16)) for _ in range(2)] * 3
    found = convert(
        {name: model.get_submodule(name).weight.detach().numpy() for name in NAMES}, ARRAY, 0.6, family=family
    )
    before = copy.deepcopy(model.state_dict())
    how = Distillation(60, learning_rate=1e-2)
    taught, losses = distil(model, found, batches, how, NAMES)
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(one.requires_grad for one in model.parameters())
    for name, weights in found.items():
        other = taught[name]
        assert type(other) is type(weights)
        if isinstance(weights, LatticeWeights) and isinstance(other, LatticeWeights):
            assert all(
                torch.equal(getattr(weights, part), getattr(other, part)) for part in ("reads", "writes", "tiles")
            )
    again = distil(model, found, batches, how, NAMES)
    other = distil(model, found, batches, Distillation(60, learning_rate=1e-2, seed=1), NAMES)
    assert again[1] == losses != other[1]
    assert all(torch.equal(again[0][name].matrix(), taught[name].matrix()) for name in NAMES)


def test_the_loss_is_divergence_and_relative_squares_written_out() -> None:
    torch.manual_seed(0)
    a, b, h, k = torch.randn(2, 3, 5), torch.randn(2, 3, 5), torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    p, q = a.double().softmax(-1), b.double().softmax(-1)
    divergence = float((q * (q / p).log()).sum(-1).mean())
    apart = float(((h - k).double().square().sum(-1) / k.double().square().sum(-1)).mean())
    given, wanted = (SimpleNamespace(logits=a), [h]), (SimpleNamespace(logits=b), [k])
    assert float(_loss(given, wanted, 0.5)) == pytest.approx(divergence + 0.5 * apart, rel=1e-5, abs=1e-6)
    assert float(_loss(given, wanted, 0.0)) == pytest.approx(divergence, rel=1e-5, abs=1e-6)


def test_a_loss_that_is_no_number_ends_it() -> None:
    model, batches = Net(), [torch.randn(4, 16)]
    found = convert_in_order(model, ARRAY, batches, NAMES, 0.6, schedule=QUICK)
    with pytest.raises(InputError, match="distillation, step 0: found a loss of nan"):
        distil(model, found, [batches[0] * float("inf")], Distillation(2))
