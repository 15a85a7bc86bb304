"""``gblr-hw simulate``: cycles, bytes and joules of a program or of dense GEMMs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from analysis.file_kinds import DRAM_TRACES, PICTURES, TRACES
from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.options import JsonOption, say
from gblr_hw.cli.shared.outputs import Output, check_outputs, machine_file, table_file
from gblr_hw.cli.shared.priced import priced_by
from gblr_hw.cli.shared.report_tables import print_report
from gblr_hw.cli.shared.simulate_gemm import (
    check_gemms,
    choose_machine,
    choose_systolic_array,
    print_counted,
    print_runs,
    read_gemms,
    run_gemm,
)
from simulator.base.errors import InputError
from simulator.dram.standards import STANDARDS
from simulator.machine.dram_choice import with_dram_model
from simulator.machine.machine import Machine
from simulator.program.program import Program
from simulator.timing.report import Report
from simulator.timing.simulate import simulate

_PROGRAM, _GEMMS, _ONE, _TABLE = "a program", "GEMMs", "one GEMM", "a table of operators"
_PRICED = "a simulation on our machine"
_REPORT = (_PROGRAM, _ONE)
_ACTS_WITH = {
    "program": ALWAYS,
    "machine": ALWAYS,
    "dram": _REPORT,
    "gemm": ALWAYS,
    "topology": ALWAYS,
    "energy_table": (_PRICED,),
    "array": (_GEMMS,),
    "option_set": (_GEMMS,),
    "report": _REPORT,
    "trace": _REPORT,
    "dram_trace": (_PROGRAM,),
    "timeline": _REPORT,
    "bars": _REPORT,
    "roofline": _REPORT,
    "order": (_TABLE,),
    "top": (_TABLE,),
    "as_json": ALWAYS,
}
_KINDS = {"report": None, "trace": TRACES, "timeline": PICTURES, "bars": PICTURES, "roofline": PICTURES}


class Order(StrEnum):
    """How the table of layers or operators is sorted."""

    PROGRAM = "program"
    CYCLES = "cycles"


def simulate_command(
    context: typer.Context,
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
    dram: Annotated[
        str | None,
        typer.Option(
            "--dram",
            help="Another DRAM for the machine: bandwidth (one latency, one bandwidth) or a standard's banks and rows: "
            f"{', '.join(STANDARDS)}; as many channels as come nearest to its bandwidth.",
            metavar="MODEL",
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
    energy_table: Annotated[
        str | None,
        typer.Option(
            "--energy-table",
            help="Price events by another table: cmos-45, cmos-22, cmos-7 or a TOML file.",
            metavar="NAME|FILE",
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write all figures as JSON.")] = None,
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Write a Chrome trace (.json or .json.gz) for Perfetto.")
    ] = None,
    dram_trace: Annotated[
        Path | None,
        typer.Option(
            "--dram-trace",
            help="Of a program: write its DRAM bursts for Ramulator 2, as addresses (.ldst) or banks and rows (.rw).",
        ),
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
    source = _source(program, gemm, topology)
    gemms = () if program is not None else read_gemms(gemm or (), topology)
    check_acting(context, _given(source, len(gemms), option_set, as_json), _ACTS_WITH)
    asked = {"report": report, "trace": trace, "timeline": timeline, "bars": bars, "roofline": roofline}
    outputs = {kind: path for kind, path in asked.items() if path is not None}
    check_outputs(
        [
            *(Output(f"--{kind}", path, _KINDS[kind]) for kind, path in asked.items()),
            Output("--dram-trace", dram_trace, DRAM_TRACES),
        ],
        inputs={
            "the program": program,
            "--machine": machine_file(machine),
            "--topology": topology,
            "--energy-table": table_file(energy_table),
        },
    )
    if program is not None:
        loaded = Program.load(program)
        own = loaded.machine if machine is None else Machine.load(machine)
        chosen = priced_by(_with_dram(own, dram), energy_table)
        result = simulate(loaded, chosen, program.stem)
        told = "" if dram_trace is None else write_dram_trace(loaded, chosen, result, dram_trace)
        show_report(result, outputs, as_json, order, top)
        if told and not as_json:
            say(told)
    elif option_set is not None:
        print_counted(gemms, choose_systolic_array(option_set, machine, array), option_set, as_json)
    else:
        chosen = priced_by(_with_dram(choose_machine(machine, array), dram), energy_table)
        check_gemms(gemms)
        if len(gemms) == 1:
            show_report(run_gemm(gemms[0], chosen), outputs, as_json)
        else:
            print_runs(gemms, chosen, as_json)


def _with_dram(machine: Machine, model: str | None) -> Machine:
    return machine if model is None else with_dram_model(machine, model)


def write_dram_trace(program: Program, machine: Machine, result: Report, path: Path) -> str:
    """Write the bursts of a program and say so; on a machine with banks also how long a replay of them takes."""
    from analysis.traces.dram_trace import burst_trace, replayed_clocks, save_dram_trace

    trace = burst_trace(program, machine, result)
    save_dram_trace(trace, machine, path)
    told = f"DRAM trace written to {path}: {len(trace.numbers):,} bursts"
    if machine.dram.standard is None:
        return told
    return f"{told}; replayed as fast as it goes: {replayed_clocks(trace, machine):,} clocks of the DRAM"


def _source(program: Path | None, gemm: list[str] | None, topology: Path | None) -> str:
    """The one thing to simulate."""
    sources = {_PROGRAM: program, "--gemm": gemm, "--topology": topology}
    given = [name for name, value in sources.items() if value]
    if len(given) != 1:
        raise InputError(
            "simulate",
            " and ".join(given) or "nothing to simulate",
            "it takes one of a program, --gemm and --topology",
            "Give a program that `gblr-hw lower` wrote, or a GEMM such as --gemm 197x768x768.",
        )
    return given[0]


def _given(source: str, gemms: int, option_set: str | None, as_json: bool) -> list[str]:
    """What the command is about, as the table of options names it."""
    if source == _PROGRAM:
        return [_PROGRAM, _PRICED, "--json"] if as_json else [_PROGRAM, _PRICED, _TABLE]
    if option_set is not None:
        return [f"--as {option_set}", _GEMMS]
    return [_ONE if gemms == 1 else f"{gemms} GEMMs", _PRICED, _GEMMS]


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
            say(f"{kind} written to {path}")


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
