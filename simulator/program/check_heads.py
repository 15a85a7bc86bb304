"""Whether tiles and drains of scores and mix find the query heads that share tiles (machine.md, I2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from simulator.base.errors import NOT_OURS, InputError
from simulator.machine.machine import Machine
from simulator.network.network import Network, Operator
from simulator.network.network_layout import head_offset, head_steps, heads_of_chunk, heads_per_tile
from simulator.program.isa import Instructions
from simulator.program.operations import TILE_OPS, Duration, is_any, ops_where
from simulator.program.schedule import LayerSchedule, TileTable

DRAIN_OPS = ops_where(lambda entry: entry.duration is Duration.DRAIN)


def check_heads(ins: Instructions, layers: Sequence[LayerSchedule], network: Network, machine: Machine) -> None:
    """Raise InputError naming the first tile whose query heads do not share it, or lie outside the scratchpad, and the
    first drain whose heads have no sums of their own, or sums that are not there.
    """
    tiles = np.flatnonzero(is_any(ins.op, TILE_OPS) & (ins.other >= 0))
    drains = np.flatnonzero(is_any(ins.op, DRAIN_OPS) & (ins.other >= 0))
    if len(tiles):
        _check_tiles(ins, tiles, layers, network, machine)
    if len(drains):
        _check_drains(ins, drains, network, machine)


def _check_tiles(
    ins: Instructions, at: np.ndarray, layers: Sequence[LayerSchedule], network: Network, machine: Machine
) -> None:
    side, layer, rows = machine.cols, ins.layer[at], ins.other[at].astype(np.int64)
    most = _of_products(network, lambda o: heads_per_tile(network, o, side))[layer]
    heads = ins.tokens[at] // rows
    alien = (ins.tokens[at] % rows != 0) | (heads > most)
    _refuse(ins, at, alien, "its rows are those of query heads that share a tile")
    step = _of_products(network, lambda o: head_steps(network, o, side)[0])[layer]
    keys = _of_products(network, lambda o: head_steps(network, o, side)[1] if o.kind == "scores" else 0)[layer]
    first = np.where(keys > 0, ins.chunk[at].astype(np.int64) * side // np.maximum(keys, 1), 0)
    apart = head_offset(step, first + heads - 1, rows, side) - head_offset(step, first, rows, side)
    wide = [_lanes(one.tiles) for one in layers]
    starts = np.cumsum([0, *(len(one) for one in wide)])[layer]
    last = ins.src[at] + apart + (rows - 1) * side + np.concatenate(wide)[starts + ins.tile[at]]
    outside = (ins.src[at] < 0) | (last > machine.scratchpad.size_bytes)
    _refuse(ins, at, outside, f"rows of all its heads lie in the scratchpad of {machine.scratchpad.size_bytes} bytes")


def _check_drains(ins: Instructions, at: np.ndarray, network: Network, machine: Machine) -> None:
    heads = _of_products(network, lambda o: heads_of_chunk(network, o, machine.cols))[ins.layer[at]]
    _refuse(ins, at, (heads < 2) | (ins.other[at] < ins.tokens[at]), "heads of one chunk have sums of their own")
    last = ins.src[at] + (heads - 1) * ins.other[at] + ins.tokens[at]
    _refuse(ins, at, last > machine.accumulator_rows, f"there are {machine.accumulator_rows} rows of sums")


def _of_products(network: Network, value: Callable[[Operator], int]) -> np.ndarray:
    """A value of each scores and mix operator, 0 for the others. (operators,)"""
    return np.array([value(o) if o.kind in ("scores", "mix") else 0 for o in network.operators], dtype=np.int64)


def _lanes(tiles: TileTable) -> np.ndarray:
    """Lanes of the array up to the last that each tile has, (N,)."""
    result = np.zeros(len(tiles), dtype=np.int64)
    np.maximum.at(result, np.repeat(np.arange(len(tiles)), tiles.lane_count), tiles.lane + 1)
    return result


def _refuse(ins: Instructions, at: np.ndarray, bad: np.ndarray, rule: str) -> None:
    if bad.any():
        first = int(at[np.argmax(bad)])
        raise InputError(f"program: instruction {first}: field 'other'", str(int(ins.other[first])), rule, NOT_OURS)
