"""Layers whose structure does not move, as the counts that the closed form prices: the parts or stages that lowering
makes of a layer, and the forms of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch

from gblr_hw.cost.closed_form import LayerCost, MachineCost, summed
from gblr_hw.cost.touches import LayerCounts, Sides, exact_counts
from gblr_hw.lowering.chains.pack_mixes import pack_mixes
from gblr_hw.lowering.chains.stage_blast import parts_of, stages_of
from gblr_hw.lowering.chains.take_turns import take_turns
from gblr_hw.lowering.passes.drop_empty import drop_empty
from gblr_hw.lowering.passes.merge_links import merged, possible_merges
from gblr_hw.lowering.passes.plan import LayerPlan
from gblr_hw.lowering.split_wide import narrow_parts
from gblr_hw.weights.factors import Factors, evaluate, structure_of
from gblr_hw.weights.stored import LayerWeights
from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.program.operations import Op


@dataclass(frozen=True, eq=False)
class Part:
    """A part of a layer, or of a stage of it: its sizes, and the counts of the forms that it may run in."""

    in_features: int
    out_features: int
    forms: tuple[LayerCounts, ...]


@dataclass(frozen=True, eq=False)
class StoredForm:
    """One way to cut a layer. Its parts run one after another. enough: cycles below which no other way is looked at."""

    parts: tuple[Part, ...]
    enough: int = 0


def stored_forms(weights: LayerWeights, cost: MachineCost) -> Iterator[StoredForm]:
    """The ways to cut a layer on the machine of ``cost``, for its tokens, made as they are asked for."""
    machine = cost.machine
    stages = stages_of("", weights, machine, cost.tokens)
    if stages is not None:
        # Products of several blocks are block-diagonal: lowering drops what is empty between the blocks.
        parts = (part_of(_without_empty(evaluate(held), cost), cost, merging=False) for _, held, _ in parts_of(stages))
        yield StoredForm(tuple(parts), stages.least_whole)
    yield StoredForm(tuple(part_of(evaluate(held), cost) for _, held in narrow_parts("", weights, machine)))


def cost_of(forms: Iterable[StoredForm], cost: MachineCost) -> LayerCost:
    """The cheapest way, each part in its cheapest form."""
    best: LayerCost | None = None
    for form in forms:
        found = summed([cheapest(part, cost) for part in form.parts])
        if best is None or float(found.latency_cycles) < float(best.latency_cycles):
            best = found
        if float(best.latency_cycles) <= form.enough:
            break
    assert best is not None
    return best


def cheapest(part: Part, cost: MachineCost) -> LayerCost:
    """A part in its cheapest form."""
    size = part.in_features, part.out_features
    return min((cost.layer(form, *size) for form in part.forms), key=lambda one: float(one.latency_cycles))


def part_of(factors: Factors, cost: MachineCost, *, merging: bool = True) -> Part:
    """Evaluated factors: each way to merge the links of a chain, or the chain itself; and every tile dense, where the
    ranks may be multiplied out.
    """
    size, machine = (factors.in_features, factors.out_features), cost.machine
    forms = [fixed_counts(one, machine, cost.tokens) for one in (_merges(factors, machine) if merging else [factors])]
    if may_be_dense(forms[0], cost.narrow):
        forms.append(dense_counts(machine, *size))
    return Part(*size, tuple(forms))


def _without_empty(factors: Factors, cost: MachineCost) -> Factors:
    return drop_empty(LayerPlan("", factors, cost.machine, cost.tokens)).factors


def may_be_dense(counts: LayerCounts, narrow: Iterable[Op]) -> bool:
    """Whether lowering may multiply a layer's ranks out: not where dense tiles have fewer bits than ranks."""
    kinds = set(narrow)
    return Op.DENSE not in kinds or {Op.REDUCE, Op.EXPAND} <= kinds or float(counts.ranks) == 0


def _merges(factors: Factors, machine: Machine) -> list[Factors]:
    """The ways to merge the links of chains that a machine can run; the factors themselves if there are no chains."""
    forms = [merged(factors, merge, values=False) if merge else factors for merge in possible_merges(factors)]
    return [form for form in forms if machine.scatter or len(form.mix_source) == 0]


def fixed_counts(factors: Factors, machine: Machine, tokens: int = 1) -> LayerCounts:
    """Counts of a layer whose structure does not move, from its evaluated factors. tokens: rows that enter it, by which
    ranks may take turns in memory.
    """
    structure = structure_of(factors, machine.rows, machine.cols)
    sides = Sides(
        torch.tensor(structure.reads, dtype=torch.float32),
        torch.tensor(structure.writes, dtype=torch.float32),
        torch.as_tensor(factors.reads.sum(1), dtype=torch.float32),
        torch.as_tensor(factors.writes.sum(1), dtype=torch.float32),
    )
    counts = exact_counts(sides, machine)
    support = 0 if factors.dense_support is None else int(factors.dense_support.sum())
    read = torch.as_tensor(structure.reads.any(axis=0) | structure.tiles.any(axis=0)).sum()
    counts = replace(
        counts,
        dense_tiles=torch.tensor(float(structure.tiles.sum())),
        chunks_read=read.float(),
        dense_weights=torch.tensor(float(support)),
    )
    return _with_mixes(counts, factors, machine, tokens) if len(factors.mix_source) else counts


def _with_mixes(counts: LayerCounts, factors: Factors, machine: Machine, tokens: int) -> LayerCounts:
    """The counts with those of the MIX tiles that lowering packs."""
    plan = pack_mixes(take_turns(drop_empty(LayerPlan("", factors, machine, tokens))))
    tiles = plan.rank_tiles
    return replace(
        counts,
        ranks=torch.tensor(float(plan.factors.ranks)),
        mix_weights=torch.tensor(float(len(plan.factors.mix_source))),
        mix_tiles=torch.tensor(float(len(tiles.op))),
        mix_reading=torch.tensor(float(tiles.read.sum())),
        mix_writing=torch.tensor(float(len(tiles.rank) - tiles.read.sum())),
        sharing=torch.tensor(float(plan.factors.ranks - plan.ring * plan.places)),
    )


def dense_counts(machine: Machine, in_features: int, out_features: int) -> LayerCounts:
    """Of a layer that keeps every tile dense."""
    chunks_in, chunks_out = ceil_div(in_features, machine.rows), ceil_div(out_features, machine.cols)
    zero = torch.zeros(())
    return LayerCounts(
        reading=torch.zeros(chunks_in),
        writing=torch.zeros(chunks_out),
        reduce_tiles=torch.zeros(chunks_in),
        expand_tiles=torch.zeros(chunks_out),
        dense_tiles=torch.tensor(float(chunks_in * chunks_out)),
        chunks_read=torch.tensor(float(chunks_in)),
        ranks=zero,
        reduce_weights=zero,
        expand_weights=zero,
        dense_weights=torch.tensor(float(in_features * out_features)),
    )
