"""``gblr-hw sweep``: one network over the points of a design space."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from analysis.file_kinds import PICTURES, POINTS
from analysis.tables.table import Column, count, format_table
from gblr_hw.cli.options.sweep_options import SweepOptions
from gblr_hw.cli.options.taking import takes
from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.outputs import Output, check_outputs, machine_file
from gblr_hw.cli.shared.telling import print_json, progress_bar, say
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


@takes(SweepOptions)
def sweep_command(context: typer.Context, options: SweepOptions) -> None:
    """Sweep machines, sizes and fields of a machine for one network: cycles, energy, bytes and area of every point."""
    from gblr_hw.sweeps.axes import Axis, points_of
    from gblr_hw.sweeps.files import FORMAT, VERSION, save_rows
    from gblr_hw.sweeps.sweep import sweep

    model, tokens = options.model, options.tokens or 197
    check_acting(context, _given(options), _ACTS_WITH)
    if options.scheduler is not None and options.jobs > 1:
        found = f"{options.jobs} and --scheduler"
        raise InputError("--jobs", found, "one of them says where points are measured", "Choose.")
    axes = [Axis.parse(text) for text in options.settings]
    points_of(axes, options.sample, options.seed)
    base = Machine.load(options.machine)
    check_outputs(
        [Output("--output", options.output, POINTS), Output("--picture", options.picture, PICTURES)],
        inputs={
            "the checkpoint": options.checkpoint, "--machine": machine_file(options.machine),
            "--model": model_file(model),
        },
        folders={"--work": options.work},
    )  # fmt: skip
    source = _source(options)
    with progress_bar(options.as_json) as progress:
        rows = sweep(
            source, base, axes, tokens=tokens, sample=options.sample, seed=options.seed, jobs=options.jobs,
            scheduler=options.scheduler, work=options.work, progress=progress,
        )  # fmt: skip
    about = {"source": source.name, "machine": base.to_record(), "set": options.settings, "tokens": tokens}
    if options.output is not None:
        save_rows(rows, options.output, about)
    if options.picture is not None:
        _draw(rows, axes, f"{source.name}, {len(rows)} points", options.picture)
    if options.as_json:
        print_json({"format": FORMAT, "version": VERSION, "about": about, "points": rows})
        return
    _tell(rows, [field for axis in axes for field in axis.fields], options.output, options.picture)


def _given(options: SweepOptions) -> list[str]:
    """What the command is about, as the table of options names it."""
    if (options.checkpoint is None) == (options.model is None):
        raise InputError(
            "arguments", "both or neither of a checkpoint and --model", "there is one network", "Name one of them."
        )
    kinds = [_LAYERS] if options.model is None else kinds_of_model(options.model)
    return [*kinds, *([] if options.sample is None else ["--sample"])]


def _source(options: SweepOptions) -> Source:
    from gblr_hw.sweeps.sources import checkpoint_source, model_source

    if options.checkpoint is not None:
        return checkpoint_source(options.checkpoint, options.gaussian)
    assert options.model is not None
    wish = Wish(options.model, options.batch, options.tokens, 0, options.seed, None, None, options.random_weights, None)
    made, inputs, kwargs, _ = model_of(wish)
    return model_source(made, inputs, kwargs=kwargs, name=options.model)


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
