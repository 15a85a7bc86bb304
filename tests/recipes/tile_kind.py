"""A tile kind: SUBTRACT reads an input chunk, as DENSE does, and takes its products off the accumulators."""

from __future__ import annotations

from tests.recipes.recipe import Edit, Recipe, after

_TILES, _SEQUENCER = "simulator/numbers/tile_pass.py", "simulator/rtl/units/tile_sequencer.py"
_ACCELERATOR, _TABLE = "simulator/rtl/units/accelerator.py", "simulator/program/operations.py"

RECIPE = Recipe(
    change="tile kind",
    most=8,
    edits=(
        after(_TABLE, "    MIX = 9\n", "    SUBTRACT = 10\n"),
        after(
            _TABLE,
            "OPERATIONS: Mapping[Op, Operation] = {\n",
            "    Op.SUBTRACT: Operation(\n"
            "        After.ARRAY, Place.SCRATCHPAD, Place.ACCUMULATORS, Duration.ROWS, Rows.RESULT, Chunk.OF_TILE, "
            "encoded=True\n    ),\n",
        ),
        Edit(
            _TILES,
            "    sums = entering @ weights[:, : machine.cols]\n",
            "    sums = entering @ weights[:, : machine.cols] * (-1 if run.op == Op.SUBTRACT else 1)\n",
        ),
        after(_SEQUENCER, "        self.sum_accumulate = Signal()\n", "        self.sum_subtract = Signal()\n"),
        after(
            _SEQUENCER,
            "            self.sum_accumulate.eq(oldest.accumulate),\n",
            "            self.sum_subtract.eq(oldest.is_any((Op.SUBTRACT,))),\n",
        ),
        Edit(_SEQUENCER, "operations import GATHER_OPS, SCATTER_OPS", "operations import GATHER_OPS, SCATTER_OPS, Op"),
        Edit(
            _ACCELERATOR,
            "Mux(tiles.sum_accumulate, before, 0) + fresh,",
            "Mux(tiles.sum_accumulate, before, 0) + Mux(tiles.sum_subtract, -fresh, fresh),",
        ),
        after(
            "docs/machine.md",
            "| DENSE | input chunk | adds to the accumulator rows of an output chunk |\n",
            "| SUBTRACT | input chunk | takes its products off the accumulator rows of an output chunk |\n",
        ),
    ),
)


def check() -> None:
    import numpy as np

    from simulator import execute, simulate
    from simulator.numbers.execute import layer_numbers
    from simulator.program.encoding import encode
    from simulator.program.listing import print_program
    from simulator.program.operations import Op
    from simulator.program.parse_listing import parse_program
    from simulator.timing.durations import resolve_timing
    from simulator.timing.engine import run_engine
    from simulator.timing.reference import run_reference
    from simulator.timing.reference_durations import reference_timing
    from tests.recipes.small_program import dense_program, saved_and_loaded, small_machine, with_ops

    machine = small_machine()
    program, weight = dense_program(machine, inputs=7, outputs=6, tokens=3)
    before = simulate(program, machine)
    taken = {int(np.flatnonzero(program.layers[0].tiles.source == 1)[0])}  # the tile of the second input chunk
    changed = with_ops(program, {tile: Op.SUBTRACT for tile in taken})
    tiles = changed.layers[0].tiles
    signed = weight.copy()
    for tile in taken:
        rows, cols = int(tiles.target[tile]) * machine.cols, int(tiles.source[tile]) * machine.rows
        signed[rows : rows + machine.cols, cols : cols + machine.rows] *= -1

    x = np.random.default_rng(1).normal(size=(3, 7))
    np.testing.assert_allclose(execute(changed, {"layer": x})["layer"], x @ signed.T, atol=1e-6)
    timing = resolve_timing(changed, machine)
    engine, reference = run_engine(timing), run_reference(reference_timing(changed, machine))
    for name in ("preload", "start", "end", "done", "stall"):
        np.testing.assert_array_equal(getattr(engine, name), getattr(reference, name), err_msg=name)
    report = simulate(changed, machine)
    assert report.latency_cycles == before.latency_cycles and report.accesses == before.accesses
    assert report.layers[0].tiles_by_kind["subtract"] == 1 and report.to_dict()["layers"][0]["tiles_subtract"] == 1  # type: ignore[index]
    text = print_program(changed)
    assert "SUBTRACT" in text and print_program(parse_program(text)) == text
    numbers = [layer_numbers(changed, 0, x)]
    encoded = encode(changed, numbers)
    assert (encoded.streams["array"][:, 0] & 15 == Op.SUBTRACT).sum() == len(taken)
    loaded = saved_and_loaded(changed)
    np.testing.assert_array_equal(loaded.instructions.op, changed.instructions.op)
