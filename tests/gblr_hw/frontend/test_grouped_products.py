"""Products with parameters that differ by head, expert or block: one operator of its own, and chains of them a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gblr_hw import BLASTLinear, MonarchLinear, lower
from gblr_hw.frontend import export_network, multiplications_of
from gblr_hw.weights.factors import evaluate
from simulator import Machine, simulate
from simulator.numbers.execute_network import execute_network
from tests.drawn.frontend_models import check

MACHINE = Machine.load("edge-16")
Forward = Callable[["Weighted", Tensor], Tensor]


class Weighted(nn.Module):
    """A forward function over parameters of given shapes."""

    def __init__(self, forward: Forward, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = forward
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape) / 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def kinds(model: nn.Module, x: Tensor, tolerance: float = 1e-6) -> list[tuple[str, str]]:
    """Operators of a model's graph, which computes what the model does: kind, and the kind of its weights."""
    exported = check(model.eval(), (x,), tolerance)
    return [
        (one.kind, type(exported.weights[one.name]).__name__ if one.kind == "linear" else one.steps[-1].function)
        for one in exported.network.operators
    ]


GROUPED = [("linear", "GroupedWeights")]
# Name -> (model, input's shape, operators)
ALONE: dict[str, tuple[nn.Module, tuple[int, ...], list[tuple[str, str]]]] = {
    "bmm": (Weighted(lambda s, x: torch.bmm(x, s.w), w=(3, 6, 5)), (3, 7, 6), GROUPED),
    "matmul": (Weighted(lambda s, x: x @ s.w, w=(3, 6, 5)), (2, 3, 7, 6), GROUPED),
    "crosswise": (Weighted(lambda s, x: s.w @ x, w=(3, 5, 6)), (3, 6, 7), GROUPED),
    "baddbmm": (Weighted(lambda s, x: torch.baddbmm(s.b, x, s.w), w=(3, 6, 5), b=(3, 1, 5)), (3, 7, 6), GROUPED),
    "einsum": (Weighted(lambda s, x: torch.einsum("bthk,hkn->bthn", x, s.w), w=(3, 6, 5)), (2, 7, 3, 6), GROUPED),
    "heads": (
        Weighted(lambda s, x: (x.view(2, 7, 3, 6).transpose(1, 2) @ s.w).transpose(1, 2).reshape(2, 7, 15), w=(3, 6, 5)),
        (2, 7, 18), GROUPED,
    ),
    "two dimensions of groups": (
        Weighted(lambda s, x: torch.einsum("tabk,abkn->tabn", x, s.w), w=(2, 3, 4, 5)), (7, 2, 3, 4), GROUPED,
    ),
    "strided groups": (
        Weighted(lambda s, x: torch.einsum("tkh,hkn->thn", x.view(7, 6, 3), s.w), w=(3, 6, 5)), (7, 18),
        GROUPED,
    ),
    "every group reads all": (
        Weighted(lambda s, x: torch.einsum("tk,hkn->htn", x, s.w), w=(3, 6, 5)), (7, 6), [("linear", "DenseWeights")],
    ),
    "the same for all": (
        Weighted(lambda s, x: x @ s.w.expand(3, 6, 5), w=(1, 6, 5)), (3, 7, 6), [("linear", "DenseWeights")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(ALONE))
def test_a_product_with_weights_of_each_groups_own(name: str) -> None:
    model, shape, operators = ALONE[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert kinds(model, x) == operators
    exported = export_network(model, x)
    entries = sum(one.numel() for name, one in model.named_parameters() if name == "w")
    rows = sum(one.rows for one in exported.network.operators if one.kind == "linear")
    assert sum(multiplications_of(exported.network, exported.weights).values()) == entries * rows
    program = lower(model, MACHINE, example_inputs=(x,), calibration=[x, -x])
    (port,) = program.network.inputs
    want = model(x).detach().numpy()
    (exact,) = execute_network(program, {port.name: x.numpy()}).values()
    assert np.allclose(exact, want, atol=1e-5)
    (codes,) = execute_network(program, {port.name: x.numpy()}, mode="int8").values()
    assert np.linalg.norm(codes - want) < 0.03 * np.linalg.norm(want)


def test_blocks_cost_the_tiles_that_they_need() -> None:
    """Sixteen blocks of 16 x 16 are sixteen tiles of a 16 x 16 array, four of 4 x 4 are one; blocks may straddle."""
    for groups, side, tiles in ((16, 16, 16), (4, 4, 1), (3, 20, 10)):
        model = Weighted(lambda s, x: torch.einsum("thk,hkn->thn", x, s.w), w=(groups, side, side)).eval()
        program = lower(model, MACHINE, example_inputs=(torch.randn(20, groups, side),))
        assert program.tile_count == tiles


def blast_by_einsum(s: Any, x: Tensor) -> Tensor:
    z = torch.einsum("...jp,jrp->...jr", x.reshape(*x.shape[:-1], len(s.C), -1), s.C)
    w = torch.einsum("...jr,ijr->...ir", z, s.D)
    return torch.einsum("...ir,ipr->...ip", w, s.B).reshape(*x.shape[:-1], -1) + s.bias


def blast_by_bmm(s: Any, x: Tensor) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    z = torch.bmm(rows.reshape(len(rows), len(s.C), -1).transpose(0, 1), s.C.transpose(1, 2))
    w = (z.unsqueeze(0) * s.D.unsqueeze(2)).sum(1)
    y = torch.bmm(w, s.B.transpose(1, 2)).transpose(0, 1)
    return y.reshape(*x.shape[:-1], -1) + s.bias


def monarch_by_einsum(s: Any, x: Tensor) -> Tensor:
    (k, _, p), (l, _, r) = s.blkdiag1.shape, s.blkdiag2.shape  # noqa: E741
    z = torch.einsum("...kp,kqp->...kq", x.reshape(*x.shape[:-1], k, p), s.blkdiag1)
    y = torch.einsum("...rl,lsr->...sl", z.reshape(*x.shape[:-1], r, l), s.blkdiag2)
    return y.reshape(*x.shape[:-1], -1) + s.bias


def monarch_by_bmm(s: Any, x: Tensor) -> Tensor:
    (k, _, p), (l, _, r) = s.blkdiag1.shape, s.blkdiag2.shape  # noqa: E741
    rows = x.reshape(-1, x.shape[-1])
    z = torch.bmm(rows.reshape(-1, k, p).transpose(0, 1), s.blkdiag1.transpose(1, 2)).transpose(0, 1)
    z = z.reshape(len(rows), r, l).transpose(-1, -2).contiguous().transpose(0, 1)
    y = torch.bmm(z, s.blkdiag2.transpose(1, 2)).permute(1, 2, 0)
    return y.reshape(*x.shape[:-1], -1) + s.bias


@pytest.mark.parametrize("shape", [(9, 96), (2, 5, 96)])
@pytest.mark.parametrize("forward", [blast_by_einsum, blast_by_bmm, monarch_by_einsum, monarch_by_bmm])
def test_a_chain_written_by_hand_is_the_modules_layer(forward: Forward, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    is_blast = "blast" in forward.__name__
    module: Any = (BLASTLinear(96, 64, (4, 3), 16) if is_blast else MonarchLinear(96, 64, (4, 8))).eval()
    hand = Weighted(forward, **{name: tuple(one.shape) for name, one in module.named_parameters()})
    hand.load_state_dict(module.state_dict())
    x = torch.randn(shape)
    assert kinds(hand, x) == [("linear", "BLASTWeights" if is_blast else "ChainWeights")]
    mine, own = (evaluate(*export_network(one, x).weights.values()) for one in (hand, module))
    # The output's port turns what is written by hand; nothing need be stored in another order.
    assert np.allclose(mine.matrix(), own.stored_matrix(), atol=1e-6)
    assert mine.multiplications == own.multiplications
    assert len(mine.mix_value) == len(own.mix_value)
    last = nn.Sequential(nn.ReLU(), nn.Linear(64, 32))
    networks = [nn.Sequential(one, last).eval() for one in (hand, module)]
    programs = [lower(one, MACHINE, example_inputs=(x,)) for one in networks]
    cycles = [simulate(program, MACHINE).latency_cycles for program in programs]
    assert abs(cycles[0] - cycles[1]) <= 0.05 * cycles[1]
    for program in programs:
        (found,) = execute_network(program, {program.network.inputs[0].name: x.numpy()}).values()
        assert np.allclose(found, networks[1](x).detach(), atol=1e-5)


def padded_monarch(s: Any, x: Tensor) -> Tensor:
    (k, _, p), (l, size, r) = s.blkdiag1.shape, s.blkdiag2.shape  # noqa: E741
    z = torch.einsum("tkp,kqp->tkq", nn.functional.pad(x, (0, k * p - x.shape[1])).view(-1, k, p), s.blkdiag1)
    y = torch.einsum("trl,lsr->tsl", z.reshape(-1, r, l), s.blkdiag2).reshape(-1, size * l)
    return y[:, : s.outputs] + s.bias


@pytest.mark.parametrize("mode", ["float", "int8"])
def test_outputs_that_are_cut_off_cost_what_they_do_in_a_checkpoint(mode: str) -> None:
    torch.manual_seed(0)
    module: Any = MonarchLinear(125, 170, 6, values=24).eval()
    hand = Weighted(padded_monarch, **{name: tuple(one.shape) for name, one in module.named_parameters()})
    hand.load_state_dict(module.state_dict())
    hand = hand.eval()
    hand.outputs = 170
    x = torch.randn(60, 125)
    expected = module(x).detach().numpy()
    cycles = [simulate(lower({"q": module.weights()}, MACHINE, 60), MACHINE).latency_cycles]
    for model in (module, hand):
        program = lower(model, MACHINE, example_inputs=(x,), calibration=[x] if mode == "int8" else None)
        assert program.layers[0].reorders and len(program.layers) == 1
        cycles.append(simulate(program, MACHINE).latency_cycles)
        (found,) = execute_network(program, {program.network.inputs[0].name: x.numpy()}, mode).values()
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert error <= (1e-5 if mode == "float" else 0.03)
        # Somebody reads them now: they stay in their own order.
        before = nn.Sequential(model, nn.ReLU(), nn.Linear(170, 8)).eval()
        program = lower(before, MACHINE, example_inputs=(x,))
        assert not any(layer.reorders for layer in program.layers)
        (found,) = execute_network(program, {program.network.inputs[0].name: x.numpy()}).values()
        assert np.allclose(found, before(x).detach(), atol=1e-5)
    assert max(cycles) <= 1.05 * min(cycles)


def test_only_a_chain_that_nothing_else_reads_is_fused() -> None:
    def chain(between: Callable[[Tensor], Tensor], also: Callable[[Tensor], Tensor] | None = None) -> nn.Module:
        def forward(s: Any, x: Tensor) -> Tensor:
            z = torch.einsum("tgk,gkn->tgn", x, s.w)
            y = torch.einsum("tng,ngm->tnm", between(z), s.v)
            return y if also is None else y + also(z)

        return Weighted(forward, w=(4, 6, 8), v=(8, 4, 4))

    x = torch.randn(5, 4, 6)
    order = torch.randperm(4)
    fused = [("linear", "ChainWeights")]
    assert kinds(chain(lambda z: z.transpose(1, 2)), x) == fused
    assert kinds(chain(lambda z: (2 * z + 1).transpose(1, 2)), x) == fused
    assert kinds(chain(lambda z: z[:, order].transpose(1, 2)), x) == fused
    for model in (
        chain(lambda z: torch.relu(z).transpose(1, 2)),
        chain(lambda z: z.transpose(1, 2), lambda z: z.transpose(1, 2)),
        chain(lambda z: z.flip(0).transpose(1, 2)),  # rows meet others
        chain(lambda z: z.cumsum(0).transpose(1, 2)),
        chain(lambda z: (z * torch.arange(5.0)[:, None, None]).transpose(1, 2)),  # rows differ
    ):
        assert ("linear", "ChainWeights") not in kinds(model, x)


def test_two_dense_layers_stay_two_operators() -> None:
    model = nn.Sequential(nn.Linear(12, 2), nn.Linear(2, 12))
    assert kinds(model, torch.randn(5, 12)) == [("linear", "DenseWeights")] * 2


def test_a_chain_that_multiplies_more_than_its_matrix_is_that_matrix() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        z = torch.einsum("tgk,gkn->tgn", x, s.w)
        return torch.einsum("tgn,gnm->tgm", z, s.v)

    model = Weighted(forward, w=(2, 3, 16), v=(2, 16, 3))
    assert kinds(model, torch.randn(5, 2, 3)) == [("linear", "DenseWeights")]


def test_a_dense_layer_before_stays_by_itself() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.w = nn.Linear(40, 8), nn.Parameter(torch.randn(4, 2, 20))

        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("tgk,gkn->tgn", self.first(x).view(-1, 4, 2), self.w).flatten(1)

    assert kinds(Model(), torch.randn(5, 40)) == [("linear", "DenseWeights"), ("linear", "GroupedWeights")]


def test_rows_in_other_sequences_reach_the_output() -> None:
    """Flattened rows, a nonlinearity behind the chain, and a layer behind that."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.chain, self.last = (
                Weighted(blast_by_bmm, B=(2, 6, 4), C=(3, 4, 4), D=(2, 3, 4), bias=(12,)),
                nn.Linear(12, 3),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.chain(x)))

    found = kinds(Model(), torch.randn(2, 5, 12))
    assert found == [("linear", "BLASTWeights"), ("vector", "relu"), ("linear", "DenseWeights")]


def test_outputs_that_padding_adds_are_not_moved_apart():
    """A Monarch layer by hand whose last outputs are padding: those that stay are written in their order."""
    layer = MonarchLinear(60, 70, 4, values=8).eval()
    (k, q, p), (l, s, r) = layer.blkdiag1.shape, layer.blkdiag2.shape  # noqa: E741

    def by_hand(own: Weighted, x: Tensor) -> Tensor:
        values = torch.einsum("nkp,kqp->nkq", x.reshape(-1, k, p), own.first).reshape(-1, r, l)
        outputs = torch.einsum("nrl,lsr->nsl", values, own.second).reshape(-1, l * s)
        return outputs[:, :70] + own.bias

    model = Weighted(by_hand, first=(k, q, p), second=(l, s, r), bias=(70,))
    x = torch.randn(40, 60)
    assert l * s > 70
    assert kinds(model, x)[0] == ("linear", "ChainWeights")
    with torch.no_grad():
        for mine, theirs in ((layer.blkdiag1, model.first), (layer.blkdiag2, model.second), (layer.bias, model.bias)):
            mine.copy_(theirs)
    assert torch.allclose(layer(x), model(x), atol=1e-5)
    programs = [lower(one, MACHINE, example_inputs=(x,)) for one in (layer, model)]
    assert len(programs[1].layers) <= 2  # the chain, and the bias that is added behind what is left out
    cycles = [simulate(program, MACHINE).latency_cycles for program in programs]
    assert cycles[1] <= 1.5 * cycles[0]
