"""What programs compute: float mode against the evaluated matrix and PyTorch, int8 mode against plain integer loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.stored import DenseWeights, GBLRWeights, LatticeWeights
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.numbers.execute import execute, input_step
from simulator.program.operations import Op
from simulator.program.program import Program
from tests.drawn.mixed_layers import chain_program
from tests.drawn.strategies import (
    FAMILIES,
    as_stored,
    case,
    gblr_weights,
    generator,
    layer_weights,
    matrix_and_bias,
    numbers,
    seeds,
    small_machine,
)
from tests.oracles.integer_layer import int8_outputs


def assert_matches_matrix(program: Program, weights: dict, seed: int) -> None:
    for name, layer in weights.items():
        matrix, bias = matrix_and_bias(layer)
        inputs = generator(seed).normal(size=(program.tokens + 3, matrix.shape[1]))
        result = execute(program, {name: inputs})[name]
        expected = inputs @ matrix.T + bias
        scale = (np.abs(inputs) @ np.abs(matrix).T + np.abs(bias)).max(initial=1e-30)
        assert result.shape == expected.shape
        assert np.abs(result - expected).max(initial=0.0) <= 1e-6 * scale


@pytest.mark.parametrize("family", FAMILIES)
def test_float_equals_the_evaluated_matrix(family):
    kinds = set()
    for seed in range(24):
        rng = generator(seed)
        machine = small_machine(rng, scratchpad={"kib": 16}, rank_memory={"kib": 16})
        weights = {"layer": layer_weights(rng, machine, family)}
        tokens = int(rng.choice([1, 13, 40]))
        for program in (as_stored(weights, machine, tokens, rng), lower(weights, machine, tokens)):
            assert_matches_matrix(program, weights, seed)
            kinds |= set(program.layers[0].tiles.kind.tolist())
    assert kinds  # every family has layers with tiles


@settings(max_examples=60)
@given(seeds)
def test_float_equals_the_matrix_of_any_program(seed):
    _, weights, program = case(seed, layers=2)
    assert_matches_matrix(program, weights, seed)


@pytest.mark.parametrize("sides", [(1, 1), (1, 7), (7, 1), (13, 17), (32, 32), (33, 31), (97, 64)])
@pytest.mark.parametrize("scatter", [True, False])
def test_float_follows_pytorch_in_evaluation_mode(sides, scatter):
    """GBLRLinear.eval(), its float32 matrix product as the reference: 1e-5 relative."""
    rng = generator(sides[0] * 1000 + sides[1])
    machine = Machine.load("mid-32" if scatter else "plain-32")
    weights = gblr_weights(rng, sides[1], sides[0])
    layer = GBLRLinear.from_weights(weights).eval()
    inputs = numbers(rng, 5, sides[1])
    with torch.no_grad():
        expected = layer(inputs).numpy()
    for program in (as_stored({"layer": weights}, machine, 5), lower({"layer": weights}, machine, 5)):
        result = execute(program, {"layer": inputs.numpy()})["layer"]
        assert np.abs(result - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())


def test_special_blocks():
    """All blocks empty, one full block, one wrapping block: bias alone, an outer product, an outer product on a cyclic
    run.
    """
    machine = small_machine(generator(1), array={"rows": 4, "cols": 6, "scatter": True})
    rng = generator(5)
    base = gblr_weights(rng, 11, 13)
    base = replace(base, widths=torch.zeros_like(base.widths), bias=numbers(rng, 13))
    inputs = rng.normal(size=(3, 11))
    empty = lower({"layer": base}, machine, 3)
    assert len(empty.layers[0].tiles) == 0
    np.testing.assert_allclose(execute(empty, {"layer": inputs})["layer"], np.tile(base.bias.numpy(), (3, 1)))
    one = replace(
        base,
        widths=base.widths[:, :1] + 1,
        locations=base.locations[:, :1],
        lr_weight1=base.lr_weight1[:1],
        lr_weight2=base.lr_weight2[:1],
        bias=None,
    )
    for width, location, channels in ((1.0, 0.0, range(11)), (4 / 11, 9 / 11, (9, 10, 0, 1))):
        block = replace(one, widths=torch.tensor([[width], [1.0]]), locations=torch.tensor([[location], [0.0]]))
        mask = np.isin(np.arange(11), channels)
        matrix = np.einsum(
            "mr,rn->mn", block.lr_weight2[0].double().numpy(), block.lr_weight1[0].double().numpy() * mask
        )
        for program in (as_stored({"layer": block}, machine, 3), lower({"layer": block}, machine, 3)):
            np.testing.assert_allclose(execute(program, {"layer": inputs})["layer"], inputs @ matrix.T, atol=1e-5)


@pytest.mark.parametrize("bits", [(8, 8, 32), (8, 8, 16), (4, 8, 32), (5, 3, 20)], ids=str)
def test_int8_equals_plain_integer_loops(bits):
    weight, activation, accumulator = bits
    types = {"weight_bits": weight, "activation_bits": activation, "accumulator_bits": accumulator}
    ranks = 0
    for seed in range(12):
        machine, _, program = case(40 + seed, tokens=3, datatypes=types)
        layer = program.layers[0]
        ranks += layer.ranks
        inputs = generator(seed).normal(size=(5, layer.in_features)) * 10.0 ** (seed % 5 - 2)
        result = execute(program, {layer.name: inputs}, mode="int8")[layer.name]
        assert result.tolist() == int8_outputs(layer, machine, inputs.tolist(), input_step(inputs, activation))
    assert ranks > 0


def test_narrow_and_wide_tiles_equal_plain_integer_loops():
    """Rule A6: shifted sums of tiles of both widths in one accumulator, and in one rank's sum."""
    seen = set()
    for seed in range(40):
        machine, _, program = case(800 + seed, tokens=3, datatypes={"narrow_bits": (4, 2)[seed % 2]})
        layer = program.layers[0]
        kinds = layer.tiles.kind[layer.tiles.narrow == 1].tolist()
        if not kinds:
            continue
        seen |= set(kinds) | ({"both"} if len(kinds) < len(layer.tiles) else set())
        inputs = generator(seed).normal(size=(5, layer.in_features))
        result = execute(program, {layer.name: inputs}, mode="int8")[layer.name]
        assert result.tolist() == int8_outputs(layer, machine, inputs.tolist(), input_step(inputs, 8))
        if layer.tiles.shift.any():
            flat = replace(layer.tiles, shift=np.zeros_like(layer.tiles.shift))
            level = replace(program, layers=(replace(layer, tiles=flat),))
            seen.add(
                "shifted"
                if not np.array_equal(execute(level, {layer.name: inputs}, "int8")[layer.name], result)
                else ""
            )
    assert seen >= {Op.DENSE, Op.REDUCE, Op.EXPAND, "both", "shifted"}


