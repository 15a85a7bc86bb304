"""Sequences computed by hand on DDR4-3200 (clocks of 0.625 ns): each rule ready at N and not at N - 1, its sum written
out; and what streaming, strided and random patterns reach (machine.md, rules D6, D8, D9, D10 and D11).
"""

from __future__ import annotations

import numpy as np
import pytest

from simulator.dram.alike import serve_run
from simulator.dram.banks import LINE_OF, new_controller
from simulator.dram.standards import STANDARDS, Standard
from simulator.dram.traces import BurstTrace, TraceReport, run_trace
from tests.oracles.slow_dram import Burst, SlowChannel, Transfer, run_slowly

DDR4 = STANDARDS["ddr4-3200"]
# Burst numbers of "row-bank-group-column-channel", one channel: 128 columns, 4 groups, 4 banks, rows.
GROUP, BANK, ROW = 128, 512, 2048
PLAIN = "row-bank-group-column-channel"
DATA = 22 + 4  # tCL + tBL
FIRST = 22 + DATA  # tRCD + tCL + tBL: a read of a closed row in clock 0


def ends(*steps: tuple[int, str, int], scheduler: str = "fcfs", standard: Standard = DDR4) -> list[int]:
    """Ends of one-burst transfers (clock, "R" or "W", number), which the memory that counts clocks must find, too."""
    transfers = [Transfer(clock, (Burst(number, kind == "W"),)) for clock, kind, number in steps]
    trace = BurstTrace(
        np.array([number for _, _, number in steps]),
        np.array([kind == "W" for _, kind, _ in steps]),
        np.array([clock for clock, _, _ in steps]),
        np.arange(len(steps) + 1),
    )
    memory = new_controller(standard, 1, PLAIN, scheduler, 32)
    found = run_trace(trace, memory, standard.clocks()["tBL"]).finished.tolist()
    assert found == run_slowly(transfers, standard, 1, PLAIN, scheduler, 32)[0]
    return found


@pytest.mark.parametrize(
    "what, steps, end",
    [
        ("closed row: tRCD + tCL + tBL", [(0, "R", 0)], 22 + 22 + 4),
        ("write to a closed row: tRCD + tCWL + tBL", [(0, "W", 0)], 22 + 16 + 4),
        ("hit: tCCD_L behind a read of the same group", [(0, "R", 0), (0, "R", 1)], FIRST + 8),
        ("hit that comes late: tCL + tBL", [(0, "R", 0), (100, "R", 1)], 100 + 22 + 4),
        ("another group's closed row: activate tRRD_S behind", [(0, "R", 0), (0, "R", GROUP)], FIRST + 4),
        ("same group, another bank: activate tRRD_L behind", [(0, "R", 0), (0, "R", BANK)], FIRST + 8),
        ("conflict: tRAS, tRP, tRCD", [(0, "R", 0), (0, "R", ROW)], 52 + 22 + FIRST),
        ("conflict long after: tRP, tRCD", [(0, "R", 0), (200, "R", ROW)], 200 + 22 + FIRST),
        ("conflict behind a late read: tRTP, tRP, tRCD", [(0, "R", 0), (60, "R", 1), (60, "R", ROW)], 60 + 12 + 22 + FIRST),
        ("conflict behind a write: tRCD + tCWL + tBL + tWR, tRP", [(0, "W", 0), (0, "R", ROW)], 22 + 16 + 4 + 24 + 22 + FIRST),
        ("read behind a write, same group: tCWL + tBL + tWTR_L", [(0, "W", 0), (0, "R", 1)], 22 + 16 + 4 + 12 + DATA),
        ("read behind a write, another group: tWTR_S", [(0, "W", 0), (0, "R", GROUP)], 22 + 16 + 4 + 4 + DATA),
        ("write behind a read: tRTW, tCWL + tBL", [(0, "R", 0), (0, "W", 1)], 22 + 12 + 16 + 4),
        ("fifth activate: tFAW behind the first", [(0, "R", n * GROUP) for n in range(4)] + [(0, "R", BANK)], 34 + FIRST),
        ("refresh in clock 12480: 12480 + tRFC, and a closed row", [(12480, "R", 0)], 12480 + 560 + FIRST),
        ("column before the refresh: it is due when data come", [(12479 - 22, "R", 0)], 12479 + DATA),
        ("a column that would go as it is due waits for it", [(12480 - 22, "R", 0)], 12480 + 560 + FIRST),
        ("open row: precharged, tRP, tRFC, opened anew", [(0, "R", 0), (12480, "R", 1)], 12480 + 22 + 560 + FIRST),
        ("two refreshes while nobody asks", [(30000, "R", 0)], 30000 + FIRST),
    ],
)  # fmt: skip
def test_sequences_by_hand(what: str, steps: list[tuple[int, str, int]], end: int) -> None:
    assert ends(*steps)[-1] == end, what


