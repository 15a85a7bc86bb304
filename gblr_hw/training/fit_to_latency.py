"""One call that brings a model to a latency: a copy, its layers swapped, trained and shrunk, exact at the end."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from gblr_hw.layers.model_calls import call_of
from gblr_hw.training.fit_state import FitState, digest_of, draw_on, draws, load_fit
from gblr_hw.training.latency_target import LatencyTarget
from gblr_hw.training.loop.loop import LoopSettings, parameter_groups, rate_at
from simulator import Machine
from simulator.base.errors import InputError

LossOf = Callable[[nn.Module, Any], Tensor]
EpochTold = Callable[[int, int, float, float], None]


@dataclass(frozen=True, repr=False)
class FittedNetwork:
    """A model that meets a latency.

    model: in evaluation mode, where the given one was; it can be saved, lowered, simulated and trained on like any.
    layers: names of the layers that were replaced.
    latency_cycles, dense_cycles, target_cycles: of the whole program, as simulated.
    losses: mean of each epoch.
    """

    model: nn.Module
    layers: tuple[str, ...]
    latency_cycles: float
    dense_cycles: float
    target_cycles: float
    losses: tuple[float, ...]

    @property
    def of_dense(self) -> float:
        """Latency as a part of the dense network's."""
        return self.latency_cycles / self.dense_cycles

    def __repr__(self) -> str:
        return (
            f"<{self.latency_cycles:,.0f} cycles, {self.of_dense:.4f} of dense, wanted {self.target_cycles:,.0f}; "
            f"layers {', '.join(self.layers)}>"
        )


def fit_to_latency(
    model: nn.Module,
    machine: Machine,
    target: str | float,
    batches: Iterable[Any],
    *,
    loss_of: LossOf | None = None,
    example_inputs: Any = None,
    family: str = "lattice",
    layers: str | Iterable[str] = "*",
    exclude: str | Iterable[str] = (),
    epochs: int = 12,
    learning_rate: float = 2e-3,
    weight_decay: float = 0.01,
    seed: int = 0,
    progress: EpochTold | None = None,
    checkpoint: str | Path | None = None,
) -> FittedNetwork:
    """Train a copy of a model, and shrink its linear layers to a structure that meets a latency on a machine.

    Parameters
    ----------
    model: trained already, where it can be: the structure grows out of its weights. It is left as it is.
    target: "0.6x-dense", "50000cycles", "0.05ms", or a number of cycles; see `LatencyTarget`.
    batches: what one epoch trains on, in an object that can be gone through again and has a length, such as a
        DataLoader. Each is (inputs, wanted), or whatever `loss_of` takes.
    loss_of: (model, batch) -> scalar to minimise; cross entropy of `model(inputs)` and `wanted` if None.
    example_inputs: what the latency is of, as a tensor, a tuple of arguments or a mapping of keyword arguments; the
        inputs of the first batch if None, which it has to be given for where `loss_of` is.
    family, layers, exclude: see `LatencyTarget`.
    epochs, learning_rate, weight_decay: AdamW with a linear warm-up and a cosine to zero.
    progress: (epoch, epochs, mean loss, estimated cycles) after each epoch.
    checkpoint: file that is written after every epoch; where it exists the run goes on from it, to the same bits, if
        the model and the batches are given as they were.

    Deterministic for one machine and thread count, as far as `batches` is.

    Raises
    ------
    InputError: as `LatencyTarget`; no batches; a loss that is not finite; a checkpoint of another run.
    UnreachableTargetError: even empty layers would miss the target.
    """
    steps = _steps(batches, epochs)
    if example_inputs is None:
        if loss_of is not None:
            raise InputError(
                "example_inputs", "nothing", "a `loss_of` of your own may take batches of any form",
                "Give the inputs that the latency is of.",
            )  # fmt: skip
        example_inputs = next(iter(batches))[0]
    torch.manual_seed(seed)
    model = copy.deepcopy(model)
    start = "" if checkpoint is None else digest_of(model)
    aim = LatencyTarget(model, machine, target, example_inputs, steps, family=family, layers=layers, exclude=exclude)
    settings = LoopSettings(epochs, learning_rate=learning_rate, weight_decay=weight_decay)
    optimizer = torch.optim.AdamW(parameter_groups(model, settings), lr=learning_rate)
    aim.attach(optimizer)
    where = f"{machine.name} ({hashlib.sha256(machine.to_toml().encode()).hexdigest()[:16]})"
    key = f"{family} to {aim.target_cycles:g} cycles on {where}, from weights {start}, {settings}, seed {seed}"
    state = load_fit(None if checkpoint is None else Path(checkpoint), f"{key}, {steps} steps, {', '.join(aim.names)}")
    if state.losses:
        _go_on(state, model, optimizer, aim, batches)
    for epoch in range(len(state.losses), epochs):
        state.losses.append(_epoch(epoch, model, optimizer, aim, batches, loss_of or cross_entropy, settings))
        if checkpoint is not None:
            state.model, state.optimiser = model.state_dict(), optimizer.state_dict()
            state.target, state.draws = aim.state_dict(), draws(batches)
            state.save(Path(checkpoint))
        if progress is not None:
            progress(epoch + 1, epochs, state.losses[-1], aim.estimated_cycles())
    reached = aim.finish()
    return FittedNetwork(
        model.eval(), tuple(aim.names), reached, aim.dense_cycles, aim.target_cycles, tuple(state.losses)
    )


def _steps(batches: Iterable[Any], epochs: int) -> int:
    """Optimiser steps of the run. Raises InputError for batches that cannot be counted, and for none."""
    if not isinstance(batches, Sized):
        raise InputError(
            "batches", type(batches).__name__, "they are gone through once an epoch, and counted before",
            "Give a DataLoader or a list.",
        )  # fmt: skip
    if not len(batches) or epochs < 1:
        raise InputError("batches and epochs", f"{len(batches)} and {epochs}", "at least one of each", "Give more.")
    return len(batches) * epochs


def _go_on(state: FitState, model: nn.Module, optimizer: Optimizer, aim: LatencyTarget, batches: Any) -> None:
    """Put a run back to where a file has left it."""
    model.load_state_dict(state.model)
    optimizer.load_state_dict(state.optimiser)
    aim.load_state_dict(state.target)
    draw_on(batches, state.draws)


def _epoch(
    epoch: int, model: nn.Module, optimizer: Optimizer, aim: LatencyTarget, batches: Iterable[Any], loss_of: LossOf,
    settings: LoopSettings,
) -> float:  # fmt: skip
    """Train on all batches once, numbered from 0; the mean loss."""
    model.train()
    sums, count = 0.0, 0
    for batch in batches:
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate_at(aim.progress, settings.warmup) * group["scale"]
        loss = loss_of(model, batch)
        if not math.isfinite(float(loss.detach())):
            raise InputError(
                "loss", f"{float(loss.detach())} in epoch {epoch + 1}", "it is finite", "Lower `learning_rate`."
            )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        sums, count = sums + float(loss.detach()), count + 1
    return sums / count


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    """Of what a model makes of a batch's inputs and what is wanted, the mean: a scalar."""
    inputs, wanted = batch
    args, kwargs = call_of(model, inputs)
    return functional.cross_entropy(model(*args, **kwargs), wanted)
