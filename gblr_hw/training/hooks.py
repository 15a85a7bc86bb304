"""Two training hooks, each stepped once after every optimiser step: the proximal width step, and sigma annealing.

They run from a plain loop (``hook.step()``). `lightning_callback` and `trainer_callback` adapt them to Lightning and to
the Hugging Face Trainer, given the base class of the library, so that this module imports neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gblr_hw.layers.linear import GBLRLinear, gblr_layers
from simulator.base.errors import InputError


class StepHook(Protocol):
    """What the adapters need; `steps` counts the optimiser steps seen and is all that an exact resume needs."""

    steps: int

    def step(self) -> None: ...

    def state_dict(self) -> dict[str, int]: ...

    def load_state_dict(self, state: Mapping[str, int]) -> None: ...


def some_gblr_layers(model: nn.Module) -> list[GBLRLinear]:
    """The model's GBLR layers. Raises InputError if there is none."""
    layers = gblr_layers(model)
    if not layers:
        raise InputError(
            "model", type(model).__name__, "it must contain a GBLR layer", "Swap layers with replace_linear() first."
        )
    return layers


def mean_width(model: nn.Module) -> float:
    """Mean over layers of the mean width, counting a block with an empty side as zero: the authors' structure size."""
    with torch.no_grad():
        return float(torch.stack([_layer_width(layer) for layer in some_gblr_layers(model)]).mean())


def _layer_width(layer: GBLRLinear) -> Tensor:
    alive = (layer.widths > 0).all(dim=0)
    return (layer.widths * alive).mean()


class WidthShrinkage:
    """Proximal step of an L1 penalty on the widths: soft threshold by threshold * learning rate (arXiv 2310.18882,
    section 4).

    Parameters
    ----------
    model: its GBLR layers whose widths require a gradient are shrunk; widths end in [0, 1], locations are wrapped to
    [0, 1).
    threshold: weight of the penalty, >= 0; may be set between steps.
    optimizer: its learning rate for each layer's widths is read at each step, so schedules carry over; or
    learning_rate: a fixed one, for a loop without an optimiser. Give exactly one of the two.
    target_width: shrink only while `mean_width` is above it; 0 shrinks always.
    every: shrink at every so many steps.

    Raises InputError on values out of range, a model without GBLR layers, or widths that the optimiser does not hold.
    """

    def __init__(
        self,
        model: nn.Module,
        threshold: float,
        *,
        optimizer: Optimizer | None = None,
        learning_rate: float | None = None,
        target_width: float = 0.0,
        every: int = 1,
    ) -> None:
        if (optimizer is None) == (learning_rate is None):
            raise InputError(
                "optimizer and learning_rate",
                "both or neither",
                "the step needs one learning rate",
                "Give one of the two.",
            )
        if not (threshold >= 0 and math.isfinite(threshold)):
            raise InputError("threshold", str(threshold), "it must be a finite number of at least 0", "Use e.g. 0.01.")
        if not 0 <= target_width <= 1:
            raise InputError("target_width", str(target_width), "a width is a fraction of the channels", "Use 0 to 1.")
        if every < 1:
            raise InputError("every", str(every), "it must be at least 1", "Use 1.")
        self.model, self.threshold, self.target_width, self.every = model, threshold, target_width, every
        self.optimizer, self.learning_rate = optimizer, learning_rate
        self.steps = 0
        some_gblr_layers(model)
        self._rates()

    def _rates(self) -> list[tuple[GBLRLinear, float]]:
        layers = [layer for layer in some_gblr_layers(self.model) if layer.widths.requires_grad]
        if self.optimizer is None:
            return [(layer, float(self.learning_rate or 0.0)) for layer in layers]
        rates = {id(p): float(group["lr"]) for group in self.optimizer.param_groups for p in group["params"]}
        for layer in layers:
            if id(layer.widths) not in rates:
                raise InputError(
                    "optimizer",
                    f"no widths of {layer}",
                    "it must hold the widths that are shrunk",
                    "Build the optimiser after swapping layers, or freeze those widths.",
                )
        return [(layer, rates[id(layer.widths)]) for layer in layers]

    @torch.no_grad()
    def step(self) -> None:
        """Count one optimiser step and shrink the widths if it is their turn."""
        self.steps += 1
        if self.steps % self.every:
            return
        shrinking = self.target_width == 0 or mean_width(self.model) >= self.target_width
        for layer, rate in self._rates():
            amount = self.threshold * rate if shrinking else 0.0
            layer.widths.copy_((layer.widths - amount).clamp(0.0, 1.0))
            layer.locations.copy_(layer.locations - layer.locations.floor())

    def state_dict(self) -> dict[str, int]:
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.steps = int(state["steps"])


