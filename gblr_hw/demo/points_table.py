"""Measured networks as a table: accuracy, multiplications, cycles, energy, each beside its share of dense."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.pictures.family_marks import REFERENCE, mark_key
from analysis.tables.over_seeds import Seeds
from analysis.tables.table import Column, count, energy_from_pj, format_table, percent, seconds


def points_table(networks: Sequence[Seeds], among: Sequence[Seeds] = (), markdown: bool = False) -> str:
    """One row a network, in the order given, with the range over its seeds where there are several; shares are of the
    dense network on the same machine, where there is one in ``among`` (the networks themselves if empty). All have one
    measure of quality.
    """
    quality = networks[0].quality
    several = any(len(one.points) > 1 for one in networks)
    columns = (
        Column("network", "name", align="left"),
        Column("machine", "machine", align="left"),
        Column(quality.name, "value", quality.told),
        *([Column("over seeds", "range", align="left")] if several else []),
        Column("multiplications", "multiplications", count),
        Column("tiles", "tiles", count),
        Column("cycles", "latency_cycles", count),
        Column("of dense", "share", percent),
        Column("latency", "latency_s", seconds),
        Column("energy", "energy_pj", energy_from_pj),
    )
    dense = _dense_cycles(among or networks)
    rows = [{**_row(one), "share": _share(one, dense)} for one in networks]
    return format_table(columns, rows, markdown=markdown)


def _row(one: Seeds) -> dict[str, object]:
    told = one.quality.told
    spread = f"{told(min(one.values))} to {told(max(one.values))}, {len(one.points)} seeds"
    return {
        "name": one.first.name,
        "machine": one.first.machine,
        "value": one.value,
        "range": spread if len(one.points) > 1 else None,
        **{key: one.mean(key) for key in ("latency_s", "energy_pj")},
        **{key: _whole(one.mean(key)) for key in ("multiplications", "tiles", "latency_cycles")},
    }


def _whole(mean: float | None) -> int | None:
    return None if mean is None else round(mean)


def _share(one: Seeds, dense: dict[str, float]) -> float | None:
    machine = one.first.machine
    return one.cycles[0] / dense[machine] if machine in dense else None


def _dense_cycles(networks: Iterable[Seeds]) -> dict[str, float]:
    return {one.first.machine: one.cycles[0] for one in networks if mark_key(one.first.family) == REFERENCE}
