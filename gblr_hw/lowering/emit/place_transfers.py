"""Where transfers and drains stand among the tiles, as integer sort keys (step, class, sequence).

One step is one pass of a tile through the array. A queue is served in program order, so a load stands as early as the
buffers allow, among others in the order in which tiles need them; a store stands behind the next drain, where it holds
nothing up when one engine serves all queues.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine

# Classes order what stands at the same step.
PARAMETERS, LOAD, TILE, DRAIN = range(4)
# A step, a class and a sequence number, at most four times as large as there are instructions, fit a key of 63 bits.
MAX_INSTRUCTIONS = 1 << 28
_SEQUENCE_BITS = 30


@dataclass
class LoadState:
    """What a layer's weight loads must know of those before them. loads: weight tiles loaded so far; load q goes to
    slot q mod slots. load_user, load_step: the last tile that used each of the latest loads, and its step.
    parameter_step: where the present layer's parameters stand; its weights stand behind them.
    """

    loads: int = 0
    load_user: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    load_step: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    parameter_step: int = 0


def sort_keys(step: np.ndarray, kind: int, sequence: np.ndarray | int) -> np.ndarray:
    """Step, class and sequence as one integer that orders like the three, int64."""
    return ((np.asarray(step, dtype=np.int64) * 4 + kind) << _SEQUENCE_BITS) + sequence


def prefetch_steps(machine: Machine) -> int:
    """How many passes ahead of its tile a weight load stands: as far as the weight buffer reaches (rule M3)."""
    return machine.weight_slots - 1


def weight_keys(
    machine: Machine, uses: np.ndarray, users: np.ndarray, last_steps: np.ndarray, state: LoadState
) -> tuple[np.ndarray, np.ndarray]:
    """Steps of the loads whose tiles first run at steps ``uses``, and the id of the tile that must free each slot (-1:
    none). ``users``: the last tile that uses each load, ``last_steps``: its step. Both are noted in ``state``.
    """
    slots = machine.weight_slots
    known_user, known_step = np.append(state.load_user, users), np.append(state.load_step, last_steps)
    freed = np.arange(len(uses)) + len(state.load_user) - slots
    has = freed >= 0
    user = np.where(has, known_user[np.maximum(freed, 0)], -1)
    earliest = np.where(has, known_step[np.maximum(freed, 0)] + 1, 0)
    state.load_user, state.load_step = known_user[-slots:], known_step[-slots:]
    # An EXPAND tile waits for its weights only: behind the parameters in one queue, they vouch for the rank
    # multipliers.
    return np.maximum(np.maximum(uses - prefetch_steps(machine), earliest), state.parameter_step), user


def load_sequence(need: np.ndarray, *, is_input: bool) -> np.ndarray:
    """Order among loads at the same step: by the step at which a tile needs them, an input before the weights."""
    return 2 * need + (0 if is_input else 1)


def input_keys(
    first_use: np.ndarray, block_start: int, previous_start: int, is_first_block: bool, machine: Machine
) -> np.ndarray:
    """Steps of a block's input loads: through the block before it, or in a layer's first block as tiles need them."""
    if is_first_block:
        return np.maximum(block_start, block_start + first_use - prefetch_steps(machine))
    span = block_start - previous_start
    return previous_start + np.arange(len(first_use)) * span // max(1, len(first_use))


def input_throttle(machine: Machine, first_use: np.ndarray, chunk_cycles: int) -> np.ndarray:
    """For each input of a layer's first block, in order of use: the tile that must be done before it is asked for, or
    -1.

    With an engine of its own the input queue would ask for everything at once and keep the first tiles' weights waiting
    in the shared channel. A few inputs ahead are enough to cover the DRAM's latency.
    """
    throttle = np.full(len(first_use), -1, dtype=np.int64)
    if machine.dma.engines == 3:
        ahead = 3 + ceil_div(machine.dram_latency_cycles, max(1, chunk_cycles))
        throttle[ahead:] = first_use[:-ahead] if len(first_use) > ahead else first_use[:0]
    return throttle
