"""Layers whose outputs, or ranks, do not fit the parameter memory together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gblr_hw import MonarchLinear, lower
from gblr_hw.lowering.split_wide import narrow_parts
from gblr_hw.weights import factors
from gblr_hw.weights.chains import BLASTWeights, MonarchWeights
from gblr_hw.weights.factors import evaluate
from gblr_hw.weights.stored import DenseWeights
from simulator import Machine, execute, simulate
from simulator.program.operations import Op

SMALL = Machine.load("edge-16").with_(name="small", vector={"parameter_kib": 1})  # for 64 outputs without ranks
TOKENS = 24


def monarch() -> MonarchWeights:
    torch.manual_seed(0)
    return MonarchWeights(torch.randn(4, 64, 16), torch.randn(4, 16, 64), in_features=64, out_features=64)


def blast(blocks: int, rank: int) -> BLASTWeights:
    torch.manual_seed(0)
    size = 64 // blocks
    bases = torch.randn(blocks, size, rank), torch.randn(blocks, rank, size)
    return BLASTWeights(*bases, torch.randn(blocks, blocks, rank), torch.randn(64))


@pytest.mark.parametrize("weights", [monarch(), blast(4, 16)], ids=["Monarch", "BLAST"])
def test_ranks_that_all_parts_need_become_the_matrix(weights):
    """Their table leaves room for 16 outputs, and the parts would multiply more than the matrix."""
    assert [name for name, _ in narrow_parts("layer", weights, SMALL)] == ["layer"]
    program = lower({"layer": weights}, SMALL, tokens=TOKENS)
    dense = lower({"layer": DenseWeights(weights.matrix().float(), weights.bias)}, SMALL, tokens=TOKENS)
    assert simulate(program, SMALL).latency_cycles == simulate(dense, SMALL).latency_cycles
    inputs = np.random.default_rng(0).normal(size=(TOKENS, 64))
    expected = inputs @ weights.matrix().numpy().T + (0 if weights.bias is None else weights.bias.numpy())
    assert np.allclose(execute(program, {"layer": inputs})["layer"], expected, atol=1e-4)


def test_a_network_takes_the_matrix_as_well():
    torch.manual_seed(0)
    model = nn.Sequential(MonarchLinear(64, 64, 4, values=64, bias=False)).eval()
    program = lower(model, SMALL, example_inputs=(torch.randn(TOKENS, 64),))
    assert [layer.form for layer in program.layers] == ["dense"]


def test_parts_whose_ranks_multiply_less_keep_them():
    parts = list(narrow_parts("layer", blast(1, 8), SMALL))
    assert [name for name, _ in parts] == ["layer[0:32]", "layer[32:64]"]
    assert [evaluate(held).ranks for _, held in parts] == [8, 8]


def test_ranks_of_more_bits_than_dense_tiles_stay_ranks():
    parts = list(narrow_parts("layer", monarch(), SMALL, (Op.DENSE,)))
    assert [evaluate(held).ranks for _, held in parts] == [256] * 4


@pytest.mark.parametrize("weights", [monarch(), blast(4, 16)], ids=["Monarch", "BLAST"])
def test_a_large_product_goes_block_by_block(weights, monkeypatch):
    whole = evaluate(weights).matrix()
    monkeypatch.setattr(factors, "_LARGE", 1)
    assert np.allclose(evaluate(weights).matrix(), whole, atol=1e-9)
