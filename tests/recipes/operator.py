"""An operation of PyTorch: erfcx, exp(x^2) (1 - erf(x)), made of functions that the vector unit has."""

from __future__ import annotations

from tests.recipes.recipe import Edit, Recipe

RECIPE = Recipe(
    change="operator",
    most=2,
    edits=(
        Edit(
            "gblr_hw/frontend/torch_ops/lower_pointwise.py",
            '@lowers("aten.log2")\n',
            '@lowers("aten.special_erfcx")\ndef _erfcx(builder: Builder, a: Arguments) -> View:\n'
            '    below = pointwise(builder, "erf", pointwise(builder, "negative", a["self"]))\n'
            '    beyond = pointwise(builder, "add", below, numbers=(1.0,))\n'
            '    grown = pointwise(builder, "exp", pointwise(builder, "square", a["self"]))\n'
            '    return pointwise(builder, "multiply", beyond, grown)\n\n\n@lowers("aten.log2")\n',
        ),
    ),
)


def check() -> None:
    import numpy as np
    import torch
    from torch import nn

    from gblr_hw import lower
    from simulator import execute_network, simulate
    from tests.recipes.small_program import small_machine

    class Tails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.last = nn.Linear(7, 11), nn.Linear(11, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.special.erfcx(self.one(x)))

    torch.manual_seed(0)
    model = Tails().eval()
    x = torch.randn(5, 7)
    program = lower(model, small_machine(), example_inputs=(x,))
    (found,) = execute_network(program, {program.network.inputs[0].name: x.numpy()}).values()  # type: ignore[union-attr]
    np.testing.assert_allclose(found, model(x).detach().numpy(), atol=1e-5)
    assert any("erf" in layer.steps for layer in simulate(program, program.machine).layers)
