"""Training in several processes: each takes its part of every batch, and all go through the same steps.

Everything here is the identity when torch.distributed is not in use, so that the loop reads the same for both.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

from simulator.base.errors import InputError


def world() -> tuple[int, int]:
    """(this process's rank, number of processes)."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def share_gradients(model: nn.Module) -> nn.Module:
    """The model, wrapped so that a backward pass leaves every process the mean gradient.

    Buffers are not broadcast: structures follow from gradients and weights, which are the same everywhere.
    """
    return model if world()[1] == 1 else DistributedDataParallel(model, broadcast_buffers=False)


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a scalar; NaN in one process is NaN in all, so that all stop at the same step."""
    if world()[1] == 1:
        return value
    value = value.detach().clone()
    distributed.all_reduce(value)
    return value / world()[1]


class OrderedBatches(Sampler[list[int]]):
    """The batches of one epoch, shuffled by a seed; of every batch this process takes each `world`-th example.

    All processes see the same number of batches. A last batch too small to give each process an example is left out.
    """

    def __init__(self, examples: int, batch_size: int, seed: int) -> None:
        self.rank, self.processes = world()
        if batch_size % self.processes:
            raise InputError(
                "batch size",
                str(batch_size),
                f"it must be a multiple of the {self.processes} processes, which share each batch evenly",
                "Choose such a number.",
            )
        order = torch.randperm(examples, generator=torch.Generator().manual_seed(seed)).tolist()
        whole = [order[first : first + batch_size] for first in range(0, examples, batch_size)]
        # The mean over processes is the mean over examples only when all have the same number of them.
        even = [batch[: len(batch) // self.processes * self.processes] for batch in whole]
        self.batches = [batch[self.rank :: self.processes] for batch in even if batch]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)
