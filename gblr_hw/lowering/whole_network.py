"""``lower_network``: an operator graph and its weights become one program."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from gblr_hw.lowering.activation_tiles import activation_schedule, vector_schedule
from gblr_hw.lowering.depthwise import depthwise_on_vector_unit
from gblr_hw.lowering.emit.emit_loads import CONSTANT_BYTES
from gblr_hw.lowering.emit.emit_network import emit_network, with_blocks
from gblr_hw.lowering.groups.fuse_groups import LONGEST, Group, block_limit, describe_groups, fuse_groups
from gblr_hw.lowering.groups.image_windows import with_images
from gblr_hw.lowering.groups.scratchpad_map import with_kept_rows
from gblr_hw.lowering.lower_layer import lower_operator
from gblr_hw.lowering.quantise.kept_codes import rounded_anew
from gblr_hw.lowering.split_wide import split_wide
from gblr_hw.lowering.stage_operators import in_stages
from gblr_hw.lowering.time_blocks import with_timed_block
from gblr_hw.weights.chains import CHAIN_KINDS
from gblr_hw.weights.network_weights import linear_of
from gblr_hw.weights.scaled_weights import scaled_weights
from gblr_hw.weights.stored import DenseWeights, GroupedWeights, LayerWeights
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.calibration.calibrate_network import Calibration, calibrate_network
from simulator.calibration.channel_scales import Scales, linear_scales
from simulator.calibration.fit_calibration import fit_calibration
from simulator.machine.machine import Machine
from simulator.network.network import Network, Operator
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.schedule import LayerSchedule

# lower_linear(name, weights, machine, tokens, calibration rows, steps=..., keep_zeros=...), as ``lower_layer``
# takes them, and unread=... of weights that are chains, as ``lower_operator`` does.
LowerLinear = Callable[..., LayerSchedule]

_ROOMY_KIB = 1 << 24
MAX_ROWS = 1 << 22  # of an operator: instructions are written block of rows by block of rows
NETWORK_PASSES = ("network", "fuse_groups", "notes")


def lower_network(
    network: Network,
    weights: Mapping[str, LayerWeights],
    machine: Machine,
    batches: Sequence[Mapping[str, ArrayLike]] = (),
    percentile: float | None = None,
    dump: Callable[[str, str], None] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    longest: int = LONGEST,
    lower_linear: LowerLinear = lower_operator,
    drop_zeros: bool = False,
    narrow: Collection[Op] = (),
) -> Program:
    """The program of a whole network. ``weights``: of every linear operator by name. batches: example inputs by port
    name, from which every tensor's int8 step is taken, and channel scales where they pay (``fit_calibration``; with a
    percentile just that of the magnitudes, ``calibrate_network``); without them the program computes in float only.
    longest: operators that may share a group. lower_linear: makes the schedule of a linear operator, whose ``narrow``
    kinds of tiles are narrow. drop_zeros: leave out tiles of dense layers whose weights are all zero, which otherwise
    cost what others do; provenance lists them. Tiles that a structured layer does not have are never there. Raises
    InputError for a machine that is not square, weights narrower than activations where activations are weights, and
    operators that do not fit.
    """
    if not network.operators:
        raise InputError(
            "network",
            "nothing to compute",
            "some output depends on an input, by one operation at least",
            "Return what the model computes of its inputs, not a constant.",
        )
    _check_machine(network, machine)
    _check_rows(network)
    network, weights = in_stages(network, weights, machine)
    rows: Mapping[str, np.ndarray] = {}
    if batches:
        calibration = _calibrated(network, weights, machine, batches, percentile)
        weights = _scaled(network, weights, calibration.scales)
        network, rows = calibration.network, calibration.rows
    network, weights = split_wide(network, weights, machine, narrow)
    # Whether a block fits the scratchpad is decided for groups of operators, not for one layer by itself.
    roomy = machine.with_(scratchpad={"kib": _ROOMY_KIB})

    def schedule(operator: Operator, tokens: int) -> LayerSchedule:
        examples = rows.get(operator.name, rows.get(operator.name.rpartition("[")[0]))
        return _schedule(network, operator, weights, roomy, tokens, examples, lower_linear, drop_zeros)

    schedules = []
    for done, operator in enumerate(network.operators):
        if progress is not None:
            progress(done, len(network.operators), operator.name)
        schedules.append(schedule(operator, operator.rows))
    network, schedules = depthwise_on_vector_unit(network, weights, schedules, machine)
    network, schedules = with_images(network, schedules, machine)
    groups = with_timed_block(network, schedules, fuse_groups(network, schedules, machine, longest), machine)
    schedules = _in_blocks(network, weights, schedules, groups, machine, schedule)
    network = with_kept_rows(network, [(group.first, group.last, group.block) for group in groups], machine)
    if dump is not None:
        dump("network", str(network))
        dump("fuse_groups", describe_groups(network, groups))
    placed = with_blocks(schedules, groups)
    instructions = emit_network(network, placed, groups, machine)
    provenance = {
        "groups": ",".join(f"{group.last - group.first}x{group.block}" for group in groups),
        "calibrated": f"{len(batches)} batches" if batches else "",
    }
    provenance |= rounded_anew(placed, weights, machine)
    dropped = _dropped(schedules, weights, machine) if drop_zeros else ""
    if dropped:
        provenance["dropped"] = dropped
    rows_of_all = max(operator.rows for operator in network.operators)
    return Program(machine, rows_of_all, placed, instructions, provenance, network)


def _check_rows(network: Network) -> None:
    for operator in network.operators:
        if operator.rows > MAX_ROWS:
            raise InputError(
                f"operator '{operator.name}'",
                f"{operator.rows} rows",
                f"a program works on at most {MAX_ROWS}",
                "Give smaller example inputs: fewer sequences or images at once.",
            )


def _calibrated(
    network: Network,
    weights: Mapping[str, LayerWeights],
    machine: Machine,
    batches: Sequence[Mapping[str, ArrayLike]],
    percentile: float | None,
) -> Calibration:
    types, linear = machine.datatypes, linear_of(weights)
    if percentile is not None:
        return calibrate_network(network, linear, batches, types.activation_bits, percentile)
    most_constants = machine.parameter_half_bytes // CONSTANT_BYTES
    return fit_calibration(network, linear, batches, types.activation_bits, types.weight_bits, most_constants)


def _scaled(network: Network, weights: Mapping[str, LayerWeights], scales: Scales) -> dict[str, LayerWeights]:
    linears = (operator for operator in network.operators if operator.kind == "linear")
    return {o.name: scaled_weights(weights[o.name], *linear_scales(o, scales)) for o in linears}


def _schedule(
    network: Network,
    operator: Operator,
    weights: Mapping[str, LayerWeights],
    machine: Machine,
    tokens: int,
    examples: np.ndarray | None,
    lower_linear: LowerLinear,
    drop_zeros: bool,
) -> LayerSchedule:
    if operator.kind == "vector":
        return vector_schedule(network, operator, machine.cols)
    if operator.kind != "linear":
        return activation_schedule(network, operator, machine.cols)
    tokens = _rows_at_once(tokens, machine)
    steps = network.tensors[operator.operands[0].tensor].step, network.tensors[operator.output].step
    held = weights[operator.name]
    # Only such weights have an order in which their outputs are best stored.
    more = {"unread": network.unread(operator.output)} if isinstance(held, CHAIN_KINDS) else {}
    return lower_linear(
        operator.name, held, machine, tokens, examples, steps=steps if all(steps) else None,
        keep_zeros=isinstance(held, (DenseWeights, GroupedWeights)) and not drop_zeros, **more,
    )  # fmt: skip


def _rows_at_once(rows: int, machine: Machine) -> int:
    """Rows that an operator's schedule is made for, where its block is not known yet: sums of as many fit twice."""
    return min(rows, machine.accumulator_rows // 2)


def _in_blocks(
    network: Network,
    weights: Mapping[str, LayerWeights],
    schedules: Sequence[LayerSchedule],
    groups: Sequence[Group],
    machine: Machine,
    schedule: Callable[[Operator, int], LayerSchedule],
) -> list[LayerSchedule]:
    """The schedules; of chains, whose ranks may take turns in rank memory, those made for the rows of their groups'
    blocks: of fewer rows more ranks are there at a time.
    """
    found = list(schedules)
    for group in groups:
        for index in range(group.first, group.last):
            operator = network.operators[index]
            chain = isinstance(weights.get(operator.name), CHAIN_KINDS)
            if not chain or group.resident or group.block >= _rows_at_once(operator.rows, machine):
                continue
            again = schedule(operator, group.block)
            if block_limit(again, machine) >= group.block:
                found[index] = again
    return found


def _dropped(schedules: Sequence[LayerSchedule], weights: Mapping[str, LayerWeights], machine: Machine) -> str:
    """Dense layers of which tiles were left out, with how many of how many."""
    found = []
    for schedule in schedules:
        if isinstance(weights.get(schedule.name), DenseWeights):
            whole = ceil_div(schedule.in_features, machine.rows) * ceil_div(schedule.out_features, machine.cols)
            if len(schedule.tiles) < whole:
                found.append(f"{schedule.name}: {whole - len(schedule.tiles)} of {whole} tiles")
    return "; ".join(found)


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
