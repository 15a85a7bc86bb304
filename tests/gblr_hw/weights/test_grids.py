"""Layers stored on a grid of few bits: files, scaling, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gblr_hw.files.checkpoint import load_checkpoint, save_checkpoint
from gblr_hw.files.tensor_files import read_tensors, write_safetensors
from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.weights.bits.grid import Grid, Rounded, short_steps
from gblr_hw.weights.bits.packed import pack_codes, packed_bytes, unpack_codes
from gblr_hw.weights.scaled_weights import scaled_weights
from gblr_hw.weights.stored import DenseWeights, LatticeWeights
from simulator.base.errors import InputError


def random_rounded(m: int, n: int, seed: int = 0, *, bits: int = 4, group: int = 8, most_shift: int = 3) -> Rounded:
    rng = np.random.default_rng(seed)
    step = short_steps(rng.uniform(0.25, 1, m))
    grid = Grid(step, rng.integers(0, most_shift + 1, (m, -(-n // group))), group, bits)
    return Rounded(rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (m, n)).astype(np.int8), grid)


def on_grid(rounded: Rounded, *, ranks: int = 0, seed: int = 0) -> LatticeWeights:
    """All tiles dense in chunks of 8, and ranks on all of them."""
    (m, n), rng = rounded.codes.shape, np.random.default_rng(seed)
    factors = (torch.from_numpy(rng.normal(size=size).astype(np.float32)) for size in ((m, ranks), (ranks, n)))
    r, c = -(-m // 8), -(-n // 8)
    sets = (torch.ones(size, dtype=torch.bool) for size in ((ranks, c), (ranks, r), (r, c)))
    dense = torch.from_numpy(rounded.matrix().astype(np.float32))
    return LatticeWeights(*factors, *sets, dense, None, 8, 8, grid=rounded.grid)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(1, 7), st.integers(1, 9), st.integers(0, 99))
def test_weights_at_short_steps_are_exact_in_float32_and_packed_codes_come_back(
    bits: int, m: int, n: int, seed: int
) -> None:
    rounded = random_rounded(m, n, seed, bits=bits, group=3)
    matrix = rounded.matrix()
    np.testing.assert_array_equal(matrix, matrix.astype(np.float32))
    np.testing.assert_array_equal(rounded.grid.codes_of(matrix.astype(np.float32)), rounded.codes)
    packed = pack_codes(rounded.codes, bits)
    assert len(packed) == packed_bytes(m * n, bits) == (-(-m * n // 2) if bits <= 4 else m * n)
    np.testing.assert_array_equal(unpack_codes(packed, bits, (m, n)), rounded.codes)


def test_short_steps_are_near() -> None:
    steps = np.exp(np.random.default_rng(0).normal(size=500) * 20)
    short = short_steps(steps)
    assert (np.abs(short / steps - 1) <= 2.0**-16).all() and (short != steps).any()
    np.testing.assert_array_equal(short_steps(short), short)


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
def test_files_hold_codes_and_steps(tmp_path: Path, bits: int) -> None:
    rounded = random_rounded(19, 21, bits=bits)
    dense = DenseWeights(torch.from_numpy(rounded.matrix().astype(np.float32)), torch.ones(19), rounded.grid)
    layers = {"a": dense, "b": on_grid(rounded, ranks=2), "c": DenseWeights(torch.ones(3, 3))}
    path = tmp_path / "a.safetensors"
    save_checkpoint(layers, path)
    tensors = read_tensors(path).state
    assert "a.weight" not in tensors and tensors["a.codes"].numel() == packed_bytes(19 * 21, bits)
    found = load_checkpoint(path)
    for name, field in (("a", "weight"), ("b", "dense")):
        assert torch.equal(getattr(found[name], field), getattr(layers[name], field))
        grid = found[name].grid  # type: ignore[union-attr]
        assert (grid.bits, grid.group) == (bits, 8)
        np.testing.assert_array_equal(grid.step, rounded.grid.step)
        np.testing.assert_array_equal(grid.shift, rounded.grid.shift)
    assert found["c"].grid is None  # type: ignore[union-attr]
    again = tmp_path / "b.safetensors"
    save_checkpoint(found, again)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("a.step", torch.ones(4), "tensor 'step': found torch.float32 of shape"),
        ("a.shift", torch.full((5, 2), 8, dtype=torch.uint8), "grid's shifts: found 8; they lie between 0 and 7"),
        ("a.codes", torch.zeros(3, dtype=torch.uint8), "tensor 'codes': found torch.uint8 of shape"),
        ("a.step", torch.zeros(5, dtype=torch.float64), "grid's steps: found one that is not above 0"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, value: torch.Tensor, message: str) -> None:
    rounded = random_rounded(5, 9)
    path = tmp_path / "a.safetensors"
    save_checkpoint(
        {"a": DenseWeights(torch.from_numpy(rounded.matrix().astype(np.float32)), None, rounded.grid)}, path
    )
    file = read_tensors(path)
    write_safetensors(path, {**file.state, name: value}, file.metadata)
    with pytest.raises(InputError, match=message):
        load_checkpoint(path)


def test_weights_beside_their_grid_are_refused() -> None:
    rounded = random_rounded(5, 9)
    matrix = torch.from_numpy(rounded.matrix().astype(np.float32))
    matrix[3, 4] += 0.001
    with pytest.raises(InputError, match=r"weight \(3, 4\): .* weights lie on their grid, codes from -8 to 7"):
        DenseWeights(matrix, None, rounded.grid)
    with pytest.raises(InputError, match="grid: found 5 x 2 shifts of 8 inputs; the matrix is 5 x 20"):
        DenseWeights(torch.zeros(5, 20), None, rounded.grid)


def test_scaled_channels_keep_the_codes_where_they_can() -> None:
    rounded = random_rounded(6, 16)
    rounded = Rounded(np.maximum(rounded.codes, -7), rounded.grid)
    matrix = rounded.matrix()
    rows, groups = np.array([0.3, -1.7, 2.0, 0.0, 1e-3, 5.0]), np.repeat([0.25, 4.0], 8)
    for layer in (
        DenseWeights(torch.from_numpy(matrix.astype(np.float32)), torch.ones(6), rounded.grid),
        replace(on_grid(rounded, ranks=2), bias=torch.ones(6)),
    ):
        scaled = scaled_weights(layer, groups, rows)
        assert isinstance(scaled, (DenseWeights, LatticeWeights)) and scaled.grid is not None
        held = scaled.weight if isinstance(scaled, DenseWeights) else scaled.dense
        np.testing.assert_array_equal(scaled.grid.codes_of(held.numpy()), rounded.codes * np.sign(rows)[:, None])
        np.testing.assert_allclose(held, matrix * groups * rows[:, None], rtol=2.0**-15)
        # Single inputs cannot be scaled on a grid: the layer is rounded anew, and stays on one.
        single = scaled_weights(layer, np.where(np.arange(16) == 3, 0.5, 1.0), None)
        assert isinstance(single, (DenseWeights, LatticeWeights)) and single.grid is not None
        held = single.weight if isinstance(single, DenseWeights) else single.dense
        wanted = matrix * np.where(np.arange(16) == 3, 0.5, 1.0)
        assert np.linalg.norm(held.numpy() - wanted) < 0.1 * np.linalg.norm(wanted)


def test_a_module_keeps_the_grid_until_it_is_trained() -> None:
    weights = on_grid(random_rounded(16, 16), ranks=1)
    module = LatticeLinear.from_weights(weights)
    assert module.weights().grid is weights.grid
    with torch.no_grad():
        module.dense[0, 0] += 0.01  # type: ignore[index]
    assert module.weights().grid is None
