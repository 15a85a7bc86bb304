"""Which examples of a held-out set a network has right, and how a line of results keeps that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from gblr_hw.training.loop.loop import Example
from simulator.base.errors import InputError

_ROUNDING = 1e-9


@torch.no_grad()
def right_ones(model: nn.Module, dataset: Dataset[Example]) -> tuple[bool, ...]:
    """Whether each example is classified rightly, in evaluation mode, in the order of the data set."""
    model.eval()
    found = [model(images).argmax(dim=1) == labels for images, labels in DataLoader(dataset, 256)]
    return tuple(torch.cat(found).tolist())


def as_digits(right: Sequence[bool]) -> str:
    """Hexadecimal digits of four examples each, the first example in the highest bit; the last digit ends in zeros."""
    return np.packbits(right).tobytes().hex()[: -(-len(right) // 4)]


def from_digits(digits: str, accuracy: float, where: str) -> tuple[bool, ...]:
    """The examples behind `as_digits`, whose mean is `accuracy`. Raises InputError where no number of them has it."""
    try:
        packed = bytes.fromhex(digits + "0" * (len(digits) % 2))
    except ValueError:
        packed = b""
    bits = np.unpackbits(np.frombuffer(packed, np.uint8)).astype(bool)
    for count in range(len(bits), max(0, len(bits) - 8), -1):
        if abs(bits[:count].mean() - accuracy) < _ROUNDING and not bits[count:].any():
            return tuple(bits[:count].tolist())
    raise InputError(where, repr(digits[:20]), f"its mean over the examples is {accuracy:g}", "Run it again.")
