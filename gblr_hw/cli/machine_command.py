"""``gblr-hw machine``: list and show machine descriptions."""

from __future__ import annotations

from typing import Annotated

import typer

from gblr_hw.cli.options import JsonOption, print_json
from gblr_hw.cli.tables import print_machine_table
from simulator.machine import Machine, preset_names

machine_app = typer.Typer(
    help="List the machines that come with the toolkit, or show one as a file to start from.",
    no_args_is_help=True,
    add_completion=False,
)


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
    """The whole description, as TOML that can be saved and changed (or as JSON)."""
    loaded = Machine.load(machine)
    if as_json:
        print_json(loaded.to_dict())
    else:
        print(loaded.to_toml(), end="")
