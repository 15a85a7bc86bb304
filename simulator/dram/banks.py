"""What a controller knows of its channels: the standard's distances as integers, and when each bank may do what
(machine.md, rules D8 to D11). Times are clocks of the DRAM.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simulator.dram.mapping import MAPPINGS, BurstParts, resolve_mapping
from simulator.dram.standards import Standard

LONG_AGO = -(1 << 40)
# A channel's line of ``Controller.lines``. First what is there once: last read, write and activate; when the next
# refresh is due; when the last burst got its place; the end of the last data; the place of the next column command;
# then what is counted.
READ, WRITE, ACTIVATE, REFRESH_DUE, TAKEN, BUSY_UNTIL, PLACE = range(7)
HITS, MISSES, CONFLICTS, REFRESHES, BUSY, READS, WRITES = range(7, 14)
COUNTED = ("hits", "misses", "conflicts", "refreshes", "busy", "reads", "writes")
# Then whose line holds for this channel, for how many channels this line holds, which channel serves each of four kinds
# of bursts for those whose line this is, and room for what was counted (``simulator.dram.alike``).
LINE_OF, MEMBERS, SERVES, BEFORE = 14, 15, 16, 20
# Then the last four activates; of each group its last read, write and activate; of each bank the row that is open or
# -1, and the first clock for its next precharge, activate, read and write; last the latest ``queue`` column commands.
FOUR, GROUPS = 27, 31
GROUP_READ, GROUP_WRITE, GROUP_ACTIVATE, GROUP_SIZE = range(4)
BANK_ROW, BANK_PRECHARGE, BANK_ACTIVATE, BANK_READ, BANK_WRITE, BANK_SIZE = range(6)


# What a kernel reads by name: distances in clocks (rule D9), how bursts are chosen (of ``queue`` places the first
# ``window`` that wait), where banks and column commands begin in a channel's line, how many bursts make up a
# row of all groups, how long after a command nothing waits for it any more, and the parts of a burst's number.
RULES = np.dtype(
    [
        (name, np.int64)
        for name in (
            "read_data",
            "write_data",
            "activate_read",
            "activate_write",
            "precharge",
            "precharge_all",
            "activate_precharge",
            "activate_activate",
            "column_apart",
            "column_group",
            "activates_apart",
            "activates_group",
            "four_activates",
            "read_precharge",
            "write_precharge",
            "write_read_apart",
            "write_read_group",
            "read_write",
            "refresh_every",
            "refresh_takes",
            "queue",
            "window",
            "groups",
            "channels",
            "channel_bits",
            "banks_at",
            "columns_at",
            "stripe",
            "read_matters",
            "write_matters",
            "activate_matters",
            *BurstParts._fields,
        )
    ]
)


class Controller(NamedTuple):
    """A memory: what its kernels are given. rules: a record of ``RULES``. lines: (channels, ...) int64, the state of
    each channel, which kernels change.
    """

    rules: np.record
    lines: np.ndarray

    def counted(self) -> dict[str, int]:
        """What happened so far in all channels: bursts by what they found, refreshes, busy clocks, reads, writes."""
        return {name: int(self.lines[:, HITS + at].sum()) for at, name in enumerate(COUNTED)}


def new_controller(standard: Standard, channels: int, mapping: str, scheduler: str, queue: int) -> Controller:
    """A memory at clock 0: all rows closed, nothing on its way. ``channels``: a power of two; names are those of
    ``MAPPINGS`` and ``SCHEDULERS``; ``queue``: bursts of a channel that wait at most.
    """
    t, window = standard.clocks(), {"fcfs": 1, "fr-fcfs": queue}[scheduler]
    written = t["tCWL"] + t["tBL"]
    banks, groups = standard.bank_groups * standard.banks, standard.bank_groups
    banks_at = GROUPS + GROUP_SIZE * groups
    values = dict(
        read_data=t["tCL"] + t["tBL"],
        write_data=written,
        activate_read=t["tRCD"],
        activate_write=t["tRCDW"],
        precharge=t["tRP"],
        precharge_all=t["tRPab"],
        activate_precharge=t["tRAS"],
        activate_activate=t["tRC"],
        column_apart=t["tCCD_S"],
        column_group=t["tCCD_L"],
        activates_apart=t["tRRD_S"],
        activates_group=t["tRRD_L"],
        four_activates=t["tFAW"],
        read_precharge=t["tRTP"],
        write_precharge=written + t["tWR"],
        write_read_apart=written + t["tWTR_S"],
        write_read_group=written + t["tWTR_L"],
        read_write=t["tRTW"],
        refresh_every=t["tREFI"],
        refresh_takes=t["tRFC"],
        queue=queue,
        window=window,
        groups=groups,
        channels=channels,
        channel_bits=channels.bit_length() - 1,
        banks_at=banks_at,
        columns_at=banks_at + BANK_SIZE * banks,
        stripe=_stripe(standard, mapping),
        read_matters=max(t["tCCD_L"], t["tRTW"], t["tRTP"], t["tCL"] + t["tBL"]),
        write_matters=max(t["tCCD_L"], written + max(t["tWTR_L"], t["tWR"])),
        activate_matters=max(t["tRC"], t["tFAW"], t["tRRD_L"], t["tRAS"], t["tRCD"], t["tRCDW"]),
    )
    values |= resolve_mapping(mapping, standard, channels)._asdict()
    rules = np.zeros(1, dtype=RULES).view(np.recarray)[0]  # names are attributes in plain Python, too
    for name in RULES.names or ():
        rules[name] = values[name]
    lines = np.tile(_idle(values), (channels, 1))
    lines[:, LINE_OF] = np.arange(channels)
    return Controller(rules, lines)


def _stripe(standard: Standard, mapping: str) -> int:
    """Bursts of a channel that lie in one row of all groups in turn, where they follow each other as closely as the bus
    lets them; 1 if they do not.
    """
    t, groups = standard.clocks(), standard.bank_groups
    in_turn = MAPPINGS[mapping][-3:] == ("column", "group", "channel")
    if groups == 1:
        in_turn = [part for part in MAPPINGS[mapping] if part != "group"][-2:] == ["column", "channel"]
    return groups * standard.row_bursts if in_turn and groups * t["tCCD_S"] >= t["tCCD_L"] else 1


def _idle(values: dict[str, int]) -> np.ndarray:
    """The line of a channel at clock 0."""
    line = np.full(values["columns_at"] + values["queue"], LONG_AGO, dtype=np.int64)
    line[[BUSY_UNTIL, PLACE]], line[REFRESH_DUE], line[HITS:LINE_OF], line[MEMBERS] = 0, values["refresh_every"], 0, 1
    banks = line[values["banks_at"] : values["columns_at"]].reshape(-1, BANK_SIZE)
    banks[:, BANK_ROW], banks[:, BANK_PRECHARGE:] = -1, 0
    return line
