"""What one pass of a weight tile does to the memories around the array, and the weights of a tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simulator.machine.machine import Machine
from simulator.numbers.memories import OnChip
from simulator.numbers.numerics import requantise, saturate
from simulator.program.operations import OPERATIONS, Op, Place
from simulator.program.schedule import LayerSchedule


@dataclass(frozen=True)
class Arithmetic:
    """The integer rules when there are any; float mode has none. Sums stay exact in float64."""

    machine: Machine
    accumulator_bits: int | None
    rank_scale: tuple[np.ndarray, np.ndarray] | None

    def add(self, old: np.ndarray | float, new: np.ndarray) -> np.ndarray:
        total = old + new
        return total if self.accumulator_bits is None else saturate(total, self.accumulator_bits)

    def shifted(self, sums: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        """Sums as they leave the array: shifted by the first columns' ``shifts`` (rule A6). Exact weights need none."""
        if self.accumulator_bits is None or not len(shifts):
            return sums
        factors = np.ones(sums.shape[-1])
        factors[: len(shifts)] = np.exp2(shifts)
        return sums * factors

    def rank_codes(self, sums: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        if self.rank_scale is None:
            return sums
        multiplier, shift = (column[ranks] for column in self.rank_scale)
        return requantise(sums.astype(np.int64), multiplier, shift, self.machine.datatypes.activation_bits).astype(
            np.float64
        )


class TilePass(NamedTuple):
    """A tile instruction's operands; ``tile`` is the row of the tile table that its slot holds. addresses: (tokens, P)
    scratchpad bytes that its rows are read from, -1 for a lane that reads zero; None for rows behind one another.
    """

    op: int
    tile: int
    tokens: int
    src: int
    dst: int
    accumulate: int
    addresses: np.ndarray | None = None


def run_tile(
    layer: LayerSchedule, run: TilePass, weights: np.ndarray, memories: OnChip, arithmetic: Arithmetic
) -> None:
    """One pass of a tile. weights: (lanes, max(P, Q)), the tile's rows with zeros where nothing is stored."""
    tiles, machine, tokens = layer.tiles, arithmetic.machine, run.tokens
    first, last = tiles.lane_ptr[run.tile], tiles.lane_ptr[run.tile + 1]
    lane, shifts = tiles.lane[first:last], tiles.column_shifts(run.tile)
    entry = OPERATIONS[Op(run.op)]
    if entry.reads is Place.RANKS:
        read = lane[: int(tiles.gathered[run.tile])]
        entering = arithmetic.rank_codes(memories.rank[rank_places(layer, read, tokens)], read)
    elif run.addresses is not None:
        entering = np.where(run.addresses < 0, 0.0, memories.scratchpad[:, run.addresses])
    else:
        entering = memories.read_rows(run.src, tokens, machine.rows)
    if entry.writes is Place.RANKS:
        written = slice(last - tiles.scattered[run.tile], last)
        by_column = weights[:, : machine.rows].T
        if not entry.lane_is_column:
            by_column = weights[: tiles.gathered[run.tile], : tiles.scattered[run.tile]]
        places = rank_places(layer, tiles.lane[written], tokens)
        before = np.where(tiles.first[written] == 1, 0.0, memories.rank[places])
        memories.rank[places] = arithmetic.add(before, arithmetic.shifted(entering @ by_column, shifts))
        return
    entering = entering if entry.uses_ranks else entering[:, :, lane]
    sums = entering @ weights[:, : machine.cols]
    old = memories.accumulator[:, run.dst : run.dst + tokens] if run.accumulate else 0.0
    memories.accumulator[:, run.dst : run.dst + tokens] = arithmetic.add(old, arithmetic.shifted(sums, shifts))


def rank_places(layer: LayerSchedule, lane: np.ndarray, tokens: int) -> tuple[slice, np.ndarray, np.ndarray]:
    """Index of (batch, tokens, lanes) sums in rank memory."""
    row = layer.memory_slot[lane] * layer.block_tokens + np.arange(tokens)[:, None]
    return slice(None), np.broadcast_to(layer.rank_bank[lane], row.shape), row


def lane_rows(layer: LayerSchedule, weights: np.ndarray, machine: Machine) -> np.ndarray:
    """Unpacked weights, one row of max(P, Q) for each lane of the tile table."""
    tiles = layer.tiles
    lengths = tiles.hi - tiles.lo
    rows = np.zeros((len(tiles.lane), max(machine.rows, machine.cols)))
    lane = np.repeat(np.arange(len(lengths)), lengths)
    column = np.arange(len(weights)) - np.repeat(tiles.lane_weight_ptr[:-1] - tiles.lo, lengths)
    rows[lane, column] = weights
    return rows


def tile_rows(layer: LayerSchedule, weights: np.ndarray, tile: int, machine: Machine) -> np.ndarray:
    """The rows of ``lane_rows`` that belong to one tile: a network's weights are too many to be unpacked at once."""
    tiles = layer.tiles
    first, last = tiles.lane_ptr[tile], tiles.lane_ptr[tile + 1]
    stored = weights[tiles.weight_ptr[tile] : tiles.weight_ptr[tile + 1]]
    column = np.arange(max(machine.rows, machine.cols))
    rows = np.zeros((last - first, len(column)))
    rows[(column >= tiles.lo[first:last, None]) & (column < tiles.hi[first:last, None])] = stored
    return rows
