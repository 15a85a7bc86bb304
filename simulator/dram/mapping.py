"""How an address names channel, bank, row and column (machine.md, rule D6)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from simulator.dram.standards import Standard

# How a channel's bursts are chosen (rule D10).
SCHEDULERS = ("fcfs", "fr-fcfs")
# What a burst's number counts in, the most significant first. "bank" is the bank within its group.
MAPPINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "row-bank-column-group-channel": ("row", "bank", "column", "group", "channel"),
        "row-column-bank-group-channel": ("row", "column", "bank", "group", "channel"),
        "row-bank-group-column-channel": ("row", "bank", "group", "column", "channel"),
        "bank-group-row-column-channel": ("bank", "group", "row", "column", "channel"),
    }
)
# The rows of a bank, where more significant digits stand above them: 2^16, as in 8 Gb devices.
ROW_BITS = 16


class BurstParts(NamedTuple):
    """Shifts and masks of each part of a burst's number. The most significant part has no end: addresses beyond the
    device are rows, or banks modulo their number, like any others.
    """

    channel_shift: int
    channel_mask: int
    group_shift: int
    group_mask: int
    bank_shift: int
    bank_mask: int
    row_shift: int
    row_mask: int
    column_shift: int
    column_mask: int


def resolve_mapping(name: str, standard: Standard, channels: int) -> BurstParts:
    """The mapping ``name`` for so many ``channels``, a power of two, of a standard."""
    bits = {
        "channel": channels.bit_length() - 1,
        "group": standard.bank_groups.bit_length() - 1,
        "bank": standard.banks.bit_length() - 1,
        "column": standard.row_bursts.bit_length() - 1,
        "row": ROW_BITS,
    }
    order, shift, found = MAPPINGS[name], 0, dict[str, int]()
    for part in reversed(order):
        found[f"{part}_shift"] = shift
        found[f"{part}_mask"] = (1 << bits[part]) - 1
        shift += bits[part]
    if order[0] == "row":
        found["row_mask"] = (1 << 48) - 1
    return BurstParts(**found)
