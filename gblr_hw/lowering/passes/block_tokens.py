"""Tokens are cut into equal blocks that fit the scratchpad, the accumulators and the rank memory."""

from __future__ import annotations

from gblr_hw.lowering.passes.plan import LayerPlan, filled
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.program.schedule import PARAMETER_BYTES, RANK_PARAMETER_BYTES

# Times as many blocks as must be: what a layer may be cut into where that is faster.
FINER_CUTS = (2, 3, 4, 6, 8)


def block_tokens(plan: LayerPlan) -> LayerPlan:
    """Choose the fewest equal blocks that fit (rules M1 to M4). InputError when not even one token fits."""
    machine = plan.machine
    table = _table_slots(plan) * machine.multiplier_row
    needed = PARAMETER_BYTES * plan.factors.out_features + RANK_PARAMETER_BYTES * table
    check_parameters(plan.name, needed, machine)
    input_bytes = plan.input_chunks * machine.rows
    limits = {
        "scratchpad": (
            _tokens_of_inputs(plan),
            f"{input_bytes} input bytes, twice, beside the output buffers",
        ),
        "accumulator": (machine.accumulator_rows // 2, "one row of sums, twice"),
        "rank_memory": (
            machine.rank_rows_per_bank // _slots_together(plan) if plan.places else plan.tokens,
            f"{plan.ring * plan.places} sums",
        ),
    }
    memory = min(limits, key=lambda name: limits[name][0])
    most, need = limits[memory]
    if most < 1:
        where = (
            f"layer '{plan.name}' ({plan.factors.out_features} x {plan.factors.in_features}, "
            f"{plan.factors.ranks} ranks) on machine '{machine.name}'"
        )
        outputs = 2 * output_half_bytes(machine)
        if memory == "scratchpad" and outputs + 2 * input_bytes > machine.scratchpad.size_bytes >= 2 * input_bytes:
            raise InputError(
                where,
                f"accumulator of {machine.accumulator.kib} KiB",
                f"one token needs {input_bytes} input bytes, twice, in the scratchpad of {machine.scratchpad.kib} KiB, "
                f"and the accumulator's {machine.accumulator_rows} rows are drained into {outputs} bytes of it",
                "Make [accumulator] smaller or [scratchpad] larger in the machine file.",
            )
        raise InputError(
            where,
            f"{memory} of {getattr(machine, memory).kib} KiB",
            f"one token needs {need}",
            f"Enlarge [{memory}] in the machine file, or use a larger machine.",
        )
    return filled(plan, block_tokens=_equal_blocks(plan.tokens, most))


def tokens_beside_ranks(plan: LayerPlan) -> int:
    """Token rows of the equal blocks that fit all memories but that of ranks; 0 if not even one does."""
    most = min(_tokens_of_inputs(plan), plan.machine.accumulator_rows // 2)
    return _equal_blocks(plan.tokens, most) if most else 0


def _equal_blocks(tokens: int, most: int) -> int:
    return ceil_div(tokens, ceil_div(tokens, most))


def _tokens_of_inputs(plan: LayerPlan) -> int:
    """Tokens whose inputs fit the buffer that a block has."""
    return input_half_bytes(plan.machine) * (2 if plan.one_input else 1) // (plan.input_chunks * plan.machine.rows)


def _table_slots(plan: LayerPlan) -> int:
    """Rows of the multiplier table: slots of all ranks, in each turn as many as in the largest."""
    if plan.turns == 1:
        return slots_needed(plan, plan.factors.ranks)
    return ceil_div(plan.turns, plan.ring) * _slots_together(plan) * (2 if (plan.shares >= 0).any() else 1)


def _slots_together(plan: LayerPlan) -> int:
    """Slots of the turns that are in memory at a time: each has a run of its own in every bank."""
    return plan.ring * slots_needed(plan, plan.places)


def slots_needed(plan: LayerPlan, places: int) -> int:
    """Sums that the fullest bank must hold at one token: ``places`` spread evenly, or one row of a group on a plain
    machine.
    """
    return ceil_div(places, plan.machine.rank_memory.banks if plan.machine.scatter else plan.machine.group_size)


def sum_places(machine: Machine, block_tokens: int) -> tuple[int, int]:
    """Places of a block's sums in the accumulator memory, and rows from one to the next (rule M1)."""
    half = machine.accumulator_rows // 2
    count = 2 * half // block_tokens
    return (2, half) if count == 2 else (count, block_tokens)


def output_half_bytes(machine: Machine) -> int:
    """Half of the bytes that output buffers have at the top of the scratchpad (rule M2)."""
    return machine.cols * (machine.accumulator_rows // 2)


def input_half_bytes(machine: Machine) -> int:
    """Bytes of one of the two input buffers at the bottom of the scratchpad (rule M2)."""
    return max(0, machine.scratchpad.size_bytes - 2 * output_half_bytes(machine)) // 2


def check_parameters(name: str, parameter_bytes: int, machine: Machine) -> None:
    """InputError when a layer's biases and multipliers do not fit their half of the parameter memory (rule M4)."""
    held = machine.parameter_half_bytes
    if parameter_bytes > held:
        raise InputError(
            f"layer '{name}' on machine '{machine.name}'",
            f"{parameter_bytes} bytes of biases and multipliers",
            f"half of vector.parameter_kib holds {held}",
            "Enlarge 'vector.parameter_kib' in the machine file.",
        )
