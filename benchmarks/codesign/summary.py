"""What docs/codesign.md shows of a search: ``python -m benchmarks.codesign.summary front.json [--area 64] [--pairs 11]
[--out docs/data/codesign_minilm.json]``, front.json being what ``gblr-hw codesign -o`` writes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.codesign.tables import comparison_table, front_table
from benchmarks.shared.measurement import write_json
from simulator.base.errors import InputError

Pair = dict[str, Any]


def comparisons(found: dict[str, Any], area_mm2: float) -> list[dict[str, Any]]:
    """Plain against scatter within an area, where both reach the error. Raises InputError without such rows."""
    machines = {pair["machine_name"]: pair["machine"] for pair in found["front"]}
    rows = [row for row in found["comparisons"] if row["max_area_mm2"] == area_mm2 and row["plain"] and row["scatter"]]
    if not rows:
        areas = sorted({row["max_area_mm2"] for row in found["comparisons"]})
        raise InputError("--area", f"{area_mm2:g}", f"the search compared within {areas} mm2", "Give one of these.")
    return [
        {
            "error_at_most": row["max_error"],
            **{f"{kind}_us": 1e6 * row[kind]["latency_s"] for kind in ("plain", "scatter")},
            **{kind: told(row[kind], machines.get(row[kind]["machine_name"])) for kind in ("plain", "scatter")},
            "speed": row["speedup"],
            "speed_per_mm2": row["speedup_per_area"],
        }
        for row in rows
    ]


def told(pair: Pair, machine: dict[str, Any] | None) -> str:
    """A pair in words; banks where its machine is on the front and has scatter."""
    banks = f", {machine['rank_memory']['banks']} banks" if machine and machine["array"]["scatter"] else ""
    return f"{family(pair)}, {100 * pair['tile_share']:.0f} %{banks}, {pair['area_mm2']:.0f} mm2"


def family(pair: Pair) -> str:
    by_layer = ", by layer" if len(set(pair["shares"])) > 1 else ""
    return pair["family"].replace("_", " ") + by_layer


def front(found: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """So many pairs of the front, evenly spaced, fastest first."""
    pairs: list[Pair] = found["front"]
    if len(pairs) > number:
        pairs = [pairs[round(at * (len(pairs) - 1) / (number - 1))] for at in range(number)]
    rows = []
    for pair in pairs:
        machine = pair["machine"]
        sizes = (machine[part]["kib"] for part in ("scratchpad", "accumulator", "rank_memory", "weight_buffer"))
        rows.append(
            {
                "rows": machine["array"]["rows"],
                "banks": machine["rank_memory"]["banks"] if machine["array"]["scatter"] else None,
                "kib": "+".join(f"{size:g}" for size in sizes),
                "area_mm2": pair["area_mm2"],
                "network": family(pair),
                "tiles": pair["tile_share"],
                "error": pair["error"],
                "latency_us": 1e6 * pair["latency_s"],
                "energy_uj": pair["energy_pj"] / 1e6,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("front", type=Path, help="what `gblr-hw codesign -o` wrote")
    parser.add_argument("--area", type=float, default=64.0, help="mm2 that both kinds of machine have to hold")
    parser.add_argument("--pairs", type=int, default=11, help="shown of the front")
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    options = parser.parse_args()
    found = json.loads(options.front.read_text(encoding="utf-8"))
    try:
        data = {"plain_and_scatter": comparisons(found, options.area), "front": front(found, options.pairs)}
    except InputError as error:
        raise SystemExit(str(error)) from None
    print(f"{comparison_table(data['plain_and_scatter'])}\n{front_table(data['front'])}", end="")
    write_json(options.out, **data)


if __name__ == "__main__":
    main()
