"""A model with an operation that the front end does not know: lower it as what the vector unit can do.

python examples/add_an_operator.py
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gblr_hw import lower
from gblr_hw.frontend.graph.builder import Builder
from gblr_hw.frontend.operators.vector_ops import pointwise
from simulator import Machine, execute_network, simulate
from simulator.base.errors import InputError


@torch.library.custom_op("mine::soft_sign", mutates_args=())
def soft_sign(x: Tensor) -> Tensor:
    """x / (1 + |x|), as a kernel of one's own would compute it."""
    return x / (1 + x.abs())


@soft_sign.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Layer(nn.Module):
    """A linear layer through it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        """x (tokens, 32) -> (tokens, 32)."""
        return soft_sign(self.linear(x))


def lower_soft_sign(builder: Builder, arguments: Any) -> Any:
    """The same, in three passes of the vector unit."""
    x = arguments["x"]
    size = pointwise(builder, "absolute", x)
    return pointwise(builder, "divide", x, pointwise(builder, "add", size, numbers=(1.0,)))


torch.manual_seed(0)
machine, model, x = Machine.load("edge-16"), Layer().eval(), torch.randn(8, 32)
try:
    lower(model, machine, example_inputs=x)
except InputError as error:
    print(f"without: {str(error)[:90]}...")
program = lower(model, machine, example_inputs=x, plugins={"mine.soft_sign.default": lower_soft_sign})
(found,) = execute_network(program, {"x": x.numpy()}).values()
error = np.abs(found - model(x).detach().numpy()).max()
print(f"with: {simulate(program, machine).latency_cycles:,} cycles, largest error {error:.0e}")
