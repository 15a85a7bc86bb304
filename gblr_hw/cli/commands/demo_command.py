"""``gblr-hw demo``: the whole way on real digits, from training to the front."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gblr_hw.cli.shared.options import JsonOption, print_json, progress_bar
from simulator.base.errors import InputError


def demo_command(
    out: Annotated[Path, typer.Option("--out", help="Folder for tables, pictures, checkpoints and programs.")] = Path(
        "demo-output"
    ),
    seed: Annotated[int, typer.Option("--seed")] = 0,
    workers: Annotated[int, typer.Option("--workers", help="Networks trained at a time.", min=1, max=64)] = 2,
    as_json: JsonOption = False,
) -> None:
    """Train every family on real digits, lower and simulate it, check its outputs against PyTorch, draw the front."""
    from gblr_hw.demo.demo import check_outputs, demo_table, write_results
    from gblr_hw.demo.demo_networks import demo_measurements, shown_network

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"output '{out}'", str(error), "--out is a folder that can be made", "Name another."
        ) from error
    with progress_bar(as_json) as progress:
        measurements = demo_measurements(seed, workers, progress)
    agreement = check_outputs(measurements)
    write_results(
        measurements, shown_network(measurements), out, "Digits, 8 x 8: accuracy and latency of a batch of 16"
    )
    if as_json:
        print_json({"points": [vars(m.point()) for m in measurements], "agreement": agreement, "folder": str(out)})
        return
    print(demo_table(measurements), end="")
    print(agreement)
    print(f"pictures, tables, checkpoints and programs are in {out}/ (front.png first)")
