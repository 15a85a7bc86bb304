"""``simulate``: run a program's timing on a machine and report cycles with their causes, bytes, accesses and energy."""

from __future__ import annotations

import numpy as np

from simulator.accesses import EVENTS, count_events
from simulator.cycle_accounts import CycleAccounts, account_cycles
from simulator.energy import EnergyModel, energy_model
from simulator.engine import STALL_NAMES, STALL_NONE, Events, run_engine
from simulator.errors import InputError
from simulator.isa import TILE_OPS, TRANSFER_OPS, Op, Unit, is_any
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
    spent = account_cycles(program, timing, events)
    total = int(events.done.max(initial=0))
    layers = _layer_reports(program, machine, spent, counts, model)
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
        units=_unit_reports(spent, total),
        trace=_trace(program, timing, events),
    )


def _roofline(program: Program, machine: Machine, accesses: dict[str, int]) -> tuple[int, str]:
    """The lower bound of latency: stored weights x tokens over the cells, or bytes over the channel's bandwidth."""
    compute = -(-accesses["mac_active"] // (machine.rows * machine.cols))
    ins = program.instructions
    moved = ins.dram_bytes[is_any(ins.op, TRANSFER_OPS)]
    memory = int(channel_cycles(machine, np.array([moved.sum()]))[0]) if len(moved) else 0
    return (compute, "compute") if compute >= memory else (memory, "memory")


def _layer_reports(
    program: Program,
    machine: Machine,
    accounts: CycleAccounts,
    counts: dict[str, np.ndarray],
    model: EnergyModel,
) -> tuple[LayerReport, ...]:
    ends = [0, *accounts.layer_end.tolist()]
    by_layer = np.array([counts[name] for name in EVENTS]).T.tolist()
    cells = machine.rows * machine.cols
    reports = []
    for index, layer in enumerate(program.layers):
        cycles = ends[index + 1] - ends[index]
        mine = dict(zip(EVENTS, by_layer[index], strict=True))
        parts = model.by_component(mine, cycles)
        kinds = [int(np.count_nonzero(layer.tiles.kind == op)) for op in TILE_OPS]
        reports.append(
            LayerReport(
                name=layer.name,
                form=layer.form,
                in_features=layer.in_features,
                out_features=layer.out_features,
                ranks=layer.ranks,
                tokens=program.tokens,
                latency_cycles=cycles,
                cycles_by_cause=_causes_of_layer(accounts, layer.name, index, ends[index], ends[index + 1]),
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
    return tuple(reports)


def _causes_of_layer(accounts: CycleAccounts, name: str, index: int, begin: int, end: int) -> dict[str, int]:
    """Divide the window [begin, end) of the array's time line by cause; the parts sum to end - begin (rule C1)."""
    started = int(accounts.tiles_begin[index])
    first = started if started >= 0 else end
    if first < begin:
        raise InputError(
            f"program: layer '{name}'",
            f"work in cycle {first}, while the layer before it runs until {begin}",
            "layers run one after another (machine.md, rule E3)",
            "Let its inputs wait for the last store of the layer before it.",
        )
    causes = dict.fromkeys(CAUSES, 0)
    for cause, cycles in zip(STALL_NAMES, accounts.gap[index].tolist(), strict=True):
        if cycles:
            causes[cause] += cycles
    causes["compute"] = int(accounts.compute[index])
    causes["bank_conflict"] = int(accounts.conflict[index])
    last = int(accounts.tiles_end[index])
    causes["tail"] = end - (last if last >= 0 else begin)
    return causes


def _unit_reports(accounts: CycleAccounts, total: int) -> tuple[UnitReport, ...]:
    reports = []
    for unit in Unit:
        stalls = dict(zip(STALL_NAMES, accounts.unit_stall[unit].tolist(), strict=True))
        del stalls[STALL_NAMES[STALL_NONE]]
        reports.append(
            UnitReport(
                name=unit.name.lower(),
                instructions=int(accounts.unit_count[unit]),
                busy_cycles=int(accounts.unit_busy[unit]),
                stall_cycles={name: cycles for name, cycles in stalls.items() if cycles},
                idle_after_last_cycles=total - int(accounts.unit_end[unit]),
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
