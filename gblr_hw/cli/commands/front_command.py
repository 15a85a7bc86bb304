"""``gblr-hw front``: the front of measured networks in latency and in accuracy, perplexity or loss."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.file_kinds import PICTURES
from analysis.tables.over_seeds import Seeds, on_front, over_seeds
from analysis.tables.qualities import one_quality
from analysis.tables.records import load_points
from gblr_hw.cli.options.shared_options import JsonOption
from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.outputs import Output, check_outputs
from gblr_hw.cli.shared.telling import heading, print_json, say

_ACTS_WITH = {"files": ALWAYS, "output": ALWAYS, "title": ("--output",), "as_json": ALWAYS}


def front_command(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Points of networks (.json or .csv), as `gblr-hw demo` writes them; several files are joined."
        ),
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Picture to draw (PNG, SVG or PDF).")] = None,
    title: Annotated[str, typer.Option("--title", help="Title of the picture.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Which networks are not beaten in both latency and accuracy, machine by machine; as a table and a picture.

    Instead of an accuracy points may have a perplexity or a loss, of which less is better. Points of one network with
    several seeds are one row and one mark, at their mean.
    """
    from analysis.pictures.front_picture import draw_front
    from analysis.pictures.style import save_figure
    from gblr_hw.demo.points_table import points_table

    check_acting(context, ["points", *([] if output is None else ["--output"])], _ACTS_WITH)
    read = {f"'{file}', whose points are read": file for file in files}
    check_outputs([Output("--output", output, PICTURES)], inputs=read)
    points = [point for file in files for point in load_points(file)]
    if points:
        one_quality("the points", {point.quality for point in points})
    if output is not None:
        save_figure(draw_front(points, title=title), output)
    networks = over_seeds(points)
    best = {
        machine: _fastest_first([one for one in networks if one.first.machine == machine])
        for machine in sorted({p.machine for p in points})
    }
    if as_json:
        print_json({machine: [one.record() for one in front] for machine, front in best.items()})
        return
    for machine, front in best.items():
        heading(f"front on {machine}")
        print(points_table(front, networks), end="")
    if output is not None:
        say(f"picture written to {output}")


def _fastest_first(networks: list[Seeds]) -> list[Seeds]:
    """A machine's networks that no other beats in latency and quality."""
    chosen = [networks[index] for index in on_front(networks)]
    return sorted(chosen, key=lambda one: (one.cycles[0], one.first.name))
