"""BLAST layers with more ranks than rank memory holds rows of: in two stages, with codes in DRAM between them.

The first stage's ranks read the inputs and are mixed as ever, but each that would be read by outputs is written out as
one: a product with the identity, a tile for as many ranks as the array has lanes. The second stage is an ordinary
product for each output block. So ranks go through memory a few at a time, every weight is loaded once for large blocks
of tokens, and an activation code is rounded once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from gblr_hw.lowering.passes.block_tokens import input_half_bytes
from gblr_hw.weights.chains import BLASTWeights, ChainWeights
from gblr_hw.weights.stored import DenseWeights
from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.program.schedule import PARAMETER_BYTES, RANK_PARAMETER_BYTES, Slice

_MOST_CODES = 8192  # outputs of a part of the first stage: its factors are laid out as whole matrices
EVEN, UNEVEN = 1.0, 1.25  # slots for each that ranks would take if banks filled evenly


@dataclass(frozen=True, eq=False)
class Stages:
    """codes: parts of the first stage by name, each of the layer's inputs. products: those of the second, with the runs
    of the first stage's outputs that are their inputs; side by side their outputs are the layer's. least_cycles: a
    lower bound of the cycles, least_whole: one of those without stages.
    """

    codes: dict[str, ChainWeights]
    products: dict[str, tuple[DenseWeights, tuple[Slice, ...]]]
    least_cycles: int
    least_whole: int


def stages_of(
    name: str, weights: object, machine: Machine, tokens: int, spare: float = EVEN, *, equal: bool = False
) -> Stages | None:
    """The stages of a BLAST layer whose ranks do not fit rank memory for as many rows as its inputs do, or whose
    multipliers do not fit theirs; None for any other. spare: slots for each that ranks would take if banks filled
    evenly. equal: all parts of the first stage have as many outputs, zeros among the last one's; one block a product.
    """
    if not isinstance(weights, BLASTWeights) or not machine.scatter or min(len(weights.B), len(weights.C)) < 2:
        return None
    if _fits(weights, machine, tokens):
        return None
    step = _ranks_of_part(weights, machine, spare)
    if step < machine.cols:
        return None
    codes, factors, widths = {}, [], []
    for first in range(0, weights.rank, step):
        last = min(weights.rank, first + step)
        width = step if equal else ceil_div(last - first, machine.cols) * machine.cols
        chain, outer = _codes_of(weights, first, last, width)
        codes[f"{name}.ranks[{first}:{last}]"] = chain
        factors.append(outer)
        widths.append(width)
    outer = torch.cat(factors, dim=2)
    blocks, size, width = outer.shape
    # Products follow each other with a gap: as many blocks in one as have inputs that fit both buffers for all tokens,
    # two at least where their weights, which come twice then, hide behind half of the tokens.
    whole, half = (_blocks_that_fit(width, rows, machine) for rows in (tokens, ceil_div(tokens, 2)))
    hidden = ceil_div(tokens, 2) >= 2 * max(machine.rows, _load_cycles(machine))
    fitting = max(1, whole, min(2, half) if hidden else 1)
    each = min(fitting, blocks) if size % machine.cols == 0 and not equal else 1
    products = {}
    # The first one's inputs are still to come when it begins: it has few.
    for first, last in pairwise([0, *range(1, blocks, each), blocks]):
        runs = tuple(
            Slice(part, block * w, (block + 1) * w)
            for block in range(first, last)
            for part, w in zip(codes, widths, strict=True)
        )
        bias = None if weights.bias is None else weights.bias[first * size : last * size]
        held = DenseWeights(torch.block_diag(*outer[first:last]), bias)
        products[f"{name}[{first * size}:{last * size}]"] = held, runs
    p, q = machine.rows, machine.cols
    tiles = _tiles(weights.in_features, weights.rank, p, q) + ceil_div(weights.rank, _mixed_at_once(weights, machine))
    tiles += blocks * width // q + blocks * ceil_div(size, q) * (width // p)
    least = tiles * max(tokens, machine.rows)
    return Stages(codes, products, least, least_whole(weights, machine, tokens))


def _blocks_that_fit(width: int, rows: int, machine: Machine) -> int:
    """Blocks whose codes, ``width`` each, fit both input buffers for that many rows, or for a full accumulator's."""
    return 2 * input_half_bytes(machine) // (width * min(rows, machine.accumulator_rows // 2))


