"""Narrow tiles from lowering: steps and codes, what they save, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from gblr_hw.lowering.emit.emit import emit
from gblr_hw.lowering.lower_layer import lower_operator
from gblr_hw.lowering.pipeline import lower
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.weights.stored import DenseWeights
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.numbers.execute import execute, input_step
from simulator.numbers.execute_network import execute_network
from simulator.program.operations import TILE_OPS, Op
from simulator.program.program import Program
from simulator.timing.simulate import simulate
from tests.drawn.mixed_layers import as_chain, chain_factors
from tests.drawn.strategies import gblr_weights, generator, layer_weights, matrix_and_bias, small_machine
from tests.drawn.transformer_network import Sizes, transformer
from tests.oracles.integer_layer import int8_outputs

MID = Machine.load("mid-32").with_(datatypes={"narrow_bits": 4})
BOTH = MID.with_(datatypes={"narrow_bits": 2})


def stored_matrix(program: Program, machine: Machine) -> np.ndarray:
    """The matrix that the codes of a dense layer stand for, tile by tile."""
    layer = program.layers[0]
    tiles, found = layer.tiles, np.zeros((layer.out_features, layer.in_features))
    for tile in range(len(tiles)):
        shifts = tiles.column_shifts(tile) if tiles.narrow[tile] else np.zeros(machine.cols)
        at = int(tiles.weight_ptr[tile])
        for lane in range(int(tiles.lane_ptr[tile]), int(tiles.lane_ptr[tile + 1])):
            for j in range(int(tiles.lo[lane]), int(tiles.hi[lane])):
                output = int(tiles.target[tile]) * machine.cols + j
                step = layer.payload.row_step[output] * 2.0 ** shifts[j]
                found[output, int(tiles.source[tile]) * machine.rows + int(tiles.lane[lane])] = (
                    layer.payload.codes[at] * step
                )
                at += 1
    return found


def test_codes_are_the_nearest_at_their_columns_steps() -> None:
    rng = generator(1)
    dense = rng.normal(size=(70, 100)) * np.exp2(rng.integers(-9, 3, (70, 4))).repeat(25, axis=1)
    program = lower({"layer": DenseWeights(torch.from_numpy(dense.astype(np.float32)))}, MID, 4, weight_bits=4)
    layer, found = program.layers[0], stored_matrix(program, MID)
    assert layer.tiles.narrow.all() and np.abs(layer.payload.codes).max() == 7 and layer.tiles.shift.max() == 7
    for column in range(0, 100, 32):
        part, kept = dense[:, column : column + 32], found[:, column : column + 32]
        for row in range(70):
            # No power of two of the row's step would do better for these 32 weights.
            steps = layer.payload.row_step[row] * np.exp2(np.arange(8))[:, None]
            codes = np.clip(np.rint(part[row].astype(np.float32) / steps), -7, 7)
            best = np.square(part[row] - codes * steps).sum(axis=1).min()
            assert np.square(part[row] - kept[row]).sum() <= best * (1 + 1e-4) + 1e-12


def test_groups_with_steps_of_their_own_are_nearer_than_a_step_a_row() -> None:
    rng = generator(2)
    dense = rng.normal(size=(64, 256)).astype(np.float32)
    program = lower({"layer": DenseWeights(torch.from_numpy(dense))}, MID, 4, weight_bits=4)
    error = np.square(dense - stored_matrix(program, MID)).sum()
    step = np.abs(dense).max(axis=1, keepdims=True) / 7
    by_row = np.square(dense - np.clip(np.rint(dense / step), -7, 7) * step).sum()
    own = np.abs(dense.reshape(64, 8, 32)).max(axis=2, keepdims=True) / 7
    free = np.square(dense.reshape(64, 8, 32) - np.rint(dense.reshape(64, 8, 32) / own) * own).sum()
    assert error < 0.8 * by_row
    assert error < 1.25 * free  # a free step for each group, which no accumulator could add up


def test_what_is_executed_is_what_the_codes_say() -> None:
    for seed in range(8):
        rng = generator(seed)
        machine = small_machine(
            rng, scratchpad={"kib": 16}, rank_memory={"kib": 16}, datatypes={"narrow_bits": (4, 2)[seed % 2]}
        )
        weights = {"layer": layer_weights(rng, machine, ("dense", "gblr", "lattice", "block_sparse")[seed % 4])}
        bits: object = machine.datatypes.narrow_bits
        bits = bits if seed % 3 else {"dense": bits, "expand": bits}
        program = lower(weights, machine, 3, weight_bits=bits)  # type: ignore[arg-type]
        layer = program.layers[0]
        inputs = rng.normal(size=(4, layer.in_features))
        matrix, bias = matrix_and_bias(weights["layer"])
        scale = (np.abs(inputs) @ np.abs(matrix).T + np.abs(bias)).max(initial=1e-30)
        assert np.abs(execute(program, {"layer": inputs})["layer"] - inputs @ matrix.T - bias).max() <= 1e-6 * scale
        result = execute(program, {"layer": inputs}, mode="int8")["layer"]
        assert result.tolist() == int8_outputs(layer, machine, inputs.tolist(), input_step(inputs, 8))


def test_ranks_in_narrow_tiles_mean_what_they_meant() -> None:
    """A layer of ranks in four bits is as far from its matrix as its rounding is: 20 % of white inputs' outputs at most."""
    weights = {"layer": gblr_weights(generator(3), 96, 80)}
    inputs = generator(4).normal(size=(64, 96))
    matrix, bias = matrix_and_bias(weights["layer"])
    expected = inputs @ matrix.T + bias
    for bits, most in ((None, 0.03), ({"expand": 4, "dense": 4}, 0.2), (4, 0.25)):
        result = execute(lower(weights, MID, 64, weight_bits=bits), {"layer": inputs}, mode="int8")["layer"]
        assert np.sqrt(((result - expected) ** 2).mean() / (expected**2).mean()) < most


