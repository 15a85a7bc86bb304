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


def as_text(right: Sequence[bool]) -> str:
    """How many examples, and hexadecimal digits of four each, the first in the highest bit: "6:b4"."""
    return f"{len(right)}:{np.packbits(right).tobytes().hex()[: -(-len(right) // 4)]}"


def from_text(text: str, accuracy: float, where: str) -> tuple[bool, ...]:
    """What `as_text` wrote. Raises InputError for another text, or where the mean is not the accuracy."""
    count, _, digits = text.partition(":")
    try:
        packed = np.frombuffer(bytes.fromhex(digits + "0" * (len(digits) % 2)), np.uint8)
        right = tuple(np.unpackbits(packed)[: int(count)].astype(bool).tolist())
    except ValueError:
        right = ()
    if not right or as_text(right) != text or abs(sum(right) / len(right) - accuracy) > _ROUNDING:
        rule = f"it is a number of examples and a hexadecimal digit for four of them, of which {accuracy:g} are right"
        raise InputError(where, repr(text[:20]), rule, "Delete the line and run it again.")
    return right
