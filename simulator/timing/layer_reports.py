"""The rows of a report: what every layer, or operator of a network, had to do and what it cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.machine.energy import EnergyModel
from simulator.machine.events import EVENTS, MACS
from simulator.machine.machine import Machine
from simulator.program.operations import TILE_OPS
from simulator.program.program import Program
from simulator.timing.cycle_accounts import causes_by_layer
from simulator.timing.durations import Timing
from simulator.timing.engine import Events
from simulator.timing.operator_bounds import bound_of, group_of, multiplications_of_row, work_by_layer
from simulator.timing.report import LayerReport


@dataclass(frozen=True)
class _Task:
    """What a layer is there for. multiplications: useful ones of a row. weights: those that its tiles have to hold."""

    kind: str
    rows: int
    functions: tuple[str, ...]
    multiplications: int
    weights: int


@dataclass(frozen=True)
class _Spent:
    """What a layer was charged with: cycles by cause, as told and as they decide its bound; events; busy units."""

    told: dict[str, int]
    decisive: dict[str, int]
    events: dict[str, int]
    channel: int
    vector: int


def layer_reports(
    program: Program,
    machine: Machine,
    timing: Timing,
    events: Events,
    counts: dict[str, np.ndarray],
    model: EnergyModel,
) -> tuple[LayerReport, ...]:
    """One row a layer, in order; ``counts`` are ``accesses.count_events``'. Raises InputError where layers without a
    network overlap.
    """
    causes = causes_by_layer(program, timing, events)
    by_layer = np.array([counts[name] for name in EVENTS]).T.tolist()
    channel, vector = work_by_layer(program.instructions.layer, timing, len(program.layers))
    busy = zip(channel.tolist(), vector.tolist(), strict=True)
    columns = enumerate(zip(causes, by_layer, busy, strict=True))
    return tuple(
        _report(program, index, machine, model, _Spent(*told, dict(zip(EVENTS, counted, strict=True)), *mine))
        for index, (told, counted, mine) in columns
    )


def _task(program: Program, index: int) -> _Task:
    layer = program.layers[index]
    if program.network is None:
        return _Task("linear", program.tokens, (), layer.multiplications, layer.multiplications)
    operator = program.network.operators[index]
    functions = tuple(step.function for step in operator.steps)
    own, weights = layer.multiplications, layer.multiplications
    if operator.kind in ("scores", "mix"):
        own, weights = multiplications_of_row(operator), int(layer.tiles.weight_ptr[-1])
    return _Task(operator.kind, operator.rows, functions, own, weights)


def _report(program: Program, index: int, machine: Machine, model: EnergyModel, spent: _Spent) -> LayerReport:
    layer, task, events = program.layers[index], _task(program, index), spent.events
    cells, cycles = machine.rows * machine.cols, sum(spent.told.values())
    return LayerReport(
        name=layer.name,
        form=layer.form,
        in_features=layer.in_features,
        out_features=layer.out_features,
        ranks=layer.ranks,
        tokens=task.rows,
        latency_cycles=cycles,
        cycles_by_cause=spent.told,
        tiles=len(layer.tiles),
        tiles_by_kind={op.name.lower(): int(np.count_nonzero(layer.tiles.kind == op)) for op in TILE_OPS},
        narrow_tiles=int(layer.tiles.narrow.sum()),
        tile_bound=task.weights / cells,
        multiplications=task.multiplications,
        macs=sum(events[name] for name in MACS),
        dram_bytes=events["dram_read_bytes"] + events["dram_write_bytes"],
        energy_pj=sum(value for value, _, _ in model.by_component(events, cycles).values()),
        utilisation=task.multiplications * task.rows / max(1, cycles * cells),
        kind=task.kind,
        group=group_of(task.kind, task.functions),
        steps=", ".join(task.functions),
        bound=bound_of(spent.decisive, task.kind == "vector", spent.channel),
        vector_cycles=spent.vector,
        dram_cycles=spent.channel,
    )
