"""A graph between the passes that finish it, and the bookkeeping that they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from gblr_hw.frontend.graph.builder import Site
from gblr_hw.weights.stored import LayerWeights
from simulator.network.network import Operand, Operator, Port, Tensor


@dataclass(frozen=True, eq=False)
class Draft:
    """What a Network has, before it is checked; ``homes``: where in the model each operator comes from."""

    tensors: Mapping[str, Tensor]
    operators: tuple[Operator, ...]
    weights: Mapping[str, LayerWeights]
    values: Mapping[str, np.ndarray]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    homes: Mapping[str, Site]

    def readers(self) -> dict[str, list[int]]:
        """Operators that read each tensor, once for each operand."""
        found: dict[str, list[int]] = {}
        for index, operator in enumerate(self.operators):
            for operand in operator.operands:
                found.setdefault(operand.tensor, []).append(index)
                if operand.indices is not None:
                    found.setdefault(operand.indices, []).append(index)
        return found

    def fixed(self) -> set[str]:
        """Tensors that have to stay: outputs, what lies in a larger tensor, and such larger tensors."""
        inside = {tensor.name for tensor in self.tensors.values() if tensor.within is not None}
        parents = {tensor.within[0] for tensor in self.tensors.values() if tensor.within is not None}
        return {port.tensor for port in self.outputs} | inside | parents


def covers(operand: Operand, tensor: Tensor) -> bool:
    """Whether an operand is the whole of a tensor, row by row, in its own groups."""
    sizes = (operand.tokens, operand.groups, operand.width)
    at_start = (operand.token0, operand.channel0) == (0, 0)
    return operand.access == "rows" and at_start and sizes == (tensor.tokens, tensor.groups, tensor.width)


def pruned(draft: Draft) -> Draft:
    """Without operators and tensors that no output depends on."""
    wanted = {port.tensor for port in draft.outputs} | {port.tensor for port in draft.inputs}
    parts: dict[str, list[str]] = {}
    for tensor in draft.tensors.values():
        if tensor.within is not None:
            parts.setdefault(tensor.within[0], []).append(tensor.name)
    kept: list[Operator] = []
    _want(wanted, list(wanted), parts)
    for operator in reversed(draft.operators):
        if operator.output not in wanted:
            continue
        kept.append(operator)
        names = [operand.tensor for operand in operator.operands]
        names += [operand.indices for operand in operator.operands if operand.indices is not None]
        _want(wanted, names, parts)
    tensors = {name: tensor for name, tensor in draft.tensors.items() if name in wanted}
    for name, tensor in tensors.items():
        if tensor.within is not None and tensor.within[0] not in wanted:
            tensors[name] = replace(tensor, within=None)
    left = {operator.name for operator in kept}
    return replace(
        draft,
        operators=tuple(reversed(kept)),
        tensors=tensors,
        weights={name: one for name, one in draft.weights.items() if name in left},
        values={name: array for name, array in draft.values.items() if name in tensors},
    )


def _want(wanted: set[str], names: list[str], parts: Mapping[str, list[str]]) -> None:
    for name in names:
        wanted.add(name)
        _want(wanted, [part for part in parts.get(name, ()) if part not in wanted], parts)


def renamed(draft: Draft, names: Mapping[str, str]) -> Draft:
    """Operators (with their outputs) and tensors under other names."""

    def operand(one: Operand) -> Operand:
        indices = None if one.indices is None else names.get(one.indices, one.indices)
        return replace(one, tensor=names.get(one.tensor, one.tensor), indices=indices)

    def tensor(one: Tensor) -> Tensor:
        within = one.within and (names.get(one.within[0], one.within[0]), *one.within[1:])
        return replace(one, name=names.get(one.name, one.name), within=within)

    def operator(one: Operator) -> Operator:
        return replace(
            one, name=names.get(one.name, one.name), output=names.get(one.output, one.output),
            operands=tuple(operand(read) for read in one.operands),
        )  # fmt: skip

    return Draft(
        {names.get(name, name): tensor(one) for name, one in draft.tensors.items()},
        tuple(operator(one) for one in draft.operators),
        {names.get(name, name): one for name, one in draft.weights.items()},
        {names.get(name, name): one for name, one in draft.values.items()},
        tuple(replace(port, tensor=names.get(port.tensor, port.tensor)) for port in draft.inputs),
        tuple(replace(port, tensor=names.get(port.tensor, port.tensor)) for port in draft.outputs),
        {names.get(name, name): one for name, one in draft.homes.items()},
    )
