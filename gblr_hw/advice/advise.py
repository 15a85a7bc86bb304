"""Which way wins for each layer and for all of them, by tokens and bandwidth: closed forms of layers at one error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from gblr_hw.advice.at_error import Found, at_error, at_tiles, int4_error
from gblr_hw.advice.ways import WAYS, Way
from gblr_hw.conversion.conversion_input import read_layers
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.cost.closed_form import LayerCost, MachineCost
from gblr_hw.cost.stored_forms import StoredForm, cost_of, stored_forms
from gblr_hw.jobs.executors import Workers, announced
from gblr_hw.jobs.one_thread import one_thread
from gblr_hw.weights.stored import DenseWeights
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

Progress = Callable[[int, int, str], None]
Measure = Literal["latency_cycles", "energy_pj", "dram_bytes"]
FALLBACK = "dense_int8"  # a layer that a way has nothing for stays dense


@dataclass(frozen=True)
class Regime:
    """Activation rows of a sequence (1 where the model's inputs are given), and the DRAM channel's bandwidth."""

    tokens: int
    gb_per_s: float


@dataclass(frozen=True, eq=False)
class Group:
    """Layers of one size, priced as one of them. rows: of one token, or of any run where `scales` is not set."""

    names: tuple[str, ...]
    chosen: str
    out_features: int
    in_features: int
    rows: int = 1
    scales: bool = True

    def rows_of(self, tokens: int) -> int:
        """Activation rows that enter each layer."""
        return self.rows * tokens if self.scales else self.rows


@dataclass(frozen=True, eq=False)
class Advice:
    """found: each way of each group, [group][way]. errors: what all ways were held to, by group; None where they were
    held to `tiles`, a share of the dense ones. on_chip: whether activations stay on chip between layers.
    """

    machine: Machine
    groups: tuple[Group, ...]
    found: tuple[Mapping[str, Found], ...]
    errors: tuple[float, ...] | None
    tiles: float | None
    on_chip: bool
    weighted: bool

    @cached_property
    def _forms(self) -> dict[tuple[int, str, int], list[StoredForm]]:
        return {}

    def called(self, regime: Regime) -> str:
        """A regime in words."""
        one = "1 token" if regime.tokens == 1 else f"{regime.tokens:,} tokens"
        what = one if any(group.scales for group in self.groups) else "one run"
        return f"{what}, {regime.gb_per_s:g} GB/s"

    def cost(self, group: int, way: str, regime: Regime) -> LayerCost | None:
        """Of one layer of a group; None where the way has nothing for it."""
        found = self.found[group][way]
        if found.weights is None:
            return None
        closed_form = self._closed_form(group, found.way, regime)
        key = group, way, closed_form.tokens
        if key not in self._forms:
            self._forms[key] = list(stored_forms(found.weights, closed_form))
        return cost_of(self._forms[key], closed_form)

    def total(self, way: str, regime: Regime, measure: Measure) -> float:
        """Of all layers in one way; those that it has nothing for are dense in eight bits."""
        return sum(
            len(one.names) * _value(self.cost(index, way, regime) or self._dense(index, regime), measure)
            for index, one in enumerate(self.groups)
        )

    def stands_for(self, way: str) -> int:
        """How many layers a way has something for."""
        return sum(len(one.names) for one, found in zip(self.groups, self.found, strict=True) if found[way].weights)

    def best_of_group(self, group: int, regime: Regime, measure: Measure) -> str:
        """The way that is best for the layers of a group."""
        costs = {way: self.cost(group, way, regime) for way in self.found[group]}
        return min((way for way in costs if costs[way]), key=lambda way: _value(costs[way], measure))

    def best(self, regime: Regime, measure: Measure) -> str:
        """The one way that is best for all layers together, of those that have something for any."""
        able = [way for way in WAYS if way in self.found[0] and self.stands_for(way)]
        return min(able, key=lambda way: self.total(way, regime, measure))

    def mixed_total(self, regime: Regime, measure: Measure) -> float:
        """Of all layers, each in the way that is best for it."""
        return sum(
            len(one.names) * _value(self.cost(index, self.best_of_group(index, regime, measure), regime), measure)
            for index, one in enumerate(self.groups)
        )

    def machine_at(self, gb_per_s: float) -> Machine:
        """The machine with another bandwidth."""
        return self.machine.with_(dram={"gb_per_s": gb_per_s})

    def _dense(self, group: int, regime: Regime) -> LayerCost:
        cost = self.cost(group, FALLBACK, regime)
        assert cost is not None
        return cost

    def _closed_form(self, group: int, way: Way, regime: Regime) -> MachineCost:
        rows = self.groups[group].rows_of(regime.tokens)
        return MachineCost(self.machine_at(regime.gb_per_s), rows, self.on_chip, way.kinds)


def advise(
    layers: Mapping[str, DenseWeights],
    machine: Machine,
    *,
    error: float | None = None,
    tiles: float | None = None,
    covariances: Mapping[str, npt.NDArray[np.floating]] | None = None,
    rows: Mapping[str, tuple[int, bool]] | None = None,
    ways: Sequence[str] | None = None,
    on_chip: bool = False,
    progress: Progress | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    workers: Workers | None = None,
) -> Advice:
    """Every way of every size of layer at one error.

    Parameters
    ----------
    layers: name -> dense weights. Of layers of one size the middle one is fitted, and stands for all of them.
    machine: with narrow_bits where ways of few bits are to be among them.
    error: relative error that each way is held to; without it, and without tiles, that of the dense layer in narrow
        bits.
    tiles: instead, the share of the dense tiles that structures get.
    covariances: name -> input second moments (n, n), by which errors are weighted.
    rows: name -> activation rows, and whether those are of one token.
    ways: names of `WAYS`, all if None; the dense layer in eight bits is always among them.
    on_chip: activations stay on chip between layers, as in most of a network's program.
    progress: called with (fits done, fits in all, what is fitted).
    jobs: processes that fit, a way of a layer each. scheduler: address of a Dask scheduler, in their place. The advice
        is the same, to the bit. workers: those that are there already, in the place of both.

    Raises InputError for an error or a share out of range, both at once, unknown ways, layers that conversion refuses,
    and as `Workers` says.
    """
    _check(error, tiles, machine)
    chosen = _chosen(ways)
    groups = _groups(layers, rows or {})
    wanted = {group.chosen: layers[group.chosen] for group in groups}
    moments = {name: covariances[name] for name in wanted if name in covariances} if covariances is not None else None
    problems, _ = read_layers(wanted, machine, moments, {})
    given = problems, machine
    tell = progress or (lambda done, of, what: None)
    with Workers(jobs, scheduler) if workers is None else nullcontext(workers) as at:
        errors = [error or 0.0] * len(groups)
        if error is None and tiles is None:
            for index, left in at.results_of(_int4_error, given, [(group.chosen,) for group in groups]):
                errors[index] = left
        tasks = [
            (group.chosen, way, wished, tiles) for group, wished in zip(groups, errors, strict=True) for way in chosen
        ]
        fits = announced(
            at.results_of(_found, given, tasks),
            len(tasks),
            lambda done, first: tell(done, len(tasks), f"{tasks[first][0]}: {WAYS[tasks[first][1]].label}"),
        )
        made = dict(fits)
    found = tuple(
        {way: made[number * len(chosen) + turn] for turn, way in enumerate(chosen)} for number in range(len(groups))
    )
    return Advice(machine, groups, found, None if tiles is not None else tuple(errors), tiles, on_chip, bool(moments))


# What workers call.
_Given = tuple[Mapping[str, FitProblem], Machine]


@one_thread
def _int4_error(given: _Given, name: str) -> float:
    problems, machine = given
    return int4_error(problems[name], machine)


@one_thread
def _found(given: _Given, name: str, way: str, error: float, tiles: float | None) -> Found:
    problems, machine = given
    if tiles is not None:
        return at_tiles(problems[name], WAYS[way], tiles, machine)
    return at_error(problems[name], WAYS[way], error, machine)


def _value(cost: LayerCost | None, measure: Measure) -> float:
    assert cost is not None
    return float(getattr(cost, measure))


def _chosen(ways: Sequence[str] | None) -> list[str]:
    for way in ways or ():
        if way not in WAYS:
            raise InputError("ways", repr(way), f"they are {', '.join(WAYS)}", "Name some of these.")
    return [way for way in WAYS if ways is None or way in ways or way == FALLBACK]


def _check(error: float | None, tiles: float | None, machine: Machine) -> None:
    if error is not None and tiles is not None:
        raise InputError("budget", "an error and tiles", "ways are compared at one of them", "Give one.")
    if error is not None and not 0.02 <= error < 1:
        rule = "it is from 0.02, which eight bits reach, to below 1"
        raise InputError("error", f"{error:g}", rule, "Try 0.1, or leave it out: the error of four bits.")
    if tiles is not None and not 0 < tiles < 1:
        raise InputError("tiles", f"{tiles:g}", "a share of the dense tiles lies between 0 and 1", "Try 0.5.")
    if error is None and tiles is None and not machine.datatypes.narrow_bits:
        raise InputError(
            f"machine '{machine.name}'",
            "no narrow tiles",
            "without an error or tiles, ways are held to the error of narrow bits",
            "Give an error or tiles, or set datatypes.narrow_bits.",
        )


def _groups(layers: Mapping[str, DenseWeights], rows: Mapping[str, tuple[int, bool]]) -> tuple[Group, ...]:
    if not layers:
        raise InputError("layers", "none", "there must be something to compare", "Check the names.")
    members: dict[tuple[int, int, int, bool], list[str]] = {}
    for name, weights in layers.items():
        members.setdefault((*weights.weight.shape, *rows.get(name, (1, True))), []).append(name)
    return tuple(
        Group(tuple(names), names[len(names) // 2], m, n, count, scales)
        for (m, n, count, scales), names in members.items()
    )
