"""What an operator has to do, what bounds it, and which group it is summed up under (machine.md, rule C5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from simulator.base.kernels import kernel
from simulator.network.network import Operator
from simulator.network.vector_functions import VECTOR_GROUPS, function_named
from simulator.program.operations import Unit
from simulator.timing.durations import Timing
from simulator.timing.report import MATRIX_GROUPS

_ARRAY, _VECTOR = int(Unit.ARRAY), int(Unit.VECTOR)  # the DMA engines stand below


def bound_of(cycles: Mapping[str, int], vector_unit: bool, dram_cycles: int) -> str:
    """What most of an operator's ``cycles`` (by cause) were spent on; "hidden" without cycles, the first of equals.

    "compute": streaming rows. "conflicts": repeats for ranks that share a bank. "preload": weights into the array.
    "bandwidth" or "latency": wait_weights and wait_input; bandwidth if its own transfers held the channel
    (``dram_cycles``) for at least half as long. "drain": sums on their way out of array and accumulators, and a layer's
    tail; "vector" if the operator itself is the vector unit's (``vector_unit``).
    """
    waits = cycles["wait_weights"] + cycles["wait_input"]
    parts = {
        "compute": cycles["compute"],
        "conflicts": cycles["bank_conflict"],
        "preload": cycles["weight_preload"],
        "bandwidth" if 2 * dram_cycles >= waits else "latency": waits,
        "vector" if vector_unit else "drain": cycles["wait_array"] + cycles["wait_vector"] + cycles["tail"],
    }
    largest = max(parts, key=lambda name: parts[name])
    return largest if parts[largest] else "hidden"


def group_of(kind: str, functions: Iterable[str]) -> str:
    """One of ``report.GROUPS``, from an operator's kind and the functions of its steps."""
    if kind != "vector":
        return MATRIX_GROUPS[kind]
    groups = [function_named(function).group for function in functions]
    return min(groups, key=VECTOR_GROUPS.index, default="other vector")


def multiplications_of_row(operator: Operator) -> int:
    """Useful multiplications of a row of scores or mix, for all groups of operand 0."""
    rows, weights = operator.operands
    return rows.groups * rows.width * (weights.tokens if operator.kind == "scores" else weights.width)


def work_by_layer(layer: np.ndarray, timing: Timing, layers: int) -> tuple[np.ndarray, np.ndarray]:
    """Cycles for which each layer holds the DRAM channel and the vector unit, (layers,) int64 each."""
    channel, vector = np.zeros((2, layers), dtype=np.int64)
    _add_work(layer, timing.unit, timing.busy, channel, vector)
    return channel, vector


@kernel
def _add_work(layer, unit, busy, channel, vector):
    for i in range(layer.shape[0]):
        if unit[i] < _ARRAY:
            channel[layer[i]] += busy[i]
        elif unit[i] == _VECTOR:
            vector[layer[i]] += busy[i]
