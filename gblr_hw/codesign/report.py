"""The outcome of a search as tables, as a sentence, and as a JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from analysis.tables.table import Column, format_table, percent, seconds
from gblr_hw.codesign.front import EVEN, Comparison
from gblr_hw.codesign.loop import Outcome
from gblr_hw.codesign.problem import Pair, Problem
from gblr_hw.weights.family import FAMILIES
from simulator.machine.area_table import AreaTable
from simulator.machine.energy_table import EnergyTable

_SHOWN = 24


def front_table(front: Sequence[Pair], markdown: bool = False) -> str:
    """The front, fastest first; of a long one some, evenly spaced."""
    chosen = list(front)
    if len(front) > _SHOWN:
        chosen = [front[round(i * (len(front) - 1) / (_SHOWN - 1))] for i in range(_SHOWN)]
    columns = (
        Column("P", "side"),
        Column("banks", "banks"),
        Column("KiB", "kib"),
        Column("GB/s", "gb_per_s", lambda value: f"{value:g}"),
        Column("mm2", "area_mm2", lambda value: f"{value:.1f}"),
        Column("network", "family", align="left"),
        Column("tiles", "tile_share", percent),
        Column("error", "error", lambda value: f"{value:.4f}"),
        Column("latency", "latency_s", seconds),
        Column("energy", "energy_uj", lambda value: f"{value:.1f} µJ"),
    )
    return format_table(columns, [_row(pair) for pair in chosen], markdown)


def comparison_table(comparisons: Sequence[Comparison], markdown: bool = False) -> str:
    """Plain against scatter, a row for each area and error level; speeds are those of scatter over plain."""
    columns = (
        Column("mm2, at most", "max_area_mm2", lambda value: f"{value:g}"),
        Column("error, at most", "max_error", lambda value: f"{value:g}"),
        Column("plain", "plain", seconds),
        Column("by", "plain_pair", align="left"),
        Column("scatter", "scatter", seconds),
        Column("by", "scatter_pair", align="left"),
        Column("speed", "speedup", lambda value: f"{value:.3f}"),
        Column("speed per mm2", "per_area", lambda value: f"{value:.3f}"),
    )
    rows = [
        {
            "max_area_mm2": row.max_area_mm2,
            "max_error": row.max_error,
            "plain": row.plain and row.plain.latency_s,
            "plain_pair": row.plain and _short(row.plain),
            "scatter": row.scatter and row.scatter.latency_s,
            "scatter_pair": row.scatter and _short(row.scatter),
            "speedup": row.speedup,
            "per_area": row.speedup_per_area,
        }
        for row in comparisons
    ]
    return format_table(columns, rows, markdown)


def answer(comparisons: Sequence[Comparison]) -> str:
    """Is scatter worth its area? In one sentence, from the rows where both kinds reach the error."""
    both = [row.speedup for row in comparisons if row.speedup is not None]
    if not both:
        return "The two kinds of machine reach no error level in common."
    dense = [row.speedup_per_area for row in comparisons if row.speedup_per_area is not None]
    faster, slower = sum(value > 1 + EVEN for value in both), sum(value < 1 / (1 + EVEN) for value in both)
    return (
        f"Within equal areas and errors scatter is faster in {faster} of {len(both)} cases, slower in {slower}, even "
        f"in {len(both) - faster - slower}. Its speed over plain's: {_spread(both)}; per mm2: {_spread(dense)}."
    )


def gains(outcome: Outcome) -> str:
    """What moving tiles between layers brought, in one sentence."""
    if not outcome.moved:
        return "No pair became faster by moving tiles between its layers."
    found = [tried.before.latency_s / tried.after.latency_s for tried in outcome.moved]
    beyond = [tried.without_gradient.latency_s / tried.after.latency_s for tried in outcome.moved]
    ahead = sum(value > 1 + EVEN for value in beyond)
    return (
        f"Tiles moved between layers made {len(found)} of {outcome.winners} pairs faster: {_spread(found)}; in {ahead} "
        f"the gradient beats lowering shares greedily, by {max(beyond):.3f} at most."
    )


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.3f} to {max(values):.3f}, median {median(values):.3f}"


def refusals(outcome: Outcome) -> str:
    """What trials were refused for, as the end of a sentence; empty if none was."""
    reasons = ("over the area", "over the energy", "on machines too small for the network")
    told = [f"{count} {reason}" for count, reason in zip(outcome.refused, reasons, strict=True) if count]
    return f"; refused: {', '.join(told)}" if told else ""


def document(outcome: Outcome, problem: Problem, trials: int, seed: int) -> dict[str, Any]:
    """Everything as plain JSON types; a front machine's description is what ``Machine.from_dict`` reads."""
    energy, area = EnergyTable.load(problem.base.energy.table), AreaTable.load("cmos-180")
    return {
        "format": "gblr-hw codesign front",
        "version": 1,
        "trials": trials,
        "seed": seed,
        "tokens": problem.tokens,
        "layers": list(problem.networks.problems),
        "bounds": vars(problem.bounds),
        "objectives": list(problem.bounds.objectives),
        "energy_table": {"name": energy.name, "node_nm": energy.data.node_nm, "sha256": energy.sha256},
        "area_table": {"name": area.name, "node_nm": area.data.node_nm, "sha256": area.sha256},
        "front": [{**_numbers(pair), "machine": pair.machine.to_dict()} for pair in outcome.front],
        "comparisons": [
            {
                "max_area_mm2": row.max_area_mm2,
                "max_error": row.max_error,
                "speedup": row.speedup,
                "speedup_per_area": row.speedup_per_area,
                "plain": row.plain and _numbers(row.plain),
                "scatter": row.scatter and _numbers(row.scatter),
            }
            for row in outcome.comparisons
        ],
        "moved_between_layers": [{key: _numbers(pair) for key, pair in vars(tried).items()} for tried in outcome.moved],
    }


def _numbers(pair: Pair) -> dict[str, Any]:
    return {
        "machine_name": pair.machine.name,
        "family": pair.network.family,
        "shares": list(pair.network.shares),
        "tile_share": pair.tile_share,
        "error": pair.error,
        "latency_cycles": pair.latency_cycles,
        "latency_s": pair.latency_s,
        "energy_pj": pair.energy_pj,
        "area_mm2": pair.area_mm2,
    }


def _row(pair: Pair) -> dict[str, Any]:
    machine = pair.machine
    sizes = (machine.scratchpad.kib, machine.accumulator.kib, machine.rank_memory.kib, machine.weight_buffer.kib)
    return {
        **vars(pair),
        "side": machine.rows,
        "banks": machine.rank_memory.banks if pair.scatter else "plain",
        "kib": "+".join(str(size) for size in sizes),
        "gb_per_s": machine.dram_gb_per_s,
        "family": _family(pair),
        "energy_uj": pair.energy_pj / 1e6,
    }


def _short(pair: Pair) -> str:
    banks = f", {pair.machine.rank_memory.banks} banks" if pair.scatter else ""
    return f"{_family(pair)} {100 * pair.tile_share:.0f} %, P = {pair.machine.rows}{banks}, {pair.area_mm2:.0f} mm2"


def _family(pair: Pair) -> str:
    mixed = " (shared)" if len(set(pair.network.shares)) > 1 else ""
    return FAMILIES[pair.network.family].label + mixed
