"""What stands between two matrix products, as a matrix of its own: moved channels, scales, sums, a shift.

A run of vector operators of which each reads the one before alone is such a link if, row by row, it is the same affine
function of a row. It is worked out from the operators' own meaning: zeros give the shift, single ones the columns, and
random rows must then come out as the matrix says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix

from gblr_hw.frontend.graph.draft import Draft
from simulator.network.network import Operand, Operator
from simulator.network.operand_views import operand_view
from simulator.network.vector_steps import run_steps

Floats = NDArray[np.float64]

# Functions that can be affine in one value; whether they are is tried.
_FUNCTIONS = frozenset(
    ("copy", "permute", "multiply", "divide", "add", "subtract", "negative", "concat",
     "sum_width", "sum_groups", "mean_width", "mean_groups")
)  # fmt: skip
_MOST_CHANNELS = 8192
_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Link:
    """``matrix`` (outputs, inputs) times a row plus ``shift`` (outputs,)."""

    matrix: csr_matrix
    shift: Floats

    @property
    def order(self) -> NDArray[np.int64] | None:
        """(outputs,): the one input that each output is a multiple of, if no two are of the same; else None. Inputs may
        be left over.
        """
        if (np.diff(self.matrix.indptr) != 1).any():
            return None
        source = self.matrix.indices.astype(np.int64)
        return source if len(np.unique(source)) == len(source) else None


def could_be_affine(operator: Operator) -> bool:
    """Whether a vector operator reads one value and does nothing to it that is never affine."""
    if operator.kind != "vector" or len(operator.operands) != 1:
        return False
    if operator.operands[0].access not in ("rows", "window", "strided", "transposed"):
        return False
    return all(step.function in _FUNCTIONS for step in operator.steps)


def link_of(draft: Draft, name: str, path: Sequence[Operator], read: Operand | None) -> Link | None:
    """From the rows of tensor ``name``, through ``path``, to the rows that ``read`` takes of the last one (None: all);
    None if rows meet, or what becomes of them is not affine or differs.
    """
    tensor = draft.tensors[name]
    rows, channels = tensor.rows, tensor.groups * tensor.width
    if channels > _MOST_CHANNELS:
        return None

    def after(given: Floats) -> Floats:
        values = given.reshape(tensor.batch, tensor.tokens, channels)
        for operator in path:
            values = _computed(draft, operator, values)
        seen = values if read is None else operand_view(read, values)
        return seen.reshape(rows, -1)

    try:
        shift = after(np.zeros((rows, channels)))
    except ValueError:  # the rows do not become as many rows
        return None
    if not (np.isfinite(shift).all() and (shift == shift[:1]).all()):
        return None
    rng = np.random.default_rng(0)
    parts = []
    for first in range(0, channels, rows):
        count = min(rows, channels - first)
        single = np.zeros((rows, channels))
        single[np.arange(count), first + np.arange(count)] = 1.0
        row, output = np.nonzero(after(single) - shift)
        if len(row) and row.max() >= count:
            return None
        parts.append((after(single)[row, output] - shift[0, output], output, first + row))
    values, outputs, inputs = (np.concatenate(column) for column in zip(*parts, strict=True))
    matrix = csr_matrix(coo_matrix((values, (outputs, inputs)), shape=(shift.shape[1], channels)))
    for _ in range(2):
        drawn = rng.normal(size=(rows, channels))
        wanted = (matrix @ drawn.T).T + shift
        if not np.allclose(after(drawn), wanted, rtol=_TOLERANCE, atol=_TOLERANCE * max(1.0, float(abs(wanted).max()))):
            return None
    return Link(matrix, shift[0])


def _computed(draft: Draft, operator: Operator, values: Floats) -> Floats:
    tensor = draft.tensors[operator.output]
    constants: Mapping[str, np.ndarray] = operator.constants
    with np.errstate(all="ignore"):
        result = run_steps(operator.steps, [operand_view(operator.operands[0], values)], constants)
    shape = (operator.batch, operator.tokens, tensor.groups, tensor.width)
    return np.broadcast_to(result, shape).reshape(operator.batch, operator.tokens, -1)
