"""``gblr-hw demo``: the whole way on real digits, from training to the front."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gblr_hw.cli.options.shared_options import JsonOption, SeedOption
from gblr_hw.cli.shared.outputs import check_outputs
from gblr_hw.cli.shared.telling import print_json, progress_bar
from simulator.base.files import output_folder


def demo_command(
    out: Annotated[Path, typer.Option("--out", help="Folder for tables, pictures, checkpoints and programs.")] = Path(
        "demo-output"
    ),
    seed: SeedOption = 0,
    workers: Annotated[int, typer.Option("--workers", help="Networks trained at a time.", min=1, max=64)] = 2,
    as_json: JsonOption = False,
) -> None:
    """Train every family on real digits, lower and simulate it, check its outputs against PyTorch, draw the front."""
    from gblr_hw.demo.demo import check_agreement, demo_table, write_results
    from gblr_hw.demo.demo_networks import demo_measurements, shown_network

    check_outputs([], inputs={}, folders={"--out": out})
    with progress_bar(as_json) as progress:
        measurements = demo_measurements(seed, workers, progress)
    agreement = check_agreement(measurements)
    title = "Digits, 8 x 8: accuracy and latency of a batch of 16"
    write_results(measurements, shown_network(measurements), output_folder(out), title)
    if as_json:
        print_json({"points": [vars(m.point()) for m in measurements], "agreement": agreement, "folder": str(out)})
        return
    print(demo_table(measurements), end="")
    print(agreement)
    print(f"pictures, tables, checkpoints and programs are in {out}/ (front.png first)")
