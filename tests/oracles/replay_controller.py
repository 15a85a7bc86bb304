"""A controller as general simulators have it (the behaviour that Ramulator 2 documents for its generic controller), to
hold the time of replayed traces against: a queue of reads and one of writes, which are drained by watermarks; in each
clock the oldest request whose next command is ready; a request that opened a row keeps it until it is served; a refresh
that is due keeps new rows closed. One command a clock, on HBM2 one for rows and one for columns.

It shares the standards' parameters and the mapping with the product, and no rule of order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from simulator.dram.standards import Standard
from tests.oracles.slow_dram import Place, place_of

LONG_AGO = -(10**9)
QUEUE, HIGH, LOW = 32, 0.8, 0.2  # places of a queue, and its watermarks


class _Times(dict[tuple[object, ...], int]):
    def __missing__(self, key: tuple[object, ...]) -> int:
        return LONG_AGO


@dataclass
class _Channel:
    t: dict[str, int]
    dual: bool
    reads: list[tuple[Place, bool]] = field(default_factory=list)
    writes: list[tuple[Place, bool]] = field(default_factory=list)
    active: list[tuple[Place, bool]] = field(default_factory=list)
    rows: dict[tuple[int, int], int] = field(default_factory=dict)
    at: _Times = field(default_factory=_Times)  # the last clock of each command, anywhere, by group, by bank
    acts: list[int] = field(default_factory=lambda: [LONG_AGO] * 4)
    writing: bool = False
    refreshes: int = 0
    end: int = 0

    def step(self, clock: int) -> None:
        self._turn()
        for bus in ("row", "column") if self.dual else ("any",):
            if self._serve(self.active, clock, bus):
                continue
            if self.refreshes:
                if bus != "column":
                    self._refresh(clock)
            else:
                self._serve(self.writes if self.writing else self.reads, clock, bus)

    def _turn(self) -> None:
        if not self.writing:
            self.writing = len(self.writes) > HIGH * QUEUE or not self.reads
        else:
            self.writing = not (len(self.writes) < LOW * QUEUE and self.reads)

    def _refresh(self, clock: int) -> None:
        t, at = self.t, self.at
        if self.rows:
            if not self.active and all(self._may_close(bank, clock) for bank in self.rows):
                for bank in self.rows:
                    at["PRE", bank] = clock
                self.rows.clear()
                at["PREA",] = clock
        elif clock >= at["PREA",] + t["tRPab"] and clock >= at["REF",] + t["tRFC"]:
            at["REF",] = clock
            self.refreshes -= 1

    def _may_close(self, bank: tuple[int, int], clock: int) -> bool:
        t, at = self.t, self.at
        written = t["tCWL"] + t["tBL"] + t["tWR"]
        return clock >= max(at["ACT", bank] + t["tRAS"], at["RD", bank] + t["tRTP"], at["WR", bank] + written)

    def _serve(self, queue: list[tuple[Place, bool]], clock: int, bus: str) -> bool:
        for index, (place, write) in enumerate(queue):
            bank = (place.group, place.bank)
            if self.rows.get(bank) == place.row:
                if bus != "row" and self._column_ready(place, write, clock):
                    self._column(place, write, clock)
                    del queue[index]
                    return True
            elif bus == "column":
                continue
            elif bank not in self.rows:
                if self._activate_ready(bank, clock):
                    self.rows[bank] = place.row
                    for key in (("ACT", bank), ("ACT", place.group), ("ACT",)):
                        self.at[key] = clock
                    self.acts = [*self.acts[1:], clock]
                    if queue is not self.active:
                        self.active.append(queue.pop(index))
                    return True
            elif not any((p.group, p.bank) == bank for p, _ in self.active) and self._may_close(bank, clock):
                del self.rows[bank]
                self.at["PRE", bank] = clock
                return True
        return False

    def _activate_ready(self, bank: tuple[int, int], clock: int) -> bool:
        t, at = self.t, self.at
        return clock >= max(
            at["PRE", bank] + t["tRP"], at["ACT", bank] + t["tRC"], at["ACT", bank[0]] + t["tRRD_L"],
            at["ACT",] + t["tRRD_S"], self.acts[0] + t["tFAW"], at["REF",] + t["tRFC"],
        )  # fmt: skip

    def _column_ready(self, place: Place, write: bool, clock: int) -> bool:
        t, at, bank = self.t, self.at, (place.group, place.bank)
        written = t["tCWL"] + t["tBL"]
        if write:
            return clock >= max(
                at["ACT", bank] + t["tRCDW"], at["WR",] + t["tCCD_S"], at["WR", place.group] + t["tCCD_L"],
                at["RD",] + t["tRTW"],
            )  # fmt: skip
        return clock >= max(
            at["ACT", bank] + t["tRCD"], at["RD",] + t["tCCD_S"], at["RD", place.group] + t["tCCD_L"],
            at["WR",] + written + t["tWTR_S"], at["WR", place.group] + written + t["tWTR_L"],
        )  # fmt: skip

    def _column(self, place: Place, write: bool, clock: int) -> None:
        name = "WR" if write else "RD"
        for key in ((name, (place.group, place.bank)), (name, place.group), (name,)):
            self.at[key] = clock
        self.end = max(self.end, clock + self.t["tCWL" if write else "tCL"] + self.t["tBL"])


def replay(numbers: list[int], writes: list[bool], standard: Standard, channels: int, mapping: str) -> int:
    """The clock behind the last data of bursts that come in order, as fast as the queues take them."""
    lines = [_Channel(standard.clocks(), standard.name.startswith("hbm")) for _ in range(channels)]
    coming = [(place_of(n, standard, mapping, channels), write) for n, write in zip(numbers, writes, strict=True)]
    clock = sent = 0
    while sent < len(coming) or any(line.reads or line.writes or line.active for line in lines):
        clock += 1
        while sent < len(coming):
            line = lines[coming[sent][0].channel]
            queue = line.writes if coming[sent][1] else line.reads
            if len(queue) == QUEUE:
                break
            queue.append(coming[sent])
            sent += 1
        for line in lines:
            line.refreshes += clock % standard.clocks()["tREFI"] == 0
            line.step(clock)
    return max(line.end for line in lines)
