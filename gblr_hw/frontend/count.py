"""Multiplications of a whole network's matrix operators."""

from __future__ import annotations

from collections.abc import Mapping

from gblr_hw.weights.multiplications import multiplications
from gblr_hw.weights.stored import DenseWeights, GroupedWeights, LayerWeights
from simulator.network.network import Network, Operator
from simulator.program.isa import TILE_OPS, is_any
from simulator.program.program import Program


def multiplications_of(network: Network, weights: Mapping[str, LayerWeights]) -> dict[str, int]:
    """Multiplications of each matrix operator by name, in order: a layer's per row (`counts.multiplications`) times its
    rows, and for products of activations rows x groups x width x what is summed.

    For a dense model their sum is half of what torch.utils.flop_counter counts (a multiplication and an addition
    each), except that: it counts a product of constants, which is computed once and does not appear here; it does not
    see inside the CPU's fused attention (count under ``sdpa_kernel(SDPBackend.MATH)``) nor resizing, whose matrices
    are counted here; and it counts a transposed convolution by the places of its input, not those of its windows. Both
    leave out vector operators, and both count masked scores as any other. These are the useful ones: the zeros beside
    the blocks of a grouped convolution are none of them (`spent_multiplications`).
    """
    return {
        operator.name: _of(network, operator, weights) for operator in network.operators if operator.kind != "vector"
    }


def _entries(layer: LayerWeights) -> int:
    """Multiplications of a layer for each row."""
    if isinstance(layer, DenseWeights):
        return layer.weight.numel()
    return layer.kernel.numel() if isinstance(layer, GroupedWeights) else multiplications(layer)


def spent_multiplications(program: Program) -> int:
    """Multiplications that a program's array is busy with: every cell of every tile, for each of its rows, whether it
    holds a weight or not.
    """
    instructions, machine = program.instructions, program.machine
    rows = instructions.tokens[is_any(instructions.op, TILE_OPS)]
    return int(rows.sum()) * machine.rows * machine.cols


def _of(network: Network, operator: Operator, weights: Mapping[str, LayerWeights]) -> int:
    if operator.kind == "linear":
        layer = weights[operator.name]
        return operator.rows * _entries(layer)
    rows, stationary = operator.operands
    kept = stationary.tokens if operator.kind == "scores" else stationary.width
    return operator.rows * rows.groups * rows.width * kept
