"""Branches and shapes that depend on data: what decides by itself, what is refused, and the ways out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gblr_hw
from gblr_hw.frontend import ExportedNetwork, export_network
from gblr_hw.layers.linear import GBLRLinear
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.numbers.execute_network import execute_network
from tests.gblr_hw.frontend import test_any_call


class Routed(nn.Module):
    """Experts as many write them: each runs on the tokens that chose it, and their results are added in place."""

    def __init__(self, loop: str = "nonzero") -> None:
        super().__init__()
        self.loop = loop
        self.gate = nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        scores, chosen = self.gate(x).softmax(-1).topk(2, -1)
        found = torch.zeros_like(x)
        if self.loop == "tolist":
            order = chosen.flatten().argsort()
            rows = (x[order // 2]).split(torch.bincount(chosen.flatten(), minlength=3).tolist())
            results = torch.cat([one(part) for one, part in zip(self.experts, rows, strict=True)])
            return found.index_add(0, order // 2, results * scores.flatten()[order, None])
        for number, expert in enumerate(self.experts):
            token, place = torch.where(chosen == number)
            if token.numel() == 0:
                continue
            found.index_add_(0, token, expert(x[token]) * scores[token, place, None])
        return found


class Masked(nn.Module):
    """Asks about its mask; what it does with weights depends on no data."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.linear(x)
        return y if mask.all() else y * mask[..., None] + x[mask.bool()].mean()


class Chunked(nn.Module):
    """Shapes from a float input's values."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        kept = x[x[:, 0] > 0]
        return self.linear(kept).sum(0) + self.linear(torch.masked_select(x, x > 0)[:4])


class Scattered(nn.Module):
    """Parts of another kind, put where a mask of words says so."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.other = nn.Embedding(9, 8), nn.Linear(4, 8)

    def forward(self, words: Tensor, parts: Tensor) -> Tensor:
        rows = self.table(words)
        where = (words == 3)[..., None].expand_as(rows)
        return rows.masked_scatter(where, self.other(parts)) * 2


