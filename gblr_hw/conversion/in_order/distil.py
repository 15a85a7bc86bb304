"""A short distillation of a converted model from the dense one: factors are trained, structures stay."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw.conversion.fit.fit_weights import Converted
from gblr_hw.frontend.put_weights import put_layers
from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.layers.model_calls import Batch, run_batch, tensors_of
from simulator.base.errors import InputError


@dataclass(frozen=True)
class Distillation:
    """AdamW without weight decay; the learning rate rises over a tenth of the steps, then falls to 0. A step is one
    batch; batches come in an order drawn anew each time round.
    """

    steps: int
    learning_rate: float = 3e-4
    hidden: float = 1.0
    seed: int = 0


# What a teacher gives for a batch: its output, and the tensors behind some of its modules.
Lesson = tuple[Any, list[Tensor]]


def distil(
    model: nn.Module,
    found: Mapping[str, Converted],
    batches: Sequence[Batch],
    how: Distillation,
    blocks: Sequence[str] = (),
    progress: Callable[[int, int, str], None] | None = None,
    lesson: Callable[[Batch], Lesson] | None = None,
) -> tuple[dict[str, Converted], list[float]]:
    """Converted layers trained so that the model's outputs come near the dense one's; and the loss of each step.

    The loss is the divergence of the two models' distributions where they return `logits`, a row of the output at a
    time, else the relative squared error of the first output; and, `how.hidden` times, the mean relative squared error
    behind ``blocks`` (paths of modules, `runs.chain_of`). The model stays as it is, and of its copy only the
    converted layers are trained. lesson: as for `teach`, by default the dense model's. Raises InputError for a model
    that does not run, and a loss that is no number.
    """
    student = copy.deepcopy(model)
    put_layers(student, found, "converted layers")
    layers = {name: student.get_submodule(name) for name in found}
    for layer in layers.values():
        if isinstance(layer, LatticeLinear):
            layer.pack()
    given = lesson or partial(lesson_of, model, blocks=blocks)
    losses = teach(student, list(layers.values()), batches, how, given, blocks, progress)
    return {name: _weights(layer) for name, layer in layers.items()}, losses


def teach(
    student: nn.Module,
    layers: Sequence[nn.Module],
    batches: Sequence[Batch],
    how: Distillation,
    lesson: Callable[[Batch], Lesson],
    blocks: Sequence[str] = (),
    progress: Callable[[int, int, str], None] | None = None,
) -> list[float]:
    """Train a student's layers in place, and nothing else of it; the loss of each step, as `distil` describes it.

    lesson: of a batch, the teacher's output and one tensor for each of ``blocks``, which are the student's.
    """
    student.requires_grad_(False).eval()
    for layer in layers:
        layer.requires_grad_(True)
    trained = [one for layer in layers for one in layer.parameters()]
    optimiser = torch.optim.AdamW(trained, lr=how.learning_rate, weight_decay=0.0)
    warm = max(1, how.steps // 10)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm, (how.steps - step) / (how.steps - warm + 1))
    )
    generator, order, losses = torch.Generator().manual_seed(how.seed), list[int](), list[float]()
    for step in range(how.steps):
        if progress is not None:
            progress(step, how.steps, "distillation")
        order = order or torch.randperm(len(batches), generator=generator).tolist()
        batch = batches[order.pop(0)]
        with torch.no_grad():
            wanted = lesson(batch)
        with torch.enable_grad():
            loss = _loss(lesson_of(student, batch, blocks), wanted, how.hidden)
            if not bool(torch.isfinite(loss)):
                raise InputError(
                    f"distillation, step {step}", f"a loss of {float(loss.detach())}", "it is finite", "Stop sooner."
                )
            optimiser.zero_grad()
            loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        rate.step()
        losses.append(float(loss.detach()))
    return losses


def _weights(layer: Any) -> Converted:
    return cast(Converted, layer.weights())


def lesson_of(model: nn.Module, batch: Batch, blocks: Sequence[str]) -> Lesson:
    """What the model returns, and the first tensor that each block does."""
    states: list[Tensor] = []
    results: list[Any] = []
    hooks = [
        model.get_submodule(path).register_forward_hook(lambda _module, _inputs, output: states.append(_first(output)))
        for path in blocks
    ]
    hooks.append(model.register_forward_hook(lambda _module, _inputs, output: results.append(output)))
    try:
        run_batch(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return results[0], states


def _loss(given: Lesson, wanted: Lesson, hidden: float) -> Tensor:
    output, target = given[0], wanted[0]
    if isinstance(getattr(target, "logits", None), Tensor):
        own, dense = (one.logits.flatten(0, -2).float().log_softmax(-1) for one in (output, target))
        loss = functional.kl_div(own, dense, reduction="batchmean", log_target=True)
    else:
        loss = _apart(_first(output), _first(target))
    if not wanted[1] or hidden == 0:
        return loss
    apart = [_apart(one, other) for one, other in zip(given[1], wanted[1], strict=True)]
    return loss + hidden * torch.stack(apart).mean()


def _apart(given: Tensor, wanted: Tensor) -> Tensor:
    """Relative squared error, row by row: a few rows may be thousands of times larger than the others."""
    squares = (given - wanted).float().square().sum(-1)
    return (squares / wanted.float().square().sum(-1).clamp_min(1e-12)).mean()


def _first(output: Any) -> Tensor:
    return tensors_of(output)[0]
