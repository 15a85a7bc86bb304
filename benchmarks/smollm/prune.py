"""Structured pruning of a Llama: hidden units and groups of heads that the loss misses least go, and the matrix behind
them is fitted again by least squares on the inputs that are left.

Units go as in OBS (Hassibi & Stork, 1993), several at a time: what a removal costs is taken in the norm
tr(B E C E^T), C the second moments of the matrix's inputs and B of the gradients by its outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gblr_hw.conversion.fit.choose_chunks import share_tiles
from gblr_hw.conversion.in_order.share_by_loss import Sensitivity

FloatArray = npt.NDArray[np.floating]
_FLOOR = 0.01  # as `minding` adds to the gradients' moments


@dataclass(frozen=True, eq=False)
class Pruned:
    """What is left of a network: its matrices, and what the dense network says of them."""

    matrices: Mapping[str, FloatArray]
    known: Sensitivity


@dataclass(frozen=True, eq=False)
class Removal:
    """In which order a matrix's inputs go, group by group, and half of tr(B E C E^T) behind 0, 1, ... of the steps.

    order: (steps, inputs a step).
    """

    order: npt.NDArray[np.int64]
    losses: FloatArray


def removal(
    matrix: FloatArray, inputs: FloatArray, outputs: FloatArray, group: int, at_once: int, step: int
) -> Removal:
    """Remove groups of so many neighbouring inputs of a matrix (m, n), the cheapest ``at_once`` in turn; a step of the
    result is ``step`` groups, and the last one is kept.
    """
    count = len(inputs) // group
    floored = outputs + _FLOOR * np.trace(outputs) / len(outputs) * np.eye(len(outputs))
    seen = np.linalg.cholesky(floored).T @ matrix
    inverse = np.linalg.inv(inputs)
    alive, gone, losses, lost = list(range(count)), list[int](), [0.0], 0.0
    while len(alive) > step:
        wide = (np.array(alive)[:, None] * group + np.arange(group)).ravel()
        places = wide.reshape(-1, group)
        own = inverse[places[:, :, None], places[:, None, :]]
        parts = seen[:, wide].reshape(len(seen), len(alive), group).transpose(1, 0, 2)
        prices = (parts @ np.linalg.inv(own) * parts).sum(axis=(1, 2))
        chosen = [alive[index] for index in np.argsort(prices, kind="stable")[: min(at_once, step)]]
        out = (np.array(chosen)[:, None] * group + np.arange(group)).ravel()
        solved = np.linalg.inv(inverse[np.ix_(out, out)])
        lost += 0.5 * float((seen[:, out] @ solved * seen[:, out]).sum())
        seen -= seen[:, out] @ solved @ inverse[out]
        inverse -= inverse[:, out] @ solved @ inverse[out]
        alive = [one for one in alive if one not in chosen]
        gone += chosen
        if len(gone) % step == 0:
            losses.append(lost)
    order = np.array(gone).reshape(-1, step)
    return Removal((order[:, :, None] * group + np.arange(group)).reshape(len(order), -1), np.array(losses))


def refitted(matrix: FloatArray, inputs: FloatArray, kept: npt.NDArray[np.int64]) -> FloatArray:
    """The matrix (m, k) on the inputs that are kept that leaves least."""
    return np.asarray(np.linalg.solve(inputs[np.ix_(kept, kept)], inputs[kept] @ matrix.T).T, np.float64)


def prune(
    dense: Mapping[str, FloatArray], known: Sensitivity, blocks: Sequence[str], head: int, share: float, chunk: int = 32
) -> Pruned:
    """A Llama's matrices without the hidden units and groups of heads that the loss misses least.

    dense: by name, of all ``blocks``. head: channels a head. share: of the dense tiles. chunk: hidden units go in
    multiples of it, so that no tile is left part empty.
    """
    removals, prices = {}, {}
    for block in blocks:
        down, out = f"{block}.mlp.down_proj", f"{block}.self_attn.o_proj"
        removals[down] = removal(dense[down], known.inputs[down], known.outputs[down], 1, chunk // 2, chunk)
        group = head * (len(dense[f"{block}.self_attn.q_proj"]) // len(dense[f"{block}.self_attn.k_proj"]))
        removals[out] = removal(dense[out], known.inputs[out], known.outputs[out], group, 1, 1)
        width = len(dense[down])
        prices[down] = 3 * chunk * width
        prices[out] = (2 * group + 2 * head) * width
    # What is bought is what stays, in units that both kinds of step are multiples of.
    unit = int(np.gcd.reduce(list(prices.values())))
    curves = [_bought(one.losses, prices[name] // unit) for name, one in removals.items()]
    total = sum(matrix.size for matrix in dense.values())
    least = total - sum(prices[name] * len(one.order) for name, one in removals.items())
    bought = share_tiles(curves, (int(share * total) - least) // unit)
    kept: dict[str, npt.NDArray[np.int64]] = {}
    for (name, one), units in zip(removals.items(), bought, strict=True):
        gone = one.order[: len(one.order) - units * unit // prices[name]]
        kept[name] = np.setdiff1d(np.arange(dense[name].shape[1]), gone.ravel())
    return _narrowed(dense, known, blocks, kept, head)


def _bought(losses: FloatArray, price: int) -> FloatArray:
    """The loss at every number of units bought, from the least that is kept up to all: whole steps count."""
    return np.append(np.repeat(losses[:0:-1], price), losses[0])


def _narrowed(
    dense: Mapping[str, FloatArray], known: Sensitivity, blocks: Sequence[str],
    kept: Mapping[str, npt.NDArray[np.int64]], head: int,
) -> Pruned:  # fmt: skip
    found, inputs, outputs = {}, dict(known.inputs), dict(known.outputs)
    for block in blocks:
        down, out = f"{block}.mlp.down_proj", f"{block}.self_attn.o_proj"
        units, channels = kept[down], kept[out]
        keys, values = (f"{block}.self_attn.{one}_proj" for one in "kv")
        shared = dense[out].shape[1] // len(dense[keys])  # query heads of one pair of keys and values
        pairs = np.unique(channels // (head * shared))
        rows = (pairs[:, None] * head + np.arange(head)).ravel()
        narrower = {f"{block}.mlp.gate_proj": units, f"{block}.mlp.up_proj": units}
        narrower |= {f"{block}.self_attn.q_proj": channels, keys: rows, values: rows}
        for name, left in narrower.items():
            found[name], outputs[name] = dense[name][left], outputs[name][np.ix_(left, left)]
        for name, left in ((down, units), (out, channels)):
            found[name] = refitted(dense[name], known.inputs[name], left)
            inputs[name] = inputs[name][np.ix_(left, left)]
    matrices = {name: np.ascontiguousarray(found[name], np.float32) for name in dense}
    return Pruned(matrices, Sensitivity(outputs, inputs))
