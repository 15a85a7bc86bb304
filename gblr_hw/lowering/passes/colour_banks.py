"""Machines with scatter: every rank gets a bank, so that each chunk's ranks can be packed into tiles without conflict.

A chunk with n ranks runs as t = ceil(n / lanes) tiles. They can be conflict-free exactly when no bank holds more than t
of the chunk's ranks (deal each bank's ranks to different tiles). With ranks in one reduce and one expand set this is
bipartite edge colouring; with ranks in many sets it is balancing every set over the banks at once: greedy, then local
moves. The sets that a MIX tile reads and writes are its own: they are packed before (pack_mixes).
"""

from __future__ import annotations

import numba as nb
import numpy as np

from gblr_hw.lowering.passes.plan import LayerPlan, RankTiles, filled
from simulator.base.kernels import ceil_div

_SWEEPS = 12


def colour_banks(plan: LayerPlan) -> LayerPlan:
    """Fill in rank_bank and rank_slot. Deterministic; excess conflicts that remain are paid for in row_cycles."""
    turn = plan.turn_of
    bank, slot = np.zeros((2, len(turn)), dtype=np.int64)
    taken = plan.shares >= 0 if len(plan.shares) else np.zeros(len(turn), dtype=bool)
    for one in range(plan.turns):
        mine = np.flatnonzero(turn == one)
        bank[mine], slot[mine] = _placed(plan, mine)
    each = int(slot.max(initial=-1)) + 1
    held = each * plan.ring
    # A run of slots for those that lie there first, and one for those that take their places.
    slot += turn % plan.ring * each + held * (turn // plan.ring * (2 if taken.any() else 1) + taken)
    return filled(plan, rank_bank=bank, rank_slot=slot, held_slots=held if taken.any() or plan.turns > 1 else 0)


def _placed(plan: LayerPlan, mine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Banks of the ranks ``mine`` (k,), which are in memory together, and the slots in which they lie."""
    machine, structure = plan.machine, plan.structure
    sets = np.concatenate([structure.reads[mine], structure.writes[mine]], axis=1)
    lanes = np.concatenate([np.full(plan.input_chunks, machine.cols), np.full(plan.output_chunks, machine.rows)])
    limit = ceil_div(sets.sum(axis=0), lanes)
    capacity = machine.rank_rows_per_bank // plan.block_tokens // plan.ring
    set_ptr, set_index = _ragged(sets)
    owner = np.arange(len(mine))
    if len(plan.rank_tiles.op):
        number = np.full(plan.factors.ranks, -1, dtype=np.int64)
        number[mine] = owner
        tiles = _of_ranks(plan.rank_tiles, number)
        set_ptr, set_index, limit = _with_mixes(tiles, set_ptr, set_index, limit)
        shares = plan.shares[mine]
        owner = np.where(shares >= 0, number[shares], owner)
    owners, unit = np.unique(owner, return_inverse=True)
    if len(owners) < len(owner):
        set_ptr, set_index = _of_units(unit, len(owners), set_ptr, set_index)
    order = np.lexsort((owners, -np.diff(set_ptr))).astype(np.int64)
    bank = _balance(set_ptr, set_index, limit, order, machine.rank_memory.banks, capacity, _SWEEPS)
    return bank[unit], _slots(bank)[unit]


def _of_ranks(tiles: RankTiles, number: np.ndarray) -> RankTiles:
    """Those of the MIX tiles whose ranks have a number, with it in place of the rank; number (K,): -1 for none."""
    kept = number[tiles.rank[tiles.ptr[:-1]]] >= 0
    counts = np.diff(tiles.ptr)
    rank = number[tiles.rank[np.repeat(kept, counts)]]
    ptr = np.concatenate([[0], np.cumsum(counts[kept])])
    return RankTiles(tiles.op[kept], tiles.chunk[kept], ptr, rank, tiles.read[kept])


def _ragged(sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sets that each rank is in, as (K + 1,) offsets and indices."""
    ptr = np.concatenate([[0], np.cumsum(sets.sum(axis=1))]).astype(np.int64)
    return ptr, np.nonzero(sets)[1].astype(np.int64)


def _with_mixes(
    mixes: RankTiles, set_ptr: np.ndarray, set_index: np.ndarray, limit: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sets and two more a MIX tile, of ranks that it reads and that it writes, no two of which share a bank."""
    ranks = len(set_ptr) - 1
    tile = np.repeat(np.arange(len(mixes.op)), np.diff(mixes.ptr))
    writes = np.arange(len(tile)) - mixes.ptr[tile] >= mixes.read[tile]
    members = np.concatenate([np.repeat(np.arange(ranks), np.diff(set_ptr)), mixes.rank])
    index = np.concatenate([set_index, len(limit) + 2 * tile + writes])
    order = np.lexsort((index, members))
    ptr = np.concatenate([[0], np.cumsum(np.bincount(members, minlength=ranks))]).astype(np.int64)
    return ptr, index[order].astype(np.int64), np.concatenate([limit, np.ones(2 * len(mixes.op), limit.dtype)])


def _of_units(
    unit: np.ndarray, units: int, set_ptr: np.ndarray, set_index: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The sets that each place is in, those of all ranks that lie there: unit (K,) is each rank's."""
    members = np.stack([np.repeat(unit, np.diff(set_ptr)), set_index])
    held = np.unique(members, axis=1)
    ptr = np.concatenate([[0], np.cumsum(np.bincount(held[0], minlength=units))])
    return ptr.astype(np.int64), np.ascontiguousarray(held[1], dtype=np.int64)


def _slots(bank: np.ndarray) -> np.ndarray:
    """Number the ranks of each bank 0, 1, 2, ... in rank order."""
    order = np.argsort(bank, kind="stable")
    first = np.searchsorted(bank[order], bank[order], side="left")
    slot = np.empty(len(bank), dtype=np.int64)
    slot[order] = np.arange(len(bank)) - first
    return slot


@nb.njit(cache=True, nogil=True)
def _balance(set_ptr, set_index, limit, order, banks, capacity, sweeps):
    """Assign a bank to every rank, then move ranks while that lowers the sets' excess over their limits."""
    ranks = set_ptr.shape[0] - 1
    count = np.zeros((limit.shape[0], banks), dtype=np.int64)
    used = np.zeros(banks, dtype=np.int64)
    bank = np.full(ranks, -1, dtype=np.int64)
    for k in order:
        bank[k] = _best_bank(set_index[set_ptr[k] : set_ptr[k + 1]], limit, count, used, capacity)
        used[bank[k]] += 1
        for s in set_index[set_ptr[k] : set_ptr[k + 1]]:
            count[s, bank[k]] += 1
    for _ in range(sweeps):
        moved = False
        for k in order:
            mine = set_index[set_ptr[k] : set_ptr[k + 1]]
            over = False
            for s in mine:
                over = over or count[s, bank[k]] > limit[s]
            if not over:
                continue
            old = bank[k]
            used[old] -= 1
            for s in mine:
                count[s, old] -= 1
            new = _best_bank(mine, limit, count, used, capacity)
            moved = moved or new != old
            bank[k] = new
            used[new] += 1
            for s in mine:
                count[s, new] += 1
        if not moved:
            break
    return bank


@nb.njit(cache=True, nogil=True)
def _best_bank(mine, limit, count, used, capacity):
    """The bank with room where a rank exceeds the fewest of its sets' limits; ties go to the emptier in those sets,
    then overall.
    """
    best = -1
    best_excess = best_load = best_used = np.int64(0)
    for b in range(used.shape[0]):
        if used[b] >= capacity:
            continue
        excess = np.int64(0)
        load = np.int64(0)
        for s in mine:
            if count[s, b] >= limit[s]:
                excess += 1
            load += count[s, b]
        better = best < 0 or excess < best_excess
        if not better and excess == best_excess:
            better = load < best_load or (load == best_load and used[b] < best_used)
        if better:
            best, best_excess, best_load, best_used = b, excess, load, used[b]
    return best