def _fits(weights: BLASTWeights, machine: Machine, tokens: int) -> bool:
    """Whether all ranks fit rank memory for a block of as many tokens as both other memories hold, and the layer's
    parameters theirs.
    """
    ranks = max(len(weights.B), len(weights.C)) * weights.rank
    inputs = ceil_div(weights.in_features, machine.rows) * machine.rows
    most = max(1, min(tokens, machine.accumulator_rows // 2, input_half_bytes(machine) // inputs))
    rows = ceil_div(tokens, ceil_div(tokens, most))
    slots = ceil_div((len(weights.B) + len(weights.C)) * weights.rank, machine.rank_memory.banks)
    table = RANK_PARAMETER_BYTES * slots * machine.multiplier_row
    fits = PARAMETER_BYTES * weights.out_features + table <= machine.parameter_half_bytes
    return fits and ceil_div(ranks, machine.rank_memory.banks) * rows <= machine.rank_rows_per_bank


def _ranks_of_part(weights: BLASTWeights, machine: Machine, spare: float) -> int:
    """Ranks of every block that one part takes: whole output chunks, and parameters that fit their memory."""
    blocks = max(len(weights.B), len(weights.C))
    per_rank = float(PARAMETER_BYTES * len(weights.B))
    per_rank += 2 * spare * blocks * RANK_PARAMETER_BYTES * machine.multiplier_row / machine.rank_memory.banks
    most = min(int(machine.parameter_half_bytes / per_rank), _MOST_CODES // len(weights.B))
    parts = ceil_div(weights.rank, max(machine.cols, most))
    return min(most, ceil_div(weights.rank, parts * machine.cols) * machine.cols) // machine.cols * machine.cols


def _codes_of(weights: BLASTWeights, first: int, last: int, width: int) -> tuple[ChainWeights, torch.Tensor]:
    """Ranks [first, last) of every output block as outputs, ``width`` a block, the last ones zero; and the matrices (b,
    p, width) that turn them into the layer's outputs. Powers of two bring the codes to one range for white inputs.
    """
    inner, mixed = weights.C[:, first:last], weights.D[:, :, first:last]
    squares = torch.einsum("ijr,jr->ir", mixed.double().square(), inner.double().square().sum(2))
    scale = torch.exp2(-torch.round(0.5 * torch.log2(torch.where(squares > 0, squares, 1.0)))).to(weights.B.dtype)
    blocks, count = scale.shape
    identity = torch.zeros(blocks, width, count, dtype=weights.B.dtype)
    identity[:, torch.arange(count), torch.arange(count)] = scale
    chain = BLASTWeights(identity, inner, mixed).chain()
    outer = torch.zeros(blocks, weights.B.shape[1], width, dtype=weights.B.dtype)
    outer[:, :, :count] = weights.B[:, :, first:last] / scale[:, None]
    return replace(chain, writes=chain.u != 0), outer


def parts_of(stages: Stages) -> Iterator[tuple[str, ChainWeights | DenseWeights, tuple[Slice, ...]]]:
    """All parts in order, with their inputs: () for the layer's own."""
    for name, chain in stages.codes.items():
        yield name, chain, ()
    for name, (held, runs) in stages.products.items():
        yield name, held, runs


def least_whole(weights: BLASTWeights, machine: Machine, tokens: int) -> int:
    """A lower bound of the cycles of the layer as it is: with its chains, with their first or last link merged into the
    middle one, or dense.
    """
    b_out, b_in, rank = weights.D.shape
    p, q = machine.rows, machine.cols
    chunks_in, chunks_out = ceil_div(weights.in_features, p), ceil_div(weights.out_features, q)
    reading, writing = _tiles(weights.in_features, rank, p, q), _tiles(weights.out_features, rank, q, p)
    mixing = ceil_div(rank, _mixed_at_once(weights, machine))
    forms = (
        (reading + mixing + writing, max(b_in, b_out) * rank),
        (chunks_in * ceil_div(b_out * rank, q) + writing, b_out * rank),
        (reading + chunks_out * ceil_div(b_in * rank, p), b_in * rank),
        (chunks_in * chunks_out, 0),
    )
    return min(_least_cycles(weights, machine, tokens, tiles, ranks) for tiles, ranks in forms)


def _mixed_at_once(weights: BLASTWeights, machine: Machine) -> int:
    """Ranks whose mixes a MIX tile holds."""
    return max(1, min(machine.rows // len(weights.C), machine.cols // len(weights.B)))


def _tiles(channels: int, rank: int, side: int, lanes: int) -> int:
    """Fewest tiles between the channels of all blocks and the ranks of theirs, with whole tiles only."""
    return channels // side * (rank // lanes)


def _least_cycles(weights: BLASTWeights, machine: Machine, tokens: int, tiles: int, ranks: int) -> int:
    inputs = ceil_div(weights.in_features, machine.rows) * machine.rows
    most = max(1, min(machine.accumulator_rows // 2, 2 * input_half_bytes(machine) // inputs))
    if ranks:
        most = max(1, min(most, machine.rank_rows_per_bank // ceil_div(ranks, machine.rank_memory.banks)))
    blocks = ceil_div(tokens, most)
    load = _load_cycles(machine) if tiles > machine.weight_slots else 0
    return tiles * max(tokens, blocks * max(machine.rows, load))


def _load_cycles(machine: Machine) -> int:
    """Fewest cycles in which the weights of a full tile come."""
    weights = machine.rows * machine.cols * machine.datatypes.weight_bits // 8
    return 1000 * weights // machine.dram_bytes_per_kilocycle
