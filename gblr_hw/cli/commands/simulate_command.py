"""``gblr-hw simulate``: cycles, bytes and joules of a program or of dense GEMMs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gblr_hw.cli.commands.simulate_gemm import (
    choose_machine,
    choose_systolic_array,
    print_counted,
    print_runs,
    read_gemms,
    run_gemm,
)
from gblr_hw.cli.shared.options import JsonOption, check_output, console
from gblr_hw.cli.shared.report_tables import print_report
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.program.program import Program
from simulator.scalesim.systolic_gemm import Gemm
from simulator.timing.report import Report
from simulator.timing.simulate import simulate


class Order(StrEnum):
    """How the table of layers or operators is sorted."""

    PROGRAM = "program"
    CYCLES = "cycles"


def simulate_command(
    program: Annotated[Path | None, typer.Argument(help="A program that `gblr-hw lower` wrote.")] = None,
    machine: Annotated[
        str | None,
        typer.Option(
            "--machine",
            "-m",
            help="Preset or TOML file; without it the machine a program was lowered for, and mid-32 for GEMMs.",
            metavar="NAME|FILE",
        ),
    ] = None,
    gemm: Annotated[
        list[str] | None,
        typer.Option(
            "--gemm",
            help="Instead of a program: a dense layer of M tokens, K inputs, N outputs; repeatable.",
            metavar="MxKxN",
        ),
    ] = None,
    topology: Annotated[
        Path | None,
        typer.Option("--topology", help="Instead of a program: layers of a SCALE-Sim topology (GEMM or convolution)."),
    ] = None,
    array: Annotated[
        str | None, typer.Option("--array", help="For GEMMs: another array for the machine.", metavar="ROWSxCOLS")
    ] = None,
    option_set: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="For GEMMs: compute cycles as SCALE-Sim 3.0 counts them: scalesim-ws, scalesim-os or scalesim-is.",
            metavar="NAME",
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
    roofline: Annotated[
        Path | None, typer.Option("--roofline", help="Draw every operator under the machine's roofs (PNG, SVG or PDF).")
    ] = None,
    order: Annotated[
        Order | None,
        typer.Option(
            "--order",
            help="Rows of the table: as the program has them, or most cycles first (the default for whole networks).",
            show_default=False,
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option("--top", help="Rows of the table; one more sums up all others.", min=1, metavar="N")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate a program: cycles per layer or operator and per unit, with causes; bytes, energy by component, roofline.

    With --gemm or --topology: dense layers, on our machine or (--as) in the closed forms of SCALE-Sim 3.0.
    """
    asked = {"report": report, "trace": trace, "timeline": timeline, "bars": bars, "roofline": roofline}
    outputs = {kind: check_output(path) for kind, path in asked.items() if path}
    _check_sources(program, gemm, topology, {"--array": array, "--as": option_set}, {"--order": order, "--top": top})
    if program is not None:
        loaded = Program.load(program)
        result = simulate(loaded, loaded.machine if machine is None else Machine.load(machine))
        show_report(result, outputs, as_json, order, top)
        return
    _simulate_gemms(read_gemms(gemm or (), topology), machine, array, option_set, outputs, as_json)


def _simulate_gemms(
    gemms: tuple[Gemm, ...],
    machine: str | None,
    array: str | None,
    option_set: str | None,
    outputs: dict[str, Path],
    as_json: bool,
) -> None:
    if option_set is not None:
        _refuse_outputs(f"--as {option_set}", outputs, "closed forms have no time line")
        print_counted(gemms, choose_systolic_array(option_set, machine, array), option_set, as_json)
        return
    chosen = choose_machine(machine, array)
    if len(gemms) == 1:
        show_report(run_gemm(gemms[0], chosen), outputs, as_json)
        return
    _refuse_outputs(f"{len(gemms)} GEMMs", outputs, "they show a single simulation")
    print_runs(gemms, chosen, as_json)


def show_report(
    result: Report, outputs: dict[str, Path], as_json: bool, order: Order | None = None, top: int | None = None
) -> None:
    """Write the files asked for and print the report, its rows in the order asked for."""
    write_outputs(result, outputs)
    if as_json:
        print(result.to_json(), end="")
    else:
        print_report(result, None if order is None else order.value, top)
        for kind, path in outputs.items():
            console.print(f"{kind} written to {path}", highlight=False, soft_wrap=True)


def write_outputs(result: Report, outputs: dict[str, Path]) -> None:
    """Write the files asked for: report, trace, timeline, bars, roofline."""
    if "report" in outputs:
        from simulator.base.files import replacing

        with replacing(outputs["report"]) as file:
            file.write(result.to_json().encode())
    if "trace" in outputs:
        from analysis.traces.chrome_trace import save_chrome_trace

        save_chrome_trace(result, outputs["trace"])
    if {"timeline", "bars", "roofline"}.intersection(outputs):
        from analysis.pictures.layer_bars import draw_layer_bars
        from analysis.pictures.roofline import draw_roofline
        from analysis.pictures.style import save_figure
        from analysis.pictures.timeline import draw_timeline

        for kind, draw in (("timeline", draw_timeline), ("bars", draw_layer_bars), ("roofline", draw_roofline)):
            if kind in outputs:
                save_figure(draw(result), outputs[kind])


def _check_sources(
    program: Path | None,
    gemm: list[str] | None,
    topology: Path | None,
    gemm_options: dict[str, str | None],
    program_options: dict[str, object],
) -> None:
    """Exactly one thing to simulate, and the options that belong to it."""
    sources = {"a program": program, "--gemm": gemm, "--topology": topology}
    given = [name for name, value in sources.items() if value]
    if len(given) != 1:
        raise InputError(
            "simulate",
            " and ".join(given) or "nothing to simulate",
            "it takes one of a program, --gemm and --topology",
            "Give a program that `gblr-hw lower` wrote, or a GEMM such as --gemm 197x768x768.",
        )
    for name, value in gemm_options.items():
        if program is not None and value is not None:
            raise InputError(
                f"{name} {value}",
                f"the program '{program}'",
                f"{name} is for --gemm and --topology: a program was laid out for its machine",
                "Lower the checkpoint for another machine instead.",
            )
    for name, option in program_options.items():
        if program is None and option is not None:
            raise InputError(
                f"{name} {option}",
                " and ".join(given),
                f"{name} is for programs: GEMMs are listed as they were given",
                "Leave it out.",
            )


def _refuse_outputs(where: str, outputs: dict[str, Path], rule: str) -> None:
    if outputs:
        raise InputError(
            where,
            " and ".join(f"--{kind}" for kind in outputs),
            f"files are written of one GEMM on our machine: {rule}",
            "Leave them out, or use --json.",
        )
