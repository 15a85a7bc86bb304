"""Packed layers compute what the layers did, let gradients through, and are the dense product where that is less."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.layers.packed_linear import PackedLinear, pack
from gblr_hw.weights.structure import Structure


def lattice(ranks: float, tiles: float, *, whole: bool = False, count: int = 24, bias: bool = True) -> LatticeLinear:
    rng = np.random.default_rng(1)
    reads, writes = rng.random((count, 7)) < ranks, rng.random((count, 4)) < ranks
    if whole:
        reads[:], writes[:] = True, True
    alive = reads.any(1) & writes.any(1)
    structure = Structure(rng.random((4, 7)) < tiles, reads & alive[:, None], writes & alive[:, None])
    torch.manual_seed(0)
    return LatticeLinear(100, 60, structure, 16, 16, bias=bias)  # 100 and 60 leave short chunks


LAYERS = {
    "block sparse": lambda: lattice(0.0, 0.3),
    "lattice": lambda: lattice(0.3, 0.2),
    "ranks alone": lambda: lattice(0.3, 0.0, bias=False),
    "low rank": lambda: lattice(0.0, 0.0, whole=True, count=8),
    "nothing": lambda: lattice(0.0, 0.0),
    "too many": lambda: lattice(0.9, 0.9),
    "gblr": lambda: GBLRLinear(100, 60, 12, init_width=0.3),
    "gblr on windows": lambda: GBLRLinear(100, 600, 200, init_width=0.05),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_packed_layer_computes_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for price in ("_MOVED", "_PART"):  # so small a layer would be dense
        monkeypatch.setattr(f"gblr_hw.layers.packed_linear.{price}", 0.0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 100), LAYERS[kind]()).eval()
    with torch.no_grad():
        for parameter in model[1].parameters():
            if parameter.dim() == 1:
                parameter.normal_()
    packed, x = pack(model), torch.randn(3, 5, 20)
    assert isinstance(packed[1], PackedLinear) and not isinstance(model[1], PackedLinear)
    assert (packed[1].matrix is not None) == (kind == "too many")
    assert (packed[1].turn is not None) == (kind == "gblr on windows")
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(packed(x), model(x), atol=1e-5, rtol=0)
    if kind == "nothing":
        return  # zeros, which no input moves
    slopes = []
    for one in (model, packed):
        one(x).square().sum().backward()
        slopes.append(one[0].weight.grad)
    torch.testing.assert_close(slopes[1], slopes[0], atol=1e-3, rtol=1e-5)


def test_a_layer_whose_inputs_would_be_moved_more_than_used_is_dense() -> None:
    assert pack(lattice(0.0, 0.3)).matrix is not None and pack(lattice(0.0, 0.0)).matrix is None
