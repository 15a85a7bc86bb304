"""Random layers of every family and their programs, from a numpy generator (seeded corpora)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from gblr_hw.lowering.emit.emit import emit
from gblr_hw.lowering.passes.block_tokens import block_tokens
from gblr_hw.lowering.passes.build_schedule import build_schedule
from gblr_hw.lowering.passes.colour_banks import colour_banks
from gblr_hw.lowering.passes.drop_empty import drop_empty
from gblr_hw.lowering.passes.evaluate_masks import evaluate_masks
from gblr_hw.lowering.passes.group_ranks import group_ranks
from gblr_hw.lowering.passes.order_tiles import order_tiles
from gblr_hw.lowering.passes.pack_ranks import pack_ranks
from gblr_hw.lowering.passes.plan import LayerPlan
from gblr_hw.lowering.passes.quantise_weights import quantise_weights
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.factors import Factors, evaluate
from gblr_hw.weights.from_factors import block_sparse_weights
from gblr_hw.weights.stored import ConvWeights, DenseWeights, GBLRWeights, LatticeWeights, LayerWeights
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.program.program import Program
from tests.drawn.random_programs import (
    ENERGY_TABLE,
    generator,
    narrowed,
    sampled,
    seeds,
    small_machine,
    with_narrow,
)

# What tests of lowered programs take from here, whichever of the two files it stands in.
__all__ = ["ENERGY_TABLE", "as_stored", "case", "generator", "placed", "sampled", "seeds", "small_machine"]

FAMILIES = ("dense", "gblr", "gblr_gaussian", "lattice", "block_sparse", "conv")


def numbers(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.normal(size=shape).astype(np.float32))


def _bias(rng: np.random.Generator, outputs: int) -> torch.Tensor | None:
    return numbers(rng, outputs) if rng.random() < 0.5 else None


def gblr_weights(
    rng: np.random.Generator, inputs: int, outputs: int, gaussian: bool = False, bias: bool = True
) -> GBLRWeights:
    """Blocks with empty, one-channel, full, ordinary and wrapping intervals."""
    blocks, rank = int(rng.integers(1, 14)), int(rng.integers(1, 4))
    widths = rng.random((2, blocks)) * rng.choice([0.3, 1.0])
    special = rng.random((2, blocks))
    widths[special < 0.1] = 0.0
    widths[(special >= 0.1) & (special < 0.2)] = 1.0
    widths[:, special[0] > 0.95] = 1.0 / np.array([[inputs], [outputs]])
    return GBLRWeights(
        widths=torch.from_numpy(widths.astype(np.float32)),
        locations=torch.from_numpy(rng.random((2, blocks)).astype(np.float32)),
        lr_weight1=numbers(rng, blocks, rank, inputs),
        lr_weight2=numbers(rng, blocks, outputs, rank),
        bias=_bias(rng, outputs) if bias else None,
        sigma=float(rng.choice([3.0, 30.0, 1000.0])),
        gaussian=gaussian,
    )


def lattice_weights(
    rng: np.random.Generator, inputs: int, outputs: int, chunk_in: int, chunk_out: int
) -> LatticeWeights:
    """Ranks with any chunk sets (empty ones too) and any dense tiles."""
    ranks = int(rng.choice([0, 1, 5, 20, 40]))
    chunks, rows = ceil_div(inputs, chunk_in), ceil_div(outputs, chunk_out)
    density = rng.choice([0.15, 0.5, 1.0])
    reads = torch.from_numpy(rng.random((ranks, chunks)) < density)
    writes = torch.from_numpy(rng.random((ranks, rows)) < density)
    tiles = torch.from_numpy(rng.random((rows, chunks)) < rng.choice([0.0, 0.2, 1.0]))
    read_mask = reads.repeat_interleave(chunk_in, dim=1)[:, :inputs]
    write_mask = writes.repeat_interleave(chunk_out, dim=1)[:, :outputs]
    support = tiles.repeat_interleave(chunk_out, dim=0)[:outputs].repeat_interleave(chunk_in, dim=1)[:, :inputs]
    return LatticeWeights(
        u=numbers(rng, outputs, ranks) * write_mask.T, v=numbers(rng, ranks, inputs) * read_mask, reads=reads, writes=writes,
        tiles=tiles, dense=numbers(rng, outputs, inputs) * support, bias=_bias(rng, outputs), chunk_in=chunk_in, chunk_out=chunk_out,
    )  # fmt: skip


def conv_weights(rng: np.random.Generator) -> ConvWeights:
    kernel = tuple(int(x) for x in rng.integers(1, 4, 2))
    channels, outputs = int(rng.integers(2, 12)), int(rng.integers(2, 20))
    positions = kernel[0] * kernel[1]
    if rng.random() < 0.5:
        parts = tuple(gblr_weights(rng, channels, outputs, bias=False) for _ in range(positions))
        return ConvWeights(parts, "positions", kernel, channels, outputs, _bias(rng, outputs))
    return ConvWeights(
        (gblr_weights(rng, channels * positions, outputs, bias=False),),
        "unfolded",
        kernel,
        channels,
        outputs,
        _bias(rng, outputs),
    )


def layer_weights(rng: np.random.Generator, machine: Machine, family: str | None = None) -> LayerWeights:
    """A random layer of a random (or the given) family, with sides from 1 to five chunks."""
    family = str(rng.choice(FAMILIES)) if family is None else family
    inputs, outputs = (int(rng.integers(1, 6 * side + 2)) for side in (machine.rows, machine.cols))
    if rng.random() < 0.2:
        inputs, outputs = (int(x) for x in rng.choice([1, 2, 3, machine.rows, machine.cols], 2))
    if family == "conv":
        return conv_weights(rng)
    if family.startswith("gblr"):
        return gblr_weights(rng, inputs, outputs, gaussian=family == "gblr_gaussian")
    if family == "dense":
        return DenseWeights(numbers(rng, outputs, inputs), _bias(rng, outputs))
    if rng.random() < 0.6:
        chunk_in, chunk_out = machine.rows, machine.cols
    else:
        chunk_in, chunk_out = (int(x) for x in rng.integers(1, 20, 2))
    if family == "lattice":
        return lattice_weights(rng, inputs, outputs, chunk_in, chunk_out)
    kept = torch.from_numpy(
        rng.random((ceil_div(outputs, chunk_out), ceil_div(inputs, chunk_in))) < rng.choice([0.1, 0.4])
    )
    return block_sparse_weights(
        numbers(rng, outputs, inputs), kept, _bias(rng, outputs), chunk_in=chunk_in, chunk_out=chunk_out
    )


def case(
    seed: int, layers: int = 1, tokens: int | None = None, stored: bool = True, **changes: dict[str, object]
) -> tuple[Machine, dict[str, LayerWeights], Program]:
    """A machine, weights that fit it, and their program: lowered, or (``stored``, two times in three) forced to keep
    its stored form.

    Seeds whose layers are too big for the machine are drawn again.
    """
    rng = generator(seed)
    while True:
        machine = with_narrow(rng, small_machine(rng, **changes))
        weights = {f"layer{i}": layer_weights(rng, machine) for i in range(layers)}
        count = int(rng.choice([1, 7, 40])) if tokens is None else tokens
        keep = stored and rng.random() < 0.67
        try:
            program = as_stored(weights, machine, count, rng) if keep else lower(weights, machine, tokens=count)
        except InputError as error:
            if "one token needs" not in str(error) and "biases and multipliers" not in str(error):
                raise
        else:
            return machine, weights, program


def placed(weights: LayerWeights, machine: Machine, tokens: int, name: str = "layer") -> LayerPlan:
    """The plan of a layer in the form in which it is stored, ready for build_schedule."""
    plan = block_tokens(drop_empty(evaluate_masks(name, weights, machine, tokens)))
    plan = replace(plan, form="ranks" if plan.factors.ranks else "dense")
    return order_tiles(pack_ranks(colour_banks(plan)) if machine.scatter else group_ranks(plan))


def as_stored(
    weights: Mapping[str, LayerWeights], machine: Machine, tokens: int, rng: np.random.Generator | None = None
) -> Program:
    """The program of layers whose ranks all stay ranks, however slow that is. With ``rng`` every other layer of a
    machine with scatter gets random places in rank memory, so that tiles have bank conflicts, and on a machine with
    narrow tiles random ones are narrow.
    """
    schedules = []
    for name, layer in weights.items():
        plan = placed(layer, machine, tokens, name)
        if rng is not None and machine.scatter and rng.random() < 0.5:
            fewest = ceil_div(plan.factors.ranks, machine.rank_memory.banks)
            capacity = min(machine.rank_rows_per_bank // plan.block_tokens, fewest + int(rng.integers(0, 4)))
            place = rng.choice(machine.rank_memory.banks * capacity, plan.factors.ranks, replace=False)
            plan = replace(plan, rank_bank=place // capacity, rank_slot=place % capacity)
        schedule = build_schedule(plan, plan.factors.multiplications)
        schedule = quantise_weights(schedule, plan.factors, machine, None)
        schedules.append(schedule if rng is None else narrowed(rng, schedule, machine))
    return emit(schedules, machine, tokens, {})


def matrix_and_bias(weights: LayerWeights) -> tuple[np.ndarray, np.ndarray]:
    factors: Factors = evaluate(weights)
    bias = np.zeros(factors.out_features) if factors.bias is None else factors.bias.astype(np.float64)
    return factors.matrix(), bias
