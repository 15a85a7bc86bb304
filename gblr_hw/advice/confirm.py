"""Closed forms beside the simulator: the ways that look best, lowered and run cycle by cycle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gblr_hw.advice.advise import FALLBACK, Advice, Measure, Progress, Regime
from gblr_hw.advice.ways import WAYS, Way
from gblr_hw.frontend.export import ExportedNetwork
from gblr_hw.jobs.executors import Workers, announced
from gblr_hw.lowering.lower_layer import lower_operator
from gblr_hw.lowering.pipeline import lower
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.weights.stored import LayerWeights
from simulator.machine.machine import Machine
from simulator.network.network import Network
from simulator.program.schedule import LayerSchedule
from simulator.timing.simulate import simulate

MIXED = "best of each layer"
Pick = tuple[Mapping[str, str], Regime]  # ways by layer, and where
Measures = tuple[float, float, float]
Simulate = Callable[[Sequence[Pick], Progress], list[Measures]]


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
    told: list[tuple[Regime, str]] = []
    picks: list[Pick] = []
    for regime in regimes:
        of_regime = _picks(advice, regime, measure)
        told += [(regime, way) for way in of_regime]
        picks += [(ways, regime) for ways in of_regime.values()]
    measured = run(picks, progress or (lambda done, of, what: None))
    found = []
    for (regime, way), measures in zip(told, measured, strict=True):
        closed = advice.mixed_total(regime, measure) if way == MIXED else advice.total(way, regime, measure)
        found.append(Confirmed(regime, way, closed, *measures))
    return found


def _picks(advice: Advice, regime: Regime, measure: Measure) -> dict[str, dict[str, str]]:
    """What is run in a regime: for each way, or the best of each layer, the ways by layer."""
    picks: dict[str, dict[str, str]] = {}
    for way in _worth_running(advice, regime, measure):
        picks[way] = {name: _of(advice, index, way) for index, name in _layers(advice)}
    best = [advice.best_of_group(index, regime, measure) for index in range(len(advice.groups))]
    mixed = {name: best[index] for index, name in _layers(advice)}
    if mixed not in picks.values():
        picks[MIXED] = mixed
    return picks


def label(way: str) -> str:
    """A way's name in tables."""
    return WAYS[way].label if way in WAYS else way


def layer_by_layer(advice: Advice, workers: Workers | None = None) -> Simulate:
    """All layers one after another, each with its inputs and outputs in DRAM; each way of a group is run once a regime.

    workers: that do so; without any it is done here.
    """
    group_of = {name: index for index, name in _layers(advice)}

    def run(picks: Sequence[Pick], progress: Progress) -> list[Measures]:
        runs = list(
            dict.fromkeys((group_of[name], way, regime) for ways, regime in picks for name, way in ways.items())
        )

        def tell(done: int, first: int) -> None:
            group, way, regime = runs[first]
            progress(
                done, len(runs), f"simulated at {regime.tokens} tokens: {advice.groups[group].chosen}, {label(way)}"
            )

        results = (workers or Workers()).results_of(_one_layer, replace(advice), runs)
        known = {runs[index]: measures for index, measures in announced(results, len(runs), tell)}
        found: list[Measures] = []
        for ways, regime in picks:
            total = (0.0, 0.0, 0.0)
            for name, way in ways.items():
                one = known[group_of[name], way, regime]
                total = total[0] + one[0], total[1] + one[1], total[2] + one[2]
            found.append(total)
        return found

    return run


def whole_network(
    advice: Advice, exported: Callable[[int], ExportedNetwork], workers: Workers | None = None
) -> Simulate:
    """The whole program, attention and norms included. exported: tokens -> the network, asked for once.

    workers: that lower and simulate; without any it is done here.
    """

    def run(picks: Sequence[Pick], progress: Progress) -> list[Measures]:
        found: dict[int, Measures] = {}
        for tokens in dict.fromkeys(regime.tokens for _, regime in picks):
            mine = [index for index, (_, regime) in enumerate(picks) if regime.tokens == tokens]

            def tell(done: int, first: int, before: int = len(found), tokens: int = tokens) -> None:
                progress(before + done, len(picks), f"simulated at {tokens} tokens")

            network = exported(tokens)
            given = replace(advice), network.network, network.weights
            results = (workers or Workers()).results_of(_whole, given, [picks[index] for index in mine])
            for index, measures in announced(results, len(mine), tell):
                found[mine[index]] = measures
        return [found[index] for index in range(len(picks))]

    return run


# What workers call.
def _whole(
    given: tuple[Advice, Network, Mapping[str, LayerWeights]], ways: Mapping[str, str], regime: Regime
) -> Measures:
    advice, network, own = given
    machine = advice.machine_at(regime.gb_per_s)
    group_of = {name: index for index, name in _layers(advice)}
    weights: dict[str, LayerWeights] = dict(own)
    for name, way in ways.items():
        held = advice.found[group_of[name]][way].weights
        assert held is not None
        weights[name] = replace(held, bias=own[name].bias)
    # The values of one layer stand for those of all of its size: cycles do not depend on them.
    lower_linear = partial(_lower_in_way, {name: WAYS[way] for name, way in ways.items()})
    return _measures(simulate(lower_network(network, weights, machine, lower_linear=lower_linear), machine))


def _one_layer(advice: Advice, group: int, way: str, regime: Regime) -> Measures:
    weights, machine = advice.found[group][way].weights, advice.machine_at(regime.gb_per_s)
    assert weights is not None
    rows, bits = advice.groups[group].rows_of(regime.tokens), WAYS[way].weight_bits(machine) or None
    return _measures(simulate(lower({"layer": weights}, machine, tokens=rows, weight_bits=bits), machine))


def _lower_in_way(
    ways: Mapping[str, Way], name: str, weights: LayerWeights, machine: Machine, tokens: int, *options: Any, **more: Any
) -> LayerSchedule:
    """An operator with the narrow tiles of its way; a part of one, ``name[first:last]``, with those of the whole."""
    way = ways.get(name, ways.get(name.rpartition("[")[0], WAYS[FALLBACK]))
    return lower_operator(name, weights, machine, tokens, *options, narrow=way.kinds, **more)


def _measures(report: Any) -> Measures:
    return float(report.latency_cycles), float(report.energy_pj), float(report.dram_bytes)


def _worth_running(advice: Advice, regime: Regime, measure: Measure) -> list[str]:
    able = [way for way in advice.found[0] if advice.stands_for(way)]
    ranked = sorted(able, key=lambda way: advice.total(way, regime, measure))
    return list(dict.fromkeys([FALLBACK, *ranked[:2]]))


def _of(advice: Advice, group: int, way: str) -> str:
    return way if advice.found[group][way].weights is not None else FALLBACK


def _layers(advice: Advice) -> list[tuple[int, str]]:
    return [(index, name) for index, group in enumerate(advice.groups) for name in group.names]
