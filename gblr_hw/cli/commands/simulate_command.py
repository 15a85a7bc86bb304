"""``gblr-hw simulate``: cycles, bytes and joules of a program or of dense GEMMs."""

from __future__ import annotations

from pathlib import Path

import typer

from analysis.file_kinds import DRAM_TRACES, PICTURES, TRACES
from gblr_hw.cli.options.simulate_options import Order, SimulateOptions
from gblr_hw.cli.options.taking import takes
from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.outputs import Output, check_outputs, machine_file, table_file
from gblr_hw.cli.shared.priced import priced_by
from gblr_hw.cli.shared.report_tables import print_report
from gblr_hw.cli.shared.telling import say
from simulator.base.errors import InputError
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


@takes(SimulateOptions)
def simulate_command(context: typer.Context, options: SimulateOptions) -> None:
    """Simulate a program: cycles per layer or operator and per unit, with causes; bytes, energy by component, roofline.

    With --gemm or --topology: dense layers, on our machine or (--as) in the closed forms of SCALE-Sim 3.0.
    """
    source = _source(options.program, options.gemm, options.topology)
    if options.program is not None:
        check_acting(context, _given(source, 0, options.option_set, options.as_json), _ACTS_WITH)
        _simulate_program(options.program, options, _checked_outputs(options))
    else:
        _simulate_gemms(context, source, options)


def _simulate_gemms(context: typer.Context, source: str, options: SimulateOptions) -> None:
    from gblr_hw.cli.shared.simulate_gemm import (
        check_gemms,
        choose_machine,
        choose_systolic_array,
        print_counted,
        print_runs,
        read_gemms,
        run_gemm,
    )

    gemms = read_gemms(options.gemm or (), options.topology)
    check_acting(context, _given(source, len(gemms), options.option_set, options.as_json), _ACTS_WITH)
    outputs = _checked_outputs(options)
    if options.option_set is not None:
        array = choose_systolic_array(options.option_set, options.machine, options.array)
        print_counted(gemms, array, options.option_set, options.as_json)
    else:
        chosen = _chosen(choose_machine(options.machine, options.array), options)
        check_gemms(gemms)
        if len(gemms) == 1:
            show_report(run_gemm(gemms[0], chosen), outputs, options.as_json)
        else:
            print_runs(gemms, chosen, options.as_json)


def _checked_outputs(options: SimulateOptions) -> dict[str, Path]:
    """The files of a report that were asked for, by kind. Raises InputError for one that may not be written."""
    asked = {kind: getattr(options, kind) for kind in _KINDS}
    check_outputs(
        [
            *(Output(f"--{kind}", path, _KINDS[kind]) for kind, path in asked.items()),
            Output("--dram-trace", options.dram_trace, DRAM_TRACES),
        ],
        inputs={
            "the program": options.program,
            "--machine": machine_file(options.machine),
            "--topology": options.topology,
            "--energy-table": table_file(options.energy_table),
        },
    )
    return {kind: path for kind, path in asked.items() if path is not None}


def _simulate_program(path: Path, options: SimulateOptions, outputs: dict[str, Path]) -> None:
    program = Program.load(path)
    machine = _chosen(program.machine if options.machine is None else Machine.load(options.machine), options)
    result = simulate(program, machine, path.stem)
    trace = options.dram_trace
    told = "" if trace is None else write_dram_trace(program, machine, result, trace)
    show_report(result, outputs, options.as_json, options.order, options.top)
    if told and not options.as_json:
        say(told)


def _chosen(machine: Machine, options: SimulateOptions) -> Machine:
    """The machine with the DRAM and the energy table that were asked for."""
    with_dram = machine if options.dram is None else with_dram_model(machine, options.dram)
    return priced_by(with_dram, options.energy_table)


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
