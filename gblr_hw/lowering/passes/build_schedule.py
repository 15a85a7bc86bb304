"""The ordered tiles become a tile table, with the run of stored weights of each lane and its place in rank memory."""

from __future__ import annotations

import numba as nb
import numpy as np

from gblr_hw.lowering.passes.choose_form import form_multiplications
from gblr_hw.lowering.passes.plan import LayerPlan
from gblr_hw.lowering.quantise.tile_bits import with_narrow
from simulator.base.columns import kernel_input
from simulator.base.kernels import ceil_div
from simulator.program.operations import Op
from simulator.program.schedule import LayerSchedule, Payload, TileTable


def build_schedule(plan: LayerPlan, multiplications: int) -> LayerSchedule:
    """The layer's schedule with a payload of zeros, which quantise_weights fills. ``multiplications`` is the paper's
    count.
    """
    factors = plan.factors
    tiles = with_narrow(tile_table(plan), plan.narrow)
    payload = Payload(
        codes=np.zeros(int(tiles.weight_ptr[-1]), np.int8),
        values=np.zeros(int(tiles.weight_ptr[-1]), np.float32),
        row_step=np.ones(factors.out_features),
        rank_divisor=np.ones(factors.ranks),
        bias=np.zeros(factors.out_features, np.float32) if factors.bias is None else factors.bias,
        input_step=0.0,
        output_step=0.0,
    )
    return LayerSchedule(
        name=plan.name,
        form=plan.form,
        in_features=factors.in_features,
        out_features=factors.out_features,
        ranks=factors.ranks,
        block_tokens=plan.block_tokens,
        multiplications=min(multiplications, form_multiplications(factors)),
        tiles=tiles,
        rank_bank=plan.rank_bank,
        rank_slot=plan.rank_slot,
        payload=payload,
        output_order=factors.output_order,  # type: ignore[arg-type]
        held_slots=plan.held_slots,
    )


def tile_table(plan: LayerPlan) -> TileTable:
    """Columns of every tile and lane, in execution order."""
    factors, machine, order = plan.factors, plan.machine, plan.order
    assert order is not None, "order_tiles comes first"
    kind, source, target = order.kind, order.source, order.target
    if factors.family == "grouped":
        return _grouped_tiles(plan)
    inputs = np.minimum(machine.rows, factors.in_features - source * machine.rows)
    outputs = np.minimum(machine.cols, factors.out_features - target * machine.cols)
    counts = np.where(kind == Op.DENSE, inputs, np.diff(order.ptr))
    ptr = np.concatenate([[0], np.cumsum(counts)])
    is_dense, is_reduce, is_expand, is_mix = (np.repeat(kind == op, counts) for op in _KINDS)
    lane = np.arange(ptr[-1], dtype=np.int32) - np.repeat(ptr[:-1].astype(np.int32), counts)
    lane[~is_dense] = order.rank
    lo, hi = np.zeros(len(lane), dtype=np.int32), np.repeat(outputs.astype(np.int32), counts)
    for mine, support, side, chunk in (
        (is_reduce, factors.reads, machine.rows, source),
        (is_expand, factors.writes, machine.cols, target),
    ):
        if mine.any():
            first, last = _runs(kernel_input(support, np.bool_), side)
            where = lane[mine], np.repeat(chunk, counts)[mine]
            lo[mine], hi[mine] = first[where], last[where]
    ranks, banks = kernel_input(order.rank, np.int64), kernel_input(plan.rank_bank, np.int64)
    lanes = kernel_input(order.ptr, np.int64), kernel_input(order.read, np.int64), ranks
    row_cycles = _row_cycles(*lanes, banks, machine.rank_memory.banks)
    if is_mix.any():
        mixes = kernel_input(factors.mix_source, np.int64), kernel_input(factors.mix_target, np.int64)
        lo[is_mix], hi[is_mix] = 0, 0
        _mix_runs(kernel_input(kind == Op.MIX, np.bool_), kernel_input(ptr, np.int64), *lanes, *mixes, lo, hi)
    return TileTable(
        kind=kind,
        source=source,
        target=target,
        row_cycles=row_cycles,
        lane_ptr=ptr,
        lane=lane,
        first=_first_writes(lane, is_reduce | is_mix & ~_is_read(ptr, order.read), factors.ranks),
        lo=lo,
        hi=hi,
        gathered=order.read,
    )


def _is_read(ptr: np.ndarray, read: np.ndarray) -> np.ndarray:
    """Which lanes are those of ranks that their tile reads, (lanes,)."""
    counts = np.diff(ptr)
    return np.asarray(np.arange(ptr[-1]) - np.repeat(ptr[:-1], counts) < np.repeat(read, counts))


