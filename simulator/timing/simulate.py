"""``simulate``: run a program's timing on a machine and report cycles with their causes, bytes, accesses and energy."""

from __future__ import annotations

from collections import Counter

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.machine.energy import Sums, energy_model
from simulator.machine.events import MACS, STORED_MACS
from simulator.machine.machine import Machine
from simulator.program.operations import TRANSFER_OPS, Op, Unit, is_any
from simulator.program.program import Program
from simulator.timing.accesses import count_events
from simulator.timing.banked_transfers import BankedTransfers, banked_transfers, with_served
from simulator.timing.durations import Timing, channel_cycles, resolve_timing
from simulator.timing.engine import STALL_NAMES, STALL_NONE, Events, run_engine
from simulator.timing.layer_reports import layer_reports
from simulator.timing.report import BOUNDS, GROUPS, DramReport, LayerReport, Report, Trace, UnitReport
from simulator.timing.unit_accounts import UnitAccounts, account_units


def simulate(program: Program, machine: Machine, name: str = "") -> Report:
    """Cycles, bytes, accesses and energy of ``program`` on ``machine``.

    ``name``: what tables and pictures call the program; without it, what is in it.
    Raises InputError if the program was laid out for another machine, its layers overlap or a memory lies outside the
    energy table, and DeadlockError if it cannot finish. Timing never depends on data, so no inputs are needed.
    """
    program.require_machine(machine)
    model = energy_model(machine)
    timing, banked = resolve_timing(program, machine), banked_transfers(program, machine)
    events = run_engine(timing, banked)
    if banked is not None:
        timing = with_served(timing, events.start, events.end, events.done)
    counts = count_events(program, machine)
    units = account_units(timing, events)
    total = int(events.done.max(initial=0))
    layers = layer_reports(program, machine, timing, events, counts, model)
    accesses = {name: int(values.sum()) for name, values in counts.items()}
    parts, standing = model.by_component(accesses, total), model.standing_by_component(total)
    useful = sum(layer.multiplications * layer.tokens for layer in layers)
    roof, bound = _roofline(program, machine, accesses, units)
    return Report(
        program=name or _named_by_layers(program),
        machine=machine.name,
        rows=machine.rows,
        cols=machine.cols,
        clock_ghz=machine.clock_ghz,
        latency_cycles=total,
        latency_s=total / (machine.clock_ghz * 1e9),
        energy_pj=sum(value for value, _, _ in parts.values()),
        energy_by_component={name: value for name, (value, _, _) in sorted(parts.items())},
        energy_range_pj=(sum(low for _, low, _ in parts.values()), sum(high for _, _, high in parts.values())),
        energy_ranges_pj=_ranges(parts),
        standing_pj={name: value for name, (value, _, _) in sorted(standing.items())},
        standing_ranges_pj=_ranges(standing),
        energy_table=model.table.name,
        energy_table_sha256=model.table.sha256,
        dram_bytes=accesses["dram_read_bytes"] + accesses["dram_write_bytes"],
        dram_read_bytes=accesses["dram_read_bytes"],
        dram_write_bytes=accesses["dram_write_bytes"],
        accesses=accesses,
        tiles=program.tile_count,
        multiplications=useful if program.network is not None else sum(layer.multiplications for layer in layers),
        macs=sum(accesses[name] for name in MACS),
        utilisation=useful / max(1, total * machine.rows * machine.cols),
        roofline_cycles=roof,
        roofline_fraction=roof / max(1, total),
        bound=bound,
        network=program.network is not None,
        dram_bytes_per_cycle=machine.dram_bytes_per_kilocycle / 1000,
        cycles_by_bound=_summed(BOUNDS, layers, "bound"),
        cycles_by_group=_summed(GROUPS, layers, "group"),
        layers=layers,
        units=_unit_reports(units, total),
        trace=_trace(program, timing, events),
        dram=None if banked is None else _dram_report(machine, banked, total),
    )


def _dram_report(machine: Machine, banked: BankedTransfers, total: int) -> DramReport:
    standard, counted = machine.dram.standard, banked.memory.counted()
    assert standard is not None, "there are banks"
    bursts = counted["reads"] + counted["writes"]
    data = bursts * standard.clocks()["tBL"]
    return DramReport(
        model=standard.name,
        channels=machine.dram.channels,
        mapping=machine.dram.mapping,
        scheduler=machine.dram.scheduler,
        bursts=bursts,
        hits=counted["hits"],
        misses=counted["misses"],
        conflicts=counted["conflicts"],
        refreshes=counted["refreshes"],
        efficiency=data / max(1, counted["busy"]),
        utilisation=data * banked.clock / max(1, total * banked.cycle * machine.dram.channels),
    )


def _ranges(parts: Sums) -> dict[str, tuple[float, float]]:
    return {name: (low, high) for name, (_, low, high) in sorted(parts.items())}


def _named_by_layers(program: Program) -> str:
    """A program without a name, by its only layer, or by how many there are, and the first and the last of them."""
    names = [layer.name for layer in program.layers]
    if len(names) == 1:
        return names[0]
    what = "layers" if program.network is None else "operators"
    return f"{len(names)} {what}, {names[0]} to {names[-1]}" if names else "no layer"


def _summed(names: tuple[str, ...], layers: tuple[LayerReport, ...], field: str) -> dict[str, int]:
    cycles: Counter[str] = Counter()
    for layer in layers:
        cycles[getattr(layer, field)] += layer.latency_cycles
    return {name: cycles[name] for name in names}


def _roofline(program: Program, machine: Machine, accesses: dict[str, int], units: UnitAccounts) -> tuple[int, str]:
    """The lower bound of latency (rule C3): stored weights x rows over the cells, bytes over the channel's bandwidth
    and, in a network, the vector unit's work.
    """
    ins = program.instructions
    moved = ins.dram_bytes[is_any(ins.op, TRANSFER_OPS)]
    roofs = {
        "compute": ceil_div(sum(accesses[name] for name in STORED_MACS), machine.rows * machine.cols),
        "memory": int(channel_cycles(machine, np.array([moved.sum()]))[0]) if len(moved) else 0,
    }
    if program.network is not None:
        roofs["vector"] = int(units.busy[Unit.VECTOR])
    bound = max(roofs, key=lambda name: roofs[name])
    return roofs[bound], bound


def _unit_reports(accounts: UnitAccounts, total: int) -> tuple[UnitReport, ...]:
    reports = []
    for unit in Unit:
        stalls = dict(zip(STALL_NAMES, accounts.stall[unit].tolist(), strict=True))
        del stalls[STALL_NAMES[STALL_NONE]]
        reports.append(
            UnitReport(
                name=unit.name.lower(),
                instructions=int(accounts.count[unit]),
                busy_cycles=int(accounts.busy[unit]),
                stall_cycles={name: cycles for name, cycles in stalls.items() if cycles},
                idle_after_last_cycles=total - int(accounts.end[unit]),
            )
        )
    return tuple(reports)


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
