"""``gblr-hw simulate``: cycles, bytes and joules of a program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gblr_hw.cli.options import JsonOption, check_output, console
from gblr_hw.cli.tables import print_report
from simulator.machine import Machine
from simulator.program import Program
from simulator.report import Report
from simulator.simulate import simulate


def simulate_command(
    program: Annotated[Path, typer.Argument(help="A program that `gblr-hw lower` wrote.")],
    machine: Annotated[
        str | None,
        typer.Option(
            "--machine",
            "-m",
            help="Preset or TOML file [default: the machine it was lowered for].",
            metavar="NAME|FILE",
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write all figures as JSON.")] = None,
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Write a Chrome trace (.json or .json.gz) for Perfetto.")
    ] = None,
    timeline: Annotated[
        Path | None, typer.Option("--timeline", help="Draw the units' time line (PNG, SVG or PDF).")
    ] = None,
    bars: Annotated[
        Path | None, typer.Option("--bars", help="Draw every layer's cycles by cause (PNG, SVG or PDF).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate a program: cycles per layer and unit with their causes, bytes, energy by component, roofline."""
    outputs = {
        kind: check_output(path)
        for kind, path in (("report", report), ("trace", trace), ("timeline", timeline), ("bars", bars))
        if path
    }
    loaded = Program.load(program)
    result = simulate(loaded, loaded.machine if machine is None else Machine.load(machine))
    write_outputs(result, outputs)
    if as_json:
        print(result.to_json(), end="")
    else:
        print_report(result)
        for kind, path in outputs.items():
            console.print(f"{kind} written to {path}", highlight=False, soft_wrap=True)


def write_outputs(result: Report, outputs: dict[str, Path]) -> None:
    """Write the files asked for: report, trace, timeline, bars."""
    if "report" in outputs:
        from analysis.files import replacing

        with replacing(outputs["report"]) as file:
            file.write(result.to_json().encode())
    if "trace" in outputs:
        from analysis.chrome_trace import save_chrome_trace

        save_chrome_trace(result, outputs["trace"])
    if "timeline" in outputs or "bars" in outputs:
        from analysis.layer_bars import draw_layer_bars
        from analysis.style import save_figure
        from analysis.timeline import draw_timeline

        for kind, draw in (("timeline", draw_timeline), ("bars", draw_layer_bars)):
            if kind in outputs:
                save_figure(draw(result), outputs[kind])
