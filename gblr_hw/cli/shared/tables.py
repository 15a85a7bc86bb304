"""Programs, checkpoints and machines as tables; lines are never wrapped, so that they can be piped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from analysis.tables.table import Column, count, format_table, percent
from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.network.network import Network
from simulator.program.program import Program


def print_program_table(program: Program) -> None:
    """One row a layer: what lowering chose, its tiles beside the bound; of a whole network, one row an operator."""
    machine = program.machine
    if program.network is not None:
        _print_operators(program, program.network)
        print(
            f"{len(program.layers)} operators, {len(program.instructions):,} instructions, {program.tile_count:,} "
            f"tiles for {machine.name} ({machine.rows} x {machine.cols})"
        )
        return
    cells = machine.rows * machine.cols
    rows = [
        {
            "layer": layer.name,
            "size": f"{layer.out_features} x {layer.in_features}",
            "form": layer.form,
            "ranks": layer.ranks,
            "tiles": len(layer.tiles),
            "bound": f"{layer.multiplications / cells:.1f}",
            "dense": ceil_div(layer.in_features, machine.rows) * ceil_div(layer.out_features, machine.cols),
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


def _print_operators(program: Program, network: Network) -> None:
    """One row an operator of a whole network: what it does, on how many rows, with which tiles."""
    cells = program.machine.rows * program.machine.cols
    rows = [
        {
            "operator": operator.name,
            "kind": operator.kind,
            "rows": operator.rows,
            "size": f"{layer.out_features} x {layer.in_features}",
            "how": layer.form if operator.kind == "linear" else ", ".join(step.function for step in operator.steps),
            "tiles": len(layer.tiles),
            "bound": f"{layer.multiplications / cells:.1f}",
            "block": layer.block_tokens,
        }
        for operator, layer in zip(network.operators, program.layers, strict=True)
    ]
    columns = (
        Column("operator", "operator", align="left"),
        Column("kind", "kind", align="left"),
        Column("rows", "rows", count),
        Column("rows a block", "block", count),
        Column("out x in", "size"),
        Column("tiles", "tiles", count),
        Column("tile bound", "bound"),
        Column("form, or steps", "how", align="left"),
    )
    print(format_table(columns, rows), end="")


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
