"""The walk that plain layers and networks share: memory by what is addressed, and programs that forget a load."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gblr_hw import lower
from gblr_hw.weights.stored import DenseWeights
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.numbers.execute import execute
from simulator.numbers.memories import used_memory
from simulator.program.isa import Instructions
from simulator.program.operations import TILE_OPS, Op, is_any
from simulator.program.program import Program
from tests.drawn.strategies import case, generator

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=9)


def test_memory_follows_the_layer_not_the_machine() -> None:
    """64 KB of activations and sums on a machine with megabytes, for 16 runs of eight bytes a number."""
    layer = DenseWeights(torch.ones(64, 64), None)
    program = lower({"layer": layer}, Machine.load("cloud-128"), tokens=16)
    x = np.ones((256, 64))
    execute(program, {"layer": x})
    tracemalloc.start()
    execute(program, {"layer": x})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


@given(RANGES)
def test_ranges_share_bytes_as_they_did(ranges: list[tuple[int, int]]) -> None:
    """Against sets of bytes: the moved ranges meet in as many bytes, in the same places, and leave none unused."""
    machine, _, program = case(3)
    side, count = machine.cols, len(ranges)
    columns = {
        "op": np.full(count, int(Op.STORE)),
        "tokens": np.array([tokens for _, tokens in ranges], dtype=np.int64),
        "src": np.array([begin for begin, _ in ranges], dtype=np.int64),
        "dst": np.full(count, -1),
    }
    sizes, moved = used_memory(columns, program.layers[0], machine)
    lengths = columns["tokens"] * side
    assert (moved["dst"] == -1).all()
    addressed: set[int] = set()
    for i in range(count):
        mine = range(int(moved["src"][i]), int(moved["src"][i] + lengths[i]))
        addressed.update(mine)
        for j in range(count):
            old, new = (column[i] - column[j] for column in (columns["src"], moved["src"]))
            meet = -lengths[i] < old < lengths[j]
            assert (-lengths[i] < new < lengths[j]) == meet
            assert not meet or old == new
    assert addressed == set(range(sizes.scratchpad))
    assert sizes.accumulator_rows == 0


def test_what_is_used_is_no_more_than_the_machine_has() -> None:
    for seed in range(20):
        machine, _, program = case(seed)
        columns = {field.name: getattr(program.instructions, field.name) for field in fields(Instructions)}
        sizes, moved = used_memory(columns, program.layers[0], machine)
        assert sizes.scratchpad <= machine.scratchpad.size_bytes
        assert sizes.accumulator_rows <= machine.accumulator_rows
        assert sizes.banks <= machine.rank_memory.banks
        assert sizes.rank_rows <= machine.rank_rows_per_bank
        assert all((moved[name] <= columns[name]).all() for name in moved)


def _without(program: Program, op: Op) -> Program:
    """The program without instructions of a kind, nor anything that waits for one."""
    ins = program.instructions
    kept = ins.op != op
    columns = {field.name: getattr(ins, field.name)[..., kept] for field in fields(Instructions)}
    columns["after"] = np.full_like(columns["after"], -1)
    return replace(program, instructions=Instructions(**columns))


@pytest.mark.parametrize("mode", ["float", "int8"])
@pytest.mark.parametrize("op", [Op.LOAD_PARAMETERS, Op.LOAD_INPUT, Op.DRAIN])
def test_a_plain_program_that_forgets_an_instruction_shows(op: Op, mode: str) -> None:
    _, _, program = case(11, tokens=7)
    assert is_any(program.instructions.op, TILE_OPS).any()
    inputs = {layer.name: generator(1).normal(size=(7, layer.in_features)) for layer in program.layers}
    right, wrong = (execute(p, inputs, mode)["layer0"] for p in (program, _without(program, op)))  # type: ignore[arg-type]
    if mode == "float":
        assert np.isnan(wrong).any()
    else:
        assert np.isfinite(wrong).all()
        assert not np.array_equal(wrong, right)


def test_a_tile_without_its_weights_is_an_error() -> None:
    _, _, program = case(11, tokens=7)
    with pytest.raises(InputError, match="'layer0': found weight slot 0 is empty; a tile is loaded before it runs"):
        execute(_without(program, Op.LOAD_WEIGHTS), {"layer0": np.ones((7, program.layers[0].in_features))})
