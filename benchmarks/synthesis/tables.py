"""Tables of docs/synthesis.md, from the figures in docs/synthesis.json and docs/data/permutation_price.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.tables.table import Column, count, format_table, percent
from benchmarks.synthesis.parts import (
    MIX_UNITS,
    NO_MIX,
    OTHER_PARTS,
    SHORT_CYCLES,
    lane_table_bytes,
    machine_of,
    parts_of,
)

Rows = dict[str, dict[str, Any]]  # part -> its figures
GATHERS = ("gather", "gather of sums")
BIT_UM2 = 4.7  # of memory, a published cell for 0.18 um, as in docs/codesign.md


def parts_table(results: dict[str, Any]) -> str:
    """All parts but the networks, and which sizes are left out for want of an area."""
    lines = []
    for side, rows, array_um2 in complete_sides(results):
        alone = [row for name, row in rows.items() if not name.startswith(("scatter", "gather"))]
        lines += [{**row, "side": side, "share": row["area_um2"] / array_um2} for row in alone]
    left_out = "".join(
        f"\n{side} x {side} is left out, for want of the area of: {'; '.join(lacking)}.\n"
        for side, lacking in incomplete_sides(results).items()
    )
    return format_table(PART_COLUMNS, lines, markdown=True) + left_out


def networks_table(results: dict[str, Any]) -> str:
    """Permutation networks, both directions side by side."""
    lines = [line for side in complete_sides(results) for line in network_rows(*side)]
    return format_table(NETWORK_COLUMNS, lines, markdown=True)


def prices_table(results: dict[str, Any]) -> str:
    """What rank permutation adds to a plain machine, by design."""
    lines = [line for side in complete_sides(results) for line in price_rows(*side)]
    return format_table(PRICE_COLUMNS, lines, markdown=True)


def mix_table(results: dict[str, Any]) -> str:
    """What MIX tiles add to the units that know of them."""
    return format_table(MIX_COLUMNS, mix_rows(results), markdown=True)


def mix_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each size and unit, and one for all units of a size."""
    found = []
    for key, listed in results["sides"].items():
        areas = {row["part"]: row.get("area_um2") for row in listed}
        pairs = [(unit, areas.get(unit + NO_MIX), areas.get(unit)) for unit in MIX_UNITS]
        if all(isinstance(area, float) for _, *pair in pairs for area in pair):
            pairs.append(("both", *(sum(column) for column in zip(*(pair for _, *pair in pairs), strict=True))))
        for unit, without, area in pairs:
            row = {"side": int(key), "unit": unit, "without": without or "", "with": area or ""}
            if isinstance(without, float) and isinstance(area, float):
                row |= {"added": area - without, "share": (area - without) / areas["array"]}
            if unit == "tile store":
                table = lane_table_bytes(int(key))
                row |= {"bytes": table, "table": table * 8 * BIT_UM2}
            found.append(row)
    return found


def complete_sides(results: dict[str, Any]) -> list[tuple[int, Rows, float]]:
    """Sizes with the areas of all parts: side, figures by part, um2 of the array."""
    lacking = incomplete_sides(results)
    sides = {int(key): {row["part"]: row for row in found} for key, found in results["sides"].items()}
    return [(side, rows, rows["array"]["area_um2"]) for side, rows in sides.items() if side not in lacking]


def incomplete_sides(results: dict[str, Any]) -> dict[int, list[str]]:
    """Sizes that lack the areas of some parts of rank permutation's price, and of which."""
    found = {}
    for key, listed in results["sides"].items():
        rows = {row["part"]: row for row in listed}
        needed = (name for name in parts_of(int(key)) if name not in OTHER_PARTS)
        lacking = [name for name in needed if not isinstance(rows.get(name, {}).get("area_um2"), float)]
        if lacking:
            found[int(key)] = lacking
    return found


def banks_table(rows: Sequence[dict[str, Any]]) -> str:
    """Cycles against banks, and what a Benes network's settings would add."""
    columns = (
        Column("layer", "layer", align="left"),
        Column("P = Q", "side"),
        Column("banks", "banks"),
        Column("tiles", "tiles", count),
        Column("cycles", "cycles", count),
        Column("bank conflicts", "conflicts", percent),
        Column("Benes setting (bytes a tile)", "setting"),
        Column("more DRAM traffic", "traffic", percent),
    )
    return format_table(columns, rows, markdown=True)


