"""Brief distillation of a converted sentence encoder from its dense model, on unlabelled texts, its structure fixed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.layers.replace import set_module
from gblr_hw.weights.stored import LatticeWeights

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Steps:
    """AdamW without weight decay; the learning rate rises over a tenth of the steps, then falls to 0."""

    steps: int = 76
    batch: int = 32
    learning_rate: float = 1e-3


@dataclass(frozen=True, eq=False)
class Lessons:
    """Texts as ids and mask (N, T), and the dense model's hidden states behind each layer, L x (N, T, d) float16."""

    texts: Batch
    states: list[Tensor]


@torch.no_grad()
def lessons(model: nn.Module, texts: Batch, size: int = 50) -> Lessons:
    """The dense model's states for all texts, once for all networks."""
    parts: list[list[Tensor]] = []
    for at in range(0, len(texts["input_ids"]), size):
        found = model(**{key: value[at : at + size] for key, value in texts.items()}, output_hidden_states=True)
        parts.append([state.half() for state in found.hidden_states[1:]])
    return Lessons(texts, [torch.cat(layer) for layer in zip(*parts, strict=True)])


def with_layers(model: nn.Module, network: Mapping[str, LatticeWeights]) -> nn.Module:
    """A copy of the model that computes with a network's factors, packed: its structure stays."""
    student = copy.deepcopy(model)
    for name, weights in network.items():
        layer = LatticeLinear.from_weights(weights)
        layer.pack()
        set_module(student, name, layer)
    return student


def loss(states: list[Tensor], wanted: list[Tensor], mask: Tensor) -> Tensor:
    """Mean over layers of the relative squared error of unmasked states, plus 1 - cosine of the pooled embeddings."""
    seen = mask.bool()
    apart = [
        (given[seen] - one[seen]).square().sum() / (one[seen] - one[seen].mean(0)).square().sum()
        for given, one in zip(states, wanted, strict=True)
    ]
    cosine = functional.cosine_similarity(_pooled(states[-1], mask), _pooled(wanted[-1], mask)).mean()
    return torch.stack(apart).mean() + (1 - cosine)


def distil(student: nn.Module, taught: Lessons, steps: Steps, seed: int) -> list[float]:
    """Train a student (from `with_layers`) in place, embeddings fixed, no dropout; returns the loss of each step."""
    student.eval()
    parameters = [p for name, p in student.named_parameters() if not name.startswith("embeddings.")]
    optimiser = torch.optim.AdamW(parameters, lr=steps.learning_rate, weight_decay=0.0)
    warm = max(1, steps.steps // 10)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm, (steps.steps - step) / (steps.steps - warm + 1))
    )
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    losses = []
    for _ in range(steps.steps):
        if len(order) < steps.batch:
            order = torch.randperm(len(taught.states[0]), generator=generator)
        chosen, order = order[: steps.batch], order[steps.batch :]
        texts = {key: value[chosen] for key, value in taught.texts.items()}
        states = student(**texts, output_hidden_states=True).hidden_states[1:]
        value = loss(list(states), [state[chosen].float() for state in taught.states], texts["attention_mask"])
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        rate.step()
        losses.append(float(value.detach()))
    return losses


def _pooled(states: Tensor, mask: Tensor) -> Tensor:
    shares = mask[..., None].to(states.dtype)
    return (states * shares).sum(1) / shares.sum(1)
