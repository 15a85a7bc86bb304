"""Activation steps of a whole network from example inputs, and examples of what enters each linear operator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from simulator.activation_codes import index_tensors
from simulator.errors import InputError
from simulator.evaluate_network import Linear, evaluate_network
from simulator.network import Network
from simulator.numerics import code_limit
from simulator.tensor_values import root_of

# Masks stand for "no" with minus infinity or with the most negative float there is; neither says how far values reach.
MASKED = 2.0**100


@dataclass(frozen=True, eq=False)
class Calibration:
    """``network``: the one given, every tensor with its step. ``rows``: linear operator -> (N, n) of its inputs."""

    network: Network
    rows: Mapping[str, np.ndarray]


def calibrate_network(
    network: Network,
    linear: Linear,
    batches: Iterable[Mapping[str, ArrayLike]],
    bits: int = 8,
    percentile: float = 99.999,
    rows_per_operator: int = 1024,
) -> Calibration:
    """Run the network in float on each batch (inputs by port name) and set every tensor's activation step.

    A step is a tensor's reach over the largest code of ``bits``. Its reach is the percentile of its magnitudes in a
    batch, the largest over the batches (of a small tensor nearly the largest magnitude); outliers beyond it saturate.
    Softmax outputs always keep their largest. The default is the best of 100, 99.999 and 99.99 on MiniLM at 64 and at
    256 tokens, with balanced channels (``python -m benchmarks.network_int8 --only minilm``, ``--tokens 256``). Masked
    values (infinite, or beyond 2^100) do not count, and a tensor of nothing but zeros and masked values has step 1.
    Parts of one tensor share its step; rows of tables have none. rows_per_operator: most example rows of a linear
    operator, taken evenly from every batch. Raises InputError for no batches, a percentile that is none, and whatever
    ``evaluate_network`` refuses.
    """
    if not 0 < percentile <= 100:
        raise InputError("percentile", str(percentile), "it lies above 0 and up to 100", "100 keeps every value.")
    examples = list(batches)
    if not examples or rows_per_operator < 1:
        raise InputError(
            "calibration",
            f"{len(examples)} batches, {rows_per_operator} rows an operator",
            "there is at least one of each",
            "Give a few batches of typical inputs.",
        )
    softmax = {o.output for o in network.operators if o.steps and o.steps[-1].function == "softmax"}
    largest: dict[str, float] = {}
    rows: dict[str, list[np.ndarray]] = {}
    quota = -(-rows_per_operator // len(examples))

    def observe(name: str, values: np.ndarray) -> None:
        reach = _reach(values, 100.0 if name in softmax else percentile)
        for tensor in (name, root_of(network, name)):
            largest[tensor] = max(largest.get(tensor, 0.0), reach)

    def kept(name: str, inputs: np.ndarray) -> np.ndarray:
        rows.setdefault(name, []).append(inputs[:: -(-len(inputs) // quota)].copy())
        return linear(name, inputs)

    for batch in examples:
        evaluate_network(network, kept, batch, observe)
    limit, exact = code_limit(bits), index_tensors(network)
    tensors = {
        name: replace(tensor, step=0.0 if name in exact else largest.get(root_of(network, name), 0.0) / limit or 1.0)
        for name, tensor in network.tensors.items()
    }
    sampled = {name: np.concatenate(parts)[:rows_per_operator] for name, parts in rows.items()}
    return Calibration(replace(network, tensors=tensors), sampled)


def _reach(values: np.ndarray, percentile: float) -> float:
    magnitudes = np.abs(values).reshape(-1)
    magnitudes = magnitudes[magnitudes < MASKED]  # NaN is not below it either
    if not len(magnitudes):
        return 0.0
    return float(magnitudes.max() if percentile == 100 else np.percentile(magnitudes, percentile))
