"""Two penalties, each steered to a latency target: the authors' width shrinkage and the hardware cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gblr_hw.linear import GBLRLinear
from gblr_hw.training.loop import QuietHook
from gblr_hw.training.target import TargetController

Measure = Callable[[nn.Module], float]
Cost = Callable[[nn.Module], Tensor]

# Updates in a row at the end of the path, so that an optimiser step that widens a block is answered at once.
_LAST_UPDATES = 25

# A width change that no block survives.
_WHOLE_CIRCLE = 2.0


class _SteeredPenalty(QuietHook):
    """What both penalties share: measure, ask the controller, move the geometry, every few steps.

    From the end of the controller's path on, every step is answered until the target holds again.
    """

    def __init__(self, controller: TargetController, measure: Measure, *, every: int = 4) -> None:
        self.controller, self.measure, self.every = controller, measure, every
        self.steps = 0
        self.latency_cycles = 0.0

    def after_step(self, model: nn.Module, progress: float, learning_rate: float) -> None:
        self.steps += 1
        _clamp(model)
        if self.steps % self.every and progress < self.controller.end:
            return
        self.latency_cycles = self.measure(model)
        strength = self.controller.update(self.latency_cycles, progress)
        tries = 1 if progress < self.controller.end else _LAST_UPDATES
        while strength > 0.0 and tries > 0:
            self.shrink(model, strength)
            _clamp(model)
            tries -= 1
            if tries:
                self.latency_cycles = self.measure(model)
                strength = strength if self.latency_cycles > self.controller.path_cycles(progress) else 0.0

    def finish(self, model: nn.Module) -> None:
        """Shrink, ever harder, until the target holds; give up where shrinking no longer helps."""
        strength = self.controller.strength
        while (latency := self.measure(model)) > self.controller.target_cycles and strength < _WHOLE_CIRCLE:
            self.shrink(model, strength)
            _clamp(model)
            strength *= 1.5
        self.latency_cycles = latency

    def shrink(self, model: nn.Module, strength: float) -> None:
        """Move widths (and locations) by `strength` on average, in normalised width."""

    def notes(self) -> dict[str, float]:
        return {"latency_cycles": self.latency_cycles, "strength": self.controller.strength}

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "latency_cycles": self.latency_cycles, **self.controller.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.latency_cycles = state["steps"], state["latency_cycles"]
        self.controller.load_state_dict(state)


class WidthPenalty(_SteeredPenalty):
    """The authors' proximal step: every width is soft-thresholded by the same amount (Lee & Kim, ICLR 2024, section 4).

    Parameters
    ----------
    controller: finds the threshold; the authors tune it by hand.
    measure: latency of the model as it would be evaluated, in cycles.
    every: optimiser steps between measurements.
    """

    @torch.no_grad()
    def shrink(self, model: nn.Module, strength: float) -> None:
        for layer in gblr_layers(model):
            layer.widths.sub_(strength).clamp_(min=0.0)


class HardwarePenalty(_SteeredPenalty):
    """Descent on the differentiable latency itself, decoupled from the loss as AdamW's weight decay is.

    Widths and locations move along the gradient of ``cost(model)``, scaled so that widths move by the controller's
    strength on
    average: a block gives up the edges that save most cycles, wherever in the network they are, and edges that save
        none stay.

    Parameters
    ----------
    controller: finds the strength.
    cost: model -> latency as a torch scalar with gradients to widths and locations.
    measure: latency of the model as it would be evaluated, in cycles.
    every: optimiser steps between measurements.
    """

    def __init__(self, controller: TargetController, cost: Cost, measure: Measure, *, every: int = 4) -> None:
        super().__init__(controller, measure, every=every)
        self.cost = cost

    def shrink(self, model: nn.Module, strength: float) -> None:
        layers = gblr_layers(model)
        widths, locations = [layer.widths for layer in layers], [layer.locations for layer in layers]
        gradients = torch.autograd.grad(self.cost(model), widths + locations, allow_unused=True)
        with torch.no_grad():
            slopes = [g for g in gradients[: len(widths)] if g is not None]
            mean = torch.cat([g.abs().flatten() for g in slopes]).mean() if slopes else torch.tensor(0.0)
            if not bool(mean > 0):
                return
            for parameter, gradient in zip(widths + locations, gradients, strict=True):
                if gradient is not None:
                    # One steep spot of the smoothed cost must not throw a block across the layer.
                    parameter.sub_(strength * (gradient / mean).clamp(-4.0, 4.0))


def gblr_layers(model: nn.Module) -> list[GBLRLinear]:
    """The model's GBLR layers, in order."""
    return [module for module in model.modules() if isinstance(module, GBLRLinear)]


@torch.no_grad()
def _clamp(model: nn.Module) -> None:
    """Widths are fractions of the layer and locations live on a circle."""
    for layer in gblr_layers(model):
        layer.widths.clamp_(0.0, 1.0)
        layer.locations.remainder_(1.0)
