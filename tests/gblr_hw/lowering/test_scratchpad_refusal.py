"""An operator that does not fit the scratchpad: the size that the refusal names is enough, and half of it is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gblr_hw.frontend import export_network
from gblr_hw.lowering.whole_network import lower_network
from simulator.base.errors import InputError
from simulator.machine.machine import Machine


class Turned(nn.Module):
    """A product, a softmax over its rows, and a product along them: a row of the turned values is long."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(600, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(x).transpose(1, 2).softmax(-1))
        return out


def with_scratchpad(kib: int) -> Machine:
    machine = Machine.load("mid-32")
    return machine.model_copy(update={"scratchpad": machine.scratchpad.model_copy(update={"kib": kib})})


def test_the_size_that_is_named_is_enough() -> None:
    exported = export_network(Turned().eval(), torch.randn(1, 600, 8))
    for kib in (4, 16):
        with pytest.raises(
            InputError, match=r"'softmax' .* Enlarge \[scratchpad\].*: with kib = 32 every operator fits"
        ):
            lower_network(exported.network, exported.weights, with_scratchpad(kib))
    lower_network(exported.network, exported.weights, with_scratchpad(32))
