"""A sparse matrix as dense products of what is there, for use on a CPU: which rows take which columns together."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Bools = NDArray[np.bool_]
Indices = NDArray[np.int64]
# Rows of a product on a window: few have narrow windows, many have few products.
_WINDOW_ROWS = (32, 48, 64, 96, 128, 192)


class Part(NamedTuple):
    """A product. rows: (first, one past the last), or where its values are added. columns: a run of the source, which
    goes on at the first column where it ends past the last; or those that are gathered. weights: (rows, columns).
    """

    rows: tuple[int, int] | Tensor
    columns: tuple[int, int] | Tensor
    weights: Tensor


class Products(nn.Module):
    """A matrix (rows, cols) of parts: they follow one another, and leave out no row, or all of them are added.

    work: multiplications; moved: values that are copied for them, of one column of the source (a token); count: parts.
    """

    def __init__(self, rows: int, cols: int, parts: list[Part]) -> None:
        super().__init__()
        self.count, self.work = len(parts), sum(part.weights.numel() for part in parts)
        self.cols = cols
        self._size, self._columns = rows, [part.columns for part in parts]
        self._rows = [part.rows for part in parts if not isinstance(part.rows, Tensor)]
        self.adds = any(isinstance(part.rows, Tensor) for part in parts)
        self.gathers = any(isinstance(part.columns, Tensor) for part in parts)
        self.moved = sum(_moved(part, cols) for part in parts)
        for index, (into, columns, weights) in enumerate(parts):
            self.register_buffer(f"weights{index}", weights.contiguous())
            for name, one in (("rows", into), ("columns", columns)):
                if isinstance(one, Tensor):
                    self.register_buffer(f"{name}{index}", one)

    def ranks(self, x: Tensor) -> Tensor:
        """x (cols, tokens) -> (rows, tokens)."""
        if self.adds:
            return self._added(x)
        if _follows(x) or not self.count:
            made = [self._held("weights", index) @ self._seen(x, index) for index in range(self.count)]
            return torch.cat(made) if made else x.new_zeros(self._size, x.shape[1])
        y = x.new_empty(self._size, x.shape[1])
        for index, (first, last) in enumerate(self._rows):
            torch.mm(self._held("weights", index), self._seen(x, index), out=y.narrow(0, first, last - first))
        return y

    def outputs(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x (cols, tokens) -> (tokens, rows), and bias (rows,) added. Parts that are added have no outputs."""
        if _follows(x):
            made = [self._seen(x, index).t() @ self._held("weights", index).t() for index in range(self.count)]
            return torch.cat(made, 1) if bias is None else torch.cat(made, 1) + bias
        y = x.new_empty(x.shape[1], self._size)
        for index, (first, last) in enumerate(self._rows):
            seen, weights = self._seen(x, index).t(), self._held("weights", index).t()
            written = y.narrow(1, first, last - first)
            if bias is None:
                torch.mm(seen, weights, out=written)
            else:
                torch.addmm(bias.narrow(0, first, last - first), seen, weights, out=written)
        return y

    def _added(self, x: Tensor) -> Tensor:
        y = x.new_zeros(self._size, x.shape[1])
        for index in range(self.count):
            into, product = self._held("rows", index), self._held("weights", index) @ self._seen(x, index)
            y = y.index_add(0, into, product) if _follows(x) else y.index_add_(0, into, product)
        return y

    def _held(self, name: str, index: int) -> Tensor:
        # A part takes some microseconds, of which the search for an attribute would be one.
        held = self._buffers[f"{name}{index}"]
        assert held is not None
        return held

    def _seen(self, x: Tensor, index: int) -> Tensor:
        """The columns of a part."""
        columns = self._columns[index]
        if isinstance(columns, Tensor):
            return x.index_select(0, self._held("columns", index))
        first, last = columns
        return x.narrow(0, first, last - first) if last <= len(x) else torch.cat([x[first:], x[: last - len(x)]])


def _follows(x: Tensor) -> bool:
    """Whether gradients go to x: what is written in place has none."""
    return x.requires_grad and torch.is_grad_enabled()


def _moved(part: Part, cols: int) -> int:
    taken, added = part.weights.shape[1], 2 * len(part.rows) if isinstance(part.rows, Tensor) else 0
    return added + (taken if isinstance(part.columns, Tensor) or part.columns[1] > cols else 0)


def gathered(matrix: Tensor, support: Bools) -> Products:
    """A matrix (m, k) as products of rows that follow one another and have the same support (m, k)."""
    changes = np.flatnonzero((support[1:] != support[:-1]).any(1)) + 1
    parts = []
    for first, last in pairwise([0, *changes.tolist(), len(support)] if len(support) else []):
        columns = np.flatnonzero(support[first])
        is_run = not len(columns) or columns[-1] - columns[0] + 1 == len(columns)
        run = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0)
        taken = torch.from_numpy(columns)
        parts.append(Part((first, last), run if is_run else taken, matrix[first:last].index_select(1, taken)))
    return Products(len(matrix), matrix.shape[1], parts)


def added(matrix: Tensor, chunks: Bools, chunk: int) -> Products:
    """A matrix (m, k) as products of a chunk of columns each, with the rows that take it: chunks (m, C)."""
    parts = []
    for one in range(chunks.shape[1]):
        rows, first = torch.from_numpy(np.flatnonzero(chunks[:, one])), one * chunk
        last = min(first + chunk, matrix.shape[1])
        if len(rows):
            parts.append(Part(rows, (first, last), matrix.index_select(0, rows)[:, first:last]))
    return Products(len(matrix), matrix.shape[1], parts)


def on_windows(matrix: Tensor, support: Bools, rows: int) -> Products:
    """A matrix (m, k) as products of so many rows each with the shortest run of columns, round the end if need be, that
    holds their supports (m, k).
    """
    parts, cols = [], support.shape[1]
    for first in range(0, len(support), rows):
        last = min(first + rows, len(support))
        start, stop = _window(np.asarray(support[first:last].any(0)))
        columns = torch.arange(start, stop) % cols
        parts.append(Part((first, last), (start, stop), matrix[first:last].index_select(1, columns)))
    return Products(len(matrix), matrix.shape[1], parts)


def on_best_windows(matrix: Tensor, support: Bools, multiplications_a_part: float) -> Products:
    """`on_windows` with the number of rows that costs least."""
    ways = (on_windows(matrix, support, rows) for rows in _WINDOW_ROWS)
    return min(ways, key=lambda way: way.work + multiplications_a_part * way.count)


def _window(taken: Bools) -> tuple[int, int]:
    """(first, one past the last) of the shortest run that holds what is taken; it may end past the last column."""
    places = np.flatnonzero(taken)
    if not len(places):
        return (0, 0)
    gaps = np.diff(np.append(places, places[0] + len(taken)))
    widest = int(gaps.argmax())
    first = int(places[(widest + 1) % len(places)])
    return first, first + len(taken) - int(gaps[widest]) + 1


def by_middle(support: Bools) -> Indices:
    """Rows of a support (m, k) in the order of the middles of what they take, round the end."""
    circle = np.exp(2j * np.pi * np.arange(support.shape[1]) / support.shape[1])
    middles = np.angle(support @ circle) % (2 * np.pi)
    return np.argsort(middles, kind="stable")
