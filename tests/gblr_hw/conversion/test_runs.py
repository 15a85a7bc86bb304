"""Blocks that need not run again: found where the last one's output is all that counts, and nowhere else; same inputs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from gblr_hw.conversion.fit.fit_layer import Schedule
from gblr_hw.conversion.in_order.conversion_in_order import convert_in_order
from gblr_hw.conversion.in_order.pair_moments import stages
from gblr_hw.conversion.in_order.runs import Runs, chain_of, standing

ARRAY = SimpleNamespace(rows=4, cols=4)
QUICK = Schedule(steps=1, sweeps=1, final_steps=0, final_sweeps=2)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8, bias=False)

    def forward(self, x: Tensor, scale: float = 1.0) -> tuple[Tensor]:
        return (x + scale * self.down(torch.relu(self.up(x))),)


class Stack(nn.Module):
    """Blocks in a row; `past` lets the last one see what the first returned as well."""

    def __init__(self, blocks: int, *, past: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.entry, self.blocks, self.past = nn.Linear(8, 8), nn.ModuleList(Block() for _ in range(blocks)), past

    def forward(self, x: Tensor) -> Tensor:
        x, first = self.entry(x), None
        for index, block in enumerate(self.blocks):
            if self.past and index == len(self.blocks) - 1:
                x = x + first
            x = block(x, scale=0.5)[0]
            first = x if first is None else first
        return x


class TwoStacks(nn.Module):
    """An encoder whose output every block of a decoder reads; with `turns` the lists take turns."""

    def __init__(self, *, turns: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.ModuleList(Block() for _ in range(2))
        self.between = nn.Linear(8, 8)
        self.decoder = nn.ModuleList(Block() for _ in range(3))
        self.turns = turns

    def forward(self, x: Tensor) -> Tensor:
        heard, y = x, torch.flip(x, (0,))
        if self.turns:
            for one, other in zip(self.encoder, self.decoder, strict=False):
                y = other(one(y)[0])[0]
            return self.decoder[2](self.between(y))[0]
        for block in self.encoder:
            heard = block(heard)[0]
        heard = self.between(heard)
        for block in self.decoder:
            y = block(y + heard)[0]
        return y

    def names(self) -> list[str]:
        return [name for name, one in self.named_modules() if isinstance(one, nn.Linear)]


def names(model: Stack) -> list[str]:
    return [f"blocks.{i}.{part}" for i in range(len(model.blocks)) for part in ("up", "down")]


def batches() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(5, 8) for _ in range(2)]


def test_inputs_behind_skipped_blocks_are_those_of_whole_runs() -> None:
    model, given = Stack(4), batches()
    blocks = chain_of(model, given[0], stages(model, given, names(model)))
    assert blocks == [f"blocks.{i}" for i in range(4)]
    runs = Runs(model, given, blocks)
    for count in (1, 3):
        runs.skip(count)
        for index in range(2):
            points = {"in": f"blocks.{count}.up", "out": "blocks.3.down"}
            wanted, found = Runs(model, given).inputs(index, points), runs.inputs(index, points)
            assert all(torch.equal(wanted[key], found[key]) for key in points)
    # A block that has run is not asked again, whatever becomes of it; the model itself is as it was.
    with torch.no_grad():
        model.blocks[0].up.weight.zero_()
    again, whole = (one.inputs(1, points)["in"] for one in (runs, Runs(model, given)))
    assert torch.equal(again, found["in"])
    assert not torch.equal(whole, found["in"])
    assert "forward" not in vars(model.blocks[0])


def test_no_chain_where_a_block_sees_more_than_the_one_before_returned() -> None:
    model, given = Stack(4, past=True), batches()
    assert chain_of(model, given[0], stages(model, given, names(model))) == []
    alone = Stack(1)
    assert chain_of(alone, given[0], stages(alone, given, names(alone))) == []


def test_the_work_grows_with_the_blocks_and_no_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    forward = Block.forward
    monkeypatch.setattr(Block, "forward", lambda self, x, scale: (called.append(0), forward(self, x, scale))[1])
    calls = []
    for count in (2, 4, 6):
        called.clear()
        model = Stack(count)
        convert_in_order(model, ARRAY, batches(), names(model), 0.9, schedule=QUICK)
        calls.append(len(called))
    assert calls[2] - calls[1] == calls[1] - calls[0] > 0


def test_an_encoder_stands_while_a_decoder_is_converted() -> None:
    model, given = TwoStacks(), batches()
    turns = stages(model, given, model.names())
    blocks = chain_of(model, given[0], turns)
    assert blocks == [*(f"encoder.{i}" for i in range(2)), *(f"decoder.{i}" for i in range(3))]
    assert standing(blocks, turns) == [0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4]
    runs, called = Runs(model, given, blocks), list[str]()
    for name in ("encoder.0", "encoder.1", "between", "decoder.0", "decoder.1"):
        own = model.get_submodule(name)
        own.register_forward_pre_hook(lambda *_, name=name: called.append(name))
    for count, (layer, ran) in {1: ("encoder.1.up", "encoder.1"), 3: ("decoder.1.up", "decoder.1")}.items():
        runs.skip(count)
        called.clear()
        found = runs.inputs(1, {"in": layer})["in"]
        assert called[-1] == ran
        assert torch.equal(found, Runs(model, given).inputs(1, {"in": layer})["in"])
    # Only what is between the lists runs again: blocks that stand do nothing.
    with torch.no_grad():
        model.encoder[1].up.weight.zero_()
        model.decoder[0].up.weight.zero_()
    assert torch.equal(runs.inputs(1, {"in": "decoder.1.up"})["in"], found)


def test_of_lists_that_take_turns_one_alone_is_a_chain() -> None:
    model, given = TwoStacks(turns=True), batches()
    turns = stages(model, given, model.names())
    assert chain_of(model, given[0], turns) == ["encoder.0", "encoder.1"]
    assert standing(["encoder.0", "encoder.1"], turns) == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("model", [TwoStacks(), TwoStacks(turns=True)])
def test_chains_of_two_lists_change_no_result(model: TwoStacks) -> None:
    given = batches()
    found = convert_in_order(model, ARRAY, given, model.names(), 0.8, schedule=QUICK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gblr_hw.conversion.in_order.conversion_in_order.chain_of", lambda *_: [])
        whole = convert_in_order(model, ARRAY, given, model.names(), 0.8, schedule=QUICK)
    assert all(torch.equal(found[name].matrix(), whole[name].matrix()) for name in found)


@pytest.mark.parametrize("past", [False, True])
def test_chains_change_no_result(past: bool) -> None:
    model, given = Stack(3, past=past), batches()
    found = convert_in_order(model, ARRAY, given, names(model), 0.8, schedule=QUICK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gblr_hw.conversion.in_order.conversion_in_order.chain_of", lambda *_: [])
        whole = convert_in_order(model, ARRAY, given, names(model), 0.8, schedule=QUICK)
    assert all(torch.equal(found[name].matrix(), whole[name].matrix()) for name in found)
