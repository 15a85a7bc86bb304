"""The table of vector functions: every entry reaches as far as it says and no further, and a bad entry is refused."""

from __future__ import annotations

import runpy
from dataclasses import replace

import numpy as np
import pytest

from gblr_hw.frontend.tidy import idioms
from simulator.base.errors import InputError
from simulator.network.vector_functions import FUNCTIONS, Reach, VectorFunction, _table, function_named
from simulator.network.vector_steps import Step, passes_of, run_steps

SHAPE = (2, 3, 3, 5)
# Numbers behind the values, of the functions that take some; the others take values alone.
NUMBERS = {"layer_norm": (1e-5,), "rms_norm": (1e-5,), "permute": (3.0, 0.0, 4.0), "top_values_width": (3.0,), "top_places_width": (3.0,), "spread_width": (7.0,)}  # fmt: skip
SEVERAL = {"concat": 2}  # values, where any number of them goes


def drawn_arguments(function: VectorFunction) -> tuple[list[np.ndarray], tuple[float, ...]]:
    numbers = NUMBERS.get(function.name, ())
    count = SEVERAL.get(function.name, 1 if function.takes is None else function.takes - len(numbers))
    rng = np.random.default_rng(0)
    values = [rng.uniform(0.5, 1.5, SHAPE) for _ in range(count)]
    return [values[0], values[1][..., :3]] if function.name == "take_width" else values, numbers


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_reaches_as_far_as_it_says(name: str) -> None:
    """Every element of every value is changed, and the elements of the result that move are looked at."""
    function = FUNCTIONS[name]
    values, numbers = drawn_arguments(function)
    result = function.meaning(*values, *numbers)
    other_places = other_groups = False
    for which, value in enumerate(values):
        for at in np.ndindex(value.shape):
            changed = value.copy()
            changed[at] += 0.75
            moved = function.meaning(*values[:which], changed, *values[which + 1 :], *numbers) != result
            for batch, token, group, place in zip(*np.nonzero(moved), strict=True):
                assert (batch, token) == at[:2]
                other_groups |= group != at[2]
                other_places |= place != at[3]
    assert other_groups == (function.reach is Reach.GROUPS)
    assert other_places == (function.reach is Reach.WIDTH)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_keeps_the_width_or_does_not(name: str) -> None:
    values, numbers = drawn_arguments(FUNCTIONS[name])
    result = FUNCTIONS[name].meaning(*values, *numbers)
    assert (result.shape[-1] == SHAPE[-1]) == FUNCTIONS[name].keeps_width
    assert result.shape[-2] == (1 if FUNCTIONS[name].reach is Reach.GROUPS else SHAPE[-2])


@pytest.mark.parametrize("name", [name for name, function in FUNCTIONS.items() if function.takes == 2])
def test_two_values_change_places_where_they_may(name: str) -> None:
    rng = np.random.default_rng(1)
    one, two = rng.uniform(0.5, 1.5, (2, *SHAPE))
    if FUNCTIONS[name].reach is Reach.ELEMENT:
        meaning = FUNCTIONS[name].meaning
        assert np.array_equal(meaning(one, two), meaning(two, one)) == FUNCTIONS[name].commutes
    else:
        assert not FUNCTIONS[name].commutes


def test_the_table_is_by_name_and_passes_are_the_manuals() -> None:
    assert all(name == function.name for name, function in FUNCTIONS.items())
    passes = {name: function.passes_of(NUMBERS.get(name, ())) for name, function in FUNCTIONS.items()}
    assert {name: count for name, count in passes.items() if count > 1} == {
        "softmax": 3, "layer_norm": 2, "rms_norm": 2, "running_sum_width": 2, "running_product_width": 2, "take_width": 2,
        "spread_width": 2, "top_values_width": 3, "top_places_width": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"meaning": None}, "its meaning is a function"),
        ({"passes": 0}, "it takes a pass or more"),
        ({"takes": 0, "commutes": False}, "it takes a value or more"),
        ({"passes": 2}, "element by element is one pass"),
        ({"keeps_width": False}, "element by element keeps the width"),
        ({"takes": 3}, "two values may change places, not one or three"),
        ({"group": "sums"}, "its group is one of softmax, norm, other vector"),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=f"vector function 'add': {message}"):
        replace(FUNCTIONS["add"], **change)


def test_an_incomplete_or_double_entry_is_refused() -> None:
    with pytest.raises(TypeError, match="'reach'"):
        VectorFunction(name="twice", meaning=np.add, takes=1, passes=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="vector function 'add': two entries"):
        _table([FUNCTIONS["add"], FUNCTIONS["copy"], FUNCTIONS["add"]])


def test_an_unknown_function_and_a_wrong_number_of_values_are_refused() -> None:
    with pytest.raises(InputError, match=r"vector step 'cube': found no such function; the vector unit has copy, add"):
        function_named("cube")
    for step, given in (
        (Step("add", (0,)), 1),
        (Step("add", (0, 0), None, (1.0,)), 3),
        (Step("softmax", (0,), "mask"), 2),
        (Step("concat", ()), 0),
    ):
        for refused in (lambda step=step: passes_of([step]), lambda step=step: run_steps([step], [np.ones(SHAPE)], {"mask": np.ones(1)})):  # fmt: skip
            with pytest.raises(
                InputError, match=rf"found {given} values, constants and numbers; '{step.function}' takes"
            ):
                refused()


def test_an_idiom_of_a_function_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renamed in the table, a pattern would match nothing any more."""
    renamed = FUNCTIONS["rsqrt"]
    monkeypatch.delitem(FUNCTIONS, "rsqrt")
    with pytest.raises(InputError, match="vector step 'rsqrt': found no such function"):
        runpy.run_path(idioms.__file__)
    monkeypatch.setitem(FUNCTIONS, "rsqrt", renamed)
    monkeypatch.setitem(FUNCTIONS, "rms_norm", replace(FUNCTIONS["rms_norm"], takes=1))
    with pytest.raises(TypeError, match="idiom of 'rms_norm': 1 numbers besides x, it takes 1"):
        runpy.run_path(idioms.__file__)
