"""``gblr-hw show``: what is in a checkpoint or a program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.file_kinds import PICTURES
from gblr_hw.cli.options.shared_options import (
    GaussianOption,
    JsonOption,
    LeaveOutOption,
    ShapeOption,
    TableOption,
    TensorOptions,
    TransposedOption,
    shapes_of,
)
from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.outputs import Output, check_outputs
from gblr_hw.cli.shared.tables import print_checkpoint_table, print_program_table
from gblr_hw.cli.shared.telling import print_json, say
from simulator.base.errors import InputError
from simulator.program.listing import print_schedule
from simulator.program.program import Program
from simulator.program.program_file import is_program

if TYPE_CHECKING:
    from gblr_hw.files.accounting import Told

_PROGRAM, _CHECKPOINT, _TABLE = "a program", "a checkpoint", "a table"
_ACTS_WITH = {
    "file": ALWAYS,
    "gaussian": (_CHECKPOINT,),
    **dict.fromkeys(("shape", "table", "leave_out", "transposed"), (_CHECKPOINT,)),
    "listing": (_PROGRAM,),
    "layer": ALWAYS,
    "block_map": (_CHECKPOINT,),
    "as_json": (_TABLE,),
}


def show_command(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A program, or a checkpoint of any kind that `gblr-hw lower` reads.")],
    gaussian: GaussianOption = None,
    shape: ShapeOption = None,
    listing: Annotated[bool, typer.Option("--listing", help="Print the whole program as text.")] = False,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            help="Of a program: print one layer's schedule as text. Of a checkpoint: matrices that are layers, not "
            "look-up tables, by shell pattern.",
            metavar="NAME|PATTERN",
        ),
    ] = None,
    table: TableOption = None,
    leave_out: LeaveOutOption = None,
    transposed: TransposedOption = None,
    block_map: Annotated[
        Path | None, typer.Option("--map", help="Draw the map of overlapping blocks of a checkpoint (PNG, SVG or PDF).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a program (tiles, forms, listing) or a checkpoint (layers, sizes, multiplications, block map)."""
    program = is_program(file)
    text = ["--listing"] if listing else ["--layer"] if program and layer else [_TABLE]
    check_acting(context, [_PROGRAM if program else _CHECKPOINT, *text], _ACTS_WITH)
    if program:
        one = _one_layer(layer, listing)
        _show_program(Program.load(file), listing, one, as_json)
        return
    check_outputs([Output("--map", block_map, PICTURES)], inputs={"the checkpoint": file})
    told = TensorOptions(table=table, layer=layer, leave_out=leave_out, transposed=transposed).told()
    _show_checkpoint(file, gaussian, shapes_of(shape or ()), told, block_map, as_json)


def _one_layer(names: list[str] | None, listing: bool) -> str | None:
    """The layer of a program that is printed, if one is asked for."""
    if not names:
        return None
    if listing:
        raise InputError("--layer", "it with --listing", "one of them is printed", "Leave one of them out.")
    if len(names) > 1:
        raise InputError("--layer", " and ".join(names), "one layer of a program is printed", "Ask for one at a time.")
    return names[0]


def _show_program(program: Program, listing: bool, layer: str | None, as_json: bool) -> None:
    if listing:
        print(str(program), end="")
    elif layer is not None:
        print(print_schedule(program.layers[program.layer_index(layer)]), end="")
    elif as_json:
        rows = [
            {
                "name": one.name,
                "form": one.form,
                "in_features": one.in_features,
                "out_features": one.out_features,
                "ranks": one.ranks,
                "tiles": len(one.tiles),
                "multiplications": one.multiplications,
            }
            for one in program.layers
        ]
        print_json(
            {
                "machine": program.machine.name,
                "tokens": program.tokens,
                "layers": rows,
                "provenance": dict(program.provenance),
            }
        )
    else:
        print_program_table(program)


def _show_checkpoint(
    file: Path,
    gaussian: bool | None,
    shapes: Mapping[str, tuple[int, int]],
    told: Told,
    block_map: Path | None,
    as_json: bool,
) -> None:
    from analysis.pictures.style import save_figure
    from gblr_hw.files.checkpoint import read_checkpoint
    from gblr_hw.files.named_layers import draw_maps, evaluated, layer_rows

    contents = read_checkpoint(file, gaussian=gaussian, shapes=shapes, told=told)
    checkpoint, notes = contents.layers, contents.account.notes()
    if block_map is not None:
        layers = {name: evaluated(weights) for name, weights in checkpoint.items()}
        if not any(factors.ranks for factors in layers.values()):
            raise InputError(
                f"checkpoint '{file}'",
                "no layer with blocks",
                "--map draws layers that have blocks",
                "Leave --map out.",
            )
        save_figure(draw_maps(layers), block_map)
    rows = layer_rows(checkpoint)
    if as_json:
        print_json({"checkpoint": str(file), "layers": rows, "left_out": notes})
        return
    print_checkpoint_table(rows)
    for note in notes:
        say(note)
