"""``gblr-hw sweep``: one network over the points of a design space."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.file_kinds import PICTURES, POINTS
from analysis.tables.table import Column, count, format_table
from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.options import (
    GaussianOption,
    JsonOption,
    MachineOption,
    SeedOption,
    print_json,
    progress_bar,
    say,
)
from gblr_hw.cli.shared.outputs import Output, check_outputs, machine_file
from gblr_hw.cli.sources.lower_source import EMPTY, KNOWN, Wish, kinds_of_model, model_file, model_of
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

if TYPE_CHECKING:
    from gblr_hw.sweeps.sources import Source

_LAYERS = "a checkpoint's layers"
_ACTS_WITH = {
    **dict.fromkeys(("checkpoint", "model", "settings", "output", "picture", "machine", "sample"), ALWAYS),
    "tokens": (_LAYERS, KNOWN),
    "batch": (KNOWN,),
    "gaussian": (_LAYERS,),
    "random_weights": (EMPTY,),
    "seed": ("--sample", EMPTY),
    **dict.fromkeys(("jobs", "scheduler", "work", "as_json"), ALWAYS),
}
_SHOWN = 20  # rows of the table


def sweep_command(
    context: typer.Context,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            help="What varies: any field of a machine file, machine, or tokens; fields with commas change together; "
            "repeat it for the product.",
            metavar="FIELD[,FIELD]=V1,V2",
        ),
    ],
    checkpoint: Annotated[Path | None, typer.Argument(help="Checkpoint whose layers run one after another.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="A whole network: a known one (`gblr-hw lower --model list`) or FILE.py:FUNCTION."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File of all points to write (.csv or .json).")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Picture of energy over latency (PNG, SVG or PDF).")
    ] = None,
    machine: MachineOption = "mid-32",
    tokens: Annotated[
        int | None, typer.Option("--tokens", help="Activation rows of each layer [default: 197].", min=1)
    ] = None,
    batch: Annotated[int, typer.Option("--batch", help="Batch of a known network.", min=1)] = 1,
    gaussian: GaussianOption = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Cycles do not depend on values: draw them.")
    ] = False,
    sample: Annotated[
        int | None, typer.Option("--sample", help="Measure so many points of the product, drawn at random.", min=1)
    ] = None,
    seed: SeedOption = 0,
    jobs: Annotated[int, typer.Option("--jobs", help="Processes.", min=1)] = 1,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", help="Dask scheduler to work on instead, tcp://HOST:PORT.")
    ] = None,
    work: Annotated[
        Path | None, typer.Option("--work", help="Folder for finished points: an interrupted sweep goes on from there.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Sweep machines, sizes and fields of a machine for one network: cycles, energy, bytes and area of every point."""
    from gblr_hw.sweeps.axes import Axis, points_of
    from gblr_hw.sweeps.files import FORMAT, VERSION, save_rows
    from gblr_hw.sweeps.sweep import sweep

    check_acting(context, _given(checkpoint, model, sample), _ACTS_WITH)
    if scheduler is not None and jobs > 1:
        raise InputError("--jobs", f"{jobs} and --scheduler", "one of them says where points are measured", "Choose.")
    axes = [Axis.parse(text) for text in settings]
    points_of(axes, sample, seed)
    base = Machine.load(machine)
    sources = {"the checkpoint": checkpoint, "--machine": machine_file(machine), "--model": model_file(model)}
    check_outputs(
        [Output("--output", output, POINTS), Output("--picture", picture, PICTURES)],
        inputs=sources, folders={"--work": work},
    )  # fmt: skip
    source = _source(checkpoint, model, tokens, batch, gaussian, random_weights, seed)
    with progress_bar(as_json) as progress:
        rows = sweep(
            source, base, axes, tokens=tokens or 197, sample=sample, seed=seed, jobs=jobs, scheduler=scheduler,
            work=work, progress=progress,
        )  # fmt: skip
    about = {"source": source.name, "machine": base.to_record(), "set": settings, "tokens": tokens or 197}
    if output is not None:
        save_rows(rows, output, about)
    if picture is not None:
        _draw(rows, axes, f"{source.name}, {len(rows)} points", picture)
    if as_json:
        print_json({"format": FORMAT, "version": VERSION, "about": about, "points": rows})
        return
    _tell(rows, [field for axis in axes for field in axis.fields], output, picture)


def _given(checkpoint: Path | None, model: str | None, sample: int | None) -> list[str]:
    if (checkpoint is None) == (model is None):
        raise InputError(
            "arguments", "both or neither of a checkpoint and --model", "there is one network", "Name one of them."
        )
    kinds = [_LAYERS] if model is None else kinds_of_model(model)
    return [*kinds, *([] if sample is None else ["--sample"])]


def _source(
    checkpoint: Path | None, model: str | None, tokens: int | None, batch: int, gaussian: bool | None,
    random_weights: bool, seed: int,
) -> Source:  # fmt: skip
    from gblr_hw.sweeps.sources import checkpoint_source, model_source

    if checkpoint is not None:
        return checkpoint_source(checkpoint, gaussian)
    assert model is not None
    made, inputs, kwargs, _ = model_of(Wish(model, batch, tokens, 0, seed, None, None, random_weights, None))
    return model_source(made, inputs, kwargs=kwargs, name=model)


def _draw(rows: list[dict[str, Any]], axes: list[Any], title: str, path: Path) -> None:
    from analysis.pictures.style import save_figure
    from analysis.pictures.sweep_picture import SweptPoint, draw_sweep

    first, fields = axes[0].fields[0], [field for axis in axes for field in axis.fields[:1]]
    points = [
        SweptPoint(
            row["latency_cycles"], row["energy_pj"] * 1e-6, str(row[first]),
            ", ".join(f"{field.rpartition('.')[2]} {row[field]}" for field in fields),
        )
        for row in rows
        if row["error"] is None
    ]  # fmt: skip
    save_figure(draw_sweep(points, title, ", ".join(axes[0].fields)), path)


def _tell(rows: list[dict[str, Any]], fields: list[str], output: Path | None, picture: Path | None) -> None:
    good = sorted((row for row in rows if row["error"] is None), key=lambda row: row["latency_cycles"])
    columns = (
        *(Column(field, field) for field in fields),
        Column("cycles", "latency_cycles", count),
        Column("ms", "latency_ms", _four_digits),
        Column("uJ", "energy_uj", _four_digits),
        Column("DRAM bytes", "dram_bytes", count),
        Column("mm2", "area_mm2", _four_digits),
        Column("bound by", "bound", align="left"),
    )
    if good:
        shown = [{**row, "energy_uj": row["energy_pj"] * 1e-6} for row in good[:_SHOWN]]
        print(format_table(columns, shown), end="")
    if len(good) > _SHOWN:
        say(f"the fastest {_SHOWN} of {len(good)} points")
    bad = [row for row in rows if row["error"] is not None]
    if bad:
        say(f"{len(bad)} of {len(rows)} points have no figures; the first: {bad[0]['error']}")
    for what, path in (("points", output), ("picture", picture)):
        if path is not None:
            say(f"{what} written to {path}")


def _four_digits(value: object) -> str:
    return f"{value:.4g}"
