"""A network as plain JSON types and arrays, and back: what program files and listings have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from simulator.network.network import Network, Operand, Operator, Port, Tensor, Window
from simulator.network.vector_steps import Step

_SECTIONS = ("tensors", "operators", "inputs", "outputs")


def network_record(network: Network) -> dict[str, list[dict[str, Any]]]:
    """Everything but the arrays: tensors, operators, inputs and outputs, in their order."""
    record: dict[str, list[dict[str, Any]]] = _plain(_sections(network))
    return record


def _plain(item: Any) -> Any:
    """``item`` with lists for tuples and Python's numbers for numpy's, as it is after a round trip through JSON."""
    if isinstance(item, dict):
        return {key: _plain(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [_plain(value) for value in item]
    return item.item() if isinstance(item, np.generic) else item


def _sections(network: Network) -> dict[str, list[dict[str, Any]]]:
    return {
        "tensors": [asdict(tensor) for tensor in network.tensors.values()],
        "operators": [_operator_record(operator) for operator in network.operators],
        "inputs": [asdict(port) for port in network.inputs],
        "outputs": [asdict(port) for port in network.outputs],
    }


def _operator_record(operator: Operator) -> dict[str, Any]:
    return {
        "name": operator.name,
        "kind": operator.kind,
        "operands": [asdict(operand) for operand in operator.operands],
        "output": operator.output,
        "batch": operator.batch,
        "tokens": operator.tokens,
        "steps": [asdict(step) for step in operator.steps],
        "constants": list(operator.constants),
        "source": operator.source,
    }


def network_arrays(network: Network) -> dict[str, np.ndarray]:
    """The arrays by key: ``values.T`` of tensor T, and ``constants.I.J``, the J-th constant of operator I."""
    arrays = {f"values.{number:05d}": network.values[name] for name, number in _constant_tensors(network.tensors)}
    for index, operator in enumerate(network.operators):
        for number, values in enumerate(operator.constants.values()):
            arrays[f"constants.{index:05d}.{number:03d}"] = values
    return {key: np.array(values, order="C") for key, values in arrays.items()}


def _constant_tensors(tensors: Mapping[str, Tensor]) -> list[tuple[str, int]]:
    return [(name, at) for at, (name, tensor) in enumerate(tensors.items()) if tensor.kind == "constant"]


def network_of(record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Network:
    """The network of a record and its arrays. KeyError, TypeError or ValueError for parts that are missing or of
    another kind, InputError for what a network refuses.
    """
    unknown = set(record) - set(_SECTIONS)
    if unknown:
        raise KeyError(f"a network has no {sorted(unknown)[0]}")
    tensors = [Tensor(**{**entry, "within": _within(entry["within"])}) for entry in record["tensors"]]
    by_name = {tensor.name: tensor for tensor in tensors}
    if len(by_name) != len(tensors):
        raise ValueError("two tensors of one name")
    operators = tuple(_operator(index, entry, arrays) for index, entry in enumerate(record["operators"]))
    return Network(
        tensors=by_name,
        operators=operators,
        inputs=tuple(_port(entry) for entry in record["inputs"]),
        outputs=tuple(_port(entry) for entry in record["outputs"]),
        values={name: arrays[f"values.{number:05d}"] for name, number in _constant_tensors(by_name)},
    )


def _within(place: Any) -> tuple[str, int, int] | None:
    if place is None:
        return None
    parent, token0, channel0 = place
    return parent, token0, channel0


def _operator(index: int, entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Operator:
    constants = {name: arrays[f"constants.{index:05d}.{number:03d}"] for number, name in enumerate(entry["constants"])}
    operands = tuple(Operand(**{**operand, "window": _window(operand["window"])}) for operand in entry["operands"])
    steps = tuple(
        Step(step["function"], tuple(step["args"]), step["constant"], tuple(step["numbers"])) for step in entry["steps"]
    )
    return Operator(**{**entry, "operands": operands, "steps": steps, "constants": constants})


def _window(entry: Mapping[str, Any] | None) -> Window | None:
    if entry is None:
        return None
    return Window(**_with_tuples(entry))


def _port(entry: Mapping[str, Any]) -> Port:
    return Port(**_with_tuples(entry))


def _with_tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
