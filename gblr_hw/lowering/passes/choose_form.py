"""Candidate forms of a layer. Ranks stay ranks, or some or all of them are multiplied out into dense tiles; chains of
ranks stay as they are, or some of their links are multiplied together first.

Which candidate is best is decided where it can be known: each goes through the remaining passes and is timed on the
engine (choose_best.py). Timing never depends on numbers, so only the best one's are computed. The layer's own dense
form is among the candidates, so no lowered layer is slower than that; but for dense tiles of fewer bits than ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numba as nb
import numpy as np

from gblr_hw.lowering.passes.drop_empty import keep_ranks
from gblr_hw.lowering.passes.merge_links import NO_MERGE, Merge, merged, possible_merges
from gblr_hw.lowering.passes.plan import LayerPlan
from gblr_hw.weights.factors import Factors
from gblr_hw.weights.structure import Structure
from simulator.base.columns import kernel_input
from simulator.base.kernels import ceil_div
from simulator.program.operations import Op

_NO_RANKS = np.zeros(0, np.int64)
_PREFIXES = 48  # steps of the walk from "all ranks" to "all dense"


@dataclass(frozen=True, eq=False)
class Form:
    """What is a rank and what is a dense tile, once the levels of ``merge`` are merged: ranks that stay ``alive`` (K,),
    dense ``tiles`` (R, C), both bool. The other ranks are multiplied out into the tiles.
    """

    alive: np.ndarray
    tiles: np.ndarray
    merge: Merge = NO_MERGE

    @property
    def label(self) -> str:
        """Its name in schedules."""
        if not self.alive.any():
            return "dense"
        return "mixed" if self.tiles.any() else "ranks"

    @property
    def title(self) -> str:
        """Its name in the list of those that were looked at."""
        levels = ", ".join(map(str, sorted(self.merge)))
        return f"{self.label} without level {levels}" if self.merge and self.alive.any() else self.label


def as_it_is(plan: LayerPlan) -> Form:
    """Every rank and dense tile that the plan has."""
    return Form(np.ones(plan.factors.ranks, bool), plan.structure.tiles)


def candidate_forms(plan: LayerPlan) -> tuple[Form, ...]:
    """Forms of the same matrix; the last one keeps every tile dense, unless that has fewer bits than the ranks have:
    then ranks stay ranks, since multiplied out they would be rounded to what the user did not ask for.
    """
    forms = _forms_without_mixes(plan) if len(plan.factors.mix_source) == 0 else _forms_with_mixes(plan)
    if plan.factors.grid is not None or plan.factors.rank_grid is not None:
        # What ranks are multiplied out into lies on no grid.
        return tuple(form for form in forms if form.alive.all())
    if Op.DENSE in plan.narrow and not {Op.REDUCE, Op.EXPAND} <= set(plan.narrow):
        return tuple(form for form in forms if form.alive.all())
    return forms


def _forms_with_mixes(plan: LayerPlan) -> tuple[Form, ...]:
    found: list[Form] = []
    for merge in possible_merges(plan.factors):
        part = _merged_plan(plan, merge, values=False)
        if len(part.factors.mix_source):
            if not plan.machine.scatter:
                continue  # no MIX tiles there (rule B3)
            found.append(Form(np.ones(part.factors.ranks, bool), part.structure.tiles, merge))
        else:
            found += [replace(form, merge=merge) for form in _forms_without_mixes(part)[:-1]]
    full = Form(np.zeros(plan.factors.ranks, bool), np.ones_like(plan.structure.tiles))
    # Without ranks it is all the same what was merged: each set of dense tiles once.
    dense = {form.tiles.tobytes(): form for form in (*found, full) if not form.alive.any()}
    dense[full.tiles.tobytes()] = full
    return (*(form for form in found if form.alive.any()), *sorted(dense.values(), key=lambda form: form.tiles.sum()))


def _merged_plan(plan: LayerPlan, merge: Merge, *, values: bool) -> LayerPlan:
    return plan if not merge else replace(plan, factors=merged(plan.factors, merge, values=values))


def _forms_without_mixes(plan: LayerPlan) -> tuple[Form, ...]:
    structure = plan.structure
    full = Form(np.zeros(plan.factors.ranks, bool), np.ones_like(structure.tiles))
    stored = Form(np.ones(plan.factors.ranks, bool), structure.tiles)
    if plan.factors.ranks == 0:
        return (stored, full) if not structure.tiles.all() else (full,)
    walk = _walk(structure, plan.machine.rows, plan.machine.cols)
    best = [form for form in _best_of(walk, structure, plan.machine.rows, plan.machine.cols) if not form.alive.all()]
    return (stored, *best, full)


def outline(plan: LayerPlan, form: Form) -> LayerPlan:
    """The plan in this form, with everything but its numbers: u, v and dense are placeholders of zeros."""
    plan = _merged_plan(plan, form.merge, values=False)
    factors, structure = plan.factors, plan.structure
    if form.alive.all() and np.array_equal(form.tiles, structure.tiles):
        result = replace(plan, form=form.label)
        result.__dict__["structure"] = structure
        return result
    ranks = int(form.alive.sum())
    zero = np.zeros((), np.float32)
    result = replace(
        plan,
        form=form.label,
        factors=replace(
            factors,
            u=np.broadcast_to(zero, (factors.out_features, ranks)),
            v=np.broadcast_to(zero, (ranks, factors.in_features)),
            reads=factors.reads[form.alive],
            writes=factors.writes[form.alive],
            dense=np.broadcast_to(zero, (factors.out_features, factors.in_features)),
            dense_support=_entries(plan, form.tiles),
            block_sizes=(),
            mix_source=_NO_RANKS,
            mix_target=_NO_RANKS,
            mix_value=np.zeros(0, np.float32),
        ),
    )
    result.__dict__["structure"] = Structure(form.tiles, structure.reads[form.alive], structure.writes[form.alive])
    return result


def numbers(plan: LayerPlan, form: Form) -> Factors:
    """The factors of the plan in this form: links merged, ranks that are not alive multiplied out, in float64."""
    plan = _merged_plan(plan, form.merge, values=True)
    factors = plan.factors
    if form.alive.all() and np.array_equal(form.tiles, plan.structure.tiles):
        return factors
    gone = ~form.alive
    if gone.all():
        dense = factors.stored_matrix()
    else:
        dense = factors.u[:, gone].astype(np.float64) @ factors.v[gone].astype(np.float64)
        dense += 0 if factors.dense is None else factors.dense
    return keep_ranks(factors, form.alive, dense.astype(np.float32), _entries(plan, form.tiles))


def _entries(plan: LayerPlan, tiles: np.ndarray) -> np.ndarray:
    """(m, n) bool: the entries of the dense tiles."""
    factors, machine = plan.factors, plan.machine
    rows = tiles.repeat(machine.rows, axis=1)[:, : factors.in_features]
    return rows.repeat(machine.cols, axis=0)[: factors.out_features]


def _walk(structure: Structure, rows: int, cols: int) -> list[Form]:
    """Forms from all ranks to none: footprints with the most ranks per tile become dense first."""
    reads, writes = structure.reads, structure.writes
    keys = np.packbits(np.concatenate([reads, writes], axis=1), axis=1)
    _, group, count = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    read_chunks, write_chunks = reads.sum(axis=1), writes.sum(axis=1)
    saved = count[group] * (read_chunks / cols + write_chunks / rows)
    ratio = saved / np.maximum(read_chunks * write_chunks, 1)
    order = np.lexsort((group, -ratio))
    cuts = np.unique(np.linspace(0, len(order), min(_PREFIXES, len(order)) + 1).astype(int))
    # A cut inside a group of equal footprints would leave some of it behind for nothing.
    falling = -ratio[order]
    ends = [
        len(order) if cut == len(order) else int(np.searchsorted(falling, falling[cut], "right"))
        for cut in cuts.tolist()
    ]
    area = read_chunks * write_chunks
    sides = kernel_input(reads, np.bool_), kernel_input(writes, np.bool_)
    tiles, forms, done = structure.tiles.copy(), [], 0
    for end in sorted(set(ends)):
        _cover(*sides, kernel_input(order[done:end], np.int64), tiles)
        done = end
        forms.append(Form(_covered(*sides, kernel_input(tiles, np.bool_)) < area, tiles.copy()))
    return forms


@nb.njit(cache=True, nogil=True)
def _cover(reads, writes, ranks, tiles):
    """Mark the tiles (R, C) that some of ``ranks`` touch."""
    for k in ranks:
        for r in range(tiles.shape[0]):
            if writes[k, r]:
                for c in range(tiles.shape[1]):
                    tiles[r, c] |= reads[k, c]


@nb.njit(cache=True, nogil=True)
def _covered(reads, writes, tiles):
    """How many marked tiles each rank touches, (K,)."""
    count = np.zeros(reads.shape[0], dtype=np.int64)
    for k in range(reads.shape[0]):
        for r in range(tiles.shape[0]):
            if writes[k, r]:
                for c in range(tiles.shape[1]):
                    count[k] += reads[k, c] & tiles[r, c]
    return count


def _best_of(walk: list[Form], structure: Structure, rows: int, cols: int) -> list[Form]:
    """The form with the fewest tiles, and the last one (every rank multiplied out, over the touched tiles only)."""
    reads = np.array([np.count_nonzero(structure.reads[form.alive], axis=0) for form in walk])
    writes = np.array([np.count_nonzero(structure.writes[form.alive], axis=0) for form in walk])
    dense = np.array([np.count_nonzero(form.tiles) for form in walk])
    best = walk[int(np.argmin(ceil_div(reads, cols).sum(axis=1) + ceil_div(writes, rows).sum(axis=1) + dense))]
    return [best] if best is walk[-1] else [best, walk[-1]]


def form_multiplications(factors: Factors) -> int:
    """Multiplications per token of a form as it is run: both sides of every rank, mixes, entries of dense tiles."""
    dense = 0 if factors.dense_support is None else int(np.count_nonzero(factors.dense_support))
    sides = int(np.count_nonzero(factors.reads) + np.count_nonzero(factors.writes))
    return sides + len(factors.mix_source) + dense
