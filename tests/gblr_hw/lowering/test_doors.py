"""A layer takes the same cycles as a checkpoint, as a module of ours, and as somebody's own batched products."""

import random

import pytest
import torch

from benchmarks.structures.doors import drawn, programs
from simulator import Machine, simulate

# Layers of which one door was behind the others, with what it waited for.
BEHIND = (
    (0, "mid-32", 384, "the checkpoint for its one block of rows"),
    (7, "edge-16", 64, "the module to store one block before it drained the next"),
    (8, "plain-32", 197, "the module's weights for inputs of the block after the next"),
    (11, "plain-32", 384, "the checkpoint for its one block of rows, whose weights do not stay"),
)


@pytest.mark.parametrize(("number", "machine", "tokens", "_waited"), BEHIND)
def test_doors_take_the_same_cycles(number: int, machine: str, tokens: int, _waited: str) -> None:
    torch.manual_seed(number)
    layer = drawn(random.Random(number)).module()
    found = programs(layer, Machine.load(machine), tokens, batched=True)
    cycles = [simulate(program, program.machine).latency_cycles for program in found]
    assert max(cycles) <= 1.05 * min(cycles), cycles
    if number != 11:
        assert max(cycles) <= 1.01 * min(cycles), cycles
