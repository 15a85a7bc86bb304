"""``simulate``: run a program's timing on a machine and report cycles with their causes, bytes, accesses and energy."""

from __future__ import annotations

import numpy as np

from simulator.accesses import count_events
from simulator.energy import EnergyModel, energy_model
from simulator.engine import STALL_NAMES, Events, run_engine
from simulator.errors import InputError
from simulator.isa import TILE_OPS, TRANSFER_OPS, Op, Unit
from simulator.machine import Machine
from simulator.program import Program
from simulator.report import CAUSES, LayerReport, Report, Trace, UnitReport
from simulator.timing import Timing, channel_cycles, resolve_timing


def simulate(program: Program, machine: Machine) -> Report:
    """Cycles, bytes, accesses and energy of ``program`` on ``machine``.

    Raises InputError if the program was laid out for another machine, its layers overlap or a memory lies outside the
    energy table, and DeadlockError if it cannot finish. Timing never depends on data, so no inputs are needed.
    """
    program.require_machine(machine)
    model = energy_model(machine)
    timing = resolve_timing(program, machine)
    events = run_engine(timing)
    counts = count_events(program, machine)
    total = int(events.done.max()) if len(events.done) else 0
    layers = _layer_reports(program, machine, timing, events, counts, model)
    accesses = {name: int(values.sum()) for name, values in counts.items()}
    parts = model.by_component(accesses, total)
    multiplications = sum(layer.multiplications for layer in program.layers)
    roof, bound = _roofline(program, machine, accesses)
    useful = multiplications * program.tokens
    return Report(
        program=", ".join(layer.name for layer in program.layers[:3]) + (", ..." if len(program.layers) > 3 else ""),
        machine=machine.name,
        rows=machine.rows,
        cols=machine.cols,
        clock_ghz=machine.clock_ghz,
        latency_cycles=total,
        latency_s=total / (machine.clock_ghz * 1e9),
        energy_pj=sum(value for value, _, _ in parts.values()),
        energy_by_component={name: value for name, (value, _, _) in sorted(parts.items())},
        energy_range_pj=(sum(low for _, low, _ in parts.values()), sum(high for _, _, high in parts.values())),
        energy_table=model.table.name,
        energy_table_sha256=model.table.sha256,
        dram_bytes=accesses["dram_read_bytes"] + accesses["dram_write_bytes"],
        dram_read_bytes=accesses["dram_read_bytes"],
        dram_write_bytes=accesses["dram_write_bytes"],
        accesses=accesses,
        tiles=program.tile_count,
        multiplications=multiplications,
        macs=accesses["mac_active"] + accesses["mac_padding"],
        utilisation=useful / max(1, total * machine.rows * machine.cols),
        roofline_cycles=roof,
        roofline_fraction=roof / max(1, total),
        bound=bound,
        layers=layers,
        units=_unit_reports(timing, events, total),
        trace=_trace(program, timing, events),
    )


