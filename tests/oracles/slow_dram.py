"""DRAM one clock at a time, from the rules of docs/machine.md (D8 to D11) and the standards' parameters by name.

Every command that was issued stands in a list. A command may be issued in a clock if it keeps its distance from each
command of the list; nothing else is remembered but which bursts wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import NamedTuple

from simulator.dram.mapping import MAPPINGS, ROW_BITS
from simulator.dram.standards import Standard


class Burst(NamedTuple):
    number: int
    write: bool


class Transfer(NamedTuple):
    """Bursts that are asked for together in a clock; no burst passes one of an earlier transfer."""

    asked: int
    bursts: tuple[Burst, ...]


class Place(NamedTuple):
    channel: int
    group: int
    bank: int
    row: int


class Command(NamedTuple):
    name: str  # ACT, PRE, RD, WR, PREA, REF
    clock: int
    group: int = -1
    bank: int = -1
    row: int = -1


def place_of(number: int, standard: Standard, mapping: str, channels: int) -> Place:
    """Digits of a burst's number, the least significant first."""
    sizes = {"channel": channels, "group": standard.bank_groups, "bank": standard.banks,
             "column": standard.row_bursts, "row": 2**ROW_BITS}  # fmt: skip
    digits = {}
    for part in reversed(MAPPINGS[mapping]):
        size = 2**48 if part == "row" and part == MAPPINGS[mapping][0] else sizes[part]
        number, digits[part] = divmod(number, size)
    return Place(digits["channel"], digits["group"], digits["bank"], digits["row"])


def distance(before: Command, name: str, group: int, bank: int, t: dict[str, int]) -> int | None:
    """Clocks that a command must stay behind an earlier one; None: nothing lies between them."""
    same_group = before.group == group
    same_bank = same_group and before.bank == bank
    written = t["tCWL"] + t["tBL"]
    if before.name == "PREA":
        return t["tRPab"] if name == "REF" else None
    if before.name == "REF":
        return t["tRFC"] if name in ("ACT", "REF") else None
    match before.name, name:
        case "ACT", "ACT":
            near = t["tRRD_L"] if same_group else t["tRRD_S"]
            return max(near, t["tRC"]) if same_bank else near
        case "ACT", "RD":
            return t["tRCD"] if same_bank else None
        case "ACT", "WR":
            return t["tRCDW"] if same_bank else None
        case "ACT", "PRE":
            return t["tRAS"] if same_bank else None
        case "PRE", "ACT":
            return t["tRP"] if same_bank else None
        case "RD", "PRE":
            return t["tRTP"] if same_bank else None
        case "WR", "PRE":
            return written + t["tWR"] if same_bank else None
        case ("RD", "RD") | ("WR", "WR"):
            return t["tCCD_L"] if same_group else t["tCCD_S"]
        case "RD", "WR":
            return t["tRTW"]
        case "WR", "RD":
            return written + (t["tWTR_L"] if same_group else t["tWTR_S"])
        case "ACT", "PREA":
            return t["tRAS"]
        case "RD", "PREA":
            return t["tRTP"]
        case "WR", "PREA":
            return written + t["tWR"]
    return None


@dataclass
class SlowChannel:
    """One channel. ``log`` has its commands, ``finished`` the first clock behind the data of each burst, by the number
    that it has among the channel's bursts.
    """

    t: dict[str, int]
    queue: int
    window: int
    log: list[Command] = field(default_factory=list)
    finished: dict[int, int] = field(default_factory=dict)
    taken: dict[int, int] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=lambda: {"hits": 0, "misses": 0, "conflicts": 0, "refreshes": 0})
    due: int = 0
    planned: dict[int, list[Command]] = field(default_factory=dict)  # row commands of bursts, until the list changes

    def __post_init__(self) -> None:
        self.due = self.t["tREFI"]

    def allowed(self, name: str, group: int, bank: int, clock: int, more: Sequence[Command] = ()) -> bool:
        """Whether a command keeps its distance from all that were issued, and from ``more``."""
        commands = [*self.log, *more]
        for before in commands:
            apart = distance(before, name, group, bank, self.t)
            if apart is not None and clock < before.clock + apart:
                return False
        if name == "ACT":
            acts = sorted(before.clock for before in commands if before.name == "ACT")
            if len(acts) >= 4 and clock < acts[-4] + self.t["tFAW"]:
                return False
        return True

    @property
    def busy(self) -> int:
        """Clocks in which some burst waits or its data are on their way."""
        clocks: set[int] = set()
        for number, end in self.finished.items():
            clocks.update(range(self.taken[number], end))
        return len(clocks)

    def open_row(self, group: int, bank: int) -> int:
        for before in reversed(self.log):
            if before.name == "REF":
                return -1
            if before.name == "ACT" and (before.group, before.bank) == (group, bank):
                return before.row
        return -1

    def row_commands(self, place: Place, since: int) -> list[Command]:
        """Precharge and activate of a burst, each in the first clock that is allowed."""
        row = self.open_row(place.group, place.bank)
        if row == place.row:
            return []
        commands: list[Command] = []
        names = ["PRE", "ACT"] if row >= 0 else ["ACT"]
        clock = since
        for name in names:
            while not self.allowed(name, place.group, place.bank, clock, commands):
                clock += 1
            commands.append(Command(name, clock, place.group, place.bank, place.row))
        return commands

    def issue(self, commands: Sequence[Command], oldest: int) -> None:
        """Put commands on the list, and drop those that are too old to matter from clock ``oldest`` on."""
        self.planned.clear()
        self.log += commands
        horizon = oldest - 2 * sum(value for name, value in self.t.items() if name != "tREFI")
        refreshed = [c.clock for c in self.log if c.name == "REF"]
        opened = {(c.group, c.bank): c.clock for c in self.log if c.name == "ACT"}
        self.log = [
            c
            for c in self.log
            if c.clock >= horizon
            or (c.name == "REF" and c.clock == refreshed[-1])
            or (c.name == "ACT" and c.clock == opened[c.group, c.bank])
        ]

    def refresh(self, oldest: int) -> None:
        clock = self.due
        banks = {(c.group, c.bank) for c in self.log if c.name == "ACT"}
        if any(self.open_row(*bank) >= 0 for bank in banks):
            while not self.allowed("PREA", -1, -1, clock):
                clock += 1
            self.issue([Command("PREA", clock)], oldest)
        while not self.allowed("REF", -1, -1, clock):
            clock += 1
        self.issue([Command("REF", clock)], oldest)
        self.found["refreshes"] += 1
        self.due += self.t["tREFI"]


