"""Reports, programs, checkpoints and machines as tables; lines are never wrapped, so that they can be piped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from analysis.table import Column, count, format_table, percent
from simulator.machine import Machine
from simulator.program import Program
from simulator.report import CAUSES, LayerReport, Report


def print_program_table(program: Program) -> None:
    """One row a layer: what lowering chose, its tiles beside the bound."""
    machine = program.machine
    cells = machine.rows * machine.cols
    rows = [
        {
            "layer": layer.name,
            "size": f"{layer.out_features} x {layer.in_features}",
            "form": layer.form,
            "ranks": layer.ranks,
            "tiles": len(layer.tiles),
            "bound": f"{layer.multiplications / cells:.1f}",
            "dense": -(-layer.in_features // machine.rows) * -(-layer.out_features // machine.cols),
            "block": layer.block_tokens,
        }
        for layer in program.layers
    ]
    columns = (
        Column("layer", "layer", align="left"),
        Column("out x in", "size"),
        Column("form", "form", align="left"),
        Column("ranks", "ranks", count),
        Column("tiles", "tiles", count),
        Column("tile bound", "bound"),
        Column("dense tiles", "dense", count),
        Column("tokens a block", "block", count),
    )
    print(format_table(columns, rows), end="")
    print(
        f"{len(program.instructions):,} instructions, {program.tile_count:,} weight tiles for {machine.name} "
        f"({machine.rows} x {machine.cols}), {program.tokens} tokens"
    )


def print_report(report: Report) -> None:
    """Layers in the order they run, units, energy, then the totals."""
    print(_layer_table(report))
    print(_unit_table(report))
    print(_energy_table(report))
    low, high = report.energy_range_pj
    print(
        f"{report.latency_cycles:,} cycles = {report.latency_s * 1e6:,.2f} us on {report.machine} at "
        f"{report.clock_ghz:g} GHz; {report.roofline_fraction:.1%} of the {report.bound} roof "
        f"({report.roofline_cycles:,} cycles); {report.utilisation:.1%} of the array's cell-cycles useful\n"
        f"{report.energy_pj * 1e-6:,.2f} uJ ({low * 1e-6:,.2f} to {high * 1e-6:,.2f} over the sources of table "
        f"{report.energy_table}, {report.energy_table_sha256[:12]}); {report.dram_bytes:,} DRAM bytes"
    )


def print_checkpoint_table(rows: Sequence[Mapping[str, object]]) -> None:
    """One row a layer: family, size, ranks, multiplications."""
    columns = (
        Column("layer", "name", align="left"),
        Column("family", "family", align="left"),
        Column("out x in", "size"),
        Column("ranks", "ranks", count),
        Column("alive", "ranks_alive", count),
        Column("multiplications", "multiplications", count),
        Column("of dense", "multiplications_of_dense", percent),
    )
    sized = [{**row, "size": f"{row['out_features']} x {row['in_features']}"} for row in rows]
    print(format_table(columns, sized), end="")


def print_machine_table(machines: Iterable[Machine]) -> None:
    """One row a machine."""
    rows = [
        {
            "name": machine.name,
            "array": f"{machine.rows} x {machine.cols}",
            "clock": f"{machine.clock_ghz:g}",
            "peak": f"{2e-3 * machine.rows * machine.cols * machine.clock_ghz:.2f}",
            "dram": f"{machine.dram_gb_per_s:g}",
            "scatter": "yes" if machine.scatter else "no",
            "description": machine.description,
        }
        for machine in machines
    ]
    columns = (
        Column("machine", "name", align="left"),
        Column("array", "array"),
        Column("GHz", "clock"),
        Column("peak TOPS", "peak"),
        Column("DRAM GB/s", "dram"),
        Column("scatter", "scatter"),
        Column("description", "description", align="left"),
    )
    print(format_table(columns, rows), end="")


def _layer_table(report: Report) -> str:
    columns = (
        Column("layer", "name", align="left"),
        Column("form", "form", align="left"),
        Column("cycles", "latency_cycles", count),
        Column("share", "share", percent),
        Column("tiles", "tiles", count),
        Column("bound", "bound"),
        Column("uJ", "energy"),
        Column("cycles by cause", "causes", align="left"),
    )
    rows = [
        {
            **vars(layer),
            "share": layer.latency_cycles / max(1, report.latency_cycles),
            "bound": f"{layer.tile_bound:.1f}",
            "energy": f"{layer.energy_pj * 1e-6:,.3f}",
            "causes": _causes(layer),
        }
        for layer in report.layers
    ]
    return format_table(columns, rows)


def _causes(layer: LayerReport) -> str:
    parts = [(layer.cycles_by_cause[cause], cause.replace("_", " ")) for cause in CAUSES]
    return ", ".join(f"{name} {cycles:,}" for cycles, name in parts if cycles)


def _unit_table(report: Report) -> str:
    columns = (
        Column("unit", "unit", align="left"),
        Column("instructions", "instructions", count),
        Column("busy cycles", "busy_cycles", count),
        Column("busy", "share", percent),
        Column("idle at the end", "idle_after_last_cycles", count),
        Column("stalled by", "stalls", align="left"),
    )
    rows = [
        {
            **vars(unit),
            "unit": unit.name.replace("_", " "),
            "share": unit.busy_cycles / max(1, report.latency_cycles),
            "stalls": ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in unit.stall_cycles.items()) or "-",
        }
        for unit in report.units
    ]
    return format_table(columns, rows)


def _energy_table(report: Report) -> str:
    columns = (Column("component", "name", align="left"), Column("uJ", "value"), Column("share", "share", percent))
    rows = [
        {
            "name": name.replace("_", " "),
            "value": f"{value * 1e-6:,.3f}",
            "share": value / report.energy_pj if report.energy_pj else 0.0,
        }
        for name, value in sorted(report.energy_by_component.items(), key=lambda item: -item[1])
    ]
    return format_table(columns, rows)
