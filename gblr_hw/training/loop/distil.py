"""Distillation: learn from a teacher's outputs beside the labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from simulator.base.errors import InputError


@dataclass(frozen=True, eq=False)
class Distillation:
    """An objective: (1 - weight) cross entropy + weight T^2 KL(teacher at T, student at T) (Hinton et al., 2015).

    teacher: images -> logits; kept in evaluation mode and without gradients. weight: in [0, 1]. temperature: T > 0;
    the T^2 keeps the gradients' size whatever T is.
    """

    teacher: nn.Module
    weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise InputError("distillation weight", str(self.weight), "it lies between 0 and 1", "Try 0.5.")
        if not self.temperature > 0:
            raise InputError("distillation temperature", str(self.temperature), "it is positive", "Try 2.")

    def __call__(self, outputs: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """outputs, logits (B, classes) of the student on `images` -> scalar."""
        self.teacher.to(images.device).eval()
        with torch.no_grad():
            wanted = functional.log_softmax(self.teacher(images).float() / self.temperature, dim=1)
        given = functional.log_softmax(outputs / self.temperature, dim=1)
        apart = functional.kl_div(given, wanted, reduction="batchmean", log_target=True) * self.temperature**2
        return (1 - self.weight) * functional.cross_entropy(outputs, labels) + self.weight * apart
