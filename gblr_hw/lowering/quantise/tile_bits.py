"""Narrow tiles (machine.md, A6): which tiles of a layer are narrow, and their codes by rounding to nearest.

All that adds up in one output's accumulator, or in one rank's sum, counts in one step. Each column of a narrow tile has
a step of its own, that one times a power of two: the one of two that makes the smaller squared error, of which the
larger clips nothing. The common step is the best of an eighth of an octave, from the finest column's down: so columns
of one size need not be rounded up to the next power of two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numba as nb
import numpy as np

from simulator.base.errors import InputError
from simulator.machine.machine import MAX_COLUMN_SHIFT, Machine
from simulator.numbers.numerics import code_limit
from simulator.program.operations import TILE_OPS, Op
from simulator.program.schedule import Payload, TileTable

_FRACTIONS = 8  # steps that are tried in an octave


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


def with_narrow(tiles: TileTable, kinds: tuple[Op, ...]) -> TileTable:
    """The table with its tiles of ``kinds`` narrow; their shifts are 0 until ``narrow_codes`` chooses them."""
    narrow = np.isin(tiles.kind, kinds)
    if not narrow.any():
        return tiles
    return replace(tiles, narrow=narrow.astype(np.int32), shift=np.zeros(int(tiles.columns_written[narrow].sum())))


def narrow_codes(
    tiles: TileTable, payload: Payload, sum_step: np.ndarray, value_step: np.ndarray, machine: Machine
) -> tuple[TileTable, Payload]:
    """Table and payload with the shifts and codes of narrow tiles, and with the codes of wide ones beside them.

    payload: of wide tiles all; its ``values`` are the exact weights. sum_step, value_step (K,): what a rank's sum
    counts in there, and what its activation code stands for. The latter stays, so that ranks mean what they meant.
    """
    types, outputs = machine.datatypes, len(payload.row_step)
    limits = code_limit(types.narrow_bits), code_limit(types.weight_bits)
    weights, targets = len(payload.values), outputs + len(sum_step)
    scaled, target = np.empty(weights, np.float64), np.empty(weights, np.int32)
    column = np.full(weights, -1, dtype=np.int32)
    _describe(
        tiles.kind, tiles.target.astype(np.int64) * machine.cols, tiles.lane_ptr, tiles.lane, tiles.lo, tiles.hi,
        tiles.gathered, tiles.narrow, tiles.shift_ptr, payload.values, value_step, outputs, scaled, target, column,
    )  # fmt: skip
    step, shift = np.zeros(targets), np.zeros(len(tiles.shift), np.int64)
    values, column_ptr, of_column, wide_largest = _sorted_by_column(scaled, target, column, len(shift), targets)
    by_target = np.argsort(of_column, kind="stable")
    target_ptr = np.searchsorted(of_column[by_target], np.arange(targets + 1))
    _choose(values, column_ptr, by_target, target_ptr, wide_largest, *limits, step, shift)
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
    column,
):  # fmt: skip
    """Of each stored weight, (W,): its value in what its sum is made of, the output or ``count`` + rank that it adds
    to, and its column among all of narrow tiles, where it is in one.
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
                if kind[t] == Op.MIX or kind[t] == Op.EXPAND:
                    scaled[at] *= value_step[lane[which]]
                if narrow[t]:
                    column[at] = shift_ptr[t] + place
                at += 1


@nb.njit(cache=True, nogil=True)
def _sorted_by_column(scaled, target, column, columns, targets):
    """Weights of narrow tiles column after column, (columns + 1,) where each begins, each column's target, and the
    largest weight of wide tiles in each target.
    """
    ptr = np.zeros(columns + 1, dtype=np.int64)
    of_column = np.zeros(columns, dtype=np.int64)
    wide_largest = np.zeros(targets)
    for i in range(column.shape[0]):
        if column[i] >= 0:
            ptr[column[i] + 1] += 1
            of_column[column[i]] = target[i]
        else:
            wide_largest[target[i]] = max(wide_largest[target[i]], abs(scaled[i]))
    ptr = np.cumsum(ptr)
    values, fill = np.empty(ptr[-1]), ptr[:-1].copy()
    for i in range(column.shape[0]):
        if column[i] >= 0:
            values[fill[column[i]]] = scaled[i]
            fill[column[i]] += 1
    return values, ptr, of_column, wide_largest


@nb.njit(cache=True, nogil=True)
def _round(scaled, target, column, step, shift, limit, wide_limit, codes):
    """Codes of all weights whose target has a new step."""
    for i in range(scaled.shape[0]):
        one = step[target[i]]
        if one > 0:
            most = limit if column[i] >= 0 else wide_limit
            if column[i] >= 0:
                one *= 2.0 ** shift[column[i]]
            codes[i] = max(-most, min(most, np.int64(np.rint(scaled[i] / one))))


@nb.njit(cache=True, nogil=True)
def _choose(values, column_ptr, columns, target_ptr, wide_largest, limit, wide_limit, step, shift):
    """The step of each target that has weights in narrow tiles, and the shift of each column. values: column after
    column; columns: target after target.
    """
    largest = np.zeros(column_ptr.shape[0] - 1)
    for c in range(largest.shape[0]):
        for i in range(column_ptr[c], column_ptr[c + 1]):
            largest[c] = max(largest[c], abs(values[i]))
    trial = np.zeros(largest.shape[0], dtype=np.int64)
    for t in range(step.shape[0]):
        mine = columns[target_ptr[t] : target_ptr[t + 1]]
        finest, coarsest = np.inf, 0.0
        for c in mine:
            if largest[c] > 0:
                finest, coarsest = min(finest, largest[c]), max(coarsest, largest[c])
        if coarsest == 0:
            continue
        begin = max(finest / limit, coarsest / (limit * 2.0**MAX_COLUMN_SHIFT), wide_largest[t] / wide_limit)
        best = np.inf
        for eighth in range(_FRACTIONS):
            one = begin * 2.0 ** (-eighth / _FRACTIONS)
            if eighth and one * wide_limit < wide_largest[t]:
                break
            error = 0.0
            for c in mine:
                run = values[column_ptr[c] : column_ptr[c + 1]]
                trial[c], more = _best_shift(run, largest[c], one, limit)
                error += more
            if error < best:
                best, step[t] = error, one
                for c in mine:
                    shift[c] = trial[c]


@nb.njit(cache=True, nogil=True)
def _best_shift(values, largest, step, limit):
    """The shift of a column at a common step, and its squared error."""
    shift = 0
    while shift < MAX_COLUMN_SHIFT and largest > limit * step * 2.0**shift * (1 + 1e-9):
        shift += 1
    error = _squared_error(values, step * 2.0**shift, limit)
    if shift > 0:
        clipping = _squared_error(values, step * 2.0 ** (shift - 1), limit)
        if clipping < error:
            return shift - 1, clipping
    return shift, error


@nb.njit(cache=True, nogil=True)
def _squared_error(values, step, limit):
    error = 0.0
    for value in values:
        error += (value - step * max(-1.0 * limit, min(1.0 * limit, np.rint(value / step)))) ** 2
    return error
