"""A network as plain JSON types and arrays, and back: what program files and listings have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from simulator.base.errors import NOT_OURS, InputError, refuse_program
from simulator.base.schema import Listed, Strict, validated
from simulator.network.network import (
    Access,
    Digit,
    Network,
    Operand,
    Operator,
    OperatorKind,
    Port,
    Strides,
    Tensor,
    TensorKind,
    Window,
)
from simulator.network.vector_steps import Step

_MOST = 2**40  # of any size: products of a few of them still fit int64
Size = Annotated[int, Field(ge=1, le=_MOST)]
Place = Annotated[int, Field(ge=0, le=_MOST)]
_Pair = Listed[tuple[Size, Size]]


class _Tensor(Strict):
    name: str
    batch: Size
    tokens: Size
    groups: Size
    width: Size
    kind: TensorKind
    padded: bool
    within: Listed[tuple[str, Place, Place]] | None
    step: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Window(Strict):
    image: _Pair
    kernel: _Pair
    stride: _Pair
    padding: Listed[tuple[Place, Place]]
    dilation: _Pair
    fill: float
    after: Listed[tuple[Place, Place]] | None = None  # where it is not the padding above and on the left


class _Digit(Strict):
    size: Size
    batch: int
    token: int
    channel: int


class _Strides(Strict):
    rows: Listed[tuple[_Digit, ...]]
    channels: Listed[tuple[_Digit, ...]]
    batch0: Place


class _Operand(Strict):
    tensor: str
    tokens: Size
    groups: Size
    width: Size
    token0: Place
    channel0: Place
    access: Access
    window: _Window | None
    indices: str | None
    strides: _Strides | None = None  # programs that were written before there were any have none
    kept: Place = 0


class _Step(Strict):
    function: str
    args: Listed[tuple[Place, ...]]
    constant: str | None
    numbers: Listed[tuple[float, ...]]


class _Operator(Strict):
    name: str
    kind: OperatorKind
    operands: Annotated[list[_Operand], Field(min_length=1)]
    output: str
    batch: Size
    tokens: Size
    steps: list[_Step]
    constants: list[str]
    source: str


class _Port(Strict):
    name: str
    tensor: str
    shape: Listed[tuple[Size, ...]]
    split: Listed[tuple[Size, ...]]
    order: Listed[tuple[Place, ...]]
    dtype: Literal["float", "index"]


class NetworkRecord(Strict):
    """What `network_record` writes: every field of a network's parts, and its type."""

    tensors: list[_Tensor]
    operators: list[_Operator]
    inputs: list[_Port]
    outputs: list[_Port]


def check_records(records: Mapping[type[Strict], type]) -> None:
    """Raise InputError for a record that has other fields than the part of a network that it holds: what was written
    could not be read.
    """
    for record, part in records.items():
        wanted, found = {one.name for one in fields(part)}, set(record.model_fields)
        if wanted != found:
            raise InputError(
                f"record of {part.__name__}", f"fields {', '.join(sorted(wanted ^ found))} on one side alone",
                "a record has every field of its part", "Complete it in simulator/network/network_file.py.",
            )  # fmt: skip


check_records(
    {
        _Tensor: Tensor, _Window: Window, _Digit: Digit, _Strides: Strides, _Operand: Operand, _Step: Step,
        _Operator: Operator, _Port: Port,
    }
)  # fmt: skip


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
        "operands": [_operand_record(operand) for operand in operator.operands],
        "output": operator.output,
        "batch": operator.batch,
        "tokens": operator.tokens,
        "steps": [asdict(step) for step in operator.steps],
        "constants": list(operator.constants),
        "source": operator.source,
    }


def _operand_record(operand: Operand) -> dict[str, Any]:
    """What only some views have is left out of the others: their programs are as they were before there was any."""
    record = asdict(operand)
    if operand.strides is None:
        del record["strides"]
    if not operand.kept:
        del record["kept"]
    if operand.window is not None and operand.window.after is None:
        del record["window"]["after"]
    return record


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
    """The network of a record and its arrays. InputError for a record of another form and for what a network refuses,
    KeyError for arrays that are missing.
    """
    parts = validated(NetworkRecord, record, "network", NOT_OURS)
    tensors = {entry.name: Tensor(**dict(entry)) for entry in parts.tensors}
    if len(tensors) != len(parts.tensors):
        refuse_program("network: 'tensors'", "two of one name", "every tensor has a name of its own")
    return Network(
        tensors=tensors,
        operators=tuple(_operator(index, entry, arrays) for index, entry in enumerate(parts.operators)),
        inputs=tuple(Port(**dict(entry)) for entry in parts.inputs),
        outputs=tuple(Port(**dict(entry)) for entry in parts.outputs),
        values={name: arrays[f"values.{number:05d}"] for name, number in _constant_tensors(tensors)},
    )


def _operator(index: int, entry: _Operator, arrays: Mapping[str, np.ndarray]) -> Operator:
    constants = {name: arrays[f"constants.{index:05d}.{number:03d}"] for number, name in enumerate(entry.constants)}
    for number, step in enumerate(entry.steps):
        where, known = f"operator '{entry.name}': step {number}", len(entry.operands) + number
        if any(arg >= known for arg in step.args):
            refuse_program(where, f"arguments {step.args}", f"a step reads one of the {known} values before it")
        if step.constant is not None and step.constant not in constants:
            refuse_program(where, f"constant '{step.constant}'", "a step names a constant of its operator")
    operands = tuple(
        Operand(**{**dict(operand), "window": _window(operand.window), "strides": _strides(operand.strides)})
        for operand in entry.operands
    )
    steps = tuple(Step(**dict(step)) for step in entry.steps)
    return Operator(**{**dict(entry), "operands": operands, "steps": steps, "constants": constants})


def _window(entry: _Window | None) -> Window | None:
    return None if entry is None else Window(**dict(entry))


def _strides(entry: _Strides | None) -> Strides | None:
    if entry is None:
        return None
    rows, channels = (tuple(Digit(**dict(digit)) for digit in side) for side in (entry.rows, entry.channels))
    return Strides(rows, channels, entry.batch0)
