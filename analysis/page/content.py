"""What a page shows, gathered and not yet drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from simulator.timing.report import Report


@dataclass(frozen=True)
class PagePoint:
    """A network on a machine, its seeds together. quality: a key of `analysis.tables.qualities.QUALITIES`, which value
    is the mean of over seeds; low and high: of one seed. group: the study's part, or "".
    """

    name: str
    family: str
    group: str
    machine: str
    quality: str
    value: float
    low: float
    high: float
    seeds: int
    latency_cycles: float
    energy_pj: float


@dataclass(frozen=True, eq=False)
class Run:
    """A simulated program: its name and file, the report, the machine as it is written to files."""

    name: str
    file: str
    report: Report
    machine_toml: str
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceFile:
    """A file that was read, with the SHA-256 of its bytes."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, eq=False)
class Content:
    """All that is on a page. swept: rows of a sweep, whose ``fields`` vary. maps: (layer's network, PNG)."""

    title: str
    version: str
    command: str
    points: Sequence[PagePoint] = ()
    swept: Sequence[Mapping[str, Any]] = ()
    fields: Sequence[str] = ()
    runs: Sequence[Run] = ()
    maps: Sequence[tuple[str, bytes]] = ()
    sources: Sequence[SourceFile] = ()
