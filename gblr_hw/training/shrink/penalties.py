"""Two penalties, each steered to a latency target: all widths shrunk alike, and the hardware cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gblr_hw.cost.target import TargetController
from gblr_hw.layers.linear import gblr_layers
from gblr_hw.training.loop.loop import QuietHook

Measure = Callable[[nn.Module], float]
Cost = Callable[[nn.Module], Tensor]

# A width change that no block survives, and how often the change that just meets the target is halved in on.
_WHOLE_CIRCLE = 2.0
_HALVINGS = 6


class _SteeredPenalty(QuietHook):
    """What both penalties share: estimate the latency, ask the controller, move the geometry, every few steps."""

    def __init__(self, controller: TargetController, estimate: Measure, *, every: int = 4) -> None:
        self.controller, self.estimate, self.every = controller, estimate, every
        self.steps = 0
        self.value = 0.0

    def after_step(self, model: nn.Module, progress: float, learning_rate: float) -> None:
        self.steps += 1
        _clamp(model)
        if self.steps % self.every:
            return
        self.value = self.estimate(model)
        strength = self.controller.update(self.value, progress)
        if strength > 0.0:
            self.shrink(model, strength)
            _clamp(model)

    def shrink(self, model: nn.Module, strength: float) -> None:
        """Move widths (and locations) by `strength` on average, in normalised width."""

    def notes(self) -> dict[str, float]:
        return {"measure": self.value, "strength": self.controller.strength}

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "measure": self.value, **self.controller.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.value = state["steps"], state["measure"]
        self.controller.load_state_dict(state)


class WidthPenalty(_SteeredPenalty):
    """Every width is soft-thresholded by the same amount, found by the controller: the proximal step of Lee & Kim (ICLR
    2024, section 4) without the rest of their recipe, which `AnnealedWidths` has.

    At the end of the controller's path one last step, found by bisection, brings the latency under the target; from
    there on the geometry is held and only the factors are trained.

    Parameters
    ----------
    controller: finds the threshold.
    measure: exact latency of the model as it would be evaluated, in cycles; the target holds in this measure.
    estimate: the same, quicker, for the way there (measure itself if None).
    every: optimiser steps between estimates.
    """

    def __init__(
        self, controller: TargetController, measure: Measure, estimate: Measure | None = None, *, every: int = 4
    ) -> None:
        super().__init__(controller, estimate or measure, every=every)
        self.measure = measure
        self.held = False

    def before_step(self, model: nn.Module, progress: float) -> None:
        if self.held:
            for layer in gblr_layers(model):
                layer.widths.grad = layer.locations.grad = None

    def after_step(self, model: nn.Module, progress: float, learning_rate: float) -> None:
        if progress < self.controller.end:
            super().after_step(model, progress, learning_rate)
        else:
            self.finish(model)

    def finish(self, model: nn.Module) -> None:
        """Meet the target with the least threshold that does, and hold the geometry; nothing where that is done."""
        if self.held:
            return
        self.held = True
        _clamp(model)
        self.value = shrink_to(model, self.controller.target, self.measure, self.controller.strength)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "held": self.held}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.held = state["held"]

    def shrink(self, model: nn.Module, strength: float) -> None:
        shrink_widths(model, strength)


@torch.no_grad()
def shrink_widths(model: nn.Module, threshold: float) -> None:
    """Soft-threshold every width."""
    for layer in gblr_layers(model):
        layer.widths.sub_(threshold).clamp_(min=0.0)


def shrink_to(model: nn.Module, target: float, measure: Measure, first: float) -> float:
    """Shrink all widths by the least threshold that meets the target in `measure`, and return what it then says;
    nothing where the target is met. first: threshold > 0 to try first.

    Where even empty layers miss the target, they are empty then.
    """
    widths = [layer.widths.detach().clone() for layer in gblr_layers(model)]

    def latency(threshold: float) -> float:
        with torch.no_grad():
            for layer, before in zip(gblr_layers(model), widths, strict=True):
                layer.widths.copy_(before)
        shrink_widths(model, threshold)
        return measure(model)

    low, high = 0.0, first
    if (reached := latency(0.0)) > target:
        while (reached := latency(high)) > target and high < _WHOLE_CIRCLE:
            low, high = high, 2 * high
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if latency(middle) > target else (low, middle)
        reached = latency(high)
    return reached


class HardwarePenalty(_SteeredPenalty):
    """Descent on the differentiable latency itself, decoupled from the loss as AdamW's weight decay is.

    Widths and locations move along the gradient of ``cost(model)``, scaled so that widths move by the controller's
    strength on average: a block gives up the edges that save most cycles, wherever in the network they are, and edges
    that save none stay. A projection has to follow: what a gradient reaches is near the target, not below it.

    Parameters
    ----------
    controller: finds the strength.
    cost: model -> latency as a torch scalar with gradients to widths and locations.
    estimate: latency of the model as it would be evaluated, in cycles; None where that is the cost's own value, which
        is then computed once for both.
    every: optimiser steps between estimates.
    """

    def __init__(
        self, controller: TargetController, cost: Cost, estimate: Measure | None = None, *, every: int = 4
    ) -> None:
        super().__init__(controller, estimate or self._value, every=every)
        self.cost = cost
        self._last: Tensor | None = None

    def _value(self, model: nn.Module) -> float:
        self._last = self.cost(model)
        return float(self._last.detach())

    def after_step(self, model: nn.Module, progress: float, learning_rate: float) -> None:
        super().after_step(model, progress, learning_rate)
        self._last = None

    def shrink(self, model: nn.Module, strength: float) -> None:
        layers = gblr_layers(model)
        widths, locations = [layer.widths for layer in layers], [layer.locations for layer in layers]
        cost = self.cost(model) if self._last is None else self._last
        gradients = torch.autograd.grad(cost, widths + locations, allow_unused=True)
        with torch.no_grad():
            slopes = [g for g in gradients[: len(widths)] if g is not None]
            mean = torch.cat([g.abs().flatten() for g in slopes]).mean() if slopes else torch.tensor(0.0)
            if not bool(mean > 0):
                return
            for parameter, gradient in zip(widths + locations, gradients, strict=True):
                if gradient is not None:
                    # One steep spot of the smoothed cost must not throw a block across the layer.
                    parameter.sub_(strength * (gradient / mean).clamp(-4.0, 4.0))


@torch.no_grad()
def _clamp(model: nn.Module) -> None:
    """Widths are fractions of the layer and locations live on a circle."""
    for layer in gblr_layers(model):
        layer.widths.clamp_(0.0, 1.0)
        layer.locations.remainder_(1.0)
