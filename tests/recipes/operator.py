"""An operation of PyTorch: hypot, made of functions that the vector unit has."""

from __future__ import annotations

from tests.recipes.recipe import Edit, Recipe

RECIPE = Recipe(
    change="operator",
    most=2,
    edits=(
        Edit(
            "gblr_hw/frontend/torch_ops/lower_pointwise.py",
            '@lowers("aten.log2")\n',
            '@lowers("aten.hypot")\ndef _hypot(builder: Builder, a: Arguments) -> View:\n'
            '    squares = [pointwise(builder, "square", a[name]) for name in ("self", "other")]\n'
            '    return pointwise(builder, "sqrt", pointwise(builder, "add", *squares))\n\n\n@lowers("aten.log2")\n',
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

    class Lengths(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.last = nn.Linear(7, 11), nn.Linear(7, 11), nn.Linear(11, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.hypot(self.one(x), self.two(x)))

    torch.manual_seed(0)
    model = Lengths().eval()
    x = torch.randn(5, 7)
    program = lower(model, small_machine(), example_inputs=(x,))
    (found,) = execute_network(program, {program.network.inputs[0].name: x.numpy()}).values()  # type: ignore[union-attr]
    np.testing.assert_allclose(found, model(x).detach().numpy(), atol=1e-5)
    assert any("sqrt" in layer.steps for layer in simulate(program, program.machine).layers)
