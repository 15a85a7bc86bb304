"""Any model, any loop, brought to a latency: what is reached is what lowering the result and simulating it gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from gblr_hw import fit_to_latency, lower
from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.training.latency_target import LatencyTarget
from simulator import Machine, simulate
from simulator.base.errors import InputError

EDGE = Machine.load("edge-16")


def _mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(48, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 5))


def _batches(count: int = 6) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(32, 48, generator=generator), torch.randint(0, 5, (32,), generator=generator))
        for _ in range(count)
    ]


def _again(model: nn.Module, inputs: Any) -> int:
    how = {"example_inputs": (), "kwargs": inputs} if isinstance(inputs, dict) else {"example_inputs": (inputs,)}
    return simulate(lower(model.eval(), EDGE, **how), EDGE).latency_cycles


@pytest.mark.parametrize(
    "family",
    ["lattice", "low_rank", *(pytest.param(one, marks=pytest.mark.night) for one in ("block_sparse", "rank_groups"))],
)
def test_each_family_that_shrinks_meets_the_target_exactly(family: str) -> None:
    model, batches = _mlp(), _batches()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fitted = fit_to_latency(model, EDGE, "0.7x-dense", batches, family=family, epochs=2)
    assert fitted.dense_cycles == _again(model, batches[0][0])
    assert fitted.target_cycles == 0.7 * fitted.dense_cycles
    assert 0.35 * fitted.dense_cycles < fitted.latency_cycles <= fitted.target_cycles
    assert fitted.latency_cycles == _again(fitted.model, batches[0][0])
    assert fitted.of_dense == fitted.latency_cycles / fitted.dense_cycles
    assert fitted.layers == ("0", "2", "4") and len(fitted.losses) == 2
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    again = fit_to_latency(model, EDGE, 0.7 * fitted.dense_cycles, batches, family=family, epochs=2)
    assert again.losses == fitted.losses


class _Bags(nn.Module):
    """A layer that is not called, and one whose weight is the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 32)
        self.inner, self.other = nn.Linear(32, 64), nn.Linear(64, 32)
        self.head, self.unused = nn.Linear(32, 40, bias=False), nn.Linear(7, 7)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids) + self.other(torch.relu(self.inner(self.table(ids)))))


def test_tied_layers_stay_and_uncalled_ones_are_named() -> None:
    torch.manual_seed(0)
    model, ids = _Bags(), torch.randint(0, 40, (2, 16))
    with pytest.raises(InputError, match=r"layer 'unused': found not called; .* exclude=\['unused'\]"):
        LatencyTarget(model, EDGE, "0.9x-dense", ids, 10)
    aim = LatencyTarget(model, EDGE, "0.9x-dense", ids, 10, exclude="unused")
    assert aim.names == ["inner", "other"] and model.head.weight is model.table.weight
    assert aim.finish() == _again(model.eval(), ids) <= aim.target_cycles


def test_models_of_transformers_with_keyword_arguments() -> None:
    torch.manual_seed(0)
    ids, mask = torch.randint(0, 50, (4, 8)), torch.ones(4, 8, dtype=torch.long)
    bert = BertForSequenceClassification(
        BertConfig(
            vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=16,
        )
    )  # fmt: skip
    batches = [{"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 0, 1])}] * 4
    inputs = {"input_ids": ids, "attention_mask": mask}
    fitted = fit_to_latency(
        bert, EDGE, "0.95x-dense", batches, loss_of=lambda m, b: m(**b).loss, example_inputs=inputs, epochs=2
    )
    assert fitted.latency_cycles == _again(fitted.model, inputs) <= fitted.target_cycles
    assert "bert.encoder.layer.0.intermediate.dense" in fitted.layers


def test_conv1d_of_gpt2_is_a_linear_layer() -> None:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=40, n_embd=32, n_layer=1, n_head=2, n_positions=16, bos_token_id=None, eos_token_id=None
    )
    model, inputs = GPT2LMHeadModel(config).eval(), {"input_ids": torch.arange(8)[None], "use_cache": False}
    wanted = model(**inputs).logits
    aim = LatencyTarget(model, EDGE, "0.9x-dense", inputs, 10, layers="*.mlp.*")
    assert aim.names == ["transformer.h.0.mlp.c_fc", "transformer.h.0.mlp.c_proj"]
    torch.testing.assert_close(model(**inputs).logits, wanted, rtol=1e-3, atol=1e-5)


def _loop(model: nn.Module, aim: LatencyTarget, optimizer: torch.optim.Optimizer, batches: Any) -> None:
    for inputs, wanted in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), wanted).backward()
        optimizer.step()


def test_a_loop_of_ones_own_is_followed_by_its_optimiser_and_goes_on_from_its_state() -> None:
    batches = _batches(12)

    def made() -> tuple[nn.Module, LatencyTarget, torch.optim.Optimizer]:
        model = _mlp()
        aim = LatencyTarget(model, EDGE, "0.7x-dense", batches[0][0], len(batches))
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        return model, aim.attach(optimizer), optimizer

    model, aim, optimizer = made()
    _loop(model, aim, optimizer, batches[:6])
    assert aim.progress == 0.5 and model.training
    kept = {name: value.clone() for name, value in model.state_dict().items()}, aim.state_dict()
    _loop(model, aim, optimizer, batches[6:])
    reached = aim.finish()
    assert reached == _again(model.eval(), batches[0][0]) <= aim.target_cycles
    assert all(isinstance(layer, LatticeLinear) for layer in model[::2])  # type: ignore[attr-defined]

    other, resumed, optimizer = made()
    other.load_state_dict(kept[0])
    resumed.load_state_dict(kept[1])
    _loop(other, resumed, optimizer, batches[6:])
    assert resumed.finish() == reached
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"family": "monarch"}, "family"),
        ({"target": "1.2x-dense"}, "it must be below the dense network's"),
        ({"layers": "blocks.*"}, r"layers: found 'blocks\.\*'; it must match a linear layer; there are: 0, 2, 4"),
        ({"exclude": "head"}, r"exclude: found 'head'"),
        ({"exclude": "*"}, "at least one linear layer is left"),
        ({"epochs": 0}, "at least one of each"),
        ({"batches": iter(())}, "gone through once an epoch"),
        ({"loss_of": lambda m, b: m(b[0]).sum()}, "example_inputs: found nothing"),
        (
            {"batches": [(torch.full((4, 48), torch.nan), torch.zeros(4).long())]},
            "loss: found nan in epoch 1; it is fin",
        ),
        ({"target": "0.05x-dense"}, "no fewer would leave all layers alive"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any], told: str) -> None:
    how: dict[str, Any] = {"target": "0.7x-dense", "batches": _batches(3), "epochs": 1, **change}
    with pytest.raises(InputError, match=told):
        fit_to_latency(_mlp(), EDGE, how.pop("target"), how.pop("batches"), **how)


def test_an_optimiser_made_too_early_is_refused() -> None:
    model = _mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    aim = LatencyTarget(model, EDGE, "0.7x-dense", torch.randn(8, 48), 10)
    with pytest.raises(InputError, match=r"optimizer: found no '0\.\w+'; .*Make the optimiser after"):
        aim.attach(optimizer)
    for what in ({"start": 0.7}, {"end": 1.5}):
        with pytest.raises(InputError, match="start and end"):
            LatencyTarget(_mlp(), EDGE, "0.7x-dense", torch.randn(8, 48), 10, **what)
    with pytest.raises(InputError, match="steps: found 0"):
        LatencyTarget(_mlp(), EDGE, "0.7x-dense", torch.randn(8, 48), 0)
