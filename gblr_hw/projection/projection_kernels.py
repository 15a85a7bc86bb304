"""The projection's inner loop, compiled: take tiles from one layer in the order of what they lose.

A side (reads or writes) of a layer is given chunk by chunk: touches (chunks, K) bool, worth (chunks, K), cost (chunks,
K): what a rank loses with that chunk (infinite where it does not touch), count (chunks,) ranks, loss (chunks,): what
emptying one tile of the chunk loses (infinite where there is none, or where that would empty the layer), dearest
(chunks,): the largest cost in that loss. seats: ranks per tile.
"""

from __future__ import annotations

import numba as nb
import numpy as np

_NEAR = 1.25


@nb.njit(cache=True)
def refresh(cost, count, loss, dearest, seats, chunk):
    """What emptying one tile of a chunk loses: its remainder of ranks, the cheapest ones."""
    if count[chunk] == 0:
        loss[chunk], dearest[chunk] = np.inf, np.inf
        return
    remainder = (count[chunk] - 1) % seats + 1
    costs = cost[chunk]
    # The last time's dearest cost tells roughly where the remainder ends: most ranks need no sorting at all.
    near = np.empty(len(costs))
    found = 0
    for value in costs:
        near[found] = value
        found += value <= _NEAR * dearest[chunk]
    pool = near[:found] if found >= remainder else costs
    cheapest = np.partition(pool, remainder - 1)[:remainder]
    loss[chunk], dearest[chunk] = cheapest.sum(), cheapest[remainder - 1]


@nb.njit(cache=True)
def run_costs(touches, worth, cost, rank):
    """Costs of one rank whose chunks are a cyclic run: what lies from a chunk to the nearer end, by worth.

    A full circle has no ends: taking any one chunk leaves a run, so there each chunk stands for itself.
    """
    chunks = len(touches)
    start, total, length = -1, 0.0, 0
    for c in range(chunks):
        cost[c, rank] = np.inf
        if touches[c, rank]:
            total += worth[c, rank]
            length += 1
            if not touches[c - 1, rank]:
                start = c
    if length == chunks:
        for c in range(chunks):
            cost[c, rank] = worth[c, rank]
        return
    through = 0.0
    for step in range(length):
        c = (start + step) % chunks
        through += worth[c, rank]
        cost[c, rank] = min(through, total - through + worth[c, rank])


@nb.njit(cache=True)
def _cut(touches, worth, count, chunk, rank, runs):
    """Take a chunk from a rank; of a run, also what lies between it and the nearer end."""
    chunks = len(touches)
    step, length = 0, 0
    if runs:
        for c in range(chunks):
            length += touches[c, rank]
        if length < chunks:
            before, at = 0.0, chunk
            while touches[at, rank]:
                before += worth[at, rank]
                at = (at - 1) % chunks
            after, at = 0.0, chunk
            while touches[at, rank]:
                after += worth[at, rank]
                at = (at + 1) % chunks
            step = -1 if before <= after else 1
    at = chunk
    while touches[at, rank]:
        touches[at, rank] = False
        count[at] -= 1
        if step == 0:
            break
        at = (at + step) % chunks


@nb.njit(cache=True)
def _empty_rank(touches, cost, count, rank, dirty):
    for c in range(len(touches)):
        if touches[c, rank]:
            touches[c, rank] = False
            count[c] -= 1
            dirty[c] = True
        cost[c, rank] = np.inf


@nb.njit(cache=True)
def _tiles(count, seats):
    total = 0
    for c in range(len(count)):
        total += (count[c] + seats - 1) // seats
    return total


@nb.njit(cache=True)
def _would_empty(touches, leaving, chunk, alive, runs):
    """Do the ranks that leave this chunk leave nothing alive? Only ranks without another chunk die."""
    if alive > len(leaving):
        return False
    dying = 0
    for rank in leaving:
        others = 0
        for c in range(len(touches)):
            others += touches[c, rank] and c != chunk
        dying += others == 0
    return dying == alive


