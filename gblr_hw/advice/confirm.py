"""Closed forms beside the simulator: the ways that look best, lowered and run cycle by cycle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gblr_hw.advice.advise import FALLBACK, Advice, Measure, Progress, Regime
from gblr_hw.advice.ways import WAYS, Way
from gblr_hw.frontend.export import ExportedNetwork
from gblr_hw.lowering.lower_layer import lower_operator
from gblr_hw.lowering.pipeline import lower
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.weights.stored import LayerWeights
from simulator.machine.machine import Machine
from simulator.program.schedule import LayerSchedule
from simulator.timing.simulate import simulate

MIXED = "best of each layer"
Simulate = Callable[[Mapping[str, str], Regime], tuple[float, float, float]]  # ways by layer -> the three measures


@dataclass(frozen=True)
class Confirmed:
    """One way (or the best of each layer) in one regime: all layers in closed form, and what the simulator says: of the
    same layers one after another, or of the whole network where there is one.
    """

    regime: Regime
    way: str
    closed_form: float
    latency_cycles: float
    energy_pj: float
    dram_bytes: float

    def measured(self, measure: Measure) -> float:
        """What the simulator says."""
        return float(getattr(self, measure))


def confirm(
    advice: Advice, regimes: Sequence[Regime], measure: Measure, run: Simulate, progress: Progress | None = None
) -> list[Confirmed]:
    """Of every regime the dense layers in eight bits, the two ways that look best, and the best of each layer."""
    found = []
    for number, regime in enumerate(regimes):
        picks: dict[str, dict[str, str]] = {}
        for way in _worth_running(advice, regime, measure):
            picks[way] = {name: _of(advice, index, way) for index, name in _layers(advice)}
        best = [advice.best_of_group(index, regime, measure) for index in range(len(advice.groups))]
        mixed = {name: best[index] for index, name in _layers(advice)}
        if mixed not in picks.values():
            picks[MIXED] = mixed
        for turn, (way, pick) in enumerate(picks.items()):
            if progress is not None:
                done = number + turn / len(picks)
                progress(round(100 * done), 100 * len(regimes), f"simulated at {regime.tokens} tokens: {label(way)}")
            closed = advice.mixed_total(regime, measure) if way == MIXED else advice.total(way, regime, measure)
            found.append(Confirmed(regime, way, closed, *run(pick, regime)))
    return found


def label(way: str) -> str:
    """A way's name in tables."""
    return WAYS[way].label if way in WAYS else way


def layer_by_layer(advice: Advice) -> Simulate:
    """All layers one after another, each with its inputs and outputs in DRAM."""
    group_of = {name: index for index, name in _layers(advice)}
    known: dict[tuple[int, str, Regime], tuple[float, float, float]] = {}

    def run(ways: Mapping[str, str], regime: Regime) -> tuple[float, float, float]:
        total = [0.0, 0.0, 0.0]
        for name, way in ways.items():
            key = group_of[name], way, regime
            if key not in known:
                known[key] = _one_layer(advice, *key)
            total = [a + b for a, b in zip(total, known[key], strict=True)]
        return total[0], total[1], total[2]

    return run


def whole_network(advice: Advice, exported: Callable[[int], ExportedNetwork]) -> Simulate:
    """The whole program, attention and norms included. exported: tokens -> the network."""

    def run(ways: Mapping[str, str], regime: Regime) -> tuple[float, float, float]:
        network, machine = exported(regime.tokens), advice.machine_at(regime.gb_per_s)
        group_of = {name: index for index, name in _layers(advice)}
        weights: dict[str, LayerWeights] = dict(network.weights)
        for name, way in ways.items():
            held = advice.found[group_of[name]][way].weights
            assert held is not None
            weights[name] = replace(held, bias=network.weights[name].bias)
        # The values of one layer stand for those of all of its size: cycles do not depend on them.
        lower_linear = partial(_lower_in_way, {name: WAYS[way] for name, way in ways.items()})
        program = lower_network(network.network, weights, machine, lower_linear=lower_linear)
        return _measures(simulate(program, machine))

    return run


def _lower_in_way(
    ways: Mapping[str, Way], name: str, weights: LayerWeights, machine: Machine, tokens: int, *options: Any, **more: Any
) -> LayerSchedule:
    """An operator with the narrow tiles of its way; a part of one, ``name[first:last]``, with those of the whole."""
    way = ways.get(name, ways.get(name.rpartition("[")[0], WAYS[FALLBACK]))
    return lower_operator(name, weights, machine, tokens, *options, narrow=way.kinds, **more)


def _one_layer(advice: Advice, group: int, way: str, regime: Regime) -> tuple[float, float, float]:
    weights, machine = advice.found[group][way].weights, advice.machine_at(regime.gb_per_s)
    assert weights is not None
    rows, bits = advice.groups[group].rows_of(regime.tokens), WAYS[way].weight_bits(machine) or None
    return _measures(simulate(lower({"layer": weights}, machine, tokens=rows, weight_bits=bits), machine))


def _measures(report: Any) -> tuple[float, float, float]:
    return float(report.latency_cycles), float(report.energy_pj), float(report.dram_bytes)


def _worth_running(advice: Advice, regime: Regime, measure: Measure) -> list[str]:
    able = [way for way in advice.found[0] if advice.stands_for(way)]
    ranked = sorted(able, key=lambda way: advice.total(way, regime, measure))
    return list(dict.fromkeys([FALLBACK, *ranked[:2]]))


def _of(advice: Advice, group: int, way: str) -> str:
    return way if advice.found[group][way].weights is not None else FALLBACK


def _layers(advice: Advice) -> list[tuple[int, str]]:
    return [(index, name) for index, group in enumerate(advice.groups) for name in group.names]
