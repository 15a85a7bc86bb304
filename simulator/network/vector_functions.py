"""The functions that the vector unit has, one entry each: what it means, what it costs, how far it reaches.

Lowering, frontend, calibration and reports ask the table and keep no lists of names. A new function is one entry here,
and the lowering of the framework's operation that it stands for (`gblr_hw/frontend/torch_ops`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, get_args

import numpy as np

from simulator.base.errors import NOT_OURS, InputError

Group = Literal["softmax", "norm", "other vector"]
VECTOR_GROUPS: tuple[Group, ...] = get_args(Group)


class Reach(Enum):
    """Which elements of an operand's row an element (group, place in the width) of the result depends on."""

    ELEMENT = "element"  # that element alone: it may be computed chunk by chunk, as sums are drained
    WIDTH = "width"  # any place in the width of that group: whole groups, but some heads without the others
    GROUPS = "groups"  # any group: whole rows


@dataclass(frozen=True)
class VectorFunction:
    """One function of values (batch, tokens, groups, width), in float64.

    takes: values, a constant and numbers that ``meaning`` takes in all, values first; None for any number from one on.
    passes: over the row's elements (machine.md, V2), or a function of a step's numbers where they decide: a pass reads
    every element once at ``vector.lanes`` a cycle; an element by element function of any kind is one, since tables
    serve the curved ones. keeps_width: the result is as wide as the widest operand. commutes: two values may change
    places. group: what a report sums its operators up under, the first of VECTOR_GROUPS among an operator's functions.
    keeps_largest: calibration to a percentile leaves no outlier of its results out. makes_places: its results are
    places in a row, whatever the values are.

    Raises TypeError naming the entry if its parts contradict each other.
    """

    name: str
    meaning: Callable[..., np.ndarray]
    takes: int | None
    passes: int | Callable[..., int]
    reach: Reach
    keeps_width: bool
    commutes: bool
    group: Group
    keeps_largest: bool
    makes_places: bool

    def __post_init__(self) -> None:
        one_by_one = self.reach is Reach.ELEMENT
        rules = (
            (callable(self.meaning), "its meaning is a function of arrays"),
            (callable(self.passes) or self.passes >= 1, "it takes a pass or more"),
            (self.takes is None or self.takes >= 1, "it takes a value or more"),
            (not one_by_one or self.passes == 1, "element by element is one pass (machine.md, V2)"),
            (not one_by_one or self.keeps_width, "element by element keeps the width"),
            (not self.commutes or self.takes == 2, "two values may change places, not one or three"),
            (self.group in VECTOR_GROUPS, f"its group is one of {', '.join(VECTOR_GROUPS)}"),
        )
        for met, rule in rules:
            if not met:
                raise TypeError(f"vector function '{self.name}': {rule} (simulator/network/vector_functions.py)")

    def passes_of(self, numbers: Sequence[float]) -> int:
        """Passes of a step with these numbers."""
        return self.passes(*numbers) if callable(self.passes) else self.passes