def run_channel(channel: SlowChannel, transfers: Sequence[tuple[int, Sequence[tuple[Place, bool]]]]) -> None:
    """All bursts of a channel, transfer by transfer: (clock in which they are asked for, bursts)."""
    coming = [(asked, t, place, write) for t, (asked, bursts) in enumerate(transfers) for place, write in bursts]
    waiting: list[tuple[int, int, int, Place, bool]] = []  # number, transfer, clock of its place in the queue, ...
    clock = taken = 0
    while taken < len(coming) or waiting:
        if not waiting:
            clock = max(clock, coming[taken][0])
        took = False
        for _ in range(2):  # a place that a column command frees is taken in the same clock
            if not took and taken < len(coming) and coming[taken][0] <= clock and len(waiting) < channel.queue:
                waiting.append((taken, coming[taken][1], clock, *coming[taken][2:]))
                channel.taken[taken] = clock
                taken, took = taken + 1, True
            issue_column(channel, waiting, clock)
        clock += 1


def issue_column(channel: SlowChannel, waiting: list[tuple[int, int, int, Place, bool]], clock: int) -> None:
    """The column command of this clock, if there is one: of the oldest transfer's bursts the first that can go."""
    oldest = [burst for burst in waiting if burst[1] == waiting[0][1]][: channel.window]
    for burst in oldest:
        number, _, since, place, write = burst
        name = "WR" if write else "RD"
        while clock >= channel.due:
            channel.refresh(waiting[0][2])
        if number not in channel.planned:
            channel.planned[number] = channel.row_commands(place, since)
        rows = channel.planned[number]
        if not channel.allowed(name, place.group, place.bank, clock, rows) or (rows and rows[-1].clock > clock):
            continue
        found = "hits" if not rows else "misses" if len(rows) == 1 else "conflicts"
        channel.found[found] += 1
        channel.issue([*rows, Command(name, clock, place.group, place.bank, place.row)], waiting[0][2])
        channel.finished[number] = clock + channel.t["tCWL" if write else "tCL"] + channel.t["tBL"]
        waiting.remove(burst)
        return


def run_slowly(
    transfers: Sequence[Transfer], standard: Standard, channels: int, mapping: str, scheduler: str, queue: int
) -> tuple[list[int], list[int], list[SlowChannel]]:
    """The first clock behind the last data of every transfer, the clock behind the one in which its last burst was
    taken, and what each channel did.
    """
    window = 1 if scheduler == "fcfs" else queue
    lines = [SlowChannel(standard.clocks(), queue, window) for _ in range(channels)]
    ends, takes = [0] * len(transfers), [0] * len(transfers)
    for number, line in enumerate(lines):
        mine = []
        for transfer in transfers:
            places = [(place_of(b.number, standard, mapping, channels), b.write) for b in transfer.bursts]
            mine.append((transfer.asked, [one for one in places if one[0].channel == number]))
        run_channel(line, mine)
        at = 0
        for index, (_, bursts) in enumerate(mine):
            done = [line.finished[at + i] for i in range(len(bursts))]
            taken = [line.taken[at + i] + 1 for i in range(len(bursts))]
            ends[index], takes[index] = max([ends[index], *done]), max([takes[index], *taken])
            at += len(bursts)
    return ends, takes, lines


@dataclass
class SlowMemory:
    """What ``run_reference`` asks: all transfers so far are run again for each new one."""

    standard: Standard
    channels: int
    mapping: str
    scheduler: str
    queue: int
    cycle_ns: Fraction
    latency: int
    asked: list[Transfer] = field(default_factory=list)
    latest: int = 0

    def serve(self, first: int, count: int, write: bool, cycle: int) -> tuple[int, int]:
        """End and done of a transfer of ``count`` bursts that gets the channel in a cycle (rules D8 and D12)."""
        clock_ns = Fraction(self.standard.tck_fs, 10**6)
        bursts = tuple(Burst(first + i, write) for i in range(count))
        self.asked.append(Transfer(ceil(cycle * self.cycle_ns / clock_ns), bursts))
        ends, takes, _ = run_slowly(self.asked, self.standard, self.channels, self.mapping, self.scheduler, self.queue)
        end = max(cycle + 1, ceil(takes[-1] * clock_ns / self.cycle_ns))
        self.latest = max(end, self.latest, ceil(ends[-1] * clock_ns / self.cycle_ns) + self.latency)
        return end, self.latest
