"""A vector function: log_softmax as one function of the vector unit, not two."""

from __future__ import annotations

from tests.recipes.recipe import Edit, Recipe, after

_TABLE = "simulator/network/vector_functions.py"

RECIPE = Recipe(
    change="vector function",
    most=2,
    edits=(
        after(
            _TABLE,
            '        _row_wise("layer_norm", 2, _layer_norm, passes=2, keeps_width=True, group="norm"),\n',
            '        _row_wise("log_softmax", 1, lambda x: np.log(_softmax(x)), passes=3, keeps_width=True, '
            'group="softmax"),\n',
        ),
        Edit(
            "gblr_hw/frontend/torch_ops/lower_rows.py",
            'pointwise(builder, "log", rowwise(builder, "softmax", a["self"], [a["dim"]]))',
            'rowwise(builder, "log_softmax", a["self"], [a["dim"]])',
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
    model = nn.Sequential(nn.Linear(7, 11), nn.LogSoftmax(-1), nn.Linear(11, 3)).eval()
    x = torch.randn(5, 7)
    program = lower(model, small_machine(), example_inputs=(x,))
    (found,) = execute_network(program, {program.network.inputs[0].name: x.numpy()}).values()  # type: ignore[union-attr]
    np.testing.assert_allclose(found, model(x).detach().numpy(), atol=1e-5)
    rows = {layer.steps: layer for layer in simulate(program, program.machine).layers}
    assert rows["log_softmax"].group == "softmax" and "log_softmax" in str(program)
