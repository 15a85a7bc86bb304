"""Which examples of a held-out set a network has right, and how a line of results keeps that."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from gblr_hw.training.loop.loop import Example
from simulator.base.errors import InputError

Bools = npt.NDArray[np.bool_]


@torch.no_grad()
def right_ones(model: nn.Module, dataset: Dataset[Example]) -> Bools:
    """Whether each example is classified rightly, in evaluation mode, in the order of the data set."""
    model.eval()
    found = [model(images).argmax(dim=1) == labels for images, labels in DataLoader(dataset, 256)]
    return torch.cat(found).numpy()


def as_digits(right: Bools) -> str:
    """Hexadecimal digits of four examples each, the first example in the highest bit; the last digit ends in zeros."""
    return np.packbits(right).tobytes().hex()[: -(-len(right) // 4)]


def from_digits(digits: str, accuracy: float) -> Bools:
    """The examples behind `as_digits`, whose mean is `accuracy`. Raises InputError where no number of them has it."""
    try:
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits + "0" * (len(digits) % 2)), np.uint8)).astype(bool)
    except ValueError:
        bits = np.zeros(0, bool)
    for count in range(4 * len(digits), max(0, 4 * len(digits) - 4), -1):
        if abs(bits[:count].sum() / count - accuracy) < 1e-9 and not bits[count:].any():
            return bits[:count]
    raise InputError("right", digits[:20], f"its mean over the examples is the accuracy, {accuracy:g}", "Run it again.")