def network_rows(side: int, rows: Rows, array_um2: float) -> list[dict[str, Any]]:
    """A row for each kind, bank count and latency: both directions side by side."""
    listed = []
    for name, scatter in rows.items():
        if not name.startswith("scatter "):
            continue
        kind = name.removeprefix("scatter ")
        gather, sums = (rows.get(f"{way} {kind}", {}) for way in GATHERS)
        row = {"side": side, "network": kind, "share": (scatter["area_um2"] + gather["area_um2"]) / array_um2}
        for way, figures in (("scatter", scatter), ("gather", gather), ("sums", sums)):
            row |= {f"{way}_{key}": figures.get(key) for key in ("area_um2", "luts", "mhz")}
        listed.append(row)
    return listed


def price_rows(side: int, rows: Rows, array_um2: float) -> list[dict[str, Any]]:
    """What rank permutation adds to a plain machine, by design: control, networks and requantisers, over the array."""
    requantiser = rows["requantiser"]["area_um2"]
    plain = rows["control, plain"]["area_um2"] + side * requantiser
    cycles = machine_of(side, banks=2 * side).rank_memory.network_cycles

    def network(kind: str, banks: int, stages: int, gather: str) -> float:
        return sum(rows[f"{way} {kind}, {banks} banks, {stages} cycles"]["area_um2"] for way in ("scatter", gather))

    def price(kind: str, banks: int, stages: int, place: str) -> dict[str, Any]:
        """``place``: requantisers stand at the banks and gather carries codes, or at the lanes and it carries sums."""
        around = rows[f"control, {banks} banks"]["area_um2"] - network("crossbar", banks, cycles, "gather")
        networks = network(kind, banks, stages, "gather" if place == "banks" else "gather of sums")
        requantisers = (banks if place == "banks" else side) * requantiser
        return {
            "side": side,
            "design": f"{kind}, {banks} banks, {stages} cycles",
            "place": place,
            "networks": networks / array_um2,
            "control": (around - rows["control, plain"]["area_um2"]) / array_um2,
            "requantisers": (requantisers - side * requantiser) / array_um2,
            "price": (around + networks + requantisers - plain) / array_um2,
        }

    many, some, few = 2 * side, side * 5 // 4, side
    designs = [("crossbar", many, cycles, "banks")]
    designs += [
        (kind, many, SHORT_CYCLES, place) for kind in ("crossbar", "benes", "omega") for place in ("banks", "lanes")
    ]
    designs += [("crossbar", banks, SHORT_CYCLES, "banks") for banks in (some, few)]
    return [price(*design) for design in designs]


def mm2(value: object) -> str:
    return f"{value / 1e6:.3f}" if isinstance(value, float) else "not done"


def whole(value: object) -> str:
    return count(value) if isinstance(value, int) else "not done"


def mhz(value: object) -> str:
    return f"{value:.0f}" if isinstance(value, float) else "not done"


PART_COLUMNS = (
    Column("P = Q", "side"),
    Column("part", "part", align="left"),
    Column("gates", "gates", count),
    Column("xor", "xor", count),
    Column("mux", "mux", count),
    Column("flip-flops", "flip_flops", count),
    Column("macros", "macros", count),
    Column("mm2", "area_um2", mm2),
    Column("of it flip-flops", "flip_flop_um2", mm2),
    Column("of the array", "share", percent),
    Column("LUTs", "luts", whole),
    Column("MHz", "mhz", mhz),
)
NETWORK_COLUMNS = (
    Column("P = Q", "side"),
    Column("network", "network", align="left"),
    Column("scatter mm2", "scatter_area_um2", mm2),
    Column("gather mm2", "gather_area_um2", mm2),
    Column("both, of the array", "share", percent),
    Column("gather of sums mm2", "sums_area_um2", mm2),
    Column("scatter LUTs", "scatter_luts", whole),
    Column("gather LUTs", "gather_luts", whole),
    Column("scatter MHz", "scatter_mhz", mhz),
    Column("gather MHz", "gather_mhz", mhz),
)
MIX_COLUMNS = (
    Column("P = Q", "side"),
    Column("unit", "unit", align="left"),
    Column("without MIX, mm2", "without", mm2),
    Column("with MIX, mm2", "with", mm2),
    Column("MIX adds mm2", "added", mm2),
    Column("of the array", "share", percent),
    Column("bytes of its lane table", "bytes", count),
    Column("and their mm2", "table", mm2),
)
PRICE_COLUMNS = (
    Column("P = Q", "side"),
    Column("networks", "design", align="left"),
    Column("requantisers at", "place", align="left"),
    Column("networks", "networks", percent),
    Column("control", "control", percent),
    Column("requantisers", "requantisers", percent),
    Column("price", "price", percent),
)