class Repeated(nn.Module):
    """A sequence made longer by what a layer predicts."""

    def __init__(self) -> None:
        super().__init__()
        self.length, self.out = nn.Linear(4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        counts = self.length(x).squeeze(-1).abs().mul(3).ceil().long()
        return self.out(torch.repeat_interleave(x, counts, 0))


def agrees(exported: ExportedNetwork, inputs: dict[str, Tensor], wanted: Tensor) -> None:
    test_any_call.agrees(exported, inputs, {"output": wanted.detach()})


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(2)


def rows() -> Tensor:
    return torch.randn(6, 8)


CASES = {
    "experts, found": (Routed, lambda: (rows(),)),
    "experts, split": (lambda: Routed("tolist"), lambda: (rows(),)),
    "rows that are kept": (Chunked, lambda: (torch.randn(7, 4),)),
    "repeated": (Repeated, lambda: (torch.randn(5, 4),)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_weights_and_numbers_decide_is_refused_and_the_way_out_works(name: str, capfd) -> None:
    make, inputs = CASES[name]
    model, given = make().eval(), inputs()
    with pytest.raises(InputError) as found:
        export_network(model, given)
    text = str(found.value)
    assert f"{__file__}:" in text and "a branch or a shape depends there on the values of 'x'" in text
    assert "--by-example" in text and "FILE.py:FUNCTION" in text and len(text) < 1000
    exported = export_network(model, given, by_example=True)
    agrees(exported, {"x": given[0]}, model(*given))
    assert any(note.startswith("Decided once, by the example's 'x'") for note in exported.notes)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("loop", ["nonzero", "tolist"])
def test_the_load_of_each_expert_is_told(loop: str) -> None:
    model, x = Routed(loop).eval(), rows()
    chosen = model.gate(x).topk(2, -1).indices.flatten()
    load = torch.bincount(chosen, minlength=3).tolist()
    (note,) = export_network(model, x, by_example=True).decided
    assert "(rows or numbers there, in order: " in note
    assert note.endswith(f"{', '.join(map(str, load))})")


def test_a_mask_decides_by_itself_and_is_noted() -> None:
    model, x = Masked().eval(), torch.randn(2, 3, 8)
    for mask in (torch.ones(2, 3, dtype=torch.long), torch.tensor([[1, 1, 0], [1, 0, 0]])):
        exported = export_network(model, (x, mask))
        agrees(exported, {"x": x, "mask": mask}, model(x, mask))
        assert any("'mask'" in note and "mask.all()" in note for note in exported.decided)
        assert not any("'x'" in note for note in exported.decided)


def test_what_a_mask_of_words_puts_in_place() -> None:
    model, words = Scattered().eval(), torch.tensor([[1, 3, 3, 0], [3, 2, 5, 3]])
    for parts in (torch.randn(4, 4), torch.randn(6, 4)):
        exported = export_network(model, (words, parts))
        agrees(exported, {"words": words, "parts": parts}, model(words, parts))
    exported = export_network(model, (torch.zeros(1, 4, dtype=torch.long), torch.randn(2, 4)))
    assert sum(one.kind == "linear" for one in exported.network.operators) == 0


def test_a_program_says_what_decided_and_computes_the_same() -> None:
    model, x = Routed().eval(), rows()
    program = gblr_hw.lower(model, Machine.load("edge-16"), example_inputs=(x,), by_example=True)
    assert "torch.where(chosen == number)" in program.provenance["decided"]
    found = execute_network(program, {"x": x.numpy()})["output"]
    np.testing.assert_allclose(found, model(x).detach().numpy(), atol=1e-5)
    with pytest.raises(InputError, match="these decide branches and shapes of a whole model"):
        gblr_hw.lower(model, "edge-16", by_example=True)


def test_layers_of_their_own_weights_and_counters_of_the_model_stay_as_they_are() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = GBLRLinear(8, 8, rank=2)
            self.register_buffer("calls", torch.zeros((), dtype=torch.long))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            y = self.layer(x)
            return y if y.sum() > 1e9 else y * 2

    model, x = Counting().eval(), rows()
    exported = export_network(model, (x,), by_example=True)
    assert model.calls == 0 and "layer" in exported.weights
    agrees(exported, {"x": x}, model(x))


def test_a_part_is_lowered_where_the_whole_branches() -> None:
    model, x = Routed().eval(), rows()
    exported = export_network(model.experts[1], (x,))
    agrees(exported, {exported.network.inputs[0].name: x}, model.experts[1](x))


class Keyed(nn.Module):
    """Experts by names into which the number of the expert is written, as Switch Transformers does."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 3)
        self.experts = nn.ModuleDict({f"expert_{number}": nn.Linear(8, 8) for number in range(3)})

    def forward(self, x: Tensor) -> Tensor:
        chosen = functional.one_hot(self.gate(x).argmax(-1), 3)
        found = torch.zeros_like(x)
        for number in chosen.sum(0).nonzero().flatten():
            token = chosen[:, number].nonzero().flatten()
            found[token] = self.experts[f"expert_{number}"](x[token])
        return found


def test_a_number_in_a_text_is_the_number() -> None:
    model, x = Keyed().eval(), torch.randn(6, 8)
    with pytest.raises(InputError, match="a branch or a shape depends there on the values of 'x'"):
        export_network(model, x)
    agrees(export_network(model, x, by_example=True), {"x": x}, model(x))


class Sampled(nn.Module):
    """Words that are none are left out, and the others are put in a random order (ViLT's patches)."""

    def forward(self, words: Tensor, x: Tensor) -> Tensor:
        kept = words.nonzero().flatten()
        return x[kept[torch.multinomial(torch.ones(kept.shape[0]), kept.shape[0])]] * 2


def test_places_that_an_example_decides_and_a_draw_orders_are_those_of_one_draw() -> None:
    model, words, x = Sampled().eval(), torch.tensor([1, 0, 2, 3, 0, 4, 5, 6]), torch.randn(8, 3)
    exported = export_network(model, (words, x))
    torch.manual_seed(0)
    agrees(exported, {"words": words, "x": x}, model(words, x))
