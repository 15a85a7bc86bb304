"""An instruction: HALVE, of the vector unit, halves a drained chunk where it lies in the scratchpad."""

from __future__ import annotations

from tests.recipes.recipe import Recipe, after

_TABLE, _WALK = "simulator/program/operations.py", "simulator/numbers/walk.py"

RECIPE = Recipe(
    change="instruction",
    most=9,
    edits=(
        after(_TABLE, "    MIX = 9\n", "    HALVE = 10\n"),
        after(
            _TABLE,
            "OPERATIONS: Mapping[Op, Operation] = {\n",
            "    Op.HALVE: Operation(\n"
            "        After.VECTOR, Place.SCRATCHPAD, Place.SCRATCHPAD, Duration.DRAIN, Rows.RESULT, Chunk.OUTPUT, "
            "encoded=False\n    ),\n",
        ),
        after(_WALK, "        Op.VECTOR: _run_vector,\n", "        Op.HALVE: _halve,\n"),
        after(
            _WALK,
            "    walk.has_parameters.add(ins.layer)\n",
            "\n\ndef _halve(walk: _Walk, ins: Instruction) -> None:\n"
            "    block = walk.memories.read_rows(ins.src, ins.tokens, walk.machine.cols)\n"
            "    walk.memories.write_rows(ins.dst, block / 2)\n",
        ),
        after(
            "docs/machine.md",
            "| STORE | output chunk | DRAM |\n",
            "| HALVE | output chunk in the scratchpad | the same, halved |\n",
        ),
    ),
)


def check() -> None:
    import numpy as np

    from simulator import execute, simulate
    from simulator.base.errors import InputError
    from simulator.numbers.execute import layer_numbers
    from simulator.program.encoding import encode
    from simulator.program.listing import print_program
    from simulator.program.operations import Op
    from simulator.program.parse_listing import parse_program
    from simulator.timing.durations import resolve_timing
    from simulator.timing.engine import run_engine
    from simulator.timing.reference import run_reference
    from simulator.timing.reference_durations import reference_timing
    from tests.recipes.small_program import behind_drains, dense_program, small_machine

    machine = small_machine()
    program, weight = dense_program(machine, inputs=7, outputs=6, tokens=3)
    changed = behind_drains(program, Op.HALVE)
    x = np.random.default_rng(1).normal(size=(3, 7))
    np.testing.assert_allclose(execute(changed, {"layer": x})["layer"], x @ weight.T / 2, atol=1e-6)
    timing = resolve_timing(changed, machine)
    engine, reference = run_engine(timing), run_reference(reference_timing(changed, machine))
    for name in ("preload", "start", "end", "done", "stall"):
        np.testing.assert_array_equal(getattr(engine, name), getattr(reference, name), err_msg=name)
    before, after_ = simulate(program, machine).accesses, simulate(changed, machine).accesses
    drains = int((program.instructions.op == Op.DRAIN).sum())
    assert after_["vector_ops"] == 2 * before["vector_ops"] and drains == 2
    words = drains * 3 * -(-machine.cols * 8 // machine.scratchpad.word_bits)
    assert after_["scratchpad_read"] - before["scratchpad_read"] == words
    assert after_["scratchpad_write"] - before["scratchpad_write"] == words
    text = print_program(changed)
    assert "HALVE" in text and print_program(parse_program(text)) == text
    try:
        encode(changed, [layer_numbers(changed, 0, x)])
    except InputError as error:
        assert "HALVE" in str(error)
    else:
        raise AssertionError("an operation that hardware lacks was encoded")
