"""``gblr-hw sweep``: networks over the points of a design space."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from analysis.file_kinds import PICTURES, SWEEPS
from analysis.tables.table import Column, count, format_table
from gblr_hw.cli.options.sweep_options import SweepOptions
from gblr_hw.cli.options.taking import takes
from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.outputs import Output, check_outputs, machine_file
from gblr_hw.cli.shared.telling import print_json, progress_bar, say
from gblr_hw.cli.sources.lower_source import EMPTY, KNOWN
from gblr_hw.cli.sources.sweep_source import LAYERS, Named
from simulator.machine.machine import Machine

if TYPE_CHECKING:
    from gblr_hw.sweeps.axes import Axis

_ACTS_WITH = {
    **dict.fromkeys(("checkpoint", "model", "settings", "output", "picture", "machine", "sample"), ALWAYS),
    "sampler": ("--sample",),
    "tokens": (LAYERS, KNOWN),
    "batch": (KNOWN,),
    "gaussian": (LAYERS,),
    "random_weights": (EMPTY,),
    "seed": ("--sample", EMPTY),
    **dict.fromkeys(("jobs", "scheduler", "work", "as_json"), ALWAYS),
}
_SHOWN = 20  # rows of the table


@takes(SweepOptions)
def sweep_command(context: typer.Context, options: SweepOptions) -> None:
    """Sweep machines, their fields, networks, structures, sizes: cycles, energy, bytes and area of every point."""
    from gblr_hw.sweeps.axes import Axis
    from gblr_hw.sweeps.files import FORMAT, VERSION, save_rows
    from gblr_hw.sweeps.sweep import sweep

    axes = [Axis.parse(text) for text in options.settings]
    named = Named.of(options, axes)
    check_acting(context, [*named.kinds, *([] if options.sample is None else ["--sample"])], _ACTS_WITH)
    _check(options, axes, named)
    base, tokens = Machine.load(options.machine), options.tokens or 197
    with progress_bar(options.as_json) as progress:
        rows = sweep(
            named.networks(options), base, axes, tokens=tokens, sample=options.sample, sampler=options.sampler,
            seed=options.seed, **vars(options.place), work=options.work, progress=progress,
        )  # fmt: skip
    sources = list(dict.fromkeys(row["source"] for row in rows))
    about = {"source": ", ".join(sources), "machine": base.to_record(), "set": options.settings, "tokens": tokens}
    if options.sample is not None:
        about["sample"] = {"points": options.sample, "sampler": options.sampler, "seed": options.seed}
    if options.output is not None:
        save_rows(rows, options.output, about)
    if options.picture is not None:
        title = sources[0] if len(sources) == 1 else f"{len(sources)} networks"
        _draw(rows, axes, f"{title}, {len(rows)} points", options.picture)
    if options.as_json:
        print_json({"format": FORMAT, "version": VERSION, "about": about, "points": rows})
        return
    _tell(rows, [field for axis in axes for field in axis.fields], options.output, options.picture)


def _check(options: SweepOptions, axes: list[Axis], named: Named) -> None:
    """Raise InputError for what would fail when points have been measured, or not act."""
    from gblr_hw.sweeps.parquet import check_parquet
    from gblr_hw.sweeps.samplers import Sample
    from gblr_hw.sweeps.space import Space

    options.place.check()
    space = Space.of(axes)
    if options.sample is not None:
        Sample(options.sample, options.sampler, options.seed)
        space.check_sample(options.sample)
    check_outputs(
        [Output("--output", options.output, SWEEPS), Output("--picture", options.picture, PICTURES)],
        inputs={**named.files, "--machine": machine_file(options.machine)},
        folders={"--work": options.work},
    )
    if options.output is not None and SWEEPS.ending(options.output) == ".parquet":
        check_parquet()


def _draw(rows: list[dict[str, Any]], axes: list[Axis], title: str, path: Path) -> None:
    from analysis.pictures.style import save_figure
    from analysis.pictures.sweep_picture import SweptPoint, draw_sweep
    from gblr_hw.sweeps.measure import settings_told

    first, fields = axes[0].fields[0], [field for axis in axes for field in axis.fields[:1]]
    points = [
        SweptPoint(row["latency_cycles"], row["energy_pj"] * 1e-6, str(row[first]), settings_told(row, fields))
        for row in rows
        if row["error"] is None
    ]
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
        *([Column("relative error", "relative_error", _four_digits)] if "family" in fields else []),
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