def _roofline(program: Program, machine: Machine, accesses: dict[str, int]) -> tuple[int, str]:
    """The lower bound of latency: stored weights x tokens over the cells, or bytes over the channel's bandwidth."""
    compute = -(-accesses["mac_active"] // (machine.rows * machine.cols))
    ins = program.instructions
    moved = ins.dram_bytes[np.isin(ins.op, TRANSFER_OPS)]
    memory = int(channel_cycles(machine, np.array([moved.sum()]))[0]) if len(moved) else 0
    return (compute, "compute") if compute >= memory else (memory, "memory")


def _layer_ends(program: Program, events: Events) -> np.ndarray:
    """First cycle after each layer's last store, in layer order."""
    ends = np.zeros(len(program.layers), dtype=np.int64)
    np.maximum.at(ends, program.instructions.layer, events.done)
    return ends


def _layer_reports(
    program: Program,
    machine: Machine,
    timing: Timing,
    events: Events,
    counts: dict[str, np.ndarray],
    model: EnergyModel,
) -> tuple[LayerReport, ...]:
    ends = _layer_ends(program, events)
    reports = []
    begin = 0
    for index, layer in enumerate(program.layers):
        end = int(ends[index])
        causes = _causes_of_layer(program, timing, events, index, begin, end)
        cycles = end - begin
        mine = {name: int(values[index]) for name, values in counts.items()}
        parts = model.by_component(mine, cycles)
        kinds = [int((layer.tiles.kind == op).sum()) for op in TILE_OPS]
        cells = machine.rows * machine.cols
        reports.append(
            LayerReport(
                name=layer.name,
                form=layer.form,
                in_features=layer.in_features,
                out_features=layer.out_features,
                ranks=layer.ranks,
                tokens=program.tokens,
                latency_cycles=cycles,
                cycles_by_cause=causes,
                tiles=len(layer.tiles),
                tiles_dense=kinds[0],
                tiles_reduce=kinds[1],
                tiles_expand=kinds[2],
                tile_bound=layer.multiplications / cells,
                multiplications=layer.multiplications,
                macs=mine["mac_active"] + mine["mac_padding"],
                dram_bytes=mine["dram_read_bytes"] + mine["dram_write_bytes"],
                energy_pj=sum(value for value, _, _ in parts.values()),
                utilisation=layer.multiplications * program.tokens / max(1, cycles * cells),
            )
        )
        begin = end
    return tuple(reports)


def _causes_of_layer(
    program: Program, timing: Timing, events: Events, index: int, begin: int, end: int
) -> dict[str, int]:
    """Divide the window [begin, end) of the array's time line by cause; the parts sum to end - begin (rule C1)."""
    causes = dict.fromkeys(CAUSES, 0)
    ins = program.instructions
    mine = np.flatnonzero((ins.layer == index) & timing.is_tile)
    first = int(events.start[mine[0]]) if len(mine) else end
    if first < begin:
        raise InputError(
            f"program: layer '{program.layers[index].name}'",
            f"work in cycle {first}, while the layer before it runs until {begin}",
            "layers run one after another (machine.md, rule E3)",
            "Let its inputs wait for the last store of the layer before it.",
        )
    if len(mine):
        start, stop = events.start[mine], events.end[mine]
        gap = start - np.concatenate([[begin], stop[:-1]])
        for code, name in enumerate(STALL_NAMES):
            cycles = int(gap[events.stall[mine] == code].sum())
            if cycles:
                causes[name] += cycles
        causes["compute"] = int(ins.tokens[mine].sum())
        causes["bank_conflict"] = int((ins.tokens[mine] * (ins.row_cycles[mine] - 1)).sum())
        causes["tail"] = end - int(stop[-1])
    else:
        causes["tail"] = end - begin
    return causes


def _unit_reports(timing: Timing, events: Events, total: int) -> tuple[UnitReport, ...]:
    reports = []
    for unit in Unit:
        mine = np.flatnonzero(timing.unit == unit)
        start, end = events.start[mine], events.end[mine]
        free = np.concatenate([[0], end[:-1]]) if len(mine) else start
        stalls = _array_stalls(events, mine, free) if unit == Unit.ARRAY else _other_stalls(timing, events, mine, free)
        reports.append(
            UnitReport(
                name=unit.name.lower(),
                instructions=len(mine),
                busy_cycles=int((end - start).sum()),
                stall_cycles={name: cycles for name, cycles in stalls.items() if cycles},
                idle_after_last_cycles=total - (int(end[-1]) if len(mine) else 0),
            )
        )
    return tuple(reports)


def _array_stalls(events: Events, mine: np.ndarray, free: np.ndarray) -> dict[str, int]:
    """Every gap belongs to what was last to arrive (rule C1)."""
    gap = events.start[mine] - free
    return {name: int(gap[events.stall[mine] == code].sum()) for code, name in enumerate(STALL_NAMES) if code}


def _other_stalls(timing: Timing, events: Events, mine: np.ndarray, free: np.ndarray) -> dict[str, int]:
    """Until its dependences are done a unit waits for the last of them, from then on for the channel (rule D3)."""
    after = timing.after[:, mine]
    done = np.where(after >= 0, events.done[np.maximum(after, 0)], 0)
    ready, cause = done.max(axis=0), done.argmax(axis=0) + 1
    waiting = np.maximum(ready - free, 0)
    stalls = {name: int(waiting[cause == code].sum()) for code, name in enumerate(STALL_NAMES) if code}
    stalls["dram_channel"] += int((events.start[mine] - np.maximum(ready, free)).sum())
    return stalls


def _trace(program: Program, timing: Timing, events: Events) -> Trace:
    return Trace(
        op=program.instructions.op,
        unit=timing.unit,
        layer=program.instructions.layer,
        start=events.start,
        end=events.end,
        done=events.done,
        op_names=tuple(op.name for op in Op),
        unit_names=tuple(unit.name.lower() for unit in Unit),
    )
