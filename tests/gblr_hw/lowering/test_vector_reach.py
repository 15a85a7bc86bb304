"""Vector functions behind a matrix product, on rows of several chunks: a function that reads more than its element is
not worked on chunk by chunk, whatever its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gblr_hw import lower
from gblr_hw.frontend.graph.builder import Builder
from gblr_hw.frontend.graph.layout import View
from gblr_hw.frontend.graph.registry import Arguments
from gblr_hw.frontend.operators.vector_ops import pointwise, rowwise
from gblr_hw.lowering.calibration_batches import port_arrays
from gblr_hw.lowering.groups.stages import stages_of
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.weights.stored import DenseWeights
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.network.evaluate_network import evaluate_network
from simulator.network.network import Network
from simulator.network.vector_functions import FUNCTIONS, Reach, VectorFunction
from simulator.network.vector_steps import Step
from simulator.numbers.execute_network import execute_network
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine
from simulator.timing.simulate import simulate
from tests.drawn.small_networks import Sketch
from tests.drawn.strategies import ENERGY_TABLE
from tests.oracles.hazards import orders

SIDE, TOKENS, INPUTS = 4, 6, 7
# Rows of three chunks, the last of them not full.
GROUPS, WIDTH = 1, 11
MACHINE = Machine.load("mid-32").with_(
    name="narrow",
    array={"rows": SIDE, "cols": SIDE},
    weight_buffer={"kib": 1},
    scratchpad={"kib": 4},
    dram={"kind": "test"},
    energy={"table": str(ENERGY_TABLE)},
)

# Numbers behind the values and the width of the result, of functions that take some or change it.
NUMBERS = {"layer_norm": (1e-5,), "rms_norm": (1e-5,), "permute": (9.0, 0.0, 5.0, 5.0, 10.0, 3.0), "top_values_width": (4.0,), "top_places_width": (4.0,)}  # fmt: skip
WIDTHS = {"permute": 6, "concat": 2 * WIDTH, "sum_width": 1, "mean_width": 1, "max_width": 1, "prod_width": 1, "top_values_width": 4, "top_places_width": 4}  # fmt: skip
VALUES = {"concat": 2, "weighted_sum_groups": 2}

# These read places beside their value, which a matrix product does not give: the front end's tests have them.
BY_PLACES = ("take_width", "spread_width")
ROW_WISE = [name for name, one in FUNCTIONS.items() if one.reach is not Reach.ELEMENT and name not in BY_PLACES]


def between_linears(name: str, groups: int, width: int) -> tuple[Network, Sketch, Step]:
    """x -> linear -> the function of its result -> linear -> y."""
    function, numbers = FUNCTIONS[name], NUMBERS.get(name, ())
    values = VALUES.get(name, 1 if function.takes is None else function.takes - len(numbers))
    if function.reach is not Reach.ELEMENT:
        assert values == VALUES.get(name, 1), f"say in this test what numbers '{name}' takes besides its value"
        assert function.keeps_width or name in WIDTHS, f"say in this test how wide the result of '{name}' is"
    made = Sketch(np.random.default_rng(3))
    x = made.input("x", 2, TOKENS, 1, INPUTS)
    hidden = made.linear("first", x, groups * width, groups=groups)
    step = Step(name, (0,) * values, None, numbers)
    result = 1 if function.reach is Reach.GROUPS else groups
    y = made.vector("function", [hidden], [step], result, WIDTHS.get(name, width))
    return made.network(made.linear("second", y, 5)), made, step


def exact_weights(made: Sketch) -> dict[str, DenseWeights]:
    """Programs hold weights in float32: those."""
    return {
        name: DenseWeights(torch.tensor(matrix, dtype=torch.float32), torch.tensor(bias, dtype=torch.float32))
        for name, (matrix, bias) in made.weights.items()
    }


def by_hand(made: Sketch, step: Step, groups: int, x: np.ndarray) -> np.ndarray:
    """The same in numpy: whole rows, and what the function means."""

    def product(name: str, rows: np.ndarray) -> np.ndarray:
        matrix, bias = (part.astype(np.float32).astype(np.float64) for part in made.weights[name])
        return rows @ matrix.T + bias

    hidden = product("first", x[:, :, 0])
    hidden = hidden.reshape(*hidden.shape[:2], groups, -1)
    made_of = FUNCTIONS[step.function].meaning(*(hidden for _ in step.args), *step.numbers)
    return product("second", made_of.reshape(*made_of.shape[:2], -1))[:, :, None]


def largest_error(name: str, groups: int = GROUPS, width: int = WIDTH) -> float:
    network, made, step = between_linears(name, groups, width)
    program = lower_network(network, exact_weights(made), MACHINE)
    x = np.random.default_rng(4).normal(size=(2, TOKENS, 1, INPUTS))
    with np.errstate(all="ignore"):
        wanted = by_hand(made, step, groups, x)
    timing = resolve_timing(program, MACHINE)
    errors = [0.0]
    for order in (None, *orders(timing, run_engine(timing)).values()):
        (found,) = execute_network(program, {"x": x}, order=order).values()
        assert np.array_equal(np.isnan(found), np.isnan(wanted))
        errors.append(float(np.nanmax(np.abs(found - wanted), initial=0.0)))
    return max(errors) / float(np.nanmax(np.abs(wanted), initial=1.0))


@pytest.mark.parametrize(("groups", "width"), [(1, 11), (3, 5)])
@pytest.mark.parametrize("name", ROW_WISE)
def test_rows_of_several_chunks_come_out_whole(
    name: str, groups: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "permute" and width < WIDTH:
        monkeypatch.setitem(NUMBERS, name, (4.0, 0.0, 2.0, 2.0, 1.0, 3.0))
    monkeypatch.setitem(WIDTHS, "concat", 2 * width)
    assert largest_error(name, groups, width) < 1e-12


@pytest.mark.parametrize("name", [name for name, function in FUNCTIONS.items() if function.reach is Reach.ELEMENT])
def test_elements_follow_the_product_chunk_by_chunk(name: str) -> None:
    network, _, _ = between_linears(name, GROUPS, WIDTH)
    assert [(stage.first, stage.last, stage.chunked) for stage in stages_of(network, 0, 3, SIDE)] == [
        (0, 2, True),
        (2, 3, False),
    ]
    assert largest_error(name) < 1e-12


def test_a_function_that_claims_too_little_computes_wrong_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tests above can fail: a softmax of a chunk is not a part of a row's."""
    assert largest_error("softmax") < 1e-12
    monkeypatch.setitem(FUNCTIONS, "softmax", replace(FUNCTIONS["softmax"], reach=Reach.ELEMENT, passes=1))
    assert largest_error("softmax") > 0.01


