"""The options of ``gblr-hw train``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from gblr_hw.cli.options.shared_options import CheckpointOutput, JsonOption, MachineOption, SeedOption
from gblr_hw.weights.family import told, trained


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What ``gblr-hw train`` was asked for."""

    output: CheckpointOutput
    family: Annotated[
        str | None,
        typer.Option(
            "--family", help=f"What is trained: hardware, or lattice with --model, if not given. {told(trained())}"
        ),
    ] = None
    target_latency: Annotated[
        str | None,
        typer.Option(
            "--target-latency",
            help="0.6x-dense, 50000cycles or 0.05ms on the machine; every family but dense needs this or an energy.",
        ),
    ] = None
    target_energy: Annotated[
        str | None, typer.Option("--target-energy", help="0.6x-dense, 80uJ or 0.08mJ on the machine.")
    ] = None
    whole_network: Annotated[
        bool,
        typer.Option("--whole-network", help="The target is for the whole network, not only for its linear layers."),
    ] = False
    machine: MachineOption = "mid-32"
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Train a model of your own: a function that returns (module, example inputs). The latency is of the "
            "whole program.",
            metavar="FILE.py:FUNCTION",
        ),
    ] = None
    data: Annotated[
        str,
        typer.Option(
            "--data",
            help="digits; fashion-mnist, where Debian's dataset-fashion-mnist puts it; or fashion-mnist:FOLDER. With "
            "--model FILE.py:FUNCTION, which returns (batches to train on, held-out batches).",
            metavar="NAME[:FOLDER]",
        ),
    ] = "digits"
    images: Annotated[
        int, typer.Option("--images", help="Images that the machine works on at a time (16 rows each).", min=1)
    ] = 16
    epochs: Annotated[int, typer.Option("--epochs", help="Epochs after the dense start.", min=1)] = 12
    seed: SeedOption = 0
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="Of AdamW at its highest, with --model.", min=1e-9, max=10.0)
    ] = 2e-3
    distil: Annotated[
        float,
        typer.Option("--distil", help="Part of the objective that is the dense start's outputs.", min=0.0, max=1.0),
    ] = 0.0
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="File to keep the run in after every epoch; if it is there, go on from it."),
    ] = None
    device: Annotated[str, typer.Option("--device", help="A torch device: cpu or cuda.")] = "cpu"
    as_json: JsonOption = False
