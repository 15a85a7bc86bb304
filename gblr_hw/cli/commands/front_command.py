"""``gblr-hw front``: the latency-accuracy front of measured networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.file_kinds import PICTURES
from analysis.tables.records import NetworkPoint, load_points
from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.options import JsonOption, console, print_json, say
from gblr_hw.cli.shared.outputs import Output, check_outputs
from simulator.base.text import printable

_ACTS_WITH = {"files": ALWAYS, "output": ALWAYS, "title": ("--output",), "as_json": ALWAYS}


def front_command(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(help="Points (.json or .csv) that `gblr-hw demo` wrote, or a study; several are joined."),
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Picture to draw (PNG, SVG or PDF).")] = None,
    title: Annotated[str, typer.Option("--title", help="Title of the picture.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Which networks are not beaten in both latency and accuracy, machine by machine; as a table and a picture."""
    from analysis.pictures.front_picture import draw_front
    from analysis.pictures.style import save_figure
    from gblr_hw.demo.points_table import points_table
    from gblr_hw.page.front import front

    check_acting(context, ["points", *([] if output is None else ["--output"])], _ACTS_WITH)
    read = {f"'{file}', whose points are read": file for file in files}
    check_outputs([Output("--output", output, PICTURES)], inputs=read)
    points = [point for file in files for point in load_points(file)]
    if output is not None:
        save_figure(draw_front(points, title=title), output)
    best: dict[str, list[NetworkPoint]] = {machine: [] for machine in sorted({point.machine for point in points})}
    for point in front(points).points if points else ():
        assert isinstance(point, NetworkPoint)
        best[point.machine].append(point)
    if as_json:
        print_json({machine: [vars(point) for point in found] for machine, found in best.items()})
        return
    for machine, found in best.items():
        console.print(printable(f"front on {machine}"), style="bold", markup=False, highlight=False, soft_wrap=True)
        print(points_table(found), end="")
    if output is not None:
        say(f"picture written to {output}")
