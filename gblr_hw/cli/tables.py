"""Reports and programs as tables on the terminal."""

from __future__ import annotations

from rich.table import Table

from gblr_hw.cli.options import console
from simulator.program import Program
from simulator.report import CAUSES, Report


def print_program_table(program: Program) -> None:
    """One row a layer: what lowering chose, its tiles beside the bound."""
    machine = program.machine
    cells = machine.rows * machine.cols
    table = Table(
        title=f"{len(program.layers)} layers for {machine.name} ({machine.rows} x {machine.cols}), "
        f"{program.tokens} tokens"
    )
    for heading in ("layer", "out x in", "form", "ranks", "tiles", "tile bound", "dense tiles", "block (tokens)"):
        table.add_column(heading, justify="left" if heading in ("layer", "form") else "right")
    for layer in program.layers:
        dense = -(-layer.in_features // machine.rows) * -(-layer.out_features // machine.cols)
        table.add_row(
            layer.name,
            f"{layer.out_features} x {layer.in_features}",
            layer.form,
            str(layer.ranks),
            str(len(layer.tiles)),
            f"{layer.multiplications / cells:.1f}",
            str(dense),
            str(layer.block_tokens),
        )
    console.print(table)
    console.print(f"{len(program.instructions):,} instructions, {program.tile_count:,} weight tiles", highlight=False)


def print_report(report: Report) -> None:
    """Layers sorted as they run, then units, then energy, then the totals."""
    console.print(_layer_table(report))
    console.print(_unit_table(report))
    console.print(_energy_table(report))
    low, high = report.energy_range_pj
    console.print(
        f"{report.latency_cycles:,} cycles = {report.latency_s * 1e6:,.2f} us at {report.clock_ghz:g} GHz; "
        f"{report.energy_pj * 1e-6:,.2f} uJ "
        f"({low * 1e-6:,.2f} to {high * 1e-6:,.2f} over the sources of {report.energy_table}); "
        f"{report.dram_bytes:,} DRAM bytes; {report.utilisation:.1%} of the array's cells useful; "
        f"{report.roofline_fraction:.1%} of the {report.bound} roof ({report.roofline_cycles:,} cycles)",
        highlight=False,
    )


def _layer_table(report: Report) -> Table:
    table = Table(title=f"cycles on {report.machine} ({report.rows} x {report.cols})")
    shown = [cause for cause in CAUSES if any(layer.cycles_by_cause[cause] for layer in report.layers)]
    table.add_column("layer")
    for heading in (
        "form",
        "cycles",
        "share",
        "tiles",
        "bound",
        *(cause.replace("_", " ") for cause in shown),
        "energy (uJ)",
    ):
        table.add_column(heading, justify="right")
    for layer in report.layers:
        table.add_row(
            layer.name,
            layer.form,
            f"{layer.latency_cycles:,}",
            f"{layer.latency_cycles / max(1, report.latency_cycles):.1%}",
            str(layer.tiles),
            f"{layer.tile_bound:.1f}",
            *(f"{layer.cycles_by_cause[cause]:,}" for cause in shown),
            f"{layer.energy_pj * 1e-6:,.3f}",
        )
    return table


def _unit_table(report: Report) -> Table:
    table = Table(title="units (cycles)")
    table.add_column("unit")
    for heading in ("instructions", "busy", "busy share", "stalled by", "idle at the end"):
        table.add_column(heading, justify="left" if heading == "stalled by" else "right")
    for unit in report.units:
        stalls = ", ".join(f"{name.replace('_', ' ')} {cycles:,}" for name, cycles in unit.stall_cycles.items())
        busy = unit.busy_cycles / max(1, report.latency_cycles)
        table.add_row(
            unit.name.replace("_", " "),
            f"{unit.instructions:,}",
            f"{unit.busy_cycles:,}",
            f"{busy:.1%}",
            stalls or "-",
            f"{unit.idle_after_last_cycles:,}",
        )
    return table


def _energy_table(report: Report) -> Table:
    table = Table(title=f"energy by component ({report.energy_table}, table {report.energy_table_sha256[:12]})")
    table.add_column("component")
    table.add_column("uJ", justify="right")
    table.add_column("share", justify="right")
    for name, value in sorted(report.energy_by_component.items(), key=lambda item: -item[1]):
        table.add_row(name.replace("_", " "), f"{value * 1e-6:,.3f}", f"{value / report.energy_pj:.1%}")
    return table
