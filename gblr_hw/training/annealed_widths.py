"""The published recipe for GBLR from scratch: masks that sharpen, widths shrunk while the network is too large."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from gblr_hw.cost.target import TargetController
from gblr_hw.layers.linear import gblr_layers
from gblr_hw.training.hooks import SigmaAnnealing, WidthShrinkage
from gblr_hw.training.loop.loop import QuietHook
from gblr_hw.training.shrink.penalties import shrink_to

Measure = Callable[[nn.Module], float]

# Estimates over a run, and how many of them share a correction by an exact measure, which takes as long as some steps.
_ESTIMATES = 100
_CORRECTED = 10


class AnnealedWidths(QuietHook):
    """Lee & Kim's training from scratch (ICLR 2024, arXiv 2310.18882, section 4): the Gaussian's sigma is annealed over
    the whole run, and after a step all widths are soft-thresholded by threshold * learning rate, as long as the network
    is above its budget. Widths and locations are trained to the last step.

    Where the authors' budget counts multiplications, this one is what the machine measures, so that networks compare at
    equal latency; the shrinkage knows nothing else of the machine. Where they tune the threshold by hand, the budget
    falls along the controller's path and the threshold follows it. What is measured is the network with sharp
    intervals: with a small sigma every mask covers everything. The Gaussian is dropped at the end, when sigma is so
    large that it only frays the edges, and one last threshold, the least that does, brings what rounding has left
    above the target below it.

    Parameters
    ----------
    model: its GBLR layers, with the Gaussian, are annealed and shrunk.
    controller: finds the threshold; its target is a latency in cycles that the whole model must reach, or an energy in
        pJ.
    measure: exact latency (or energy) of a model as it would be evaluated; the target holds in this measure.
    estimate: the same, quicker; corrected now and then by what the measure says.
    steps: optimiser steps of the run.
    peak: the highest learning rate of the run; at that, a threshold moves widths by the controller's strength from one
        estimate to the next.
    sigmas: of the Gaussian at the first step and at the last.
    """

    def __init__(
        self,
        model: nn.Module,
        controller: TargetController,
        measure: Measure,
        estimate: Measure,
        steps: int,
        *,
        peak: float,
        sigmas: tuple[float, float] = (1.0, 100.0),
    ) -> None:
        self.controller, self.measure, self.estimate, self.peak = controller, measure, estimate, peak
        self.every = max(1, steps // _ESTIMATES)
        self.sigma = SigmaAnnealing(model, *sigmas, over_steps=steps)
        self.shrinkage = WidthShrinkage(model, 0.0, learning_rate=0.0)
        self.value, self.correction = 0.0, 1.0
        self.sharp = False

    def begin(self, model: nn.Module) -> None:
        self._sharpen(model, self.sharp)

    def after_step(self, model: nn.Module, progress: float, learning_rate: float) -> None:
        if self.sigma.steps % self.every == 0:
            self._sharpen(model, True)
            self._measure(model, exactly=self.sigma.steps % (_CORRECTED * self.every) == 0)
            self._sharpen(model, False)
            self.shrinkage.threshold = self.controller.update(self.value, progress) / (self.peak * self.every)
        self.shrinkage.learning_rate = learning_rate
        self.shrinkage.step()
        self.sigma.step()

    def _measure(self, model: nn.Module, *, exactly: bool) -> None:
        estimate = self.estimate(model)
        if exactly:
            self.correction = self.measure(model) / estimate
        self.value = self.correction * estimate

    def finish(self, model: nn.Module) -> None:
        """Drop the Gaussian, and meet the target with the least threshold that does."""
        self.sharp = True
        self._sharpen(model, True)
        self.value = shrink_to(model, self.controller.target, self.measure, 1e-3)

    def notes(self) -> dict[str, float]:
        return {"measure": self.value, "sigma": self.sigma.sigma, "strength": self.controller.strength}

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.sigma.steps,
            "measure": self.value,
            "correction": self.correction,
            "sharp": self.sharp,
            "threshold": self.shrinkage.threshold,
            **self.controller.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for hook in (self.sigma, self.shrinkage):
            hook.load_state_dict({"steps": state["steps"]})
        self.shrinkage.threshold = state["threshold"]
        self.controller.load_state_dict(state)
        self.value, self.correction, self.sharp = state["measure"], state["correction"], state["sharp"]

    @staticmethod
    def _sharpen(model: nn.Module, sharp: bool) -> None:
        """Intervals of ones, as they are with an endless sigma, or the Gaussian back."""
        for layer in gblr_layers(model):
            layer.gaussian = not sharp
