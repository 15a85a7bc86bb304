"""What is certain to be asked for is fitted and simulated ahead, many at a time, wherever there are workers.

What is known afterwards is what would have been known without it: a batch follows from the search alone, never from how
many workers there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gblr_hw.codesign.measure import Measured, Measurements, simulated, weights_of
from gblr_hw.codesign.networks import NetworkChoice, Place
from gblr_hw.codesign.problem import Problem
from gblr_hw.codesign.space import MachineChoice
from gblr_hw.conversion.fit.fit_weights import Converted
from gblr_hw.jobs.executors import Workers, announced
from simulator.machine.machine import Machine

Point = tuple[MachineChoice, NetworkChoice]


def fit_ahead(problem: Problem, choices: Iterable[NetworkChoice], workers: Workers) -> None:
    """Fit all layers of the networks, each by itself."""
    networks = problem.networks
    todo = networks.missing(choices)
    made = workers.results_of(_made, problem, [(place,) for place in todo])
    for index, fitted in announced(made, len(todo), lambda _, first: networks.fitting(networks.told(todo[first]))):
        networks.keep(todo[index], *fitted)


def measure_ahead(problem: Problem, points: Sequence[Point], known: Measurements, workers: Workers) -> None:
    """Fit the networks of the points, and simulate each on its machine."""
    fit_ahead(problem, [network for _, network in points], workers)
    pairs = [(problem.space.machine(choice, problem.base), network) for choice, network in points]
    todo = known.missing(problem, pairs)
    keys = list(todo)
    tasks = [(weights_of(problem, network), machine) for machine, network in todo.values()]
    for index, measured in workers.results_of(_simulated, problem, tasks):
        known.keep(keys[index], measured)


# What workers call: the problem that they hold is a copy where they are other processes.
def _made(problem: Problem, place: Place) -> tuple[Converted, float]:
    return problem.networks.made(place)


def _simulated(problem: Problem, weights: Mapping[str, Converted], machine: Machine) -> Measured:
    return simulated(problem, weights, machine)
