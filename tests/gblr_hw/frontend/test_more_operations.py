"""Operations that look through rows, compare, choose, write, resize and fold, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gblr_hw.frontend import export_network
from simulator.network.vector_functions import FUNCTIONS
from simulator.network.vector_steps import Step, passes_of, run_steps
from tests.drawn.frontend_models import check, settled
from tests.drawn.function_models import FUNCTIONS_OF_OTHERS
from tests.drawn.operation_models import CASES


@pytest.mark.parametrize("name", CASES)
def test_operation_computes_what_torch_does(name: str) -> None:
    torch.manual_seed(0)
    # Matrices that resize are weights, in float32.
    by_matrix = any(part in name for part in ("linear", "bicubic", "uneven_windows", "nearest_to", "lines"))
    tolerance = 1e-6 if by_matrix else 1e-9
    check(*settled(*CASES[name]()), tolerance=tolerance)


@pytest.mark.parametrize("name", FUNCTIONS_OF_OTHERS)
def test_functions_made_of_others_compute_what_torch_does(name: str) -> None:
    torch.manual_seed(0)
    # Matrices that resize or transform are weights, in float32.
    check(*settled(*FUNCTIONS_OF_OTHERS[name]()), tolerance=2e-6)


def test_selections_cost_a_pass_for_each_element() -> None:
    assert passes_of([Step("top_places_width", (0,), numbers=(4.0,))]) == 4
    assert passes_of([Step("top_values_width", (0,), numbers=(1.0,))]) == 1
    torch.manual_seed(0)
    model, inputs = settled(*CASES["topk"]())
    passes = [operator.passes for operator in export_network(model, inputs).network.operators if operator.steps]
    assert passes == [3, 3]


def test_every_function_that_is_no_row_of_its_own_is_elementwise() -> None:
    """Names tell: what ends in _width or _groups reads a row, and nothing else changes a row's size."""
    x = np.random.default_rng(0).uniform(0.5, 2.0, size=(2, 3, 2, 4))
    numbers = {"power": (2.0,), "clip": (0.0, 1.0), "layer_norm": (1e-5,), "rms_norm": (1e-5,), "select": (0.5,)}
    two = {"add", "subtract", "multiply", "divide", "maximum", "minimum", "remainder", "select", "equal", "not_equal",
           "less", "less_equal", "greater", "greater_equal"}  # fmt: skip
    for name in FUNCTIONS:
        if name.endswith(("_width", "_groups")) or name in ("permute", "concat"):
            continue
        args = (0, 0) if name in two else (0,)
        assert run_steps([Step(name, args, numbers=numbers.get(name, ()))], [x], {}).shape == x.shape, name


def test_taking_and_spreading_are_each_others_inverse() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 2, 3, 5))
    order = np.argsort(rng.normal(size=x.shape), axis=-1).astype(float)
    taken = run_steps([Step("take_width", (0, 1))], [x, order], {})
    again = run_steps([Step("spread_width", (0, 1), numbers=(5.0,))], [taken, order], {})
    np.testing.assert_array_equal(again, x)
    twice = run_steps(
        [Step("spread_width", (0, 1), numbers=(2.0,))], [np.ones((1, 1, 1, 3)), np.zeros((1, 1, 1, 3))], {}
    )
    np.testing.assert_array_equal(twice, [[[[3.0, 0.0]]]])