def test_narrow_mixes_equal_plain_integer_loops():
    narrow = 0
    for seed in range(12):
        rng = generator(seed)
        machine = small_machine(
            rng, array={"scatter": True}, rank_memory={"kib": 16}, datatypes={"narrow_bits": (4, 2)[seed % 2]}
        )
        program = chain_program(rng, machine, 1, 2, keep=True)
        layer = program.layers[0]
        narrow += int((layer.tiles.kind[layer.tiles.narrow == 1] == Op.MIX).sum())
        inputs = rng.normal(size=(2, layer.in_features))
        result = execute(program, {layer.name: inputs}, mode="int8")[layer.name]
        expected = np.array(int8_outputs(layer, machine, inputs.tolist(), input_step(inputs, 8)))
        assert result[:, layer.output_order].tolist() == expected.tolist()
    assert narrow > 10


@pytest.mark.parametrize(
    ("rows", "step"), [([[0.0, 0.0]], 1.0), ([[1.0, -1.0]], 1 / 32), ([[6.0] + [0.0] * 99], 6 / 127)]
)
def test_input_step_keeps_the_rms_code_at_32_and_saturates_nothing(rows, step):
    assert input_step(np.array(rows), 8) == pytest.approx(step, rel=1e-12)


def test_sixteen_bit_accumulators_saturate():
    machine = small_machine(
        generator(0), array={"rows": 8, "cols": 8, "scatter": True}, datatypes={"accumulator_bits": 16}
    )
    weights = {"layer": DenseWeights(torch.ones(8, 40))}
    program = lower(weights, machine, tokens=1)
    inputs = np.ones((1, 40))
    # The codes are 32 (the RMS rule) and 127: 40 x 32 x 127 = 162,560 stops at 32,767.
    result = execute(program, {"layer": inputs}, mode="int8")["layer"]
    np.testing.assert_allclose(result, 32767 / 127 / 32, rtol=1e-6)
    assert result.tolist() == int8_outputs(program.layers[0], machine, inputs.tolist(), 1 / 32)


def test_int8_with_calibration_uses_its_steps():
    machine = Machine.load("edge-16")
    rng = generator(9)
    weights = {"layer": gblr_weights(rng, 50, 40)}
    calibration = rng.normal(size=(64, 50))
    program = lower(weights, machine, tokens=8, calibration={"layer": calibration})
    layer = program.layers[0]
    assert layer.payload.input_step == pytest.approx(
        max(np.abs(calibration).max() / 127, np.sqrt((calibration**2).mean()) / 32)
    )
    inputs = rng.normal(size=(8, 50)) * 3
    result = execute(program, {"layer": inputs}, mode="int8")["layer"]
    assert result.tolist() == int8_outputs(layer, machine, inputs.tolist(), layer.payload.input_step)
    assert np.abs(result).max() <= 127 * layer.payload.output_step * (1 + 1e-12)


