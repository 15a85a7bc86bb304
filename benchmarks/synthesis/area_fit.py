"""Fits the logic coefficients of the area table to docs/synthesis.json by least squares of the relative errors, and
prints them with what they miss at each size that was synthesised: `python -m benchmarks.synthesis.area_fit`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.tables.table import Column, format_table, percent
from benchmarks.synthesis.parts import PRESETS, SHORT_CYCLES, machine_of, scatter_bits
from simulator.machine.machine import Machine

RESULTS = Path("docs/synthesis.json")


def rows_of(results: dict[str, Any]) -> dict[str, list[tuple[str, dict[str, float], float]]]:
    """Part -> (case, counts by coefficient, um2)."""
    sides = results["sides"]
    found: dict[str, list[tuple[str, dict[str, float], float]]] = {}
    for side in sorted(PRESETS):
        areas = {row["part"]: row["area_um2"] for row in sides[str(side)]}
        cells, bits = side * side, 24 + (side - 1).bit_length()
        found.setdefault("array", []).append((f"{side}", {"cell": cells, "cell_bit": cells * bits}, areas["array"]))
        added = areas["array, narrow tiles"] - areas["array"]
        found.setdefault("narrow tiles", []).append((f"{side}", {"narrow_cell": cells}, added))
        found.setdefault("column shifter", []).append((f"{side}", {"column_shifter": 1}, areas["column shifter"]))
        plain = {"plain": 1, "plain_lane": side}
        found.setdefault("control, plain", []).append((f"{side}", plain, areas["control, plain"]))
        for banks in (side, side * 5 // 4, 2 * side):
            machine = machine_of(side, banks=banks)
            built = machine.rank_memory.network_cycles
            networks = [areas[f"{way} crossbar, {banks} banks, {built} cycles"] for way in ("scatter", "gather")]
            around = {"lane": side, "lane_pair": side * side, "bank": banks, "lane_bank": side * banks}
            rest = areas[f"control, {banks} banks"] - sum(networks)
            found.setdefault("control", []).append((f"{side}, {banks} banks", around, rest))
            for cycles in (built, SHORT_CYCLES):
                case = f"crossbar, {banks} banks, {cycles} cycles"
                for way, counts in (("scatter", scatter_counts), ("gather", gather_counts)):
                    row = (f"{side}, {case}", counts(machine, cycles), areas[f"{way} {case}"])
                    found.setdefault(way, []).append(row)
    return found


def scatter_counts(machine: Machine, cycles: int) -> dict[str, float]:
    lanes, banks, word = machine.cols, machine.rank_memory.banks, scatter_bits(machine)
    early = (cycles - 1) * lanes * (word + 1 + (machine.multiplier_row - 1).bit_length())
    return {"scatter_mux": lanes * banks * word, "scatter_register": early + banks * (word + 1)}


def gather_counts(machine: Machine, cycles: int) -> dict[str, float]:
    lanes, banks, bits = machine.rows, machine.rank_memory.banks, machine.datatypes.activation_bits
    stage = banks * bits + lanes * (machine.multiplier_row - 1).bit_length()
    return {
        "gather_mux": lanes * banks * bits,
        "gather_register": (cycles - 2) * stage,
        "gather_end_bit": lanes * bits,
    }


@dataclass(frozen=True)
class Fit:
    """One part's coefficients (um2 by count), and for each case its area and the model's, in um2."""

    coefficients: dict[str, float]
    cases: dict[str, tuple[float, float]]

    @property
    def largest_error(self) -> float:
        """Of the areas, as a fraction."""
        return max(abs(model / area - 1) for area, model in self.cases.values())


def fits(results: dict[str, Any]) -> dict[str, Fit]:
    """Every part's least-squares fit of relative errors."""
    found = {}
    for part, rows in rows_of(results).items():
        names = list(rows[0][1])
        areas = np.array([area for _, _, area in rows])
        counts = np.array([[row[name] for name in names] for _, row, _ in rows], np.float64)
        fitted, *_ = np.linalg.lstsq(counts / areas[:, None], np.ones(len(rows)), rcond=None)
        cases = {case: (area, model) for (case, _, area), model in zip(rows, counts @ fitted, strict=True)}
        found[part] = Fit(dict(zip(names, fitted, strict=True)), cases)
    return found


# Part of the fit -> how docs/codesign.md calls it, and the counts that it is made of.
NAMES = {
    "array": ("array", "cells, cells x bits"),
    "narrow tiles": ("what narrow tiles add to the array", "cells"),
    "column shifter": ("a narrow tile's column shifter", "1"),
    "control, plain": ("control, plain", "1, lanes"),
    "control": ("control around a network", "lanes, lanes^2, banks, lanes x banks"),
    "scatter": ("scatter crossbar", "lanes x banks x bits, registers"),
    "gather": ("gather crossbar", "lanes x banks x bits, registers of later stages, ends"),
}


def area_table(results: dict[str, Any]) -> str:
    """What each part's area is made of, and the most that the fit misses."""
    found = fits(results)
    lines: list[dict[str, object]] = [
        {"part": name, "counts": counts, "error": percent(found[part].largest_error)}
        for part, (name, counts) in NAMES.items()
    ]
    lines.append({"part": "requantisers", "counts": "one a bank (a lane without scatter)", "error": "as measured"})
    columns = (
        Column("part", "part", align="left"),
        Column("counts that it is made of", "counts", align="left"),
        Column("largest error at the sizes synthesised", "error"),
    )
    return format_table(columns, lines, markdown=True)


def main() -> None:
    for part, fit in fits(json.loads(RESULTS.read_text(encoding="utf-8"))).items():
        print(part, ", ".join(f"{name} {value:.7g}" for name, value in fit.coefficients.items()))
        for case, (area, model) in fit.cases.items():
            print(f"    {case:34} {area / 1e6:8.3f} mm2, model {model / 1e6:8.3f}, {100 * (model / area - 1):+5.1f} %")


if __name__ == "__main__":
    main()
