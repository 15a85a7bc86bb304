"""Pass 8: the ordered tiles become a tile table, with the run of stored weights of each lane and its place in rank
memory.
"""

from __future__ import annotations

import numpy as np

from gblr_hw.lowering.choose_form import form_multiplications
from gblr_hw.lowering.plan import LayerPlan
from simulator.isa import Op
from simulator.schedule import LayerSchedule, Payload, TileTable


def build_schedule(plan: LayerPlan, multiplications: int) -> LayerSchedule:
    """The layer's schedule with a payload of zeros, which quantise_weights fills. ``multiplications`` is the paper's
    count.
    """
    factors = plan.factors
    tiles = tile_table(plan)
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
    )


def tile_table(plan: LayerPlan) -> TileTable:
    """Columns of every tile and lane, in execution order."""
    factors, machine = plan.factors, plan.machine
    kind = np.array([int(op) for op, _, _, _ in plan.order], dtype=np.int64)
    source = np.array([s for _, s, _, _ in plan.order], dtype=np.int64)
    target = np.array([t for _, _, t, _ in plan.order], dtype=np.int64)
    inputs = np.minimum(machine.rows, factors.in_features - source * machine.rows)
    outputs = np.minimum(machine.cols, factors.out_features - target * machine.cols)
    counts = np.array([len(ranks) for _, _, _, ranks in plan.order], dtype=np.int64)
    counts = np.where(kind == Op.DENSE, inputs, counts).astype(np.int64)
    ptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    lane_kind = np.repeat(kind, counts)
    lane = np.arange(ptr[-1]) - np.repeat(ptr[:-1], counts)
    named = [rank for _, _, _, ranks in plan.order for rank in ranks]
    lane[lane_kind != Op.DENSE] = np.array(named, dtype=np.int64)
    lo, hi = np.zeros(len(lane), dtype=np.int64), np.repeat(outputs, counts).astype(np.int64)
    for op, support, side, chunk in (
        (Op.REDUCE, factors.reads, machine.rows, source),
        (Op.EXPAND, factors.writes, machine.cols, target),
    ):
        mine = lane_kind == op
        first, last = _runs(support, side)
        where = lane[mine], np.repeat(chunk, counts)[mine]
        lo[mine], hi[mine] = first[where], last[where]
    return TileTable(
        kind=kind,
        source=source,
        target=target,
        row_cycles=_row_cycles(plan, kind, lane, counts),
        lane_ptr=ptr,
        lane=lane,
        first=_first_writes(lane, lane_kind == Op.REDUCE),
        lo=lo,
        hi=hi,
    )


def _runs(support: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """First and one past the last supported channel of every rank in every chunk, (K, chunks) each."""
    ranks, channels = support.shape
    chunks = -(-channels // side)
    padded = np.zeros((ranks, chunks * side), dtype=bool)
    padded[:, :channels] = support
    cells = padded.reshape(ranks, chunks, side)
    touched = cells.any(axis=2)
    return np.where(touched, cells.argmax(axis=2), 0), np.where(touched, side - cells[:, :, ::-1].argmax(axis=2), 0)


def _first_writes(lane: np.ndarray, is_reduce: np.ndarray) -> np.ndarray:
    """1 for the first REDUCE lane of each rank: it overwrites what the last layer left in rank memory."""
    first = np.zeros(len(lane), dtype=np.int64)
    at = np.flatnonzero(is_reduce)
    _, earliest = np.unique(lane[at], return_index=True)
    first[at[earliest]] = 1
    return first


def _row_cycles(plan: LayerPlan, kind: np.ndarray, lane: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Cycles per token row: the most ranks of a tile that lie in one bank (rule B2); 1 for tiles without ranks."""
    tile = np.repeat(np.arange(len(kind)), counts)
    ranked = np.repeat(kind, counts) != Op.DENSE
    cycles = np.ones(len(kind), dtype=np.int64)
    if ranked.any():
        banks = plan.machine.rank_memory.banks
        key, repeats = np.unique(tile[ranked] * banks + plan.rank_bank[lane[ranked]], return_counts=True)
        np.maximum.at(cycles, key // banks, repeats)
    return cycles