class SigmaAnnealing:
    """Moves the Gaussian's sigma of every GBLR layer from `start` to `end` over `over_steps` optimiser steps, after
    `begin` steps.

    A small sigma blurs the masks, so that gradients reach far; a large one leaves sharp intervals. schedule: "linear"
    (the authors') or "geometric". sigma is set at once on construction. Raises InputError on values out of range or a
    model without GBLR layers.
    """

    def __init__(
        self,
        model: nn.Module,
        start: float,
        end: float,
        over_steps: int,
        *,
        begin: int = 0,
        schedule: Literal["linear", "geometric"] = "linear",
    ) -> None:
        for name, value in (("start", start), ("end", end)):
            if not (value > 0 and math.isfinite(value)):
                raise InputError(name, str(value), "sigma must be positive and finite", "Use e.g. 1 to 100.")
        if over_steps < 1 or begin < 0:
            raise InputError("over_steps and begin", f"{over_steps}, {begin}", "at least 1 and 0", "Correct them.")
        if schedule not in ("linear", "geometric"):
            raise InputError("schedule", repr(schedule), "it is 'linear' or 'geometric'", "Choose one of them.")
        self.model, self.start, self.end = model, start, end
        self.over_steps, self.begin, self.schedule = over_steps, begin, schedule
        self.steps = 0
        self._apply()

    @property
    def sigma(self) -> float:
        """sigma at the present step."""
        progress = min(1.0, max(0.0, (self.steps - self.begin) / self.over_steps))
        if self.schedule == "linear":
            return self.start + (self.end - self.start) * progress
        return self.start * (self.end / self.start) ** progress

    @torch.no_grad()
    def _apply(self) -> None:
        for layer in some_gblr_layers(self.model):
            layer.sigma.fill_(self.sigma)

    def step(self) -> None:
        """Count one optimiser step and set sigma."""
        self.steps += 1
        self._apply()

    def state_dict(self) -> dict[str, int]:
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.steps = int(state["steps"])
        self._apply()


class LightningHooks:
    """Lightning's side of the hooks; see `lightning_callback`."""

    def __init__(self, *hooks: StepHook) -> None:
        self.hooks = hooks
        self._seen: int | None = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        # With gradient accumulation most batches end without an optimiser step: global_step tells.
        if trainer.global_step == self._seen:
            return
        self._seen = trainer.global_step
        for hook in self.hooks:
            hook.step()

    def state_dict(self) -> dict[str, Any]:
        return {"hooks": [hook.state_dict() for hook in self.hooks], "seen": self._seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seen = state_dict["seen"]
        for hook, state in zip(self.hooks, state_dict["hooks"], strict=True):
            hook.load_state_dict(state)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self._seen is None:
            self._seen = trainer.global_step


class TrainerHooks:
    """The Hugging Face Trainer's side of the hooks; see `trainer_callback`."""

    def __init__(self, *hooks: StepHook) -> None:
        self.hooks = hooks

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # The Trainer restores global_step and nothing of ours: the hooks' only state is that number.
        for hook in self.hooks:
            hook.load_state_dict({"steps": state.global_step})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for hook in self.hooks:
            hook.step()


def lightning_callback(base: type, *hooks: StepHook) -> Any:
    """A Lightning callback that steps `hooks` after each optimiser step; base: ``lightning.pytorch.Callback``.

    Its state goes into Lightning's checkpoints, so that resuming is exact.
    """
    return type("GBLRHooks", (LightningHooks, base), {})(*hooks)


def trainer_callback(base: type, *hooks: StepHook) -> Any:
    """A Trainer callback that steps `hooks` after each optimiser step; base: ``transformers.TrainerCallback``.

    On resume the hooks continue from the Trainer's global_step.
    """
    return type("GBLRHooks", (TrainerHooks, base), {})(*hooks)
