"""Pass 3: candidate forms of a layer. Ranks stay ranks, or some or all of them are multiplied out into dense tiles.

Which candidate is best is decided where it can be known: every one goes through the remaining passes and is timed on
the engine (pipeline.py). The layer's own dense form is always among them, so no lowered layer is slower than that.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gblr_hw.factors import Factors
from gblr_hw.lattice import Structure
from gblr_hw.lowering.drop_empty import keep_ranks
from gblr_hw.lowering.plan import LayerPlan

_PREFIXES = 48  # steps of the walk from "all ranks" to "all dense"


def candidate_forms(plan: LayerPlan) -> tuple[LayerPlan, ...]:
    """Plans with the same matrix, distinct in what is a rank and what is a dense tile; the last one keeps every tile
    dense.
    """
    factors, structure = plan.factors, plan.structure
    full = _materialise(plan, np.zeros(factors.ranks, bool), np.ones_like(structure.tiles))
    candidates = [_labelled(plan)]
    if factors.ranks == 0:
        return (*candidates, full) if not structure.tiles.all() else (full,)
    walk = _walk(structure, plan.machine.rows, plan.machine.cols)
    for alive, tiles in _best_of(walk, structure, plan.machine.rows, plan.machine.cols):
        if not alive.all():
            candidates.append(_materialise(plan, alive, tiles))
    return (*candidates, full)


def _labelled(plan: LayerPlan) -> LayerPlan:
    if plan.factors.ranks == 0:
        return replace(plan, form="dense")
    return replace(plan, form="mixed" if plan.structure.tiles.any() else "ranks")


def _materialise(plan: LayerPlan, alive: np.ndarray, tiles: np.ndarray) -> LayerPlan:
    """Multiply the ranks that are not ``alive`` out into the dense ``tiles`` (R, C)."""
    factors, machine = plan.factors, plan.machine
    gone = ~alive
    dense = factors.u[:, gone].astype(np.float64) @ factors.v[gone].astype(np.float64)
    if factors.dense is not None:
        dense += factors.dense
    support = tiles.repeat(machine.cols, axis=0)[: factors.out_features].repeat(machine.rows, axis=1)[
        :, : factors.in_features
    ]
    return _labelled(replace(plan, factors=keep_ranks(factors, alive, dense.astype(np.float32), support)))


def _walk(structure: Structure, rows: int, cols: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """States (alive ranks, dense tiles) from all ranks to none: footprints with the most ranks per tile become dense
    first.
    """
    reads, writes = structure.reads, structure.writes
    keys = np.concatenate([reads, writes], axis=1)
    _, group, count = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    read_chunks, write_chunks = reads.sum(axis=1), writes.sum(axis=1)
    saved = count[group] * (read_chunks / cols + write_chunks / rows)
    ratio = saved / np.maximum(read_chunks * write_chunks, 1)
    order = np.lexsort((group, -ratio))
    tiles, states = structure.tiles.copy(), []
    cuts = np.unique(np.linspace(0, len(order), min(_PREFIXES, len(order)) + 1).astype(int))
    # A cut inside a group of equal footprints would leave some of it behind for nothing.
    ends = np.array(
        [
            len(order) if c == len(order) else int(np.searchsorted(-ratio[order], -ratio[order[c]], "right"))
            for c in cuts
        ]
    )
    done = 0
    for end in np.unique(ends):
        for rank in order[done:end]:
            tiles |= np.outer(writes[rank], reads[rank])
        done = int(end)
        inside = np.einsum(
            "kr,rc,kc->k", writes.astype(np.int64), tiles.astype(np.int64), reads.astype(np.int64), optimize=True
        )
        states.append((inside < read_chunks * write_chunks, tiles.copy()))
    return states


def _best_of(
    walk: list[tuple[np.ndarray, np.ndarray]], structure: Structure, rows: int, cols: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The state with the fewest tiles, and the last one (every rank multiplied out, over the touched tiles only)."""
    counts = [
        tile_count(structure.reads[alive], structure.writes[alive], rows, cols) + int(tiles.sum())
        for alive, tiles in walk
    ]
    best = walk[int(np.argmin(counts))]
    return [best] if best is walk[-1] else [best, walk[-1]]


def tile_count(reads: np.ndarray, writes: np.ndarray, rows: int, cols: int) -> int:
    """REDUCE and EXPAND tiles of ranks packed by chunk: sum of ceil(n_c / Q) and ceil(n_r / P)."""
    return int((-(-reads.sum(axis=0) // cols)).sum() + (-(-writes.sum(axis=0) // rows)).sum())


def form_multiplications(factors: Factors) -> int:
    """Multiplications per token of a form as it is run: both sides of every rank, every entry of dense tiles."""
    dense = 0 if factors.dense_support is None else int(factors.dense_support.sum())
    return int(factors.reads.sum() + factors.writes.sum()) + dense