# ---- a function that is not there yet
# --------------------------------------------------------------------------------------------------------------


def log_softmax() -> VectorFunction:
    def meaning(x: np.ndarray) -> np.ndarray:
        shifted = x - x.max(axis=-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))

    return VectorFunction(
        name="log_softmax", meaning=meaning, takes=1, passes=3, reach=Reach.WIDTH, keeps_width=True, commutes=False,
        group="softmax", keeps_largest=False, makes_places=False,
    )  # fmt: skip


def test_a_new_function_is_an_entry_and_a_lowering(monkeypatch: pytest.MonkeyPatch) -> None:
    """From torch to numbers, cycles and the report, exact and in int8."""
    monkeypatch.setitem(FUNCTIONS, "log_softmax", log_softmax())
    assert largest_error("log_softmax") < 1e-12

    def lowering(builder: Builder, a: Arguments) -> View:
        return rowwise(builder, "log_softmax", a["self"], [a["dim"]])

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(INPUTS, WIDTH), nn.LogSoftmax(-1), nn.Linear(WIDTH, 5)).eval().double()
    x = torch.randn(TOKENS, INPUTS, dtype=torch.float64)
    plugins = {"aten.log_softmax.int": lowering}
    program = lower(model, MACHINE, example_inputs=x, calibration=[x], plugins=plugins)
    assert program.network is not None
    assert [step.function for operator in program.network.operators for step in operator.steps] == ["log_softmax"]
    arrays, wanted = port_arrays(program.network.inputs, x), model(x).detach().numpy()
    for mode, tolerance in (("float", 1e-5), ("int8", 0.05)):
        (found,) = execute_network(program, arrays, mode=mode).values()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
    report = simulate(program, MACHINE)
    told = next(layer for layer in report.layers if layer.kind == "vector")
    assert (told.steps, told.group) == ("log_softmax", "softmax")
    # Three passes over rows of three chunks of 4, 64 lanes: V2.
    assert told.vector_cycles == 3 * -(-TOKENS * 3 * SIDE // MACHINE.vector.lanes)


def test_a_function_is_lowered_for_its_reach_or_refused() -> None:
    def lowered(function: Callable[[Builder, View], View]) -> None:
        model = nn.Sequential(nn.Linear(4, 4), nn.Softplus()).eval()
        lower(model, MACHINE, example_inputs=torch.randn(2, 4), plugins={"aten.softplus": lambda b, a: function(b, a["self"])})  # fmt: skip

    lowered(lambda b, view: pointwise(b, "tanh", view))
    with pytest.raises(TypeError, match="vector function 'softmax' has the reach 'width', not 'element'"):
        lowered(lambda b, view: pointwise(b, "softmax", view))
    with pytest.raises(TypeError, match="vector function 'tanh' has the reach 'element', not 'width'"):
        lowered(lambda b, view: rowwise(b, "tanh", view, [-1]))
    with pytest.raises(TypeError, match="vector function 'sum_width' does not keep the width of what it reads"):
        lowered(lambda b, view: rowwise(b, "sum_width", view, [-1]))
    with pytest.raises(InputError, match="vector step 'cube': found no such function"):
        lowered(lambda b, view: pointwise(b, "cube", view))


# ---- heads
# --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "keys"),
    [
        ([Step("softmax", (0,))], TOKENS),
        ([Step("concat", (0, 0)), Step("softmax", (1,))], 2 * TOKENS),
        ([Step("permute", (0,), None, (0.0, 5.0))], 2),
        ([Step("softmax", (0,)), Step("permute", (1,), None, (1.0, 3.0, 3.0, 0.0, 2.0))], 5),
    ],
)
def test_scores_change_their_width_between_the_products(steps: list[Step], keys: int) -> None:
    """A few heads at a time only what fits where the scores lay: a sink beside them makes them wider."""
    made, heads, width = Sketch(np.random.default_rng(0)), 4, 8
    x = made.input("x", 1, TOKENS, 1, width)
    projected = [made.linear(name, x, width * heads, groups=heads) for name in ("query", "key")]
    values = made.constant("values", np.random.default_rng(1).normal(size=(1, keys, heads, width)))
    scores = made.scores("scores", *projected, padded=True)
    weights = made.vector("weights", [scores], steps, heads, keys, padded=True)
    network = made.network(made.linear("out", made.mix("mix", weights, values), width))
    matrices = exact_weights(made)

    def linear(name: str, rows: np.ndarray) -> np.ndarray:
        return rows @ matrices[name].weight.double().numpy().T + matrices[name].bias.double().numpy()

    program = lower_network(network, matrices, MACHINE)
    inputs = {"x": np.random.default_rng(2).normal(size=(1, TOKENS, 1, width))}
    (wanted,) = evaluate_network(network, linear, inputs).values()
    timing = resolve_timing(program, MACHINE)
    for order in (None, *orders(timing, run_engine(timing)).values()):
        (found,) = execute_network(program, inputs, order=order).values()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