def _erf(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf  # half of the package's import time, and only execution needs it

    return erf(x)


def _softmax(x: np.ndarray) -> np.ndarray:
    # A row that a mask empties altogether is all -inf; frameworks give NaN there, and so does this.
    shifted = np.exp(x - x.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _layer_norm(x: np.ndarray, epsilon: float) -> np.ndarray:
    return (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + epsilon)


def _rms_norm(x: np.ndarray, epsilon: float) -> np.ndarray:
    return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + epsilon)


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1.0 + _erf(x / np.sqrt(2.0)))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _weighted_sum(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The sum of the groups, each times its weights."""
    return (x * weights).sum(axis=2, keepdims=True)


def _permute(x: np.ndarray, *order: float) -> np.ndarray:
    """out[..., i] = x[..., order[i]]; may pick fewer or more than there are."""
    return x[..., np.asarray(order, dtype=np.int64)]


def _top_places(x: np.ndarray, count: float) -> np.ndarray:
    """Where the largest elements are, the largest first; of equal ones the first."""
    places: np.ndarray = np.argsort(-x, axis=-1, kind="stable")[..., : int(count)].astype(np.float64)
    return places


def _top_values(x: np.ndarray, count: float) -> np.ndarray:
    return np.take_along_axis(x, _top_places(x, count).astype(np.int64), axis=-1)


def _take(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    """out[..., i] = x[..., places[..., i]]."""
    shape = np.broadcast_shapes(x.shape[:-1], places.shape[:-1])
    wide, chosen = (np.broadcast_to(one, (*shape, one.shape[-1])) for one in (x, places))
    return np.take_along_axis(wide, chosen.astype(np.int64), axis=-1)


def _spread(x: np.ndarray, places: np.ndarray, width: float) -> np.ndarray:
    """out[..., places[..., i]] is the sum of such x[..., i], 0 where there is none."""
    shape = np.broadcast_shapes(x.shape, places.shape)
    values, chosen = np.broadcast_to(x, shape), np.broadcast_to(places, shape).astype(np.int64)
    rows = np.zeros((int(np.prod(shape[:-1])), int(width)))
    np.add.at(rows, (np.arange(len(rows))[:, None], chosen.reshape(len(rows), -1)), values.reshape(len(rows), -1))
    return rows.reshape(*shape[:-1], int(width))


def _select(keep: np.ndarray, x: np.ndarray, other: np.ndarray | float) -> np.ndarray:
    """The second value where the first is not 0, else the third."""
    return np.asarray(np.where(keep != 0, x, other))


def _selections(count: float) -> int:
    """Passes that pick the largest elements of a row one after another: one for each, which leaves it out next."""
    return int(count)


def _truth(compare: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda x, y: compare(x, y).astype(np.float64)


def _elementwise(
    name: str, takes: int, meaning: Callable[..., np.ndarray], *, commutes: bool = False
) -> VectorFunction:
    return VectorFunction(
        name=name,
        meaning=meaning,
        takes=takes,
        passes=1,
        reach=Reach.ELEMENT,
        keeps_width=True,
        commutes=commutes,
        group="other vector",
        keeps_largest=False,
        makes_places=False,
    )


def _row_wise(
    name: str,
    takes: int | None,
    meaning: Callable[..., np.ndarray],
    *,
    passes: int | Callable[..., int],
    keeps_width: bool,
    group: Group = "other vector",
    keeps_largest: bool = False,
    makes_places: bool = False,
) -> VectorFunction:
    return VectorFunction(
        name=name,
        meaning=meaning,
        takes=takes,
        passes=passes,
        reach=Reach.WIDTH,
        keeps_width=keeps_width,
        commutes=False,
        group=group,
        keeps_largest=keeps_largest,
        makes_places=makes_places,
    )


def _over_groups(name: str, takes: int, meaning: Callable[..., np.ndarray]) -> VectorFunction:
    """One pass over rows of all groups, of which one is left."""
    return VectorFunction(
        name=name,
        meaning=meaning,
        takes=takes,
        passes=1,
        reach=Reach.GROUPS,
        keeps_width=True,
        commutes=False,
        group="other vector",
        keeps_largest=False,
        makes_places=False,
    )


def _reductions(function: str, over: Callable[[np.ndarray, int], np.ndarray]) -> tuple[VectorFunction, VectorFunction]:
    """``over`` an axis that it keeps with size 1: the width of each group, or the groups."""
    width = _row_wise(f"{function}_width", 1, lambda x: over(x, -1), passes=1, keeps_width=False)
    groups = _over_groups(f"{function}_groups", 1, lambda x: over(x, -2))
    return width, groups


def _table(entries: Iterable[VectorFunction]) -> dict[str, VectorFunction]:
    found: dict[str, VectorFunction] = {}
    for entry in entries:
        if entry.name in found:
            raise TypeError(f"vector function '{entry.name}': two entries (simulator/network/vector_functions.py)")
        found[entry.name] = entry
    return found


FUNCTIONS = _table(
    (
        _elementwise("copy", 1, lambda x: x),
        _elementwise("add", 2, np.add, commutes=True),
        _elementwise("subtract", 2, np.subtract),
        _elementwise("multiply", 2, np.multiply, commutes=True),
        _elementwise("divide", 2, np.divide),
        _elementwise("maximum", 2, np.maximum, commutes=True),
        _elementwise("minimum", 2, np.minimum, commutes=True),
        _elementwise("negative", 1, np.negative),
        _elementwise("absolute", 1, np.abs),
        _elementwise("square", 1, np.square),
        _elementwise("power", 2, np.power),
        _elementwise("sqrt", 1, np.sqrt),
        _elementwise("rsqrt", 1, lambda x: 1.0 / np.sqrt(x)),
        _elementwise("exp", 1, np.exp),
        _elementwise("log", 1, np.log),
        _elementwise("sine", 1, np.sin),
        _elementwise("cosine", 1, np.cos),
        _elementwise("tanh", 1, np.tanh),
        _elementwise("erf", 1, _erf),
        _elementwise("sigmoid", 1, _sigmoid),
        _elementwise("relu", 1, lambda x: np.maximum(x, 0.0)),
        _elementwise("clip", 3, np.clip),
        _elementwise("gelu", 1, _gelu),
        _elementwise("gelu_tanh", 1, _gelu_tanh),
        _elementwise("silu", 1, lambda x: x * _sigmoid(x)),
        _elementwise("expm1", 1, np.expm1),
        _elementwise("log1p", 1, np.log1p),
        _elementwise("floor", 1, np.floor),
        _elementwise("ceil", 1, np.ceil),
        _elementwise("round", 1, np.rint),
        _elementwise("truncate", 1, np.trunc),
        _elementwise("sign", 1, np.sign),
        _elementwise("remainder", 2, np.mod),
        _elementwise("tangent", 1, np.tan),
        _elementwise("arctangent", 1, np.arctan),
        _elementwise("equal", 2, _truth(np.equal), commutes=True),
        _elementwise("not_equal", 2, _truth(np.not_equal), commutes=True),
        _elementwise("less", 2, _truth(np.less)),
        _elementwise("less_equal", 2, _truth(np.less_equal)),
        _elementwise("greater", 2, _truth(np.greater)),
        _elementwise("greater_equal", 2, _truth(np.greater_equal)),
        _elementwise("select", 3, _select),
        # A lane multiplies and adds: one pass over what is read.
        _over_groups("weighted_sum_groups", 2, _weighted_sum),
        _row_wise("permute", None, _permute, passes=1, keeps_width=False),
        _row_wise("concat", None, lambda *parts: np.concatenate(parts, axis=-1), passes=1, keeps_width=False),
        # Passes: the largest; exponentials and their sum; scaling.
        _row_wise("softmax", 1, _softmax, passes=3, keeps_width=True, group="softmax", keeps_largest=True),
        # Passes: moments; scaling.
        _row_wise("layer_norm", 2, _layer_norm, passes=2, keeps_width=True, group="norm"),
        _row_wise("rms_norm", 2, _rms_norm, passes=2, keeps_width=True, group="norm"),
        *_reductions("sum", lambda x, axis: x.sum(axis=axis, keepdims=True)),
        *_reductions("mean", lambda x, axis: x.mean(axis=axis, keepdims=True)),
        *_reductions("max", lambda x, axis: x.max(axis=axis, keepdims=True)),
        *_reductions("prod", lambda x, axis: x.prod(axis=axis, keepdims=True)),
        # Passes: each lane's part; the parts' offsets.
        _row_wise("running_sum_width", 1, lambda x: np.cumsum(x, axis=-1), passes=2, keeps_width=True),
        _row_wise("running_product_width", 1, lambda x: np.cumprod(x, axis=-1), passes=2, keeps_width=True),
        _row_wise("top_values_width", 2, _top_values, passes=_selections, keeps_width=False),
        _row_wise("top_places_width", 2, _top_places, passes=_selections, keeps_width=False, makes_places=True),
        # Passes: places; elements.
        _row_wise("take_width", 2, _take, passes=2, keeps_width=False),
        _row_wise("spread_width", 3, _spread, passes=2, keeps_width=False),
    )
)


def function_named(name: str) -> VectorFunction:
    """The entry of a function; InputError for one that the vector unit does not have."""
    if name not in FUNCTIONS:
        raise InputError(
            f"vector step '{name}'",
            "no such function",
            f"the vector unit has {', '.join(FUNCTIONS)}",
            NOT_OURS,
        )
    return FUNCTIONS[name]
