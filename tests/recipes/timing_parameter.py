"""A timing parameter: cycles that the vector unit takes to begin each instruction."""

from __future__ import annotations

from tests.recipes.recipe import Edit, Recipe, after

RECIPE = Recipe(
    change="timing parameter",
    most=4,
    edits=(
        after(
            "simulator/machine/machine.py",
            "    lanes: Annotated[int, Field(ge=1, le=65536), TIME]\n",
            "    begin_cycles: Annotated[Cycles, TIME] = 0\n",
        ),
        Edit(
            "simulator/timing/durations.py",
            "    return ceil_div(ins.tokens[at].astype(np.int64) * machine.cols, machine.vector.lanes)\n",
            "    drained = ceil_div(ins.tokens[at].astype(np.int64) * machine.cols, machine.vector.lanes)\n"
            "    return machine.vector.begin_cycles + drained\n",
        ),
        Edit(
            "simulator/timing/reference_durations.py",
            "            return _first(rows * machine.cols, lanes)\n",
            "            return machine.vector.begin_cycles + _first(rows * machine.cols, lanes)\n",
        ),
        Edit("docs/machine.md", "takes `ceil(T Q / lanes)` cycles", "takes `begin_cycles + ceil(T Q / lanes)` cycles"),
    ),
)


def check() -> None:
    import numpy as np

    from simulator import Machine, Program, simulate
    from simulator.program.operations import Op
    from simulator.timing.durations import resolve_timing
    from simulator.timing.engine import run_engine
    from simulator.timing.reference import run_reference
    from simulator.timing.reference_durations import reference_timing
    from tests.recipes.small_program import dense_program, saved_and_loaded, small_machine

    machine = small_machine()
    program, _ = dense_program(machine, inputs=7, outputs=6, tokens=3)
    slow = machine.with_(vector={"begin_cycles": 9})
    assert slow.layout_key == machine.layout_key and "begin_cycles = 9" in slow.to_toml()
    before, after_ = (resolve_timing(program, one) for one in (machine, slow))
    np.testing.assert_array_equal(after_.busy - before.busy, np.where(program.instructions.op == Op.DRAIN, 9, 0))
    engine, reference = run_engine(after_), run_reference(reference_timing(program, slow))
    np.testing.assert_array_equal(engine.done, reference.done)
    later = simulate(program, slow).latency_cycles - simulate(program, machine).latency_cycles
    assert 9 <= later <= 2 * 9  # the first of two drains may be hidden
    assert Machine.from_dict(machine.to_dict(), "old file") == machine and "begin_cycles" not in machine.to_json()
    assert isinstance(saved_and_loaded(program), Program)
