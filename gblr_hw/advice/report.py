"""Advice as tables, sentences and one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.tables.table import Column, count, format_table
from gblr_hw.advice.advise import FALLBACK, Advice, Measure, Regime
from gblr_hw.advice.confirm import MIXED, Confirmed, label
from gblr_hw.advice.ways import WAYS

VERSION = 1
MEASURES: dict[str, Measure] = {"latency": "latency_cycles", "energy": "energy_pj", "bytes": "dram_bytes"}
UNITS = {"latency_cycles": "cycles", "energy_pj": "pJ", "dram_bytes": "bytes"}


def document(
    advice: Advice, regimes: Sequence[Regime], measure: Measure, confirmed: Sequence[Confirmed]
) -> dict[str, Any]:
    """Everything as plain JSON types; its fields are described in docs/advice.md."""
    return {
        "format": "gblr-hw advice",
        "version": VERSION,
        "machine": advice.machine.to_dict(),
        "measure": measure,
        "tiles": advice.tiles,
        "weighted": advice.weighted,
        "activations_on_chip": advice.on_chip,
        "layers": [_group(advice, index) for index in range(len(advice.groups))],
        "regimes": [_regime(advice, regime, measure) for regime in regimes],
        "simulated": [
            {
                "tokens": one.regime.tokens, "gb_per_s": one.regime.gb_per_s, "way": one.way,
                "closed_form": one.closed_form, "latency_cycles": one.latency_cycles, "energy_pj": one.energy_pj,
                "dram_bytes": one.dram_bytes,
            }
            for one in confirmed
        ],
    }  # fmt: skip


def _group(advice: Advice, index: int) -> dict[str, Any]:
    group = advice.groups[index]
    return {
        "names": list(group.names),
        "fitted": group.chosen,
        "out_features": group.out_features,
        "in_features": group.in_features,
        "error": None if advice.errors is None else advice.errors[index],
        "ways": {
            way: {"error": found.error} if found.weights is not None else {"nothing": found.why}
            for way, found in advice.found[index].items()
        },
    }


def _regime(advice: Advice, regime: Regime, measure: Measure) -> dict[str, Any]:
    layers = []
    for index, group in enumerate(advice.groups):
        costs = {way: advice.cost(index, way, regime) for way in advice.found[index]}
        layers.append(
            {
                "fitted": group.chosen,
                "best": advice.best_of_group(index, regime, measure),
                "ways": {
                    way: {
                        "latency_cycles": float(cost.latency_cycles), "energy_pj": float(cost.energy_pj),
                        "dram_bytes": cost.dram_bytes, "binds": cost.binds,
                    }
                    for way, cost in costs.items() if cost is not None
                },
            }
        )  # fmt: skip
    totals = {way: {key: advice.total(way, regime, key) for key in MEASURES.values()} for way in advice.found[0]}
    return {
        "tokens": regime.tokens,
        "gb_per_s": regime.gb_per_s,
        "best": advice.best(regime, measure),
        "best_of_each_layer": advice.mixed_total(regime, measure),
        "all_layers": totals,
        "layers": layers,
    }


def layers_table(advice: Advice) -> str:
    """Which layers stand for which, and what each way needs or leaves."""
    rows = []
    for index, group in enumerate(advice.groups):
        for way, found in advice.found[index].items():
            rows.append(
                {
                    "layer": f"{group.chosen} ({len(group.names)} of {group.out_features} x {group.in_features})",
                    "way": label(way),
                    "error": f"{found.error:.3f}" if found.weights is not None else "",
                    "why": found.why,
                }
            )
    columns = (
        Column("layer (stands for)", "layer", align="left"), Column("way", "way", align="left"),
        Column("error", "error"), Column("dense instead, because", "why", align="left"),
    )  # fmt: skip
    previous = ""
    for row in rows:
        row["layer"], previous = ("" if row["layer"] == previous else row["layer"]), row["layer"] or previous
    return format_table(columns, rows)


def regime_table(advice: Advice, regime: Regime, measure: Measure) -> str:
    """All ways over all layers in one regime, the best first."""
    base = {key: advice.total(FALLBACK, regime, key) for key in MEASURES.values()}
    rows = []
    for way in sorted(advice.found[0], key=lambda way: advice.total(way, regime, measure)):
        if advice.stands_for(way) == 0:
            continue
        totals = {key: advice.total(way, regime, key) for key in MEASURES.values()}
        rows.append(
            {
                "way": label(way),
                "layers": advice.stands_for(way),
                "cycles": round(totals["latency_cycles"]),
                **{f"{key} over": f"{totals[key] / base[key]:.3f}" for key in base},
                "binds": _binds(advice, way, regime),
            }
        )
    columns = (
        Column("way", "way", align="left"), Column("layers", "layers", count), Column("cycles", "cycles", count),
        Column("over dense, 8 bits", "latency_cycles over"), Column("energy", "energy_pj over"),
        Column("bytes", "dram_bytes over"), Column("waits for", "binds", align="left"),
    )  # fmt: skip
    return format_table(columns, rows)


def sentence(advice: Advice, regime: Regime, measure: Measure) -> str:
    """Who wins a regime, by how much, and why."""
    best, unit = advice.best(regime, measure), UNITS[measure]
    dense, least = advice.total(FALLBACK, regime, measure), advice.total(best, regime, measure)
    mixed = advice.mixed_total(regime, measure)
    text = f"{advice.called(regime)}: "
    if best == FALLBACK:
        text += f"nothing beats dense in 8 bits, which waits for {_binds(advice, FALLBACK, regime)}"
    else:
        text += f"{label(best)} with {least / dense:.3f} of the {unit} of dense in 8 bits"
        text += f", which waits for {_binds(advice, FALLBACK, regime)}"
    rivals = [way for way in advice.found[0] if way != best and advice.stands_for(way)]
    if rivals:
        second = min(rivals, key=lambda way: advice.total(way, regime, measure))
        text += f"; next {label(second)}, {advice.total(second, regime, measure) / dense:.3f}"
    if mixed < 0.995 * least:
        text += f"; the best of each layer {mixed / dense:.3f}"
    return text + "."


def confirmed_table(advice: Advice, confirmed: Sequence[Confirmed], measure: Measure, whole: bool) -> str:
    """Closed form and simulator side by side."""
    base = {one.regime: one for one in confirmed if one.way == FALLBACK}
    rows = [
        {
            "regime": advice.called(one.regime),
            "way": label(one.way),
            "closed": f"{one.closed_form / base[one.regime].closed_form:.3f}",
            "simulated": round(one.measured(measure)),
            "over": f"{one.measured(measure) / base[one.regime].measured(measure):.3f}",
        }
        for one in confirmed
    ]
    columns = (
        Column("regime", "regime", align="left"), Column("way", "way", align="left"),
        Column("layers, closed form", "closed"),
        Column("whole network, simulated" if whole else "layers, simulated", "simulated", count),
        Column("over dense, 8 bits", "over"),
    )  # fmt: skip
    return format_table(columns, rows)


def disagreements(advice: Advice, confirmed: Sequence[Confirmed], measure: Measure) -> list[str]:
    """Where closed forms and the simulator have different winners among the ways that were run."""
    found = []
    for regime in dict.fromkeys(one.regime for one in confirmed):
        mine = [one for one in confirmed if one.regime == regime and one.way != MIXED]
        by_form = min(mine, key=lambda one: one.closed_form)
        by_simulator = min(mine, key=lambda one: one.measured(measure))
        if by_form.way != by_simulator.way:
            share = by_simulator.measured(measure) / by_form.measured(measure)
            found.append(
                f"{advice.called(regime)}: closed forms say {label(by_form.way)}, the simulator "
                f"{label(by_simulator.way)} ({share:.3f} of it)."
            )
    return found


def _binds(advice: Advice, way: str, regime: Regime) -> str:
    """What most of the cycles of all layers wait for."""
    cycles: dict[str, float] = {}
    for index, group in enumerate(advice.groups):
        cost = advice.cost(index, way, regime) or advice.cost(index, FALLBACK, regime)
        assert cost is not None
        cycles[cost.binds] = cycles.get(cost.binds, 0.0) + len(group.names) * float(cost.latency_cycles)
    return max(cycles, key=lambda limit: cycles[limit])


def colours() -> dict[str, tuple[str, str]]:
    """Way -> label and colour, for pictures."""
    return {name: (way.label, way.colour) for name, way in WAYS.items()}
