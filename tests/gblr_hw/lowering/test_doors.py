"""One layer as a checkpoint, as our module and as somebody's own with batched products: one function, one price."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw import BLASTLinear, MonarchLinear, lower
from gblr_hw.lowering.emit.emit import emit
from gblr_hw.lowering.lower_layer import lower_layer
from gblr_hw.lowering.passes.block_tokens import sum_places
from gblr_hw.weights.stored import DenseWeights
from simulator import Machine, Program, execute, execute_network
from simulator.program.operations import Op
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine
from tests.oracles.hazards import hazards


class OwnBLAST(nn.Module):
    """BLAST as people write it, by ``bmm``."""

    def __init__(self, layer: BLASTLinear) -> None:
        super().__init__()
        self.B, self.C, self.D, self.bias = layer.B, layer.C, layer.D, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        blocks = x.reshape(len(x), len(self.C), -1).transpose(0, 1)
        inner = torch.bmm(blocks, self.C.transpose(1, 2))
        mixed = torch.bmm(inner.permute(2, 1, 0), self.D.permute(2, 1, 0))
        outer = torch.bmm(mixed.permute(2, 1, 0), self.B.transpose(1, 2))
        y = outer.transpose(0, 1).reshape(len(x), -1)
        return y if self.bias is None else y + self.bias


class OwnMonarch(nn.Module):
    """Monarch as people write it, by ``einsum``."""

    def __init__(self, layer: MonarchLinear) -> None:
        super().__init__()
        self.first, self.second, self.bias = layer.blkdiag1, layer.blkdiag2, layer.bias
        self.outputs = layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        (k, _, p), (l, _, r) = self.first.shape, self.second.shape  # noqa: E741
        padded = functional.pad(x, (0, k * p - x.shape[1]))
        values = torch.einsum("tkp,kqp->tkq", padded.reshape(len(x), k, p), self.first)
        turned = values.reshape(len(x), r, l).transpose(1, 2)
        y = torch.einsum("tlr,lsr->tls", turned, self.second).transpose(1, 2).reshape(len(x), -1)[:, : self.outputs]
        return y if self.bias is None else y + self.bias


def monarch(inputs: int, outputs: int, blocks: tuple[int, int], values: int, *, bias: bool) -> tuple[nn.Module, ...]:
    layer = MonarchLinear(inputs, outputs, blocks, values=values, bias=bias).eval()
    return layer, OwnMonarch(layer).eval()


def blast(inputs: int, outputs: int, blocks: tuple[int, int], rank: int, *, bias: bool) -> tuple[nn.Module, ...]:
    layer = BLASTLinear(inputs, outputs, blocks, rank, bias=bias).eval()
    with torch.no_grad():
        layer.D.normal_()
    return layer, OwnBLAST(layer).eval()


def cycles(program: Program) -> int:
    return int(run_engine(resolve_timing(program, program.machine)).done.max())


CASES = [
    (lambda: monarch(70, 96, (6, 5), 6, bias=True), "mid-32", 384),
    (lambda: monarch(97, 211, (6, 2), 21, bias=True), "edge-16", 384),
    (lambda: monarch(424, 108, (2, 8), 5, bias=False), "plain-32", 384),
    (lambda: blast(240, 408, (8, 3), 68, bias=True), "cloud-128", 64),
    (lambda: blast(256, 280, (8, 8), 122, bias=False), "mid-32", 64),  # multiplies more than the whole matrix
    (lambda: monarch(60, 90, (3, 4), 45, bias=True), "mid-32", 197),  # the same, with strided outputs
]


@pytest.mark.parametrize(("make", "machine_name", "tokens"), CASES)
def test_the_same_layer_by_every_door(make, machine_name, tokens):
    torch.manual_seed(1)
    layer, own = make()
    machine, x = Machine.load(machine_name), torch.randn(tokens, layer.in_features)
    plain = lower({"q": layer.weights()}, machine, tokens=tokens)
    networks = [lower(module, machine, example_inputs=(x,)) for module in (layer, own)]
    with torch.no_grad():
        wanted = own(x).numpy()
    found = [execute(plain, {"q": x.numpy()})["q"]]
    found += [*(execute_network(one, {one.network.inputs[0].name: x.numpy()}).popitem()[1] for one in networks)]
    for numbers in found:
        np.testing.assert_allclose(numbers.reshape(wanted.shape), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    times = [cycles(one) for one in (plain, *networks)]
    assert max(times) <= 1.05 * min(times)


def test_an_own_chain_that_saves_nothing_is_one_dense_product():
    torch.manual_seed(1)
    _, own = blast(256, 280, (8, 8), 122, bias=False)
    program = lower(own, Machine.load("mid-32"), example_inputs=(torch.randn(16, 256),))
    kinds = {int(kind) for one in program.layers for kind in one.tiles.kind}
    assert kinds == {Op.DENSE} and sum(len(one.tiles) for one in program.layers) == 8 * 9


def test_smaller_blocks_are_taken_where_they_are_faster_and_load_no_weights_again():
    torch.manual_seed(1)
    machine = Machine.load("mid-32")
    small, large = DenseWeights(torch.randn(96, 64)), DenseWeights(torch.randn(512, 384))
    cut, whole = (lower({"q": one}, machine, tokens=384) for one in (small, large))
    assert cut.layers[0].block_tokens < 384 == whole.layers[0].block_tokens
    assert np.count_nonzero(cut.instructions.op == Op.LOAD_WEIGHTS) == 6
    uncut = [lower_layer("q", small, machine, 384, stage=True)]
    assert uncut[0].block_tokens == 384
    assert cycles(cut) < 0.9 * cycles(emit(uncut, machine, 384, {}))


@pytest.mark.parametrize("tokens", [50, 100, 130])
def test_layers_of_different_places_share_the_accumulators(tokens):
    """Their blocks differ, because their ranks and inputs take different room."""
    machine = Machine.load("edge-16").with_(
        name="small", accumulator={"kib": 8}, rank_memory={"kib": 8}, scratchpad={"kib": 12}, dram={"gb_per_s": 50.0}
    )
    torch.manual_seed(tokens)
    layers = {
        "narrow": DenseWeights(torch.randn(50, 20)),
        "wide": DenseWeights(torch.randn(40, 170)),
        "ranks": BLASTLinear(60, 90, (3, 4), 9).eval().weights(),
        "again": DenseWeights(torch.randn(70, 20)),
    }
    program = lower(layers, machine, tokens=tokens)
    assert len({sum_places(machine, layer.block_tokens) for layer in program.layers}) > 1
    timing = resolve_timing(program, machine)
    assert hazards(program, machine, timing, run_engine(timing)) == []
    x = {name: np.random.default_rng(0).normal(size=(tokens, one.in_features)) for name, one in layers.items()}
    for name, numbers in execute(program, x).items():
        bias = layers[name].bias
        matrix = layers[name].weight.double() if name != "ranks" else layers[name].matrix()
        wanted = x[name] @ matrix.numpy().T + (0.0 if bias is None else bias.detach().double().numpy())
        np.testing.assert_allclose(numbers, wanted, rtol=0, atol=1e-4)