def test_narrow_chains() -> None:
    shifted = False
    for seed in range(4):
        rng = generator(seed)
        machine = small_machine(
            rng,
            array={"rows": 6, "cols": 7, "scatter": True},
            rank_memory={"kib": 64},
            scratchpad={"kib": 16},
            datatypes={"narrow_bits": 4},
        )
        layer = as_chain(chain_factors(rng, 30, 40), machine, 3, narrow=TILE_OPS)
        assert layer.tiles.narrow.all() and (layer.tiles.kind == Op.MIX).any()
        shifted |= layer.tiles.shift.any()
        inputs = rng.normal(size=(2, 30))
        program = emit([layer], machine, 3, {})
        result = execute(program, {"layer": inputs}, mode="int8")["layer"][:, layer.output_order]
        assert result.tolist() == int8_outputs(layer, machine, inputs.tolist(), input_step(inputs, 8))
        exact = execute(program, {"layer": inputs})["layer"][:, layer.output_order]
        assert np.sqrt(((result - exact) ** 2).mean() / (exact**2).mean()) < 0.35
    assert shifted


def test_four_bits_save_bytes_and_preload_and_not_the_stream() -> None:
    """Few tokens gain, many do not (rule A6)."""
    weights = {"layer": DenseWeights(torch.from_numpy(generator(6).normal(size=(512, 512)).astype(np.float32)))}
    fast = MID.with_(dram={"gb_per_s": 4000.0})
    for machine, tokens, most in ((MID, 1, 0.6), (fast, 1, 0.65), (fast, 64, 1.001)):
        wide, narrow = (simulate(lower(weights, machine, tokens, weight_bits=bits), machine) for bits in (8, 4))
        assert narrow.latency_cycles <= most * wide.latency_cycles
        assert narrow.dram_read_bytes < 0.6 * wide.dram_read_bytes or tokens > 1
        assert narrow.layers[0].narrow_tiles == narrow.tiles and wide.layers[0].narrow_tiles == 0
        assert narrow.accesses["mac_narrow"] == wide.accesses["mac_active"]
        assert narrow.energy_by_component["multiply_add"] < wide.energy_by_component["multiply_add"]
    assert narrow.latency_cycles > 0.9 * wide.latency_cycles


def test_files_and_listings_hold_the_bits(tmp_path: Path) -> None:
    weights = {"layer": DenseWeights(torch.from_numpy(generator(7).normal(size=(40, 40)).astype(np.float32)))}
    program = lower(weights, MID, 4, weight_bits={"dense": 4})
    path = tmp_path / "a.program"
    program.save(path)
    again = Program.load(path)
    assert str(again) == str(program) and " narrow=" in str(program)
    np.testing.assert_array_equal(again.layers[0].tiles.shift, program.layers[0].tiles.shift)
    plain = lower(weights, MID, 4, weight_bits=8)
    assert "narrow=" not in str(plain) and not plain.layers[0].tiles.narrow.any()


@pytest.mark.parametrize(
    ("machine", "bits", "message"),
    [
        (MID, 5, "weight_bits: found 5; machine 'mid-32' has tiles of 8 and 4 bits"),
        (Machine.load("mid-32"), 4, "weight_bits: found 4; machine 'mid-32' has tiles of 8 bits"),
        (MID, {"sparse": 4}, "weight_bits: found 'sparse'; kinds of tiles are dense, reduce, expand, mix"),
    ],
)
def test_bits_that_the_machine_lacks_are_refused(machine: Machine, bits: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        lower({"layer": DenseWeights(torch.ones(4, 4))}, machine, 4, weight_bits=bits)  # type: ignore[arg-type]


def test_a_transformer_with_narrow_weights_and_wide_activations() -> None:
    size = Sizes(tokens=5)
    network, weights = transformer(size)
    x = generator(1).normal(size=(1, 5, size.channels))
    programs = [
        lower_network(network, weights, MID, [{"x": x}], lower_linear=partial(lower_operator, narrow=kinds))
        for kinds in ((), TILE_OPS)
    ]
    for layer in programs[1].layers:
        assert layer.tiles.narrow.all() if layer.form != "activations" else not layer.tiles.narrow.any()
    exact, narrow = (execute_network(program, {"x": x})["y"] for program in programs)
    np.testing.assert_allclose(narrow, exact, atol=1e-9 * np.abs(exact).max())
    wide, narrow = (execute_network(program, {"x": x}, mode="int8")["y"] for program in programs)
    scale = np.sqrt((exact**2).mean())
    assert np.sqrt(((wide - exact) ** 2).mean()) < 0.1 * scale
    assert 0 < np.sqrt(((narrow - exact) ** 2).mean()) < 0.4 * scale
    reports = [simulate(program, MID) for program in programs]
    assert reports[1].dram_read_bytes < reports[0].dram_read_bytes


def test_kinds_that_stay_wide() -> None:
    program = lower({"layer": gblr_weights(generator(8), 96, 80)}, MID, 64, weight_bits={"expand": 4})
    tiles = program.layers[0].tiles
    np.testing.assert_array_equal(tiles.narrow == 1, tiles.kind == Op.EXPAND)