def _grouped_tiles(plan: LayerPlan) -> TileTable:
    """Tiles of a layer that is zero beside its blocks: a lane for each input that an output of the tile reads, with the
    run of those outputs. Nothing beside the runs is stored.
    """
    factors, machine, order = plan.factors, plan.machine, plan.order
    assert order is not None and factors.dense_support is not None
    first, last = _runs(kernel_input(np.ascontiguousarray(factors.dense_support.T), np.bool_), machine.cols)
    lanes, low, high = [], [], []
    for source, target in zip(order.source.tolist(), order.target.tolist(), strict=True):
        begin = source * machine.rows
        end = min(factors.in_features, begin + machine.rows)
        lo, hi = first[begin:end, target], last[begin:end, target]
        used = np.flatnonzero(hi > lo)
        lanes.append(used)
        low.append(lo[used])
        high.append(hi[used])
    counts = np.array([len(one) for one in lanes], dtype=np.int64)
    nothing = np.zeros(0, np.int64)
    return TileTable(
        kind=order.kind,
        source=order.source,
        target=order.target,
        row_cycles=np.ones(len(order.kind), np.int32),
        lane_ptr=np.concatenate([[0], np.cumsum(counts)]),
        lane=np.concatenate([nothing, *lanes]),
        first=np.zeros(int(counts.sum()), np.int64),
        lo=np.concatenate([nothing, *low]),
        hi=np.concatenate([nothing, *high]),
    )


_KINDS = (Op.DENSE, Op.REDUCE, Op.EXPAND, Op.MIX)


@nb.njit(cache=True, nogil=True)
def _runs(support, side):
    """First and one past the last supported channel of every rank in every chunk, (K, chunks) each; 0, 0 for none."""
    ranks, channels = support.shape
    chunks = ceil_div(channels, side)
    first = np.zeros((ranks, chunks), dtype=np.int32)
    last = np.zeros((ranks, chunks), dtype=np.int32)
    for k in range(ranks):
        for c in range(chunks):
            begin, end = c * side, min(channels, (c + 1) * side)
            low = begin
            while low < end and not support[k, low]:
                low += 1
            if low < end:
                while not support[k, end - 1]:
                    end -= 1
                first[k, c], last[k, c] = low - begin, end - begin
    return first, last


def _first_writes(lane: np.ndarray, writes: np.ndarray, ranks: int) -> np.ndarray:
    """1 for the first lane that writes each rank: it overwrites what lay there before."""
    first = np.zeros(len(lane), dtype=np.int32)
    at = np.flatnonzero(writes)[::-1]
    earliest = np.full(ranks, -1, dtype=np.int64)
    earliest[lane[at]] = at  # numpy keeps the last of repeated assignments
    first[earliest[earliest >= 0]] = 1
    return first


@nb.njit(cache=True, nogil=True)
def _row_cycles(ptr, read, rank, rank_bank, banks):
    """Cycles per token row: one, and one more for each further rank in the fullest bank that a tile reads, or writes
    (rule B2); 1 without ranks.
    """
    cycles = np.ones(ptr.shape[0] - 1, dtype=np.int32)
    held = np.zeros(banks, dtype=np.int32)
    for tile in range(cycles.shape[0]):
        cut = ptr[tile] + read[tile]
        for begin, end in ((ptr[tile], cut), (cut, ptr[tile + 1])):
            most = 1
            for i in range(begin, end):
                held[rank_bank[rank[i]]] += 1
                most = max(most, held[rank_bank[rank[i]]])
            for i in range(begin, end):
                held[rank_bank[rank[i]]] = 0
            cycles[tile] += most - 1
    return cycles


@nb.njit(cache=True, nogil=True)
def _mix_runs(is_mix, lane_ptr, ptr, read, rank, mix_source, mix_target, lo, hi):
    """The run of each rank that a MIX tile reads over those that it writes: from the first to the last that it is mixed
    into. ptr: of the tiles' ranks, lane_ptr: of their lanes, in which ``lo`` and ``hi`` are.
    """
    place = np.full(rank.max() + 1, -1, dtype=np.int64)  # of the ranks that the present tile reads
    for tile in range(is_mix.shape[0]):
        if not is_mix[tile]:
            continue
        begin, cut, end = ptr[tile], ptr[tile] + read[tile], ptr[tile + 1]
        for i in range(begin, cut):
            place[rank[i]] = lane_ptr[tile] + i - begin
        for i in range(cut, end):
            for e in range(np.searchsorted(mix_target, rank[i]), np.searchsorted(mix_target, rank[i] + 1)):
                at = -1 if mix_source[e] >= place.shape[0] else place[mix_source[e]]
                if at >= 0:
                    if hi[at] == 0:
                        lo[at] = i - cut
                    hi[at] = i - cut + 1
        for i in range(begin, cut):
            place[rank[i]] = -1
