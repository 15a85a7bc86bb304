"""Layers stored on a grid run their codes: execution against integer arithmetic of codes, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gblr_hw.files.checkpoint import save_checkpoint
from gblr_hw.frontend.put_weights import put_weights
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.bits.grid import Rounded
from gblr_hw.weights.stored import DenseWeights
from simulator.machine.machine import Machine
from simulator.numbers.execute import execute, input_step
from simulator.program.operations import Op
from tests.drawn.strategies import generator, small_machine
from tests.gblr_hw.weights.test_grids import on_grid, random_rounded
from tests.oracles.integer_layer import int8_outputs

MID = Machine.load("mid-32").with_(datatypes={"narrow_bits": 4})


def as_dense(rounded: Rounded) -> DenseWeights:
    return DenseWeights(torch.from_numpy(rounded.matrix().astype(np.float32)), None, rounded.grid)


def by_integers(rounded: Rounded, inputs: np.ndarray) -> np.ndarray:
    """Outputs of codes times codes, (tokens, m): sums in the grid's steps, then the one step of 8 bits of all outputs
    (machine.md, N4).
    """
    step = input_step(inputs, 8)
    codes = np.clip(np.rint(inputs / step), -127, 127).astype(np.int64)
    grid = rounded.grid
    shifts = np.repeat(grid.shift, grid.group, axis=1)[:, : rounded.codes.shape[1]]
    sums = codes @ (rounded.codes.astype(np.int64) << shifts).T
    out_step = np.abs(sums * grid.step).max() * step / 127 or 1.0
    mantissa, exponent = np.frexp(grid.step * step / out_step)
    multiplier, shift = np.rint(mantissa * 2**26).astype(np.int64), 26 - exponent.astype(np.int64)
    return np.asarray(np.clip((sums * multiplier + (np.int64(1) << (shift - 1))) >> shift, -127, 127) * out_step)


@pytest.mark.parametrize("seed", range(6))
def test_what_runs_is_the_codes_that_are_stored(seed: int) -> None:
    """On a machine with tiles of as many bits, and on one that has only wide ones."""
    rng = generator(seed)
    rounded = random_rounded(int(rng.integers(1, 90)), int(rng.integers(1, 130)), seed, group=32)
    inputs = rng.normal(size=(3, rounded.codes.shape[1]))
    expected = by_integers(rounded, inputs)
    for machine, narrow in ((MID, True), (Machine.load("mid-32"), False)):
        for weights in (as_dense(rounded), on_grid(rounded)):
            program = lower({"a": weights}, machine, 3)
            assert program.layers[0].tiles.narrow.all() == narrow and "rounded" not in program.provenance
            np.testing.assert_array_equal(execute(program, {"a": inputs}, mode="int8")["a"], expected)


def test_eight_bits_of_one_step_an_output_run_as_they_are() -> None:
    rounded = random_rounded(40, 70, bits=8, most_shift=0)
    rounded = Rounded(np.maximum(rounded.codes, -127), rounded.grid)
    inputs = generator(0).normal(size=(3, 70))
    program = lower({"a": as_dense(rounded)}, MID, 3)
    assert not program.layers[0].tiles.narrow.any() and "rounded" not in program.provenance
    np.testing.assert_array_equal(execute(program, {"a": inputs}, mode="int8")["a"], by_integers(rounded, inputs))


def test_ranks_beside_four_bits_leave_the_codes() -> None:
    """Ranks of any size beside them: the output's step is a power of two of the grid's."""
    for size in (1e-3, 0.03, 0.3):
        rounded = random_rounded(64, 96, most_shift=2, group=32)
        weights = on_grid(rounded, ranks=5)
        weights = type(weights)(**{**weights.__dict__, "u": weights.u * size})
        for machine in (MID, small_machine(generator(1), array={"rows": 8, "cols": 8, "scatter": True},
                                           rank_memory={"kib": 64}, scratchpad={"kib": 16},
                                           datatypes={"narrow_bits": 4})):  # fmt: skip
            program = lower({"a": weights}, machine, 4)
            layer = program.layers[0]
            assert "rounded" not in program.provenance and layer.form == "mixed"
            assert (layer.tiles.narrow == (layer.tiles.kind == Op.DENSE)).all()
            ratio = np.log2(layer.payload.row_step / rounded.grid.step)
            np.testing.assert_array_equal(ratio, np.rint(ratio))
            inputs = generator(2).normal(size=(4, 96))
            found = execute(program, {"a": inputs}, mode="int8")["a"]
            assert found.tolist() == int8_outputs(layer, machine, inputs.tolist(), input_step(inputs, 8))
            exact = inputs @ weights.matrix().numpy().T
            assert np.linalg.norm(found - exact) < 0.04 * np.linalg.norm(exact)


def test_what_no_tile_holds_is_rounded_anew_and_told() -> None:
    """Groups that are no multiple of the array's rows share a tile's shift; shifts beyond 4 do not fit eight bits."""
    for rounded, machine in (
        (random_rounded(40, 100, group=25), MID),
        (random_rounded(40, 100, group=32, most_shift=7), Machine.load("mid-32")),
    ):
        program = lower({"a": as_dense(rounded), "b": DenseWeights(torch.ones(4, 4))}, machine, 4)
        assert program.provenance["rounded"] == "a"
        inputs = generator(2).normal(size=(4, 100))
        found, exact = execute(program, {"a": inputs}, mode="int8")["a"], inputs @ rounded.matrix().T
        assert np.linalg.norm(found - exact) < 0.15 * np.linalg.norm(exact)


def test_whole_models_run_the_codes_that_a_checkpoint_holds(tmp_path: object) -> None:
    path = tmp_path / "a.safetensors"  # type: ignore[operator]
    first, second = random_rounded(64, 64, 1, group=32), random_rounded(32, 64, 2, group=32)
    save_checkpoint({"0": as_dense(first), "2": on_grid(second, ranks=3)}, path)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32, bias=False)).eval()
    put_weights(model, path)
    batch = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    program = lower(model, MID, example_inputs=(batch,), calibration=[(batch,)])
    assert "rounded" not in program.provenance
    for layer, rounded in zip((one for one in program.layers if len(one.tiles)), (first, second), strict=True):
        kept = layer.tiles.kind == Op.DENSE
        assert layer.tiles.narrow[kept].all()
        codes = layer.payload.codes[np.repeat(kept, np.diff(layer.tiles.weight_ptr))]
        assert sorted(np.abs(codes).tolist()) == sorted(np.abs(rounded.codes.astype(int)).ravel().tolist())
