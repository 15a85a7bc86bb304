"""What the modules need of a machine, resolved to integers: widths, depths, ports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.program.encoding import FIRST_BIT
from simulator.program.operations import MIX_OPS, Op

MAX_LATENCY_CYCLES = 1023


def power_of_two(count: int) -> int:
    """The smallest power of two that is not below ``count``."""
    return 1 << max(count - 1, 0).bit_length()


def index_bits(count: int) -> int:
    """Bits of an index below ``count``; at least one."""
    return max((count - 1).bit_length(), 1)


@dataclass(frozen=True)
class Sizes:
    """Integers derived from ``machine``; docs/machine.md names the memories and units that they belong to.

    mix: whether the hardware has MIX tiles, where the machine may have them. Without them it is smaller, and programs
    that have some do not run on it.
    """

    machine: Machine
    mix: bool = True

    def __post_init__(self) -> None:
        machine = self.machine
        latency = machine.dram_latency_cycles
        limits = (
            ("array", f"{machine.rows} x {machine.cols}", "sides are at least 2", min(machine.rows, machine.cols) >= 2),
            (
                "dram.latency_ns",
                f"{latency} cycles",
                f"the queue of transfers under way holds {MAX_LATENCY_CYCLES}",
                latency <= MAX_LATENCY_CYCLES,
            ),
        )
        for field, value, rule, met in limits:
            if not met:
                raise InputError(
                    f"RTL of machine '{machine.name}': {field}", str(value), rule, "Change the machine file."
                )

    @property
    def has_mix(self) -> bool:
        """Whether there are MIX tiles; a plain machine has none (rule B3)."""
        return self.mix and self.machine.scatter

    def known(self, ops: Iterable[Op]) -> tuple[Op, ...]:
        """Those of ``ops`` that the hardware tells apart from others."""
        return tuple(op for op in ops if self.has_mix or op not in MIX_OPS)

    @property
    def rows(self) -> int:
        return self.machine.rows

    @property
    def cols(self) -> int:
        return self.machine.cols

    @property
    def lanes(self) -> int:
        """Lanes of a tile's table: of the longer side."""
        return max(self.rows, self.cols)

    @property
    def weight_bits(self) -> int:
        return self.machine.datatypes.weight_bits

    @property
    def narrow_bits(self) -> int:
        """Of narrow tiles' weights; 0 without such tiles."""
        return self.machine.datatypes.narrow_bits

    @property
    def narrow_rows(self) -> int:
        """Rows of a narrow tile that are preloaded in a cycle, and parts of a shadow register (rule A6); 1 without such
        tiles.
        """
        return self.machine.datatypes.narrow_rows

    @property
    def code_bits(self) -> int:
        return self.machine.datatypes.activation_bits

    @property
    def sum_bits(self) -> int:
        return self.machine.datatypes.accumulator_bits

    @property
    def partial_bits(self) -> int:
        """A sum over the array's rows, exact."""
        return self.machine.partial_sum_bits

    @property
    def leaving_bits(self) -> int:
        """Such a sum behind the shifters of narrow tiles."""
        return self.machine.leaving_sum_bits

    @cached_property
    def beat_bytes(self) -> int:
        """Bytes that a transfer delivers in a cycle: a power of two that keeps up with the channel."""
        return power_of_two(max(8, ceil_div(self.machine.dram_bytes_per_kilocycle, 1000)))

    @property
    def slots(self) -> int:
        return self.machine.weight_slots

    @cached_property
    def weight_banks(self) -> int:
        """Byte banks of the weight buffer: a beat written, a row of weights at any bit position read in a cycle."""
        return power_of_two(max(self.beat_bytes, ceil_div(self.cols * self.weight_bits, 8) + 1))

    @cached_property
    def slot_bytes(self) -> int:
        tile = ceil_div(self.rows * self.cols * self.weight_bits, 8)
        return ceil_div(tile, self.weight_banks) * self.weight_banks

    @property
    def banks(self) -> int:
        """Banks of the rank memory that lanes can reach."""
        return self.machine.rank_memory.banks if self.machine.scatter else self.machine.group_size

    @property
    def places(self) -> int:
        """Banks that a lane's address can name: a power of two."""
        return self.machine.multiplier_row

    @property
    def bank_bits(self) -> int:
        """Low bits of a place: its bank."""
        return (self.machine.multiplier_row - 1).bit_length()

    @property
    def rank_slots(self) -> int:
        """Rows of the multiplier table: slots that a place can name, or that multipliers can fill, or a bank's sums,
        two to a place (rule M4).
        """
        table = self.machine.parameter_half_bytes // 4 // self.machine.multiplier_row
        return max(1, min(1 << (FIRST_BIT - self.bank_bits), 2 * self.machine.rank_rows_per_bank, table))

    @property
    def rank_rows(self) -> int:
        return self.machine.rank_rows_per_bank

    @property
    def network_cycles(self) -> int:
        return self.machine.rank_memory.network_cycles

    @property
    def requantise_cycles(self) -> int:
        return self.machine.rank_memory.requantise_cycles

    @property
    def gather_stages(self) -> int:
        """Register stages between a bank and a lane: the lead of rule A4."""
        return self.network_cycles + self.requantise_cycles

    @property
    def tiles_in_flight(self) -> int:
        """Room for tiles whose sums are on their way through the array: starts are a preload or more apart."""
        return power_of_two((self.rows + self.cols) // ceil_div(self.rows, self.narrow_rows) + 3)
