"""Random layers whose ranks are mixed into each other: chains of any depth, blocks of any size, as factors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gblr_hw.lowering.chains.pack_mixes import pack_mixes
from gblr_hw.lowering.chains.take_turns import take_turns
from gblr_hw.lowering.emit.emit import emit
from gblr_hw.lowering.lower_layer import lower_plan
from gblr_hw.lowering.passes.block_tokens import block_tokens
from gblr_hw.lowering.passes.build_schedule import build_schedule
from gblr_hw.lowering.passes.colour_banks import colour_banks
from gblr_hw.lowering.passes.drop_empty import drop_empty
from gblr_hw.lowering.passes.order_tiles import order_tiles
from gblr_hw.lowering.passes.pack_ranks import pack_ranks
from gblr_hw.lowering.passes.plan import LayerPlan
from gblr_hw.lowering.passes.quantise_weights import quantise_weights
from gblr_hw.weights.factors import Factors
from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.schedule import LayerSchedule
from tests.drawn.random_programs import narrowed


def chain_factors(rng: np.random.Generator, inputs: int, outputs: int) -> Factors:
    """Ranks of up to four levels; mixes in blocks, or between any two ranks of which the first comes before the second.
    Now and then a rank reads and is mixed into, or is mixed and written, or leads nowhere; outputs in any order.
    """
    levels = int(rng.integers(2, 5))
    sizes = rng.integers(1, rng.choice([3, 9, 40]), levels)
    level = np.repeat(np.arange(levels), sizes)
    ranks = len(level)
    density = rng.choice([0.1, 0.5, 1.0])
    groups = int(rng.integers(1, 6))
    of_group = rng.integers(0, groups, ranks)
    near = level[:, None] + 1 == level if rng.random() < 0.7 else level[:, None] < level
    edge = near & (rng.random((ranks, ranks)) < density)
    if rng.random() < 0.6:
        edge &= of_group[:, None] == of_group
    target, source = np.nonzero(edge.T)
    reads = _supports(rng, ranks, inputs) & ((level == 0) | (rng.random(ranks) < 0.1))[:, None]
    writes = _supports(rng, ranks, outputs) & ((level == levels - 1) | (rng.random(ranks) < 0.1))[:, None]
    support = np.repeat(rng.random((outputs, 1)) < rng.choice([0.0, 0.0, 0.3]), inputs, axis=1)
    dense = (rng.normal(size=support.shape) * support).astype(np.float32)
    return Factors(
        in_features=inputs,
        out_features=outputs,
        u=(rng.normal(size=(outputs, ranks)) * writes.T).astype(np.float32),
        v=(rng.normal(size=(ranks, inputs)) * reads).astype(np.float32),
        writes=writes,
        reads=reads,
        dense=dense if support.any() else None,
        dense_support=support if support.any() else None,
        bias=rng.normal(size=outputs).astype(np.float32) if rng.random() < 0.5 else None,
        family="chain",
        multiplications=int(reads.sum() + writes.sum() + len(source) + support.sum()),
        mix_source=source.astype(np.int64),
        mix_target=target.astype(np.int64),
        mix_value=rng.normal(size=len(source)).astype(np.float32),
        output_order=rng.permutation(outputs) if rng.random() < 0.5 else None,
    )


def _supports(rng: np.random.Generator, ranks: int, channels: int) -> np.ndarray:
    """A run of channels for each rank, (K, channels)."""
    begin, end = np.sort(rng.integers(0, channels + 1, (2, ranks)), axis=0)
    if rng.random() < 0.3:
        begin[:], end[:] = 0, channels
    place = np.arange(channels)
    return np.asarray((place >= begin[:, None]) & (place < end[:, None]))


def blast_factors(rng: np.random.Generator, inputs: int, outputs: int, blocks: int, rank: int) -> Factors:
    """BLAST (Lee et al. 2024): block row i of the result is B_i sum_j D_ij (C_j x_j), D_ij diagonal. Rank (j, k) comes
    from input block j; rank (blocks + i, k) is what its mixes make of it for output block i.
    """
    p, q = inputs // blocks, outputs // blocks
    halves = blocks * rank
    reads, writes = np.zeros((2 * halves, inputs), bool), np.zeros((2 * halves, outputs), bool)
    for j in range(blocks):
        reads[j * rank : (j + 1) * rank, j * p : (j + 1) * p] = True
        writes[halves + j * rank : halves + (j + 1) * rank, j * q : (j + 1) * q] = True
    i, k, j = (axis.ravel() for axis in np.meshgrid(*map(np.arange, (blocks, rank, blocks)), indexing="ij"))
    multiplications = rank * (inputs + outputs) + blocks * blocks * rank
    return _joined(rng, reads, writes, (j * rank + k, halves + i * rank + k), "blast", multiplications)


def _joined(
    rng: np.random.Generator,
    reads: np.ndarray,
    writes: np.ndarray,
    edges: tuple[np.ndarray, np.ndarray],
    family: str,
    multiplications: int,
) -> Factors:
    """Random ranks of these supports, (K, inputs) and (K, outputs), and random mixes along edges (sources, targets)."""
    return Factors(
        in_features=reads.shape[1],
        out_features=writes.shape[1],
        u=(rng.normal(size=writes.T.shape) * writes.T).astype(np.float32),
        v=(rng.normal(size=reads.shape) * reads).astype(np.float32),
        writes=writes,
        reads=reads,
        dense=None,
        dense_support=None,
        bias=None,
        family=family,
        multiplications=multiplications,
        mix_source=edges[0].astype(np.int64),
        mix_target=edges[1].astype(np.int64),
        mix_value=rng.normal(size=len(edges[0])).astype(np.float32),
    )


def many_parts(rng: np.random.Generator, machine: Machine, parts: int, chunks: int = 3) -> Factors:
    """Chains that write output chunks of their own, so that they may be in rank memory one after another."""
    side, inputs = machine.cols, chunks * machine.rows
    sources, targets = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    each = sources + targets
    reads, writes = np.zeros((parts * each, inputs), bool), np.zeros((parts * each, parts * side), bool)
    edges = []
    for part in range(parts):
        first = part * each
        reads[first : first + sources] = rng.random((sources, inputs)) < 0.7
        writes[first + sources : first + each, part * side : (part + 1) * side] = True
        edges += [(first + s, first + sources + t) for t in range(targets) for s in range(sources)]
    source, target = np.array(edges).T
    multiplications = int(reads.sum() + writes.sum() + len(edges))
    return _joined(rng, reads, writes, (source, target), "chain", multiplications)


def lowered(factors: Factors, machine: Machine, tokens: int, name: str = "layer", **options: object) -> LayerSchedule:
    """The layer in its best form."""
    return lower_plan(LayerPlan(name, factors, machine, tokens), **options)  # type: ignore[arg-type]


def as_chain(
    factors: Factors,
    machine: Machine,
    tokens: int,
    rng: np.random.Generator | None = None,
    name: str = "layer",
    examples: np.ndarray | None = None,
    steps: tuple[float, float] | None = None,
    one_input: bool = False,
    narrow: tuple[Op, ...] = (),
) -> LayerSchedule:
    """The layer with its chains as they are, however slow that is; with ``rng`` at random places in rank memory.
    examples: inputs for its int8 ranges. steps: those of its activations. one_input: a block may have both input
    buffers. narrow: kinds of tiles that are narrow.
    """
    layer = drop_empty(LayerPlan(name, factors, machine, tokens, one_input=one_input, narrow=narrow))
    plan = block_tokens(pack_mixes(take_turns(layer)))
    ranks = plan.factors.ranks
    plan = replace(plan, form="mixed" if ranks and plan.structure.tiles.any() else "ranks" if ranks else "dense")
    plan = order_tiles(pack_ranks(colour_banks(plan)))
    fewest = max(1, ceil_div(ranks, machine.rank_memory.banks))
    if rng is not None and fewest * plan.block_tokens <= machine.rank_rows_per_bank:
        capacity = min(machine.rank_rows_per_bank // plan.block_tokens, fewest + int(rng.integers(0, 4)))
        place = rng.choice(machine.rank_memory.banks * capacity, ranks, replace=False)
        plan = replace(plan, rank_bank=place // capacity, rank_slot=place % capacity, held_slots=0)
    return quantise_weights(build_schedule(plan, factors.multiplications), plan.factors, machine, examples, steps)


def chain_program(rng: np.random.Generator, machine: Machine, layers: int, tokens: int, keep: bool) -> Program:
    """A program of random chains. ``keep``: as they are, half of them with bank conflicts; else in their best form. On a
    machine with narrow tiles random ones are narrow.
    """
    sides = [tuple(int(rng.integers(1, 4 * side + 2)) for side in (machine.rows, machine.cols)) for _ in range(layers)]
    schedules = []
    for number, (inputs, outputs) in enumerate(sides):
        factors, name = chain_factors(rng, inputs, outputs), f"layer{number}"
        if keep:
            schedules.append(as_chain(factors, machine, tokens, rng if rng.random() < 0.5 else None, name))
        else:
            schedules.append(lowered(factors, machine, tokens, name))
        schedules[-1] = narrowed(rng, schedules[-1], machine)
    return emit(schedules, machine, tokens, {})


def matrix_and_bias(factors: Factors) -> tuple[np.ndarray, np.ndarray]:
    """The layer's matrix and bias, outputs in natural order: edge by edge, without what the product uses for it."""
    rows = {}

    def row(rank: int) -> np.ndarray:
        if rank not in rows:
            total = factors.v[rank].astype(np.float64)
            for edge in np.flatnonzero(factors.mix_target == rank):
                total = total + float(factors.mix_value[edge]) * row(int(factors.mix_source[edge]))
            rows[rank] = total
        return rows[rank]

    matrix = np.zeros((factors.out_features, factors.in_features)) if factors.dense is None else factors.dense + 0.0
    bias = np.zeros(factors.out_features) if factors.bias is None else factors.bias.astype(np.float64)
    for rank in range(factors.ranks):
        matrix = matrix + np.outer(factors.u[:, rank].astype(np.float64), row(rank))
    if factors.output_order is None:
        return matrix, bias
    natural, moved = np.empty_like(matrix), np.empty_like(bias)
    natural[factors.output_order], moved[factors.output_order] = matrix, bias
    return natural, moved
