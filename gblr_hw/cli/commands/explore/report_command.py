"""``gblr-hw report``: results as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.file_kinds import PAGES
from gblr_hw.cli.shared.outputs import Output, check_outputs
from gblr_hw.cli.shared.telling import say


def report_command(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="What the page is made of: programs, points of a sweep (.json, .csv, .parquet) or of networks (.json, "
            ".csv), a study's lines (.jsonl), checkpoints (.safetensors, for their block maps), the folder of "
            "`gblr-hw demo`.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Page to write (.html).")] = Path("report.html"),
    title: Annotated[str, typer.Option("--title", help="Title of the page [default: what it is made of].")] = "",
) -> None:
    """One page of results, which opens without a network: verdict, fronts, table, roofline, cycles, maps, timeline."""
    read = {f"'{path}', which is read": path for path in results}
    check_outputs([Output("--output", output, PAGES)], inputs=read)
    from gblr_hw.page.report import report

    report(results, output, title)
    say(f"page written to {output} ({output.stat().st_size:,} bytes)")
