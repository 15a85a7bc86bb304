"""The DRAM standards that a machine can have: organisation and timing parameters, each with unit and source
(machine.md, rules D6 and D9).

A standard that lacks a parameter, has one too many or one out of order does not import.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

# Every timing parameter, and what lies so many cycles apart.
PARAMETERS: Mapping[str, str] = MappingProxyType(
    {
        "tCL": "read command to its first data",
        "tCWL": "write command to its first data",
        "tBL": "data of a burst on the bus",
        "tRCD": "activate to a read of its row",
        "tRCDW": "activate to a write to its row",
        "tRP": "precharge of a bank to its next activate",
        "tRPab": "precharge of all banks to the refresh",
        "tRAS": "activate to the precharge of its bank",
        "tRC": "activate to the next one of the same bank",
        "tCCD_S": "column commands of one direction, bank groups apart",
        "tCCD_L": "column commands of one direction in a bank group",
        "tRRD_S": "activates, bank groups apart",
        "tRRD_L": "activates in a bank group",
        "tFAW": "an activate to the fourth one behind it",
        "tWR": "last data of a write to the precharge of its bank",
        "tWTR_S": "last data of a write to a read, bank groups apart",
        "tWTR_L": "last data of a write to a read in its bank group",
        "tRTP": "read to the precharge of its bank",
        "tRTW": "read to a write",
        "tREFI": "refreshes that are due",
        "tRFC": "refresh to the next activate",
    }
)


class Parameter(NamedTuple):
    """A timing parameter: ``value`` in ``unit`` ("nCK", whole clocks, or "ns"), at least ``least`` clocks."""

    value: float
    unit: Literal["nCK", "ns"]
    source: str
    least: int = 0

    def clocks(self, tck_fs: int) -> int:
        """Whole clocks of ``tck_fs`` femtoseconds; times round up, but not for a millionth of a clock."""
        whole = self.value if self.unit == "nCK" else math.ceil(round(self.value * 1e6 / tck_fs, 6))
        return max(int(whole), self.least)


@dataclass(frozen=True)
class Standard:
    """A speed grade of a standard, and the organisation of one channel (of HBM2, one pseudo channel).

    tck_fs: command clock, femtoseconds. burst_bytes: what a column command moves. bank_groups x banks: of a channel.
    row_bursts: bursts of an open row. timing: keys of ``PARAMETERS``.
    """

    name: str
    what: str
    tck_fs: int
    burst_bytes: int
    bank_groups: int
    banks: int
    row_bursts: int
    timing: Mapping[str, Parameter]

    def __post_init__(self) -> None:
        missing, unknown = sorted(set(PARAMETERS) - set(self.timing)), sorted(set(self.timing) - set(PARAMETERS))
        if missing or unknown:
            raise TypeError(f"DRAM standard {self.name}: no entry for {missing or 'none'}; unknown {unknown or 'none'}")
        for name, entry in self.timing.items():
            if entry.unit not in ("nCK", "ns") or not entry.source or entry.value <= 0:
                raise TypeError(f"DRAM standard {self.name}: {name} = {entry} lacks a value, a unit or a source")
            if entry.unit == "nCK" and entry.value != int(entry.value):
                raise TypeError(f"DRAM standard {self.name}: {name} = {entry.value:g} nCK is not a whole clock")
        for size in ("burst_bytes", "bank_groups", "banks", "row_bursts"):
            if (value := getattr(self, size)) < 1 or value & (value - 1):
                raise TypeError(f"DRAM standard {self.name}: {size} = {value} is no power of two")
        t = self.clocks()
        for low, high in (("tCCD_S", "tCCD_L"), ("tBL", "tCCD_S"), ("tRRD_S", "tRRD_L"), ("tRRD_S", "tFAW"),
                          ("tRCD", "tRAS"), ("tRAS", "tRC"), ("tWTR_S", "tWTR_L"), ("tRP", "tRPab"),
                          ("tRFC", "tREFI")):  # fmt: skip
            if t[low] > t[high]:
                raise TypeError(f"DRAM standard {self.name}: {low} = {t[low]} is more than {high} = {t[high]}")

    def clocks(self) -> dict[str, int]:
        """Every timing parameter in clocks."""
        return {name: self.timing[name].clocks(self.tck_fs) for name in PARAMETERS}

    @property
    def gb_per_s(self) -> float:
        """What a channel moves at most: a burst every ``tBL``."""
        return self.burst_bytes * 1e6 / (self.clocks()["tBL"] * self.tck_fs)

    @property
    def kind(self) -> str:
        """The standard without its speed, as energy tables know it."""
        return self.name.rpartition("-")[0]

    @property
    def closed_row_ns(self) -> float:
        """Time of one read of a closed row alone: activate, column command, data."""
        t = self.clocks()
        return (t["tRCD"] + t["tCL"] + t["tBL"]) * self.tck_fs * 1e-6


def _timing(**entries: Parameter) -> Mapping[str, Parameter]:
    return MappingProxyType(entries)


_DDR4 = "JESD79-4, DDR4-3200AA"
_DDR4_8GB = "JESD79-4, 8 Gb devices"
_LPDDR4 = "JESD209-4, core timing at 3200 MT/s"
_LPDDR4_4GB = "JESD209-4, 4 Gb a channel"
_LPDDR5 = "JESD209-5, bank group mode at 6400 MT/s, clocks of 800 MHz"
_LPDDR5_8GB = "JESD209-5, 8 Gb devices"
_HBM2 = "JESD235, pseudo channel mode; cycles as public simulators have them for HBM2 at this rate (Ramulator 2)"
_HBM2_4GB = "JESD235, 4 Gb a channel"
_TURN = "sum by the standard's bus rule: read latency + tBL + gap - tCWL"

_ALL = (
    Standard(
        name="ddr4-3200",
        what="DDR4-3200AA, 64-bit channel of 8 Gb x8 devices",
        tck_fs=625_000,
        burst_bytes=64,
        bank_groups=4,
        banks=4,
        row_bursts=128,
        timing=_timing(
            tCL=Parameter(22, "nCK", _DDR4),
            tCWL=Parameter(16, "nCK", _DDR4),
            tBL=Parameter(4, "nCK", "JESD79-4, burst length 8"),
            tRCD=Parameter(13.75, "ns", _DDR4),
            tRCDW=Parameter(13.75, "ns", _DDR4),
            tRP=Parameter(13.75, "ns", _DDR4),
            tRPab=Parameter(13.75, "ns", _DDR4),
            tRAS=Parameter(32, "ns", _DDR4),
            tRC=Parameter(45.75, "ns", _DDR4),
            tCCD_S=Parameter(4, "nCK", _DDR4),
            tCCD_L=Parameter(5, "ns", _DDR4, least=5),
            tRRD_S=Parameter(2.5, "ns", "JESD79-4, 1 KB page", least=4),
            tRRD_L=Parameter(4.9, "ns", "JESD79-4, 1 KB page", least=4),
            tFAW=Parameter(21, "ns", "JESD79-4, 1 KB page", least=20),
            tWR=Parameter(15, "ns", _DDR4),
            tWTR_S=Parameter(2.5, "ns", _DDR4, least=2),
            tWTR_L=Parameter(7.5, "ns", _DDR4, least=4),
            tRTP=Parameter(7.5, "ns", _DDR4, least=4),
            tRTW=Parameter(12, "nCK", f"{_TURN} = 22 + 4 + 2 - 16"),
            tREFI=Parameter(7800, "ns", _DDR4_8GB),
            tRFC=Parameter(350, "ns", _DDR4_8GB),
        ),
    ),
    Standard(
        name="lpddr4-3200",
        what="LPDDR4-3200, 16-bit channel, 4 Gb",
        tck_fs=625_000,
        burst_bytes=32,
        bank_groups=1,
        banks=8,
        row_bursts=64,
        timing=_timing(
            tCL=Parameter(34, "nCK", f"{_LPDDR4}: read latency 28, and 6 for tDQSCK of at most 3.5 ns"),
            tCWL=Parameter(15, "nCK", f"{_LPDDR4}: write latency 14 (set A), and 1 for tDQSS"),
            tBL=Parameter(8, "nCK", "JESD209-4, burst length 16"),
            tRCD=Parameter(18, "ns", _LPDDR4, least=4),
            tRCDW=Parameter(18, "ns", _LPDDR4, least=4),
            tRP=Parameter(18, "ns", _LPDDR4, least=3),
            tRPab=Parameter(21, "ns", _LPDDR4, least=3),
            tRAS=Parameter(42, "ns", _LPDDR4, least=3),
            tRC=Parameter(60, "ns", f"{_LPDDR4}: tRAS + tRP"),
            tCCD_S=Parameter(8, "nCK", f"{_LPDDR4}; there are no bank groups"),
            tCCD_L=Parameter(8, "nCK", f"{_LPDDR4}; there are no bank groups"),
            tRRD_S=Parameter(10, "ns", _LPDDR4, least=4),
            tRRD_L=Parameter(10, "ns", _LPDDR4, least=4),
            tFAW=Parameter(40, "ns", _LPDDR4),
            tWR=Parameter(18, "ns", _LPDDR4, least=6),
            tWTR_S=Parameter(10, "ns", _LPDDR4, least=8),
            tWTR_L=Parameter(10, "ns", _LPDDR4, least=8),
            tRTP=Parameter(7.5, "ns", _LPDDR4, least=8),
            tRTW=Parameter(28, "nCK", f"{_TURN} = 34 + 8 + 1 - 15"),
            tREFI=Parameter(3904, "ns", _LPDDR4_4GB),
            tRFC=Parameter(180, "ns", _LPDDR4_4GB),
        ),
    ),
    Standard(
        name="lpddr5-6400",
        what="LPDDR5-6400, 16-bit channel, 8 Gb, bank group mode",
        tck_fs=1_250_000,
        burst_bytes=32,
        bank_groups=4,
        banks=4,
        row_bursts=64,
        timing=_timing(
            tCL=Parameter(17, "nCK", _LPDDR5),
            tCWL=Parameter(9, "nCK", _LPDDR5),
            tBL=Parameter(2, "nCK", "JESD209-5, burst length 16, four data clocks a clock"),
            tRCD=Parameter(18, "ns", _LPDDR5, least=2),
            tRCDW=Parameter(18, "ns", _LPDDR5, least=2),
            tRP=Parameter(18, "ns", _LPDDR5, least=2),
            tRPab=Parameter(21, "ns", _LPDDR5, least=2),
            tRAS=Parameter(42, "ns", _LPDDR5, least=3),
            tRC=Parameter(49, "nCK", f"{_LPDDR5}: tRAS + tRP = 34 + 15"),
            tCCD_S=Parameter(2, "nCK", _LPDDR5),
            tCCD_L=Parameter(4, "nCK", _LPDDR5),
            tRRD_S=Parameter(5, "ns", _LPDDR5, least=2),
            tRRD_L=Parameter(5, "ns", _LPDDR5, least=2),
            tFAW=Parameter(20, "ns", _LPDDR5),
            tWR=Parameter(34, "ns", _LPDDR5, least=3),
            tWTR_S=Parameter(6.25, "ns", _LPDDR5, least=4),
            tWTR_L=Parameter(12, "ns", _LPDDR5, least=6),
            tRTP=Parameter(8, "nCK", "read to precharge as public simulators have it at this rate (Ramulator 2)"),
            tRTW=Parameter(12, "nCK", f"{_TURN} = 17 + 2 + 2 - 9"),
            tREFI=Parameter(3906, "ns", _LPDDR5_8GB),
            tRFC=Parameter(210, "ns", _LPDDR5_8GB),
        ),
    ),
    *(
        Standard(
            name=f"hbm2-{rate}",
            what=f"HBM2 at {rate} MT/s, 64-bit pseudo channel, 4 Gb a channel",
            tck_fs=tck_fs,
            burst_bytes=32,
            bank_groups=4,
            banks=4,
            row_bursts=32,
            timing=_timing(
                tCL=Parameter(cl, "nCK", _HBM2),
                tCWL=Parameter(cwl, "nCK", _HBM2),
                tBL=Parameter(2, "nCK", "JESD235, burst length 4"),
                tRCD=Parameter(cl, "nCK", _HBM2),
                tRCDW=Parameter(rcdw, "nCK", _HBM2),
                tRP=Parameter(cl, "nCK", _HBM2),
                tRPab=Parameter(cl, "nCK", _HBM2),
                tRAS=Parameter(ras, "nCK", _HBM2),
                tRC=Parameter(ras + cl, "nCK", f"{_HBM2}: tRAS + tRP"),
                tCCD_S=Parameter(2, "nCK", _HBM2),
                tCCD_L=Parameter(4, "nCK", _HBM2),
                tRRD_S=Parameter(4, "ns", _HBM2, least=4),
                tRRD_L=Parameter(4, "ns", _HBM2, least=4),
                tFAW=Parameter(15, "ns", f"{_HBM2}; left to the vendor", least=8),
                tWR=Parameter(wr, "nCK", _HBM2),
                tWTR_S=Parameter(wtr_s, "nCK", _HBM2),
                tWTR_L=Parameter(wtr_l, "nCK", _HBM2),
                tRTP=Parameter(rtp, "nCK", _HBM2),
                tRTW=Parameter(cl + 2 + 2 - cwl, "nCK", f"{_TURN} = {cl} + 2 + 2 - {cwl}"),
                tREFI=Parameter(3900, "ns", _HBM2_4GB),
                tRFC=Parameter(260, "ns", _HBM2_4GB),
            ),
        )
        for rate, tck_fs, cl, cwl, rcdw, ras, wr, wtr_s, wtr_l, rtp in (
            (1600, 1_250_000, 10, 4, 8, 24, 12, 5, 6, 4),
            (2400, 833_333, 17, 6, 14, 40, 19, 8, 10, 6),
        )
    ),
)

STANDARDS: Mapping[str, Standard] = MappingProxyType({standard.name: standard for standard in _ALL})
