"""``lower_network``: an operator graph and its weights become one program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from gblr_hw.lowering.activation_tiles import activation_schedule, vector_schedule
from gblr_hw.lowering.emit_network import emit_network, with_blocks
from gblr_hw.lowering.fuse_groups import describe_groups, fuse_groups
from gblr_hw.lowering.lower_layer import lower_layer
from gblr_hw.lowering.split_wide import split_wide
from gblr_hw.weights import LayerWeights
from simulator.errors import InputError
from simulator.machine import Machine
from simulator.network import Network
from simulator.program import Program
from simulator.schedule import LayerSchedule

_ROOMY_KIB = 1 << 24


def lower_network(
    network: Network,
    weights: Mapping[str, LayerWeights],
    machine: Machine,
    calibration: Mapping[str, np.ndarray] | None = None,
    dump: Callable[[str, str], None] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Program:
    """The program of a whole network. ``weights``: of every linear operator by name. calibration: (N, n) example
    inputs of linear operators, for int8 ranges. Raises InputError for a machine that is not square, weights narrower
    than activations where activations are weights, and operators that do not fit.
    """
    _check_machine(network, machine)
    network, weights = split_wide(network, weights, machine)
    # Whether a block fits the scratchpad is decided for groups of operators, not for one layer by itself.
    roomy = machine.with_(scratchpad={"kib": _ROOMY_KIB})
    schedules = []
    for done, operator in enumerate(network.operators):
        if progress is not None:
            progress(done, len(network.operators), operator.name)
        schedules.append(_schedule(network, done, weights, roomy, calibration))
    groups = fuse_groups(network, schedules, machine)
    if dump is not None:
        dump("network", str(network))
        dump("fuse_groups", describe_groups(network, groups))
    placed = with_blocks(schedules, groups)
    instructions = emit_network(network, placed, groups, machine)
    provenance = {"groups": ",".join(f"{group.last - group.first}x{group.block}" for group in groups)}
    return Program(machine, max(o.rows for o in network.operators), placed, instructions, provenance, network)


def _schedule(
    network: Network,
    index: int,
    weights: Mapping[str, LayerWeights],
    machine: Machine,
    calibration: Mapping[str, np.ndarray] | None,
) -> LayerSchedule:
    operator = network.operators[index]
    if operator.kind == "vector":
        return vector_schedule(network, operator, machine.cols)
    if operator.kind != "linear":
        return activation_schedule(network, operator, machine.cols)
    rows = None if calibration is None else calibration.get(operator.name)
    tokens = min(operator.rows, machine.accumulator_rows // 2)
    schedule = lower_layer(operator.name, weights[operator.name], machine, tokens, rows)
    return replace(schedule, name=operator.name)


def _check_machine(network: Network, machine: Machine) -> None:
    if machine.rows != machine.cols:
        raise InputError(
            f"machine '{machine.name}'",
            f"an array of {machine.rows} x {machine.cols}",
            "whole networks run on square arrays: what one operator writes by columns the next reads by rows",
            "Use as many rows as columns, or lower the layers one by one with `--tokens`.",
        )
    types = machine.datatypes
    if types.weight_bits < types.activation_bits and any(o.kind in ("scores", "mix") for o in network.operators):
        raise InputError(
            f"machine '{machine.name}'",
            f"weights of {types.weight_bits} bits, activations of {types.activation_bits}",
            "attention uses activations as weights, so that weights are at least as wide",
            "Set datatypes.weight_bits to datatypes.activation_bits or more.",
        )
