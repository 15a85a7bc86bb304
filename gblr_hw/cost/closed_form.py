"""Latency and energy of one layer in closed form, from its counts: the simulator's rules summed up (machine.md, section
10).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gblr_hw.cost.event_counts import LayerWork, layer_events
from gblr_hw.cost.touches import LayerCounts
from gblr_hw.lowering.passes.block_tokens import FINER_CUTS, sum_places
from simulator.base.arithmetic import ceil_div
from simulator.machine.energy import EnergyModel, energy_model
from simulator.machine.machine import Machine
from simulator.program.operations import TILE_OPS, Op
from simulator.program.schedule import (
    LANE_BYTES,
    PARAMETER_BYTES,
    RANK_PARAMETER_BYTES,
    RECORD_BYTES,
    shift_bytes,
)

# What a layer waits for: the channel for its weights or its activations, the array's multiplications, or that weights
# go into the array (what tiles of fewer rows than a preload takes wait on top of their rows).
LIMITS = ("weight bytes", "activation bytes", "multiplications", "preload")
COSTS = ("latency_cycles", "energy_pj")
_AS_GOOD = 1.01


@dataclass(frozen=True)
class LayerCost:
    """Torch scalars.

    bytes, limits: DRAM bytes, and cycles that each of `LIMITS` would take by itself, as plain numbers.
    """

    latency_cycles: Tensor
    energy_pj: Tensor
    dram_bytes: float = 0.0
    limits: tuple[float, ...] = (0.0,) * 4

    @property
    def binds(self) -> str:
        """Which of `LIMITS` decides the latency: the larger of channel and array, and the larger share of that."""
        weights, activations, multiplications, preload = self.limits
        channel, array = weights + activations, multiplications + preload
        first = 0 if channel > array else 2
        return LIMITS[first + (self.limits[first + 1] > self.limits[first])]


def summed(costs: Sequence[LayerCost]) -> LayerCost:
    """Of layers that run one after another."""
    latency, energy = (torch.stack([torch.as_tensor(getattr(c, key)) for c in costs]).sum() for key in COSTS)
    limits = tuple(map(sum, zip(*(cost.limits for cost in costs), strict=True)))
    return LayerCost(latency, energy, sum(cost.dram_bytes for cost in costs), limits)


@dataclass(frozen=True)
class MachineCost:
    """A machine's constants in the form that the closed form uses them.

    on_chip: inputs and outputs stay in the scratchpad, as between most layers of a whole network, and cost no DRAM.
    narrow: kinds of tiles that are narrow (rule A6).
    """

    machine: Machine
    tokens: int
    on_chip: bool = False
    narrow: tuple[Op, ...] = ()

    @cached_property
    def energy(self) -> EnergyModel:
        return energy_model(self.machine)

    def block_sizes(self, in_features: int, ranks: int, buffers: int = 1, cuts: int = 1) -> tuple[int, ...]:
        """Token blocks that lowering would cut for a layer with this many ranks, whose inputs have so many of the input
        buffers (rules M1 to M3); cuts: times as many as must be.
        """
        machine = self.machine
        half = machine.accumulator_rows // 2
        inputs = ceil_div(in_features, machine.rows) * machine.rows
        scratch = buffers * (max(0, machine.scratchpad.size_bytes - 2 * machine.cols * half) // 2)
        per_bank = ceil_div(ranks, machine.rank_memory.banks if machine.scatter else machine.group_size)
        most = max(1, min(half, scratch // inputs, machine.rank_rows_per_bank // max(1, per_bank)))
        blocks = ceil_div(self.tokens, most) * cuts
        size = ceil_div(self.tokens, blocks)
        return tuple(min(size, self.tokens - first) for first in range(0, self.tokens, size))

    def layer(self, counts: LayerCounts, in_features: int, out_features: int) -> LayerCost:
        """Cost of a layer with these counts, differentiable in them. Where ranks feed ranks, a block's inputs may have
        both buffers; blocks of a layer by itself, whose weights stay, may be smaller than they must.
        """
        places = round(float((counts.ranks - counts.sharing).detach()))
        may_have = (1, 2) if float(counts.mix_tiles.detach()) else (1,)
        tiles = sum(float(counts.tiles_of(kind).detach().sum()) for kind in TILE_OPS)
        finer = () if self.on_chip or tiles > self.machine.weight_slots else FINER_CUTS
        all_cuts = dict.fromkeys(
            self.block_sizes(in_features, places, buffers, cuts) for cuts in (1, *finer) for buffers in may_have
        )
        # Larger blocks move fewer weights; between cuts that differ by less than the form is exact to, they are taken.
        best = None
        for blocks in all_cuts:
            if best is not None and blocks[0] < self.machine.rows:
                continue
            cost = self._layer(counts, blocks, out_features)
            if best is None or float(cost.latency_cycles.detach()) < _AS_GOOD * float(best.latency_cycles.detach()):
                best = cost
        assert best is not None
        return best

    def _layer(self, counts: LayerCounts, blocks: tuple[int, ...], out_features: int) -> LayerCost:
        machine = self.machine
        tiles = torch.stack([counts.tiles_of(kind) for kind in TILE_OPS]).sum()
        rounds = 1 if float(tiles.detach()) <= machine.weight_slots else len(blocks)
        parameters = PARAMETER_BYTES * out_features + RANK_PARAMETER_BYTES * counts.ranks
        lanes = counts.reading.sum() + counts.writing.sum() + counts.mix_reading + counts.mix_writing
        burst_waste = machine.dram.burst_bytes / 2
        weight_bytes = tiles * (RECORD_BYTES + burst_waste) + LANE_BYTES * lanes
        for kind in TILE_OPS:
            weight_bytes = weight_bytes + counts.weights_of(kind) * self._bits(kind) / 8
            if kind in self.narrow:
                weight_bytes = weight_bytes + counts.tiles_of(kind) * shift_bytes(machine)
        output_chunks = ceil_div(out_features, machine.cols)
        activation_bytes = (
            counts.chunks_read * (self.tokens * machine.rows) + output_chunks * self.tokens * machine.cols
        )
        moved = weight_bytes * rounds + parameters + (0 if self.on_chip else activation_bytes)
        latency = self._latency(counts, tiles, weight_bytes, moved, parameters, blocks, out_features)
        work = LayerWork(machine, self.tokens, counts, tiles, moved, rounds, len(blocks), output_chunks, self.narrow)
        energy = self._energy(layer_events(work), latency)
        return LayerCost(
            latency, energy, float(moved.detach()), self._limits(counts, weight_bytes * rounds, moved, blocks)
        )

    def _limits(
        self, counts: LayerCounts, weight_bytes: Tensor, moved: Tensor, blocks: tuple[int, ...]
    ) -> tuple[float, ...]:
        with torch.no_grad():
            per_cycle = self.machine.dram_bytes_per_kilocycle / 1000
            array = float(self._array_cycles(counts, TILE_OPS, blocks))
            multiplications = float(sum(counts.tiles_of(kind) for kind in TILE_OPS)) * self.tokens
            channel = float(weight_bytes) / per_cycle
            return channel, float(moved) / per_cycle - channel, multiplications, array - multiplications

    def _bits(self, kind: Op) -> int:
        types = self.machine.datatypes
        return types.narrow_bits if kind in self.narrow else types.weight_bits

    def _array_cycles(self, counts: LayerCounts, kinds: Iterable[Op], blocks: tuple[int, ...]) -> Tensor:
        """Cycles of all tiles of some kinds, each as long as its rows or its preload takes (rules A2, A6)."""
        machine, cycles = self.machine, torch.zeros(())
        for kind in kinds:
            preload = ceil_div(machine.rows, machine.datatypes.narrow_rows) if kind in self.narrow else machine.rows
            cycles = cycles + counts.tiles_of(kind) * float(sum(max(size, preload) for size in blocks))
        return cycles

    def _latency(
        self,
        counts: LayerCounts,
        tiles: Tensor,
        weight_bytes: Tensor,
        moved: Tensor,
        parameters: Tensor,
        blocks: tuple[int, ...],
        out_features: int,
    ) -> Tensor:
        machine = self.machine
        per_cycle = machine.dram_bytes_per_kilocycle / 1000
        fill = machine.rows + machine.cols - 1
        block = blocks[0]
        chunks_read = counts.chunks_read.clamp(min=1e-6)
        tile_bytes = weight_bytes / tiles.clamp(min=1e-6)
        one_input = (0 if self.on_chip else block * machine.rows / per_cycle) * torch.tanh(counts.chunks_read)
        drain = ceil_div(block * machine.cols, machine.vector.lanes)
        begin = machine.dram_latency_cycles + (parameters + tile_bytes) / per_cycle + one_input + machine.rows
        # While the inputs arrive, the tiles that read them cannot outrun the channel.
        first_tiles = counts.reduce_tiles.sum() + torch.minimum(counts.dense_tiles, chunks_read)
        arrival = (chunks_read - 1).clamp(min=0) * one_input + first_tiles * tile_bytes / per_cycle
        stall = torch.relu(arrival - first_tiles * max(block, machine.rows))
        network = machine.rank_memory.network_cycles
        wait = fill + 2 * network + machine.rank_memory.requantise_cycles
        bubble = len(blocks) * wait * torch.tanh(counts.expand_tiles.sum()) * torch.exp(-counts.dense_tiles)
        # Output chunks leave no faster than the vector unit drains them, nor than buffers in rotation are stored.
        store = 0 if self.on_chip else block * machine.cols / per_cycle + machine.dram_latency_cycles
        leave = drain + machine.vector.latency_cycles + store
        apart = max(float(drain), leave / sum_places(machine, block)[0])
        drains = ceil_div(out_features, machine.cols) * len(blocks) * apart
        outputs = torch.clamp(self._array_cycles(counts, (Op.EXPAND, Op.DENSE), blocks), min=drains)
        busy = self._array_cycles(counts, (Op.REDUCE, Op.MIX), blocks) + outputs
        end = fill * torch.tanh(tiles) + leave
        return torch.maximum(begin + stall + busy + bubble + end, moved / per_cycle + 2 * machine.dram_latency_cycles)

    def _energy(self, events: Mapping[str, Tensor | float], latency: Tensor) -> Tensor:
        total = latency * self.energy.leakage.pj
        for name, times in events.items():
            total = total + times * sum(cost.pj for cost in self.energy.events[name])
        return total
