"""An operation of PyTorch: softshrink, made of functions that the vector unit has."""

from __future__ import annotations

from tests.recipes.recipe import Edit, Recipe

RECIPE = Recipe(
    change="operator",
    most=2,
    edits=(
        Edit(
            "gblr_hw/frontend/torch_ops/lower_pointwise.py",
            '@lowers("aten.log2")\n',
            '@lowers("aten.softshrink")\ndef _softshrink(builder: Builder, a: Arguments) -> View:\n'
            '    middle = pointwise(builder, "clip", a["self"], numbers=(-a["lambd"], a["lambd"]))\n'
            '    return pointwise(builder, "subtract", a["self"], middle)\n\n\n@lowers("aten.log2")\n',
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

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 11), nn.Softshrink(0.2), nn.Linear(11, 3)).eval()
    x = torch.randn(5, 7)
    program = lower(model, small_machine(), example_inputs=(x,))
    (found,) = execute_network(program, {program.network.inputs[0].name: x.numpy()}).values()  # type: ignore[union-attr]
    np.testing.assert_allclose(found, model(x).detach().numpy(), atol=1e-5)
    assert any("clip" in layer.steps for layer in simulate(program, program.machine).layers)
