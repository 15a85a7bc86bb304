"""Narrow tiles (machine.md, A6): which tiles of a layer are narrow, and their codes.

All that adds up in one output's accumulator, or in one rank's sum, counts in one step. Each column of a narrow tile has
a step of its own, that one times a power of two. Weights that lie on a grid already (`gblr_hw.weights.bits`) keep
their codes: the output's step is the grid's, or a power of two of it where ranks want finer or coarser ones beside
them. All others are rounded to nearest, at steps that are chosen here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numba as nb
import numpy as np

from gblr_hw.weights.bits.choose_steps import choose_steps, squared_error
from gblr_hw.weights.factors import Factors
from simulator.base.errors import InputError
from simulator.machine.machine import MAX_COLUMN_SHIFT, Machine
from simulator.numbers.numerics import code_limit
from simulator.program.operations import TILE_OPS, Op
from simulator.program.schedule import Payload, TileTable

_MOST_CODE = 2**24  # beyond it a weight counts as off its grid


def narrow_kinds(weight_bits: int | Mapping[str, int] | None, machine: Machine) -> tuple[Op, ...]:
    """Kinds of tiles that are to be narrow. weight_bits: of all weights, or by kind ("dense", "reduce", "expand",
    "mix"); others are wide. Raises InputError for bits that the machine does not have, and for other kinds.
    """
    if weight_bits is None:
        return ()
    types, kinds = machine.datatypes, {op.name.lower(): op for op in TILE_OPS}
    wished = weight_bits if isinstance(weight_bits, Mapping) else dict.fromkeys(kinds, weight_bits)
    for name, bits in wished.items():
        if name not in kinds:
            raise InputError("weight_bits", repr(name), f"kinds of tiles are {', '.join(kinds)}", "Name one of these.")
        if bits not in (types.weight_bits, types.narrow_bits) or not bits:
            both = f" and {types.narrow_bits}" if types.narrow_bits else ""
            raise InputError(
                "weight_bits",
                str(bits),
                f"machine '{machine.name}' has tiles of {types.weight_bits}{both} bits",
                "Choose from these, or set the machine's datatypes.narrow_bits.",
            )
    return tuple(kinds[name] for name, bits in wished.items() if bits != types.weight_bits)


def with_own_bits(kinds: tuple[Op, ...], factors: Factors, machine: Machine) -> tuple[Op, ...]:
    """The same, and those kinds of a layer's tiles that are stored on a grid of the machine's narrow bits."""
    own = ((factors.grid, (Op.DENSE,)), (factors.rank_grid, (Op.REDUCE, Op.EXPAND)))
    stored = [kind for grid, some in own if grid and grid.bits == machine.datatypes.narrow_bits for kind in some]
    return (*kinds, *(kind for kind in stored if kind not in kinds))


def with_narrow(tiles: TileTable, kinds: tuple[Op, ...]) -> TileTable:
    """The table with its tiles of ``kinds`` narrow; their shifts are 0 until ``narrow_codes`` chooses them."""
    narrow = np.isin(tiles.kind, kinds)
    if not narrow.any():
        return tiles
    return replace(tiles, narrow=narrow.astype(np.int32), shift=np.zeros(int(tiles.columns_written[narrow].sum())))


def narrow_codes(
    tiles: TileTable,
    payload: Payload,
    sum_step: np.ndarray,
    value_step: np.ndarray,
    machine: Machine,
    grid_step: np.ndarray | None = None,
) -> tuple[TileTable, Payload]:
    """Table and payload with the shifts and codes of narrow tiles, and with the codes of wide ones beside them.

    payload: of wide tiles all; its ``values`` are the exact weights. sum_step, value_step (K,): what a rank's sum
    counts in there, and what its activation code stands for. The latter stays, so that ranks mean what they meant.
    grid_step (m + K,): of outputs' grids that dense weights lie on, then of ranks' that reduce weights do, 0 without
    one; None without any. What tiles cannot hold in codes is rounded anew.
    """
    types, outputs = machine.datatypes, len(payload.row_step)
    # Without narrow tiles only the wide ones of a grid are chosen anew.
    limits = code_limit(types.narrow_bits or types.weight_bits), code_limit(types.weight_bits)
    weights, targets = len(payload.values), outputs + len(sum_step)
    scaled, target = np.empty(weights, np.float64), np.empty(weights, np.int32)
    column, storable = np.full(weights, -1, dtype=np.int32), np.zeros(weights, np.bool_)
    _describe(
        tiles.kind, tiles.target.astype(np.int64) * machine.cols, tiles.lane_ptr, tiles.lane, tiles.lo, tiles.hi,
        tiles.gathered, tiles.narrow, tiles.shift_ptr, payload.values, value_step, outputs, scaled, target, column,
        storable,
    )  # fmt: skip
    step, shift = np.zeros(targets), np.zeros(len(tiles.shift), np.int64)
    values, of_grid, column_ptr, of_column, wide_largest = _sorted_by_column(
        scaled, target, column, storable, len(shift), targets
    )
    by_target = np.argsort(of_column, kind="stable")
    target_ptr = np.searchsorted(of_column[by_target], np.arange(targets + 1))
    choose_steps(
        values, np.ones(len(values)), column_ptr, by_target, target_ptr, wide_largest / limits[1], limits[0], step,
        shift,
    )  # fmt: skip
    if grid_step is not None:
        wide = _wide_on_grid(scaled, target, column, storable, grid_step)
        _keep(values, of_grid, column_ptr, by_target, target_ptr, grid_step, wide, wide_largest, *limits, step, shift)
    codes = payload.codes.copy()
    _round(scaled, target, column, step, shift, *limits, codes)
    rows, ranks = step[:outputs], step[outputs:]
    return replace(tiles, shift=shift), replace(
        payload,
        codes=codes,
        row_step=np.where(rows > 0, rows, payload.row_step),
        rank_divisor=payload.rank_divisor * np.where(ranks > 0, sum_step / np.where(ranks > 0, ranks, 1.0), 1.0),
    )


@nb.njit(cache=True, nogil=True)
def _describe(
    kind, outputs, lane_ptr, lane, lo, hi, gathered, narrow, shift_ptr, values, value_step, count, scaled, target,
    column, storable,
):  # fmt: skip
    """Of each stored weight, (W,): its value in what its sum is made of, the output or ``count`` + rank that it adds
    to, its column among all of narrow tiles, where it is in one, and whether its tile is one that may be on a grid.
    """
    at = 0
    for t in range(kind.shape[0]):
        for which in range(lane_ptr[t], lane_ptr[t + 1]):
            for j in range(lo[which], hi[which]):
                place = np.int64(which - lane_ptr[t]) if kind[t] == Op.REDUCE else np.int64(j)
                if kind[t] == Op.MIX:
                    target[at] = count + lane[lane_ptr[t] + gathered[t] + j]
                elif kind[t] == Op.REDUCE:
                    target[at] = count + lane[which]
                else:
                    target[at] = outputs[t] + j
                scaled[at] = np.float64(values[at])
                storable[at] = kind[t] == Op.DENSE or kind[t] == Op.REDUCE
                if kind[t] == Op.MIX or kind[t] == Op.EXPAND:
                    scaled[at] *= value_step[lane[which]]
                if narrow[t]:
                    column[at] = shift_ptr[t] + place
                at += 1


@nb.njit(cache=True, nogil=True)
def _sorted_by_column(scaled, target, column, storable, columns, targets):
    """Weights of narrow tiles column after column, whether each column may be on a grid, (columns + 1,) where each
    begins, each column's target, and the largest weight of wide tiles in each target.
    """
    ptr, of_column = np.zeros(columns + 1, dtype=np.int64), np.zeros(columns, dtype=np.int64)
    of_grid, wide_largest = np.zeros(columns, dtype=np.bool_), np.zeros(targets)
    for i in range(column.shape[0]):
        if column[i] >= 0:
            ptr[column[i] + 1] += 1
            of_column[column[i]], of_grid[column[i]] = target[i], storable[i]
        else:
            wide_largest[target[i]] = max(wide_largest[target[i]], abs(scaled[i]))
    ptr = np.cumsum(ptr)
    values, fill = np.empty(ptr[-1]), ptr[:-1].copy()
    for i in range(column.shape[0]):
        if column[i] >= 0:
            values[fill[column[i]]] = scaled[i]
            fill[column[i]] += 1
    return values, of_grid, ptr, of_column, wide_largest


@nb.njit(cache=True, nogil=True)
def _round(scaled, target, column, step, shift, limit, wide_limit, codes):
    """Codes of all weights whose target has a new step. A grid's lowest code is one below the others' limit."""
    for i in range(scaled.shape[0]):
        one = step[target[i]]
        if one > 0:
            most = limit if column[i] >= 0 else wide_limit
            if column[i] >= 0:
                one *= 2.0 ** shift[column[i]]
            code = scaled[i] / one
            lowest = -most - 1 if code == -most - 1 else -most
            codes[i] = max(lowest, min(most, np.int64(np.rint(code))))


@nb.njit(cache=True, nogil=True)
def _wide_on_grid(scaled, target, column, storable, grid):
    """Of each target: the bits in which weights of its wide tiles differ from 0, counted in the grid's steps; -1 if
    some are not on it.
    """
    found = np.zeros(grid.shape[0], np.int64)
    for i in range(scaled.shape[0]):
        if column[i] < 0 and storable[i] and grid[target[i]] > 0 and found[target[i]] >= 0:
            code = _whole(scaled[i] / grid[target[i]])
            found[target[i]] = -1 if code < 0 else found[target[i]] | code
    return found


@nb.njit(cache=True, nogil=True)
def _whole(code):
    """The magnitude of a whole number, -1 for any other."""
    return np.int64(abs(code)) if code == np.rint(code) and abs(code) < _MOST_CODE else np.int64(-1)


@nb.njit(cache=True, nogil=True)
def _keep(values, of_grid, column_ptr, columns, target_ptr, grid, wide, wide_largest, limit, wide_limit, step, shift):
    """Steps and shifts at which weights on a grid keep their codes, where there are such.

    An output counts in its grid's step times 2 ** -finer: 1 where that will do, else what its wide ranks need.
    """
    least, most = np.zeros(of_grid.shape[0], np.int64), np.zeros(of_grid.shape[0], np.int64)
    for t in range(grid.shape[0]):
        mine = columns[target_ptr[t] : target_ptr[t + 1]]
        if grid[t] == 0 or wide[t] < 0 or (len(mine) == 0 and wide_largest[t] == 0):
            continue
        good = True
        for c in mine:
            if of_grid[c]:
                least[c], most[c] = _shifts(values[column_ptr[c] : column_ptr[c + 1]] / grid[t], limit)
                good &= least[c] <= most[c]
        # Ranks beside narrow tiles: as fine as their weights may be. Alone the grid's own step is fine enough.
        ranks_beside = len(mine) > 0 and wide_largest[t] > 0
        for trial in range(2 * MAX_COLUMN_SHIFT + 1 if good else 0):
            finer = MAX_COLUMN_SHIFT - trial
            if not ranks_beside and trial <= MAX_COLUMN_SHIFT:
                finer = trial
            one = grid[t] * 2.0**-finer
            fits = wide_largest[t] <= (wide_limit + 1e-9) * one
            fits &= finer >= 0 or wide[t] % 2**-finer == 0
            for c in mine:
                fits &= not of_grid[c] or (least[c] + finer <= MAX_COLUMN_SHIFT and most[c] + finer >= 0)
            if fits:
                step[t] = one
                for c in mine:
                    if of_grid[c]:
                        shift[c] = max(0, least[c] + finer)
                    else:
                        shift[c] = _best_shift(values[column_ptr[c] : column_ptr[c + 1]], one, limit)
                break


@nb.njit(cache=True, nogil=True)
def _shifts(codes, limit):
    """The least and the most shift at which whole numbers keep all their bits as codes; 1, 0 if there is none."""
    bits, low, high = np.int64(0), np.int64(0), np.int64(0)
    for code in codes:
        whole = _whole(code)
        if whole < 0:
            return 1, 0
        bits |= whole
        low, high = min(low, np.int64(code)), max(high, np.int64(code))
    least, most = np.int64(0), np.int64(0)
    while high > limit * 2**least or low < -(limit + 1) * 2**least:
        least += 1
    if bits == 0:
        return -MAX_COLUMN_SHIFT, MAX_COLUMN_SHIFT
    while bits % 2 ** (most + 1) == 0:
        most += 1
    return least, most


@nb.njit(cache=True, nogil=True)
def _best_shift(values, step, limit):
    """The shift at which a column loses least."""
    best, least = 0, np.inf
    for shift in range(MAX_COLUMN_SHIFT + 1):
        lost = squared_error(values, np.ones(len(values)), step * 2.0**shift, limit)
        if lost < least:
            best, least = shift, lost
    return best
