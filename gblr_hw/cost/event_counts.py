"""Counted events of one layer in closed form, one entry an event of `simulator/machine/events.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gblr_hw.cost.touches import LayerCounts
from simulator.base.arithmetic import ceil_div
from simulator.machine.events import check_every_event
from simulator.machine.machine import Machine
from simulator.program.operations import TILE_OPS, Op


@dataclass(frozen=True)
class LayerWork:
    """What a layer's events follow from, besides the machine: its counts, ``tiles`` of all kinds, ``moved`` DRAM bytes
    both ways, ``rounds`` in which its weights are loaded, token ``blocks``, ``output_chunks``, ``narrow`` kinds of
    tiles.
    """

    machine: Machine
    tokens: int
    counts: LayerCounts
    tiles: Tensor
    moved: Tensor
    rounds: int
    blocks: int
    output_chunks: int
    narrow: tuple[Op, ...] = ()

    @property
    def input_words(self) -> int:
        machine = self.machine
        return self.tokens * ceil_div(machine.rows * machine.datatypes.activation_bits, machine.scratchpad.word_bits)

    @property
    def output_words(self) -> int:
        machine = self.machine
        return self.tokens * ceil_div(machine.cols * machine.datatypes.activation_bits, machine.scratchpad.word_bits)

    @property
    def sum_words(self) -> int:
        machine = self.machine
        return self.tokens * ceil_div(machine.cols * machine.datatypes.accumulator_bits, machine.accumulator.word_bits)

    @property
    def rank_words(self) -> int:
        return ceil_div(self.tokens * self.machine.datatypes.accumulator_bits, self.machine.rank_memory.word_bits)

    @property
    def lanes_written(self) -> Tensor:
        """Lanes whose sums go into rank memory."""
        return self.counts.reading.sum() + self.counts.mix_writing

    @property
    def lanes_gathered(self) -> Tensor:
        """Lanes that take ranks' codes."""
        return self.counts.writing.sum() + self.counts.mix_reading

    @cached_property
    def weight_words(self) -> Tensor:
        types = self.machine.datatypes
        bits = self.narrow_weights * types.narrow_bits + self.wide_weights * types.weight_bits
        return bits / self.machine.weight_buffer.word_bits + self.tiles / 2

    @cached_property
    def narrow_weights(self) -> Tensor:
        """Stored weights of narrow tiles."""
        return torch.stack([self.counts.weights_of(kind) * (kind in self.narrow) for kind in TILE_OPS]).sum()

    @cached_property
    def wide_weights(self) -> Tensor:
        """Stored weights of wide tiles."""
        return torch.stack([self.counts.weights_of(kind) * (kind not in self.narrow) for kind in TILE_OPS]).sum()

    @cached_property
    def reading_tiles(self) -> Tensor:
        return self.counts.dense_tiles + self.counts.reduce_tiles.sum()

    @cached_property
    def summing_tiles(self) -> Tensor:
        return self.counts.dense_tiles + self.counts.expand_tiles.sum()

    @cached_property
    def shifted_bits(self) -> Tensor:
        types, cells = self.machine.datatypes, self.machine.rows * self.machine.cols
        moving = self.tiles * (self.tokens * cells * (types.activation_bits + types.accumulator_bits))
        for kind in TILE_OPS:
            bits = types.narrow_bits if kind in self.narrow else types.weight_bits
            moving = moving + self.counts.tiles_of(kind) * (self.blocks * cells * bits)
        return moving


def _network_bits(work: LayerWork) -> Tensor:
    machine = work.machine
    passing = work.lanes_written * machine.partial_sum_bits + work.lanes_gathered * machine.datatypes.activation_bits
    return passing * (work.tokens * machine.scatter)


_COUNTS: Mapping[str, Callable[[LayerWork], Tensor | float]] = {
    "mac_active": lambda w: w.wide_weights * w.tokens,
    "mac_narrow": lambda w: w.narrow_weights * w.tokens,
    "register_bits": lambda w: w.shifted_bits,
    "wire_bits": lambda w: w.shifted_bits,
    "scratchpad_read": lambda w: w.reading_tiles * w.input_words + w.output_chunks * w.output_words,
    "scratchpad_write": lambda w: w.counts.chunks_read * w.input_words + w.output_chunks * w.output_words,
    "accumulator_read": lambda w: w.summing_tiles * w.sum_words,
    "accumulator_write": lambda w: w.summing_tiles * w.sum_words,
    "rank_memory_read": lambda w: (w.lanes_written - w.counts.ranks + w.lanes_gathered) * w.rank_words,
    "rank_memory_write": lambda w: w.lanes_written * w.rank_words,
    "network_bits": _network_bits,
    "weight_buffer_read": lambda w: w.weight_words * w.blocks,
    "weight_buffer_write": lambda w: w.weight_words * w.rounds,
    "requantise_ops": lambda w: w.lanes_gathered * w.tokens,
    "vector_ops": lambda w: float(w.tokens * w.machine.cols * w.output_chunks),
    "dram_read_bytes": lambda w: w.moved,
}

# Events that the closed form has no count of, and why their energy is not lost.
_LEFT_OUT = {
    "mac_gated": "counts do not tell zero codes: it says what a machine without gating takes",
    "mac_padding": "it costs nothing",
    "dram_write_bytes": "bytes cost the same both ways, and `moved` counts them all as read",
}

check_every_event((*_COUNTS, *_LEFT_OUT), "the closed form (gblr_hw/cost/event_counts.py)")


def layer_events(work: LayerWork) -> dict[str, Tensor | float]:
    """Counts by event, differentiable in the layer's; those of ``_LEFT_OUT`` are not among them."""
    return {name: count(work) for name, count in _COUNTS.items()}
