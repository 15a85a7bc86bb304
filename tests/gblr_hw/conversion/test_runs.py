"""Blocks that need not run again: found where the last one's output is all that counts, and nowhere else; same inputs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from gblr_hw.conversion.fit.fit_layer import Schedule
from gblr_hw.conversion.in_order.conversion_in_order import convert_in_order
from gblr_hw.conversion.in_order.pair_moments import stages
from gblr_hw.conversion.in_order.runs import Runs, chain_of

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


@pytest.mark.parametrize("past", [False, True])
def test_chains_change_no_result(past: bool) -> None:
    model, given = Stack(3, past=past), batches()
    found = convert_in_order(model, ARRAY, given, names(model), 0.8, schedule=QUICK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gblr_hw.conversion.in_order.conversion_in_order.chain_of", lambda *_: [])
        whole = convert_in_order(model, ARRAY, given, names(model), 0.8, schedule=QUICK)
    assert all(torch.equal(found[name].matrix(), whole[name].matrix()) for name in found)
