"""Idioms on graphs that they were made for, and on any other: simplified steps compute what the given ones did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw.frontend.tidy.fuse import add_constant
from gblr_hw.frontend.tidy.idioms import IDIOMS, Pattern, simplified
from simulator.network.network import Operand, Operator
from simulator.network.vector_steps import Step, run_steps
from tests.drawn.frontend_models import check, settled

UNARY = ("negative", "absolute", "square", "tanh", "erf", "sigmoid", "relu", "copy", "mean_width", "gelu", "silu")
BINARY = ("add", "subtract", "multiply", "maximum", "divide")
NUMBERS = (0.5, 1.0, 3.0, 0.044715, float(np.sqrt(0.5)), float(np.sqrt(2.0)), float(np.sqrt(2 / np.pi)), 1e-5)
WIDTH = 6


def operator_of(steps: list[Step], operands: int = 2, constants: dict[str, np.ndarray] | None = None) -> Operator:
    reads = tuple(Operand(f"x{number}", 3, 1, WIDTH) for number in range(operands))
    return Operator("o", "vector", reads, "y", 1, 3, tuple(steps), constants or {})


def agrees(operator: Operator) -> Operator:
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(1, 3, 1, WIDTH)) + 2.0 for _ in operator.operands]
    short = simplified(operator)
    with np.errstate(all="ignore"):
        wanted = run_steps(operator.steps, values, operator.constants)
        found = run_steps(short.steps, values, short.constants)
    np.testing.assert_allclose(*np.broadcast_arrays(found, wanted), rtol=1e-6, atol=1e-9)
    assert len(short.steps) <= len(operator.steps)
    return short


@st.composite
def programs(draw: st.DrawFn) -> Operator:
    """Elementwise steps at random: idioms' parts with other things where a pattern wants a number or a value."""
    steps: list[Step] = []
    constants: dict[str, np.ndarray] = {}
    for _ in range(draw(st.integers(1, 10))):
        value = st.integers(0, 1 + len(steps))
        kind = draw(st.sampled_from(["unary", "pair", "number", "constant", "power", "permute", "concat"]))
        if kind == "unary":
            steps.append(Step(draw(st.sampled_from(UNARY)), (draw(value),)))
        elif kind == "pair":
            steps.append(Step(draw(st.sampled_from(BINARY)), (draw(value), draw(value))))
        elif kind == "power":
            steps.append(Step("power", (draw(value),), numbers=(3.0,)))
        elif kind == "number":
            steps.append(Step(draw(st.sampled_from(BINARY)), (draw(value),), numbers=(draw(st.sampled_from(NUMBERS)),)))
        elif kind == "constant":
            name = draw(st.sampled_from(["a", "b"]))
            constants[name] = np.arange(1.0, 1.0 + WIDTH).reshape(1, 1, 1, -1) * (1 if name == "a" else -0.5)
            steps.append(Step(draw(st.sampled_from(("add", "multiply"))), (draw(value),), name))
        else:
            full = draw(st.integers(0, 1))  # an operand: its width is known
            order = tuple(float(one) for one in draw(st.permutations(range(WIDTH))))
            steps.append(Step("permute", (full,), numbers=order))
            if kind == "concat":
                half = WIDTH // 2
                steps[-1] = replace(steps[-1], numbers=order[:half])
                steps.append(Step("permute", (full,), numbers=order[half:]))
                if draw(st.booleans()):
                    steps.append(Step("negative", (1 + len(steps),)))
                    steps.append(Step("concat", (1 + len(steps), len(steps) - 1)))
                else:
                    steps.append(Step("concat", (len(steps), 1 + len(steps))))
    # A half permutation does not meet whole rows: only programs that can run are programs.
    return operator_of(steps, constants=constants)


@settings(max_examples=400, deadline=None)
@given(programs())
def test_any_steps_are_simplified_to_what_computes_the_same(operator: Operator) -> None:
    try:
        with np.errstate(all="ignore"):
            run_steps(operator.steps, [np.ones((1, 3, 1, WIDTH))] * 2, operator.constants)
    except ValueError:
        return
    agrees(operator)


def built(pattern: Pattern, steps: list[Step], commuted: bool) -> int:
    """Steps that are a pattern, with 0.25 for each number that it keeps."""
    if isinstance(pattern, str):
        return 0
    args, numbers = [], []
    for part in pattern[1:]:
        if isinstance(part, float):
            numbers.append(part)
        elif isinstance(part, str) and part != "x":
            numbers.append(0.25)
        else:
            args.append(built(part, steps, commuted))
    if commuted and pattern[0] in ("add", "multiply"):
        args = args[::-1]
    steps.append(Step(pattern[0], tuple(args), numbers=tuple(numbers)))
    return len(steps)


@pytest.mark.parametrize("commuted", [False, True])
@pytest.mark.parametrize("number", range(len(IDIOMS)))
def test_every_idiom_is_recognised_and_means_the_same(number: int, commuted: bool) -> None:
    pattern, function, _ = IDIOMS[number]
    steps: list[Step] = []
    built(pattern, steps, commuted)
    assert [step.function for step in agrees(operator_of(steps, 1)).steps] == [function]


class Gated(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.function = nn.Linear(4, 4), nn.Linear(4, 4), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.a(x), self.b(x))


GATES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tanh": lambda y, z: y * torch.tanh(y) * z,
    "mish": lambda y, z: functional.mish(y) * z,
    "half": lambda y, z: (y * 0.5) * (z + 1.0),
    "half_of_itself": lambda y, z: (y * 0.5) * (torch.erf(y / z) + 1.0),
    "variance_of_another": lambda y, z: (y - y.mean(-1, keepdim=True)) * torch.rsqrt(
        (z - z.mean(-1, keepdim=True)).square().mean(-1, keepdim=True) + 1e-5),
}  # fmt: skip


@pytest.mark.parametrize("name", GATES)
def test_graphs_that_look_like_idioms_and_are_none(name: str) -> None:
    torch.manual_seed(0)
    check(*settled(Gated(GATES[name]), (torch.randn(2, 3, 4),)))


def test_constants_of_one_name_and_other_values_are_numbered() -> None:
    constants = {"w": np.ones(3)}
    assert add_constant(constants, "w", np.ones(3)) == "w"
    assert add_constant(constants, "w", np.zeros(3)) == "w#2"
    assert add_constant(constants, "w#2", np.full(3, 2.0)) == "w#3"
    assert sorted(constants) == ["w", "w#2", "w#3"]