@pytest.mark.parametrize(
    "before, command, apart",
    [
        (("ACT", 0, 0), ("RD", 0, 0), 22),  # tRCD
        (("ACT", 0, 0), ("WR", 0, 0), 22),  # tRCD
        (("ACT", 0, 0), ("PRE", 0, 0), 52),  # tRAS
        (("ACT", 0, 0), ("ACT", 0, 0), 74),  # tRC
        (("ACT", 0, 0), ("ACT", 0, 1), 8),  # tRRD_L
        (("ACT", 0, 0), ("ACT", 1, 0), 4),  # tRRD_S
        (("PRE", 0, 0), ("ACT", 0, 0), 22),  # tRP
        (("RD", 0, 0), ("RD", 0, 1), 8),  # tCCD_L
        (("RD", 0, 0), ("RD", 1, 0), 4),  # tCCD_S
        (("WR", 0, 0), ("WR", 0, 1), 8),  # tCCD_L
        (("WR", 0, 0), ("WR", 1, 0), 4),  # tCCD_S
        (("RD", 0, 0), ("WR", 1, 0), 12),  # tRTW = tCL + tBL + 2 - tCWL
        (("WR", 0, 0), ("RD", 1, 0), 16 + 4 + 4),  # tCWL + tBL + tWTR_S
        (("WR", 0, 0), ("RD", 0, 1), 16 + 4 + 12),  # tCWL + tBL + tWTR_L
        (("RD", 0, 0), ("PRE", 0, 0), 12),  # tRTP
        (("WR", 0, 0), ("PRE", 0, 0), 16 + 4 + 24),  # tCWL + tBL + tWR
        (("REF", -1, -1), ("ACT", 2, 2), 560),  # tRFC
    ],
)
def test_commands_are_allowed_at_n_and_not_at_n_less_one(
    before: tuple[str, int, int], command: tuple[str, int, int], apart: int
) -> None:
    from tests.oracles.slow_dram import Command

    channel = SlowChannel(DDR4.clocks(), queue=1, window=1)
    name, group, bank = before
    channel.log.append(Command(name, 1000, group, bank, 0))
    assert channel.allowed(*command, 1000 + apart)
    assert not channel.allowed(*command, 1000 + apart - 1)


def test_a_full_queue_lets_the_next_burst_in_with_a_column_command() -> None:
    """Two places: the third burst is taken in clock 22, with the first column command, and its conflict begins then."""
    steps = [(0, "R", 0), (0, "R", 1), (0, "R", BANK), (0, "R", BANK + ROW)]
    transfers = [Transfer(0, tuple(Burst(number, False) for _, _, number in steps))]
    numbers = np.array([number for _, _, number in steps])
    for queue, end in ((2, 22 + 52 + 22 + FIRST), (32, 8 + 52 + 22 + FIRST)):
        memory = new_controller(DDR4, 1, PLAIN, "fcfs", queue)
        report = run_trace(BurstTrace.of(numbers), memory, 4)
        assert report.clocks == end == run_slowly(transfers, DDR4, 1, PLAIN, "fcfs", queue)[0][0]


def test_a_run_opens_the_next_row_behind_the_bus_or_waits_for_it() -> None:
    """Reads of one run, groups in turn, go tCCD_S apart from clock 22 on: burst n in 22 + 4 n. Burst 512 begins a row
    of other banks. With six places it gets one with burst 506, in clock 2046, and may be read in 2068, before the bus
    is free in 2070; with five places it gets it in clock 2050 and is read in 2072, the bus two clocks late.
    """
    for queue, late in ((6, 0), (5, 2)):
        memory = new_controller(DDR4, 1, "row-bank-column-group-channel", "fcfs", queue)
        done = serve_run(memory.rules, memory.lines, 0, 520, 0, 0, np.empty((6, 600), dtype=np.int64))[1]
        assert done == 22 + 4 * 519 + DATA + late
        counted = memory.counted()
        assert (counted["hits"], counted["misses"], counted["conflicts"]) == (512, 8, 0)
        assert counted["busy"] == done
    transfer = Transfer(0, tuple(Burst(number, False) for number in range(520)))
    assert run_slowly([transfer], DDR4, 1, "row-bank-column-group-channel", "fcfs", 5)[0] == [done]