def int8_error(program: Program, weights: dict, seed: int) -> float:
    """Root mean square error of int8 outputs over that of the outputs, for white inputs."""
    matrix, bias = matrix_and_bias(weights["layer"])
    inputs = generator(seed).normal(size=(64, matrix.shape[1]))
    expected = inputs @ matrix.T + bias
    result = execute(program, {"layer": inputs}, mode="int8")["layer"]
    return float(np.sqrt(((result - expected) ** 2).mean() / (expected**2).mean()))


@pytest.mark.parametrize("family", ["dense", "gblr", "lattice"])
def test_int8_error_for_white_inputs(family):
    """Stated bound: 3 % of the outputs' root mean square, bias included."""
    machine = Machine.load("edge-16")
    for seed in range(6):
        rng = generator(seed)
        layers = {
            "dense": lambda rng: DenseWeights(numbers(rng, 60, 70), numbers(rng, 60)),
            "gblr": gblr,
            "lattice": lattice,
        }
        weights = {"layer": layers[family](rng)}
        program = as_stored(weights, machine, 16)
        assert 1e-3 < int8_error(program, weights, seed) < 0.03


def gblr(rng: np.random.Generator) -> GBLRWeights:
    return GBLRWeights(
        widths=torch.from_numpy(rng.uniform(0.2, 0.6, (2, 30)).astype(np.float32)), locations=torch.rand(2, 30, generator=torch.Generator().manual_seed(1)),
        lr_weight1=numbers(rng, 30, 1, 70), lr_weight2=numbers(rng, 30, 60, 1), bias=None, sigma=100.0, gaussian=False,
    )  # fmt: skip


def lattice(rng: np.random.Generator) -> LatticeWeights:
    reads, writes, tiles = (torch.from_numpy(rng.random(shape) < 0.5) for shape in ((20, 5), (20, 4), (4, 5)))
    read, write = reads.repeat_interleave(16, 1)[:, :70], writes.repeat_interleave(16, 1)[:, :60]
    support = tiles.repeat_interleave(16, 0)[:60].repeat_interleave(16, 1)[:, :70]
    return LatticeWeights(
        u=numbers(rng, 60, 20) * write.T, v=numbers(rng, 20, 70) * read, reads=reads, writes=writes, tiles=tiles,
        dense=numbers(rng, 60, 70) * support, bias=numbers(rng, 60), chunk_in=16, chunk_out=16,
    )  # fmt: skip


def test_a_bias_without_weights_survives_int8():
    """All blocks empty: the outputs are the bias, which must not be rounded to the input's step."""
    machine = Machine.load("edge-16")
    weights = gblr_weights(generator(3), 20, 30)
    for size in (1e-2, 1.0, 1e4):
        weights = replace(weights, widths=torch.zeros_like(weights.widths), bias=numbers(generator(4), 30) * size)
        program = lower({"layer": weights}, machine, tokens=4)
        assert int8_error(program, {"layer": weights}, 0) < 0.01


# ---- shapes and bad input
# ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> Program:
    return lower({"fc": DenseWeights(numbers(generator(0), 5, 7))}, Machine.load("edge-16"), tokens=4)


@pytest.mark.parametrize("leading", [(), (1,), (9,), (2, 3), (0,), (3, 0)], ids=str)
def test_leading_axes_are_kept(small, leading):
    inputs = generator(1).normal(size=(*leading, 7))
    for mode in ("float", "int8"):
        result = execute(small, {"fc": inputs}, mode=mode)["fc"]
        assert result.shape == (*leading, 5)
        assert result.dtype == np.float64
    flat = execute(small, {"fc": inputs.reshape(-1, 7)})["fc"]
    np.testing.assert_array_equal(execute(small, {"fc": inputs})["fc"].reshape(-1, 5), flat)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((4, 6)), r"inputs of layer 'fc': found shape \(4, 6\); the last axis holds its 7 input features"),
        (np.zeros((7, 1)), r"found shape \(7, 1\)"),
        (np.float64(3), r"found shape \(\)"),
        (np.full((1, 7), np.nan), "inputs of layer 'fc': found NaN or infinity; inputs are finite"),
        (np.full((1, 7), -np.inf), "found NaN or infinity"),
    ],
)
def test_bad_inputs_are_refused(small, inputs, message):
    with pytest.raises(InputError, match=message):
        execute(small, {"fc": inputs})


def test_unknown_layer_and_mode_are_refused(small):
    with pytest.raises(InputError, match="layer 'fc2': found no such layer; the program has the layers fc"):
        execute(small, {"fc2": np.zeros((1, 7))})
    with pytest.raises(InputError, match='mode: found \'fp16\'; it is "float" or "int8"'):
        execute(small, {"fc": np.zeros((1, 7))}, mode="fp16")


def test_all_zero_inputs(small):
    for mode in ("float", "int8"):
        assert not execute(small, {"fc": np.zeros((3, 7))}, mode=mode)["fc"].any()
