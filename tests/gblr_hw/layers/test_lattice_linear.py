"""The lattice layer: it computes what its weights say and keeps its structure while it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gblr_hw.conversion.from_dense import layer_start
from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.layers.tile_linear import tile_linear
from gblr_hw.training.gblr_start import gblr_from_linear
from gblr_hw.training.swap import lattice_from_factors, matching_linears
from gblr_hw.weights.factors import evaluate, structure_of
from gblr_hw.weights.structure import Structure
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError


def _structure(m: int, n: int, ranks: int, chunk: int, seed: int = 0, *, dense: bool = True) -> Structure:
    rng = np.random.default_rng(seed)
    chunks_in, chunks_out = ceil_div(n, chunk), ceil_div(m, chunk)
    reads, writes = rng.random((ranks, chunks_in)) < 0.5, rng.random((ranks, chunks_out)) < 0.5
    alive = np.asarray(reads.any(axis=1) & writes.any(axis=1))[:, None]
    tiles = (rng.random((chunks_out, chunks_in)) < 0.3) & dense
    return Structure(tiles, reads & alive, writes & alive)


@pytest.mark.parametrize(("m", "n", "ranks", "chunk"), [(1, 1, 1, 4), (7, 13, 5, 3), (16, 8, 0, 4), (12, 20, 9, 8)])
def test_forward_is_the_evaluated_matrix(m: int, n: int, ranks: int, chunk: int) -> None:
    torch.manual_seed(0)
    layer = LatticeLinear(n, m, _structure(m, n, ranks, chunk), chunk, chunk)
    with torch.no_grad():
        nn.init.normal_(layer.get_parameter("bias"))
    factors = evaluate(layer.weights())
    x = torch.randn(3, 2, n)
    wanted = x.numpy().astype(np.float64) @ factors.matrix().T + layer.get_parameter("bias").detach().numpy()
    assert np.allclose(layer(x).detach().numpy(), wanted, atol=1e-5)
    assert structure_of(factors, chunk, chunk).tile_count(chunk, chunk) == layer.structure.tile_count(chunk, chunk)


def test_training_never_leaves_the_structure() -> None:
    torch.manual_seed(0)
    structure = _structure(12, 20, 6, 4)
    layer = LatticeLinear(20, 12, structure, 4, 4)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1)
    for _ in range(5):
        optimiser.zero_grad()
        layer(torch.randn(8, 20)).square().sum().backward()
        optimiser.step()
    layer.weights()  # refuses entries outside the structure
    assert (layer.structure.reads == structure.reads).all()


def test_state_dict_carries_the_structure() -> None:
    source = LatticeLinear(20, 12, _structure(12, 20, 6, 4, seed=1), 4, 4)
    target = LatticeLinear(20, 12, _structure(12, 20, 6, 4, seed=2), 4, 4)
    target.load_state_dict(source.state_dict())
    x = torch.randn(5, 20)
    assert torch.equal(source(x), target(x))
    assert set(source.state_dict()) == {"u", "v", "dense", "bias", "reads", "writes", "tiles"}
    assert torch.equal(LatticeLinear.from_weights(source.weights())(x), source(x))


def test_smaller_structure_zeroes_what_it_leaves_out() -> None:
    layer = LatticeLinear(8, 8, Structure.full(8, 8, 3, 4, 4), 4, 4)
    keep = np.array([[True], [False], [True]])
    full = layer.structure
    layer.set_structure(Structure(full.tiles, full.reads & keep, full.writes & keep))
    assert not layer.u[:, 1].any()
    assert not layer.v[1].any()
    assert layer.structure.ranks == 2


@pytest.mark.parametrize("family", ["block_sparse", "low_rank", "rank_groups", "lattice"])
@pytest.mark.parametrize(("m", "n"), [(7, 5), (5, 7), (8, 8)])
def test_every_family_starts_as_the_dense_layer(family: str, m: int, n: int) -> None:
    linear = nn.Linear(n, m)
    layer = layer_start(linear, family, 4, 4)
    x = torch.randn(6, n)
    assert torch.allclose(layer(x), linear(x), atol=1e-5)
    assert layer.weights().family == family


def test_gblr_and_the_lattice_made_of_it_agree() -> None:
    torch.manual_seed(0)
    gblr = gblr_from_linear(nn.Linear(24, 20), width=0.4).eval()
    lattice = lattice_from_factors(evaluate(gblr.weights()), 8, 8)
    x = torch.randn(4, 24)
    assert torch.allclose(gblr(x), lattice(x), atol=1e-5)
    empty = GBLRLinear(24, 20, 4, gaussian=False)
    nn.init.zeros_(empty.widths)
    assert lattice_from_factors(evaluate(empty.weights()), 8, 8).u.shape == (20, 0)


def test_gblr_start_is_near_the_dense_layer() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(32, 32)
    weight = linear.weight.detach()
    error = (gblr_from_linear(linear).eval().matrix().detach() - weight).norm() / weight.norm()
    assert float(error) < 0.5


def test_pattern_without_a_layer_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert matching_linears(model, "[01]") == ["0", "1"]
    with pytest.raises(InputError, match="must match a linear layer"):
        matching_linears(model, "blocks.*")


# Tile by tile with and without ranks; then ranks alone, small tiles, nothing at all.
_BY_TILE = [(64, 48, 16, 12, True), (40, 72, 0, 16, True)]
_PACKED = [*_BY_TILE, (48, 40, 9, 16, False), (13, 7, 5, 3, True), (16, 8, 0, 4, False)]


@pytest.mark.parametrize(
    ("m", "n", "ranks", "chunk", "dense", "compiled"),
    [*((*case, False) for case in _PACKED), *((*case, True) for case in _BY_TILE)],
)
def test_packed_gives_the_masked_numbers_and_gradients(
    m: int, n: int, ranks: int, chunk: int, dense: bool, compiled: bool
) -> None:
    torch.manual_seed(0)
    layer = LatticeLinear(n, m, _structure(m, n, ranks, chunk, dense=dense), chunk, chunk)
    x = torch.randn(3, 5, n, requires_grad=True)
    seen = []
    for packed in (False, True):
        layer.pack(packed)
        run = torch.compile(layer, backend="aot_eager") if compiled and packed else layer
        layer.zero_grad()
        x.grad = None
        y = run(x)
        y.square().sum().backward()
        grads = [p.grad for p in layer.parameters() if p.numel()]
        assert all(grad is not None for grad in grads)
        seen.append([y.detach(), torch.zeros_like(x) if x.grad is None else x.grad, *grads])
    for masked, fast in zip(*seen, strict=True):
        # 1e-6 of the largest value: both ways round in float32, in different orders.
        assert float((masked - fast).abs().max()) <= 1e-6 * max(1.0, float(masked.abs().max()))


@pytest.mark.parametrize(("kept", "chunk", "by_tile"), [(3, 16, True), (9, 16, False), (3, 8, False)])
def test_tile_by_tile_is_for_large_tiles_and_few_of_them(kept: int, chunk: int, by_tile: bool) -> None:
    tiles = np.zeros((4, 4), bool)
    tiles.flat[:kept] = True
    structure = Structure(tiles, np.zeros((0, 4), bool), np.zeros((0, 4), bool))
    layer = LatticeLinear(4 * chunk, 4 * chunk, structure, chunk, chunk)
    layer.pack()
    assert layer._tile_by_tile(torch.zeros(2, 4 * chunk)) == by_tile


def test_a_packed_layer_follows_its_structure() -> None:
    layer = LatticeLinear(48, 64, _structure(64, 48, 16, 12), 12, 12)
    layer.pack()
    full = layer.structure
    layer.set_structure(Structure(full.tiles & (np.arange(6)[:, None] < 3), full.reads & False, full.writes & False))
    x = torch.randn(2, 48)
    packed = layer(x)
    layer.pack(False)
    assert torch.allclose(layer(x), packed, atol=1e-6)


def test_tile_linear_against_finite_differences() -> None:
    x, weight = (torch.randn(3, 7, dtype=torch.float64, requires_grad=True), torch.randn(5, 7, dtype=torch.float64))
    weight.requires_grad_()
    tiles = torch.tensor([[0, 0], [1, 1], [2, 2], [2, 0]])
    assert torch.autograd.gradcheck(lambda a, b: tile_linear(a, b, tiles, 3, 2), (x, weight))
    torch.library.opcheck(tile_linear, (x.detach(), weight.detach(), tiles, 3, 2))


def test_open_gradients_are_those_of_the_layer_without_masks() -> None:
    torch.manual_seed(0)
    layer = LatticeLinear(20, 12, _structure(12, 20, 6, 4), 4, 4)
    x, out = torch.randn(5, 20), torch.randn(5, 12)
    plain = layer(x)
    layer.open_gradients = True
    y = layer(x)
    assert torch.equal(y, plain)
    (y * out).sum().backward()
    dense = layer.dense
    assert dense is not None
    assert dense.grad is not None
    assert torch.allclose(dense.grad, out.T @ x, atol=1e-5)
    v = layer.v.grad
    assert v is not None
    assert torch.allclose(v, (layer.u * layer.u_mask).T @ out.T @ x, atol=1e-5)