@nb.njit(cache=True)
def take(side, other, seats, other_seats, chunk, runs, state, tiles_left):
    """Empty one tile of a chunk of `side`. Returns the tiles saved; 0 when barred, as it would empty the layer."""
    touches, worth, cost, count, loss, dearest = side
    remainder = (count[chunk] - 1) % seats + 1
    candidates = np.flatnonzero(cost[chunk] <= dearest[chunk])
    leaving = candidates[np.argsort(cost[chunk][candidates], kind="mergesort")[:remainder]]
    if tiles_left == 0 and _would_empty(touches, leaving, chunk, state[0], runs):
        loss[chunk] = np.inf
        return 0
    before = _tiles(count, seats) + _tiles(other[3], other_seats)
    dirty, other_dirty = np.zeros(len(touches), np.bool_), np.zeros(len(other[0]), np.bool_)
    dirty[chunk] = True
    old = np.empty(len(touches))
    for rank in leaving:
        old[:] = cost[:, rank]
        _cut(touches, worth, count, chunk, rank, runs)
        if runs:
            run_costs(touches, worth, cost, rank)
            for c in range(len(touches)):
                if old[c] != cost[c, rank] and (cost[c, rank] == np.inf or min(old[c], cost[c, rank]) <= dearest[c]):
                    dirty[c] = True
        else:
            cost[chunk, rank] = np.inf
        if not touches[:, rank].any():
            state[0] -= 1
            _empty_rank(other[0], other[2], other[3], rank, other_dirty)
    for c in range(len(touches)):
        if dirty[c]:
            refresh(cost, count, loss, dearest, seats, c)
    for c in range(len(other_dirty)):
        if other_dirty[c]:
            refresh(other[2], other[3], other[4], other[5], other_seats, c)
    return before - _tiles(count, seats) - _tiles(other[3], other_seats)


@nb.njit(cache=True)
def take_until(reads, writes, seats_in, seats_out, runs, dense, dense_loss, state, stop_loss, wanted):
    """Take tiles from one layer while the cheapest loses at most `stop_loss`, until `wanted` are saved.

    dense (D,) bool: dense tiles kept, in the order of dense_loss (D,), ascending. state (2,): ranks alive, first dense
    tile not yet considered. Returns (tiles saved, what the next one loses).
    """
    saved, kept = 0, dense.sum()
    while True:
        chunk_in, chunk_out = np.argmin(reads[4]), np.argmin(writes[4])
        read_loss, write_loss = reads[4][chunk_in], writes[4][chunk_out]
        tile_loss = dense_loss[state[1]] if state[1] < len(dense) else np.inf
        cheapest = min(read_loss, write_loss, tile_loss)
        if saved >= wanted or cheapest > stop_loss or cheapest == np.inf:
            return saved, cheapest
        if tile_loss <= cheapest:
            if kept > 1 or state[0] > 0:
                dense[state[1]] = False
                kept -= 1
                saved += 1
            state[1] += 1
        elif read_loss <= write_loss:
            saved += take(reads, writes, seats_in, seats_out, chunk_in, runs, state, kept)
        else:
            saved += take(writes, reads, seats_out, seats_in, chunk_out, runs, state, kept)


@nb.njit(cache=True)
def returnable(touches, original, worth, alive, chunk, runs, most):
    """Up to `most` living ranks that gave up `chunk` and could take it back, the most important first."""
    chunks, ranks = touches.shape
    could = np.empty(ranks, np.int64)
    found = 0
    for rank in range(ranks):
        if not original[chunk, rank] or touches[chunk, rank] or not alive[rank]:
            continue
        if runs and not (touches[chunk - 1, rank] or touches[(chunk + 1) % chunks, rank]):
            continue
        could[found] = rank
        found += 1
    could = could[:found]
    return could[np.argsort(-worth[chunk][could], kind="mergesort")[:most]]


@nb.njit(cache=True)
def fill_seats(side, original, alive, seats, runs):
    """Let living ranks take back chunks whose tiles have seats; repeated, as a run grows one chunk at a time."""
    touches, worth, count = side[0], side[1], side[3]
    moved = True
    while moved:
        moved = False
        for chunk in range(len(touches)):
            free = -count[chunk] % seats
            if free == 0:
                continue
            for rank in returnable(touches, original, worth, alive, chunk, runs, free):
                touches[chunk, rank] = True
                count[chunk] += 1
                moved = True


@nb.njit(cache=True)
def best_return(side, original, alive, seats, runs):
    """The chunk that regains most if a tile of its ranks comes back: (worth, chunk), or (-1, -1) if none can."""
    best, where = -1.0, -1
    for chunk in range(len(side[0])):
        ranks = returnable(side[0], original, side[1], alive, chunk, runs, seats)
        if len(ranks) == 0:
            continue
        gain = 0.0
        for rank in ranks:
            gain += side[1][chunk, rank]
        if gain > best:
            best, where = gain, chunk
    return best, where
