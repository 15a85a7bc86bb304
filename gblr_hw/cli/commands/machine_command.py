"""``gblr-hw machine``: list and show machine descriptions, their areas, and write their RTL."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.tables.table import Column, format_table
from gblr_hw.cli.options.shared_options import JsonOption
from gblr_hw.cli.shared.outputs import Output, check_outputs, machine_file
from gblr_hw.cli.shared.tables import print_machine_table
from gblr_hw.cli.shared.telling import console, print_json, say
from simulator.machine.area import area_mm2
from simulator.machine.machine import Machine, preset_names

machine_app = typer.Typer(
    help="List the machines that come with the toolkit, or show one as a file to start from.",
    no_args_is_help=True,
    add_completion=False,
)

_AREA_COLUMNS = (("mm2", "mm2"), ("low", "low"), ("high", "high"))


@machine_app.command("list")
def list_machines(as_json: JsonOption = False) -> None:
    """The presets, a line each."""
    machines = [Machine.load(name) for name in preset_names()]
    if as_json:
        print_json([machine.to_dict() for machine in machines])
        return
    print_machine_table(machines)


@machine_app.command("show")
def show_machine(
    machine: Annotated[str, typer.Argument(help="A preset's name or a TOML file.", metavar="NAME|FILE")],
    as_json: JsonOption = False,
) -> None:
    """The whole description, as TOML that can be saved and changed (or as JSON); then, as comments (in JSON:
    "figures"), area, peak, energy a multiply-accumulate, and all three beside published chips.
    """
    from gblr_hw.cli.shared.machine_figures import figure_lines, figures

    loaded = Machine.load(machine)
    if as_json:
        print_json({**loaded.to_dict(), "figures": figures(loaded)})
        return
    print(loaded.to_toml())
    for line in figure_lines(loaded):
        print(line)


@machine_app.command("area")
def show_area(
    machine: Annotated[str, typer.Argument(help="A preset's name or a TOML file.", metavar="NAME|FILE")],
    as_json: JsonOption = False,
) -> None:
    """Area by part, from synthesised cells and published memory cells (docs/codesign.md); best used as ratios."""
    area = area_mm2(Machine.load(machine))
    rows = {name: vars(part) for name, part in {**area.parts, "total": area.total}.items()}
    if as_json:
        print_json({"table": area.table, "extrapolated": area.extrapolated, "mm2": rows})
        return
    columns = [Column("part", "part", align="left")]
    columns += [Column(heading, key, lambda value: f"{value:.2f}") for heading, key in _AREA_COLUMNS]
    print(format_table(columns, [{"part": name.replace("_", " "), **row} for name, row in rows.items()]), end="")
    if area.extrapolated:
        print("extrapolated: no array of this size was synthesised")


@machine_app.command("verilog")
def write_verilog(
    machine: Annotated[str, typer.Argument(help="A preset's name or a TOML file.", metavar="NAME|FILE")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The Verilog file to write.")],
) -> None:
    """The machine as Verilog: module "accelerator" and the array's cell. Needs the rtl extra; a minute at 32 x 32."""
    from simulator.base.files import replacing
    from simulator.rtl.base.tools import GENERATORS, installed_version

    for package in GENERATORS:
        installed_version(package)
    from simulator.rtl.bench.verilog import accelerator_verilog

    check_outputs([Output("--output", output)], inputs={"the machine": machine_file(machine)})
    loaded = Machine.load(machine)
    with console().status(f"generating {loaded.rows} x {loaded.cols} cells and their memories"):
        text = accelerator_verilog(loaded)
    with replacing(output) as file:
        file.write(text.encode())
    lines = text.count("\n")
    say(f"{output}: {lines:,} lines, top module 'accelerator'")
