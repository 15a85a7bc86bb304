"""The tile lattice: which tiles of a P x Q array a layer needs. Every weight family is a point of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.base.shown import Table, Tabled, data_frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False, repr=False)
class Structure(Tabled):
    """A point of the tile lattice of one layer with C input chunks, R output chunks and K single ranks.

    Parameters
    ----------
    tiles: (R, C) bool, the chunk pairs kept as dense tiles.
    reads: (K, C) bool, the input chunks that each rank reads.
    writes: (K, R) bool, the output chunks that each rank writes.
    chained: (K,) bool, ranks that are mixed into or from others, or None for none.

    The arrays are copied and made read-only. A rank may be dead (neither read nor written), so that rank numbers stay
    those of the factors; a rank with one side only that is not chained is refused, because it would be paid for and
    compute nothing.

    Raises
    ------
    InputError: an array that is not boolean or not two-dimensional, sizes that disagree, or a rank with one side only.
    """

    tiles: BoolArray
    reads: BoolArray
    writes: BoolArray
    chained: BoolArray | None = None

    def __post_init__(self) -> None:
        for name in ("tiles", "reads", "writes"):
            object.__setattr__(self, name, _frozen(name, getattr(self, name)))
        expected = {"tiles": (self.writes.shape[1], self.reads.shape[1]), "writes": (len(self.reads), len(self.tiles))}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise InputError(
                    f"structure field '{name}'",
                    f"shape {getattr(self, name).shape}",
                    f"tiles (R, C), reads (K, C) and writes (K, R) must agree, here {shape}",
                    "Give arrays of one layer.",
                )
        one_sided = self.reads.any(axis=1) != self.writes.any(axis=1)
        one_sided = np.flatnonzero(one_sided if self.chained is None else one_sided & ~self.chained)
        if one_sided.size:
            raise InputError(
                "structure fields 'reads' and 'writes'",
                f"rank {one_sided[0]} with one side only",
                "a rank that is read must be written and the other way round",
                "Clear both of its rows, or neither.",
            )

    @property
    def ranks(self) -> int:
        """Number of ranks that are alive."""
        alive = self.reads.any(axis=1)
        return int((alive if self.chained is None else alive | self.chained).sum())

    def table(self) -> Table:
        """How much of each kind there is, beside how much there could be."""
        outputs, inputs = self.tiles.shape
        alive = max(1, self.ranks)
        rows = [
            ("dense tiles", int(self.tiles.sum()), outputs * inputs),
            ("ranks", self.ranks, len(self.reads)),
            ("input chunks that a rank reads, mean", int(self.reads.sum()) / alive, inputs),
            ("output chunks that a rank writes, mean", int(self.writes.sum()) / alive, outputs),
            ("pairs of chunks with a tile or a rank", int((self._coverage() > 0).sum()), outputs * inputs),
        ]
        return Table(f"Structure of {outputs} output chunks x {inputs} input chunks", ("part", "there", "of"), rows)

    def to_dataframe(self) -> Any:
        """A pandas.DataFrame with a row for each pair of chunks: output_chunk, input_chunk, dense (whether it is a
        dense tile), ranks (through it). Raises InputError without pandas.
        """
        through = self._coverage() - self.tiles
        rows = [
            {"output_chunk": out, "input_chunk": into, "dense": bool(tile), "ranks": int(through[out, into])}
            for (out, into), tile in np.ndenumerate(self.tiles)
        ]
        return data_frame(rows, ("output_chunk", "input_chunk", "dense", "ranks"))

    def plot(self, title: str = "") -> Figure:
        """The map of chunks as a matplotlib figure: how many ranks and dense tiles lie over each pair."""
        from analysis.pictures.block_map import draw_block_maps

        return draw_block_maps({"structure": self._coverage()}, title=title, unit="chunk")

    def _coverage(self) -> npt.NDArray[np.int32]:
        """(R, C) count of the ranks through each pair of chunks, and of its dense tile."""
        through = self.writes.T.astype(np.float64) @ self.reads.astype(np.float64)
        return np.asarray(through.astype(np.int32) + self.tiles, np.int32)

    def tile_count(self, rows: int, cols: int) -> int:
        """Tiles on an array of `rows` lanes (P) and `cols` columns (Q): dense ones, and each chunk's ranks packed."""
        reduce_tiles = ceil_div(self.reads.sum(axis=0), cols)
        expand_tiles = ceil_div(self.writes.sum(axis=0), rows)
        return int(self.tiles.sum() + reduce_tiles.sum() + expand_tiles.sum())

    @classmethod
    def full(cls, outputs: int, inputs: int, ranks: int, rows: int, cols: int, *, dense: bool = False) -> Structure:
        """Every rank on every chunk; with `dense` every tile is kept as well. Sizes in channels and ranks."""
        chunks_in, chunks_out = ceil_div(inputs, rows), ceil_div(outputs, cols)
        return cls(
            np.full((chunks_out, chunks_in), dense),
            np.ones((ranks, chunks_in), bool),
            np.ones((ranks, chunks_out), bool),
        )


def dense_tile_count(outputs: int, inputs: int, rows: int, cols: int) -> int:
    """Tiles of the dense layer with `outputs` x `inputs` weights, the reference of every budget."""
    return ceil_div(inputs, rows) * ceil_div(outputs, cols)


def touched(support: BoolArray, chunk: int) -> BoolArray:
    """Which chunks each row of `support` (K, channels) touches: (K, ceil(channels / chunk)) bool."""
    count = ceil_div(support.shape[1], chunk)
    padded = np.zeros((support.shape[0], count * chunk), bool)
    padded[:, : support.shape[1]] = support
    return np.asarray(padded.reshape(support.shape[0], count, chunk).any(axis=2))


def channel_mask(chunks: BoolArray, chunk: int, channels: int) -> BoolArray:
    """Widen a chunk mask (K, C) to (K, channels) bool: a touched chunk is paid for whole, so all of it is open."""
    return np.repeat(chunks, chunk, axis=1)[:, :channels]


def is_interval(chunks: BoolArray) -> BoolArray:
    """For each row of (K, C): is it one cyclic run (also empty or full)? (K,) bool."""
    rises = (chunks & ~np.roll(chunks, 1, axis=1)).sum(axis=1)
    return np.asarray(rises <= 1)


def check_square(rows: int, cols: int) -> None:
    """Raise InputError unless rank groups, P ranks that share their chunks, fill a tile on both sides."""
    if rows != cols:
        raise InputError(
            "array", f"{rows} x {cols}", "rank groups fill a tile on both sides", "Use a machine with rows = cols."
        )


def _frozen(name: str, array: BoolArray) -> BoolArray:
    array = np.asarray(array)
    if array.dtype != np.bool_ or array.ndim != 2:
        raise InputError(
            f"structure field '{name}'",
            f"{array.ndim}-dimensional {array.dtype}",
            "a structure is made of two-dimensional boolean arrays",
            "Convert the array with .astype(bool).",
        )
    array = array.copy()
    array.flags.writeable = False
    return array