def test_channels_that_are_alike_until_they_are_told_apart() -> None:
    """Eight channels, burst n in channel n mod 8. The last one alone gets a column command in clock 500 and another
    row in clock 1000, and each time what comes next must find it so, and the other channels as they were.
    """
    memory = new_controller(DDR4, 8, PLAIN, "fcfs", 32)
    scratch = np.empty((6, 64), dtype=np.int64)

    def end(clock: int, first: int, count: int) -> tuple[int, int, int]:
        """The end of a run of reads; hits and conflicts of all channels so far."""
        data = serve_run(memory.rules, memory.lines, first, count, False, clock, scratch)[1]
        counted = memory.counted()
        return int(data), counted["hits"], counted["conflicts"]

    assert end(0, 0, 13) == (FIRST + 8, 5, 0)  # two bursts in five channels, the second of a row: tCCD_L behind
    assert memory.lines[:, LINE_OF].tolist() == [0] * 5 + [5] * 3
    assert end(500, 7, 1) == (500 + DATA, 6, 0)
    assert end(502, 0, 8) == (508 + DATA, 14, 0)  # tCCD_L behind clock 500 in the last channel
    assert end(1000, 8 * ROW + 7, 1) == (1000 + 22 + FIRST, 14, 1)
    assert end(2000, 8 * ROW, 8) == (2000 + 22 + FIRST, 15, 8)  # a hit in the last channel, conflicts in seven
    assert end(3000, 8 * ROW, 8) == (3000 + DATA, 23, 8)
    assert memory.lines[:, LINE_OF].tolist() == [0] * 8


def test_first_ready_lets_a_hit_pass_a_conflict_of_its_transfer_only() -> None:
    """Row 0 is open. A conflict and a hit in one transfer: the hit goes first. In two transfers it may not."""
    numbers = np.array([0, ROW, 1])
    ptr, asked = np.array([0, 1, 3]), np.array([0, 0])
    together = BurstTrace(numbers, np.zeros(3, bool), asked, ptr)
    found = {}
    for scheduler in ("fcfs", "fr-fcfs"):
        found[scheduler] = run_trace(together, new_controller(DDR4, 1, PLAIN, scheduler, 32), 4)
    assert [found[name].counted["conflicts"] for name in ("fcfs", "fr-fcfs")] == [2, 1]
    assert found["fr-fcfs"].clocks == 52 + 22 + FIRST  # the hit in clock 30 does not delay the precharge in 52
    assert found["fcfs"].clocks == 52 + 22 + 52 + 22 + FIRST
    apart = BurstTrace(numbers, np.zeros(3, bool), np.zeros(3, np.int64), np.arange(4))
    memory = new_controller(DDR4, 1, PLAIN, "fr-fcfs", 32)
    assert run_trace(apart, memory, 4).counted["conflicts"] == 2


def pattern(standard: Standard, kind: str, mapping: str, scheduler: str, bursts: int = 20_000) -> TraceReport:
    rng, stripe = np.random.default_rng(5), standard.bank_groups * standard.row_bursts
    numbers = {
        "streaming": np.arange(bursts),
        "strided": np.arange(bursts) * stripe,
        "one bank": np.arange(bursts) * stripe * standard.banks,
        "random": rng.integers(0, 1 << 24, bursts),
    }[kind]
    memory = new_controller(standard, 1, mapping, scheduler, 32)
    return run_trace(BurstTrace.of(numbers), memory, standard.clocks()["tBL"])


@pytest.mark.parametrize("name", STANDARDS)
def test_patterns_reach_what_the_distances_let_them(name: str) -> None:
    """Streaming: all but refreshes. Each burst in a row of its own in one bank: tBL of every tRC. Random: between."""
    standard, t = STANDARDS[name], STANDARDS[name].clocks()
    mapping = "row-bank-column-group-channel"
    found = {
        kind: pattern(standard, kind, mapping, "fr-fcfs") for kind in ("streaming", "strided", "one bank", "random")
    }
    refreshing = 1 - (t["tRFC"] + t["tRPab"]) / t["tREFI"]
    assert found["streaming"].efficiency == pytest.approx(refreshing, abs=0.02)
    assert found["one bank"].efficiency == pytest.approx(refreshing * t["tBL"] / t["tRC"], abs=0.01)
    assert found["one bank"].efficiency <= found["strided"].efficiency < found["random"].efficiency + 0.05
    assert found["random"].efficiency < min(1, 4 * t["tBL"] / t["tFAW"]) < found["streaming"].efficiency + 0.6
    assert pattern(standard, "random", mapping, "fcfs").efficiency < found["random"].efficiency


def test_bank_groups_in_turn_double_what_one_bank_gives() -> None:
    """DDR4: columns of one group keep tCCD_L = 8 apart, of groups in turn tCCD_S = 4 (JESD79-4)."""
    in_turn = pattern(DDR4, "streaming", "row-bank-column-group-channel", "fcfs").efficiency
    in_one = pattern(DDR4, "streaming", PLAIN, "fcfs").efficiency
    assert in_one == pytest.approx(0.478, abs=0.005) and in_turn / in_one == pytest.approx(2, abs=0.02)
