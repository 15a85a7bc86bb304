"""``gblr-hw lower``: from a checkpoint to a program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gblr_hw.cli.options import (
    GaussianOption,
    JsonOption,
    MachineOption,
    TokensOption,
    check_output,
    console,
    print_json,
    progress_bar,
)
from gblr_hw.cli.tables import print_program_table
from simulator.errors import InputError
from simulator.machine import Machine


def lower_command(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint: our format, the published layout, or plain dense weights.")
    ],
    machine: MachineOption = "mid-32",
    tokens: TokensOption = 197,
    gaussian: GaussianOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Program file to write [default: CHECKPOINT with .program].")
    ] = None,
    dump_after: Annotated[
        list[str] | None,
        typer.Option("--dump-after", help="Print what a pass made, for every layer; may be repeated.", metavar="PASS"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Lower a checkpoint to a program for a machine: every layer in the form that runs fastest on it."""
    from gblr_hw.checkpoint import load_checkpoint
    from gblr_hw.lowering.lower_layer import PASSES
    from gblr_hw.lowering.pipeline import lower

    wanted = set(dump_after or ())
    for name in wanted - set(PASSES):
        raise InputError("--dump-after", repr(name), f"the passes are {', '.join(PASSES)}", "Use one of these names.")
    target = check_output(output or checkpoint.with_suffix(".program"))
    loaded_machine = Machine.load(machine)
    layers = load_checkpoint(checkpoint, gaussian=gaussian)

    def dump(stage: str, text: str) -> None:
        if stage in wanted:
            print(f"-- after {stage}\n{text}", end="")

    with progress_bar(as_json or bool(wanted)) as progress:
        program = lower(layers, loaded_machine, tokens=tokens, dump=dump if wanted else None, progress=progress)
    program.save(target)
    if as_json:
        cells = loaded_machine.rows * loaded_machine.cols
        rows = [
            {
                "name": layer.name,
                "form": layer.form,
                "ranks": layer.ranks,
                "tiles": len(layer.tiles),
                "tile_bound": layer.multiplications / cells,
                "multiplications": layer.multiplications,
            }
            for layer in program.layers
        ]
        print_json(
            {
                "program": str(target),
                "machine": loaded_machine.name,
                "tokens": tokens,
                "layers": rows,
                "tiles": program.tile_count,
                "instructions": len(program.instructions),
            }
        )
    elif not wanted:
        print_program_table(program)
        console.print(f"written to {target}", highlight=False, soft_wrap=True)
