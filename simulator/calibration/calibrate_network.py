"""Activation steps of a whole network from example inputs, and examples of what enters each linear operator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.network.evaluate_network import Linear, evaluate_network
from simulator.network.network import Network
from simulator.network.tensor_values import root_of
from simulator.network.vector_functions import function_named
from simulator.numbers.activation_codes import index_tensors
from simulator.numbers.numerics import code_limit

# Masks stand for "no" with minus infinity or with the most negative float there is; neither says how far values reach.
MASKED = 2.0**100


@dataclass(frozen=True, eq=False)
class Calibration:
    """``network``: the one given, every tensor with its step, and storing the tensors of ``scales`` (tensor ->
    (channels,) powers of two) divided by them. ``rows``: linear operator -> (N, n) of its inputs, divided likewise.
    """

    network: Network
    rows: Mapping[str, np.ndarray]
    scales: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Magnitudes:
    """How far values reach, by tensors that lie in no other: ``reach`` in all, ``channels`` in each of its (channels,)
    channels; ``masked`` tensors hold values that did not count. ``rows``: linear operator -> (N, n) of its inputs.
    """

    reach: Mapping[str, float]
    channels: Mapping[str, np.ndarray]
    masked: frozenset[str]
    rows: Mapping[str, np.ndarray]


def calibrate_network(
    network: Network,
    linear: Linear,
    batches: Iterable[Mapping[str, ArrayLike]],
    bits: int = 8,
    percentile: float = 100.0,
    rows_per_operator: int = 1024,
) -> Calibration:
    """Run the network in float on each batch (inputs by port name) and set every tensor's activation step.

    A step is a tensor's reach over the largest code of ``bits``. Its reach is the percentile of its magnitudes in a
    batch, the largest over the batches (of a small tensor nearly the largest magnitude); outliers beyond it saturate.
    Softmax outputs always keep their largest. Masked values (infinite, or beyond 2^100) do not count, and a tensor of
    nothing but zeros and masked values has step 1.
    Parts of one tensor share its step; rows of tables have none. rows_per_operator: most example rows of a linear
    operator, about as many from every batch. Raises InputError for no batches, a percentile that is none, and whatever
    ``evaluate_network`` refuses.
    """
    measured = measure_magnitudes(network, linear, batches, percentile, rows_per_operator)
    return Calibration(with_steps(network, measured.reach, bits), measured.rows)


def measure_magnitudes(
    network: Network,
    linear: Linear,
    batches: Iterable[Mapping[str, ArrayLike]],
    percentile: float = 100.0,
    rows_per_operator: int = 1024,
) -> Magnitudes:
    """What ``calibrate_network`` sees of the tensors, parts counting for the whole that they lie in. Raises InputError
    as it does.
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
    kept_whole = {o.output for o in network.operators if o.steps and function_named(o.steps[-1].function).keeps_largest}
    reach: dict[str, float] = {}
    channels: dict[str, np.ndarray] = {}
    masked: set[str] = set()
    rows: dict[str, list[np.ndarray]] = {}
    quota = ceil_div(rows_per_operator, len(examples))

    def observe(name: str, values: np.ndarray) -> None:
        magnitudes = np.abs(values).reshape(-1, values.shape[2] * values.shape[3])
        counts = magnitudes < MASKED  # NaN is not below it either
        largest = np.where(counts, magnitudes, 0.0).max(axis=0, initial=0.0)
        root, first = _place(network, name)
        whole = network.tensors[root]
        kept_of = channels.setdefault(root, np.zeros(whole.groups * whole.width))[first : first + len(largest)]
        np.maximum(kept_of, largest, out=kept_of)
        if percentile == 100 or name in kept_whole:
            found = float(largest.max(initial=0.0))
        else:
            found = float(np.percentile(magnitudes[counts], percentile)) if counts.any() else 0.0
        reach[root] = max(reach.get(root, 0.0), found)
        if not counts.all():
            masked.add(root)

    def kept(name: str, inputs: np.ndarray) -> np.ndarray:
        rows.setdefault(name, []).append(inputs[sampled(len(inputs), quota)])
        return linear(name, inputs)

    for batch in examples:
        evaluate_network(network, kept, batch, observe)
    examples_of = {name: np.concatenate(parts)[:rows_per_operator] for name, parts in rows.items()}
    return Magnitudes(reach, channels, frozenset(masked), examples_of)


def _place(network: Network, name: str) -> tuple[str, int]:
    """The tensor that ``name`` lies in, itself if it lies in none, and its first channel there."""
    within = network.tensors[name].within
    if within is None:
        return name, 0
    root, channel0 = _place(network, within[0])
    return root, channel0 + within[2]


def with_steps(network: Network, reach: Mapping[str, float], bits: int) -> Network:
    """The network with the steps at which the largest code of ``bits`` stands for each tensor's reach; 1 for a reach of
    zero, none for rows of tables.
    """
    limit, exact = code_limit(bits), index_tensors(network)
    tensors = {
        name: replace(tensor, step=0.0 if name in exact else reach.get(root_of(network, name), 0.0) / limit or 1.0)
        for name, tensor in network.tensors.items()
    }
    return replace(network, tensors=tensors)


def sampled(count: int, most: int) -> np.ndarray:
    """At most ``most`` of ``count`` rows, in order: drawn, since rows at equal distances would be the same tokens of
    every sequence.
    """
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))
