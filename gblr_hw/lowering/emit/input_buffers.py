"""When input chunks of plain layers are asked for: who read their places last, what they are outputs of (M2, E3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gblr_hw.lowering.emit.place_transfers import input_keys, input_throttle
from simulator.machine.machine import Machine
from simulator.program.schedule import Slice


def _none() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class InputUses:
    """Where a block's input chunks lie, bytes [low, high), and the last tile that reads each: its number and step."""

    low: np.ndarray = field(default_factory=_none)
    high: np.ndarray = field(default_factory=_none)
    tile: np.ndarray = field(default_factory=_none)
    step: np.ndarray = field(default_factory=_none)

    def last_within(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number and step of the last tile that reads any of the bytes [low, high), (N,) each; -1 where none does."""
        meets = (self.low < high[:, None]) & (self.high > low[:, None])
        tile, step = (np.where(meets, one, -1).max(axis=1, initial=-1) for one in (self.tile, self.step))
        return tile, step


@dataclass(frozen=True, eq=False)
class InputTurns:
    """When a block's input chunks are asked for, in order of use, (C,): at a step, behind a tile (-1: none) and a
    store (-1: none).
    """

    steps: np.ndarray
    users: np.ndarray
    stores: np.ndarray


@dataclass(frozen=True, eq=False)
class InputBlock:
    """A block whose inputs are asked for: its first step and that of the block before, the number of its first tile,
    the tiles that are first to use each chunk (C,), in order, and cycles in which a chunk comes.
    """

    begin: int
    before: int
    tile: int
    first_use: np.ndarray
    chunk_cycles: int


def later_block(block: InputBlock, store: int, freed: InputTurns, machine: Machine) -> InputTurns:
    """Inputs of a layer's second block or a later one: through the block before."""
    steps = input_keys(block.first_use, block.begin, block.before, False, machine)
    return replace(freed, steps=np.maximum(steps, freed.steps), stores=np.full(len(steps), store))


def first_block(block: InputBlock, store: int, freed: InputTurns, machine: Machine) -> InputTurns:
    """Inputs of a layer's first block: as its tiles need them, behind the last store of the layer before."""
    throttle = input_throttle(machine, block.first_use, block.chunk_cycles)
    steps = input_keys(block.first_use, block.begin, block.before, True, machine)
    steps = np.where(throttle >= 0, np.maximum(steps, block.begin + throttle + 1), steps)
    users = np.where(throttle >= 0, block.tile + throttle, freed.users)
    return InputTurns(np.maximum(steps, freed.steps), users, np.full(len(steps), store))


def read_ahead(
    block: InputBlock, written: np.ndarray, turns: InputTurns, freed: InputTurns, machine: Machine
) -> InputTurns:
    """A first block's ``turns`` where chunks are outputs of layers before the latest, stored at ``written`` (C,): they
    are asked for through the block before, all but the first in use.
    """
    ahead = written != turns.stores
    ahead[:1] = False
    # Evenly from the block before to the last use, each before half of the tiles ahead of its own have run.
    count, middle = len(block.first_use), block.begin + block.first_use // 2
    span = block.begin - block.before + int(block.first_use[-1]) if count else 0
    steps = np.maximum(np.minimum(block.before + np.arange(count) * span // max(1, count), middle), freed.steps)
    # The first in use comes once the layer before has ended: no other whose place is not free much sooner goes before.
    late = freed.steps > block.begin - machine.weight_slots
    steps = np.where(late, np.maximum(steps, middle + 1), steps)
    users = np.where(late, block.tile + block.first_use // 2, freed.users)
    return InputTurns(
        np.where(ahead, steps, turns.steps),
        np.where(ahead, users, turns.users),
        np.where(ahead, written, turns.stores),
    )


def stored_at(
    sources: Sequence[Slice], chunks: np.ndarray, features: int, side: int, stores: Mapping[str, int]
) -> np.ndarray:
    """The last store of the layers whose outputs each input chunk holds, (C,)."""
    widths = [run.last - run.first for run in sources]
    of_channel = np.repeat([stores[run.layer] for run in sources], widths)
    begins = np.arange(0, features, side)
    return np.asarray(np.maximum.reduceat(of_channel, begins))[chunks]
