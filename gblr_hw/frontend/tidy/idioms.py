"""Steps that together are a function that the vector unit has, as that one; and steps that do nothing, left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isclose, pi, sqrt
from typing import Any

import numpy as np

from simulator.network.network import Operator
from simulator.network.vector_functions import function_named
from simulator.network.vector_steps import Step

# A pattern is a function with its arguments: other patterns, names of values that must agree wherever they appear,
# then numbers, of which a name is one that is kept.
Pattern = tuple[Any, ...]

_GELU_INNER: Pattern = ("tanh", ("multiply", ("add", "x", ("multiply", ("power", "x", 3.0), 0.044715)), sqrt(2 / pi)))
_VARIANCE: Pattern = ("mean_width", ("square", ("subtract", "x", ("mean_width", "x"))))

# Pattern, the function that it is, and the numbers that this takes.
IDIOMS: tuple[tuple[Pattern, str, tuple[str, ...]], ...] = (
    (("multiply", ("multiply", "x", 0.5), ("add", _GELU_INNER, 1.0)), "gelu_tanh", ()),
    (("multiply", ("multiply", "x", 0.5), ("add", ("erf", ("divide", "x", sqrt(2.0))), 1.0)), "gelu", ()),
    (("multiply", ("multiply", "x", 0.5), ("add", ("erf", ("multiply", "x", sqrt(0.5))), 1.0)), "gelu", ()),
    (("multiply", "x", ("sigmoid", "x")), "silu", ()),
    (("multiply", "x", ("rsqrt", ("add", ("mean_width", ("square", "x")), "epsilon"))), "rms_norm", ("epsilon",)),
    (
        ("multiply", ("subtract", "x", ("mean_width", "x")), ("rsqrt", ("add", _VARIANCE, "epsilon"))),
        "layer_norm", ("epsilon",),
    ),
    (
        ("divide", ("subtract", "x", ("mean_width", "x")), ("sqrt", ("add", _VARIANCE, "epsilon"))),
        "layer_norm", ("epsilon",),
    ),
)  # fmt: skip


def _functions(pattern: Any) -> Iterator[str]:
    if isinstance(pattern, tuple):
        yield pattern[0]
        for part in pattern[1:]:
            yield from _functions(part)


# A pattern of a function that has been renamed would match nothing any more, without a word.
for _pattern, _made, _numbers in IDIOMS:
    for _name in (*_functions(_pattern), _made):
        function_named(_name)
    _takes = function_named(_made).takes
    if _takes != 1 + len(_numbers):
        raise TypeError(f"idiom of '{_made}': {len(_numbers)} numbers besides x, it takes {_takes}")


@dataclass
class _Program:
    """Steps under change: values by number, operands first."""

    operands: int
    steps: list[Step]
    constants: dict[str, np.ndarray]

    def step(self, value: int) -> Step | None:
        return self.steps[value - self.operands] if value >= self.operands else None


def simplified(operator: Operator) -> Operator:
    """The operator with its idioms recognised, its copies left out and its constants multiplied together."""
    program = _Program(len(operator.operands), list(operator.steps), dict(operator.constants))
    for index in range(len(program.steps)):
        _recognise(program, index)
        _merge_concat(program, index)
        _merge_multiplies(program, index)
    _skip_copies(program)
    steps = _live(program)
    used = {step.constant for step in steps}
    constants = {name: array for name, array in program.constants.items() if name in used}
    return replace(operator, steps=tuple(steps), constants=constants)


def _recognise(program: _Program, index: int) -> None:
    for pattern, function, numbers in IDIOMS:
        found: dict[str, Any] = {}
        if _matches(program, program.operands + index, pattern, found):
            kept = tuple(float(found[name]) for name in numbers)
            program.steps[index] = Step(function, (found["x"],), numbers=kept)
            return


def _matches(program: _Program, value: int, pattern: Any, found: dict[str, Any]) -> bool:
    if isinstance(pattern, str):
        return bool(found.setdefault(pattern, value) == value)
    if not isinstance(pattern, tuple):
        return False  # a number stands where this graph has a value
    step = program.step(value)
    if step is None or step.function != pattern[0] or step.constant is not None:
        return False
    wanted, numbers = pattern[1 : 1 + len(step.args)], pattern[1 + len(step.args) :]
    if len(wanted) != len(step.args) or len(numbers) != len(step.numbers):
        return False
    for number, want in zip(step.numbers, numbers, strict=True):
        if isinstance(want, str):
            if found.setdefault(want, number) != number:
                return False
        elif not isinstance(want, float) or not isclose(number, want, rel_tol=1e-6):
            return False
    orders = [step.args]
    if len(step.args) == 2 and function_named(step.function).commutes:
        orders.append(step.args[::-1])
    for order in orders:
        trial = dict(found)
        if all(_matches(program, arg, want, trial) for arg, want in zip(order, wanted, strict=True)):
            found.update(trial)
            return True
    return False


def _merge_concat(program: _Program, index: int) -> None:
    """Picks of one value side by side, some of them negated (rotary embeddings do it), as one pick and its signs."""
    step = program.steps[index]
    if step.function != "concat":
        return
    picks: list[float] = []
    signs: list[float] = []
    sources = set()
    for arg in step.args:
        part = program.step(arg)
        sign = 1.0
        if part is not None and part.function == "negative":
            sign, part = -1.0, program.step(part.args[0])
        if part is None or part.function != "permute":
            return
        sources.add(part.args[0])
        picks += part.numbers
        signs += [sign] * len(part.numbers)
    if len(sources) != 1:
        return
    permuted = Step("permute", (sources.pop(),), numbers=tuple(picks))
    if -1.0 not in signs:
        program.steps[index] = permuted
        return
    # The negated step's place becomes the pick: it stands before, and nothing else may read it.
    negated = next(arg for arg in step.args if (one := program.step(arg)) is not None and one.function == "negative")
    if _uses(program, negated) != 1:
        return
    program.steps[negated - program.operands] = permuted
    array = np.asarray(signs, dtype=np.float32).reshape(1, 1, 1, -1)
    name = add_constant(program.constants, "signs", array)
    program.steps[index] = Step("multiply", (negated,), name)


def add_constant(constants: dict[str, np.ndarray], name: str, array: np.ndarray) -> str:
    """Add an array under its name, or a numbered one if another has it; the name that it got."""
    base, count = name.partition("#")[0], 1
    while name in constants and not _same(constants[name], array):
        count += 1
        name = f"{base}#{count}"
    constants[name] = array
    return name


def _same(left: np.ndarray, right: np.ndarray) -> bool:
    return left is right or (left.shape == right.shape and left.dtype == right.dtype and np.array_equal(left, right))


def _uses(program: _Program, value: int) -> int:
    return sum(step.args.count(value) for step in program.steps)


def _merge_multiplies(program: _Program, index: int) -> None:
    """x times a constant times another one, as x times their product, where that is no larger an array."""
    step = program.steps[index]
    first = program.step(step.args[0]) if step.args else None
    if step.function != "multiply" or first is None or first.function != "multiply":
        return
    if step.constant is None or first.constant is None or _uses(program, step.args[0]) != 1:
        return
    left, right = program.constants[first.constant], program.constants[step.constant]
    product = left * right
    if product.size > max(left.size, right.size):
        return
    name = f"{first.constant} {step.constant}"
    name = add_constant(program.constants, name, product)
    program.steps[index] = Step("multiply", first.args, name)


def _skip_copies(program: _Program) -> None:
    """Values read from what a copy copies; the last step stays, as it is the result."""
    for index, step in enumerate(program.steps):
        if step.function == "copy" and index < len(program.steps) - 1:
            _redirect(program.steps, program.operands + index, step.args[0])
    last = program.steps[-1]
    source = program.step(last.args[0]) if last.function == "copy" else None
    if source is not None:
        program.steps[-1] = source


def _redirect(steps: list[Step], old: int, new: int) -> None:
    for index, step in enumerate(steps):
        if old in step.args:
            steps[index] = replace(step, args=tuple(new if arg == old else arg for arg in step.args))


def _live(program: _Program) -> Sequence[Step]:
    """The steps that the last one needs, without repetitions, renumbered."""
    base = program.operands
    needed = {base + len(program.steps) - 1}
    for index in reversed(range(len(program.steps))):
        if base + index in needed:
            needed |= set(program.steps[index].args)
    number: dict[int, int] = {value: value for value in range(base)}
    kept: list[Step] = []
    for index, step in enumerate(program.steps):
        if base + index not in needed:
            continue
        moved = replace(step, args=tuple(number[arg] for arg in step.args))
        if moved in kept[: len(kept)] and index < len(program.steps) - 1:
            number[base + index] = base + kept.index(moved)
            continue
        kept.append(moved)
        number[base + index] = base + len(kept) - 1
    return kept
