"""What the study asks of a convolutional network: inputs that calibrate, and how well another network does its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Of a group of examples that belong together (crops of a photograph, tones of a noise): how many are right, the sum of
# their losses, and how many there are.
Judged = tuple[float, float, int]


@dataclass(frozen=True, eq=False)
class Task:
    """model: dense, in evaluation mode. machine: that cycles are counted on. calibration: batches of its inputs. names:
    layers that may change. example: inputs of the program whose cycles are counted. judge: how a network does on
    examples that nothing else has seen. controls: by name, how something does that is no network. droppable: modules
    that return their input's shape, of which those first cost least on calibration inputs. is_test: whether controls
    are far below the network; if not, nothing is converted, since what it kept would say nothing.
    """

    model: nn.Module
    machine: str
    calibration: Sequence[Tensor]
    names: Sequence[str]
    example: Tensor
    judge: Callable[[nn.Module], list[Judged]]
    controls: Mapping[str, Callable[[], list[Judged]]]
    droppable: Callable[[], list[str]]
    is_test: bool


@torch.no_grad()
def outputs(model: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    """Of all batches."""
    return torch.cat([model(one) for one in inputs])
