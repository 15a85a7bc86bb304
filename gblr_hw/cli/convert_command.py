"""``gblr-hw convert``: from a dense checkpoint to ranks and chunk sets at an exact tile budget."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from analysis.table import Column, count, format_table
from gblr_hw.cli.options import JsonOption, MachineOption, check_output, console, print_json, progress_bar
from simulator.errors import InputError
from simulator.machine import Machine


def convert_command(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint with dense layers; layers of other families are kept as they are.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Checkpoint to write (.safetensors).")],
    machine: MachineOption = "mid-32",
    tiles: Annotated[float, typer.Option("--tiles", help="Budget: fraction of each dense layer's tiles.")] = 0.3,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", help="Shell pattern of layers to leave dense; may be repeated.", metavar="PATTERN"),
    ] = None,
    intervals_only: Annotated[
        bool, typer.Option("--intervals-only", help="Each rank's chunks stay one cyclic run, as GBLR blocks.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Convert the dense layers of a checkpoint to ranks with chunk sets, at a budget in tiles that is met exactly."""
    from gblr_hw.checkpoint import load_checkpoint, save_checkpoint
    from gblr_hw.conversion import convert
    from gblr_hw.factors import evaluate
    from gblr_hw.lattice import Structure
    from gblr_hw.weights import DenseWeights

    loaded_machine = Machine.load(machine)
    check_output(output)
    layers = load_checkpoint(checkpoint)
    dense = {
        name: weights
        for name, weights in layers.items()
        if isinstance(weights, DenseWeights) and not any(fnmatchcase(name, pattern) for pattern in exclude or ())
    }
    if not dense:
        raise InputError(
            f"checkpoint '{checkpoint}'",
            "no dense layer",
            "there must be something to convert",
            "Check which file it is.",
        )
    with progress_bar(as_json) as progress:
        converted = convert(dense, loaded_machine, tiles=tiles, intervals_only=intervals_only, progress=progress)
    save_checkpoint({name: converted.get(name, weights) for name, weights in layers.items()}, output)
    rows = []
    for name, weights in converted.items():
        factors = evaluate(weights)
        wanted = dense[name].weight.double().numpy()
        error = float(np.linalg.norm(factors.matrix() - wanted) / max(float(np.linalg.norm(wanted)), 1e-300))
        used = Structure.of(factors, loaded_machine.rows, loaded_machine.cols).tile_count(
            loaded_machine.rows, loaded_machine.cols
        )
        of = -(-factors.in_features // loaded_machine.rows) * -(-factors.out_features // loaded_machine.cols)
        rows.append({"name": name, "tiles": used, "dense_tiles": of, "ranks": factors.ranks, "relative_error": error})
    if as_json:
        print_json({"checkpoint": str(output), "machine": loaded_machine.name, "layers": rows})
        return
    columns = (
        Column("layer", "name", align="left"),
        Column("tiles", "tiles", count),
        Column("dense tiles", "dense_tiles", count),
        Column("ranks", "ranks", count),
        Column("relative error", "relative_error", lambda value: f"{value:.4f}"),
    )
    print(format_table(columns, rows), end="")
    console.print(f"written to {output}", highlight=False, soft_wrap=True)
