"""``gblr-hw verify``: run a program on the RTL of its machine and hold it against the engine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gblr_hw.cli.options.shared_options import JsonOption, SeedOption
from gblr_hw.cli.shared.outputs import check_outputs
from gblr_hw.cli.shared.telling import console, print_json
from simulator.base.errors import InputError
from simulator.base.files import output_folder
from simulator.base.text import printable
from simulator.program.program import Program

_CACHE = Path("~/.cache/gblr-hw/rtl")


def verify_command(
    program: Annotated[Path, typer.Argument(help="A program that `gblr-hw lower` wrote.")],
    seed: SeedOption = 0,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help=f"Folder for compiled RTL [default: {_CACHE}].", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compile the RTL of the program's machine, run the program on it, and compare every event's cycle and every output
    code with the engine's and with int8 execution. Exit code 1 if anything differs. Needs the rtl extra and g++; to
    compile takes about one CPU minute for a 16 x 16 array and four times as much for 32 x 32, once.
    """
    from simulator.program.encoding import require_plain_layers
    from simulator.rtl.bench.agreement import compare, numbers_for
    from simulator.rtl.bench.cosimulation import compile_rtl

    folder = cache or _home_cache()
    check_outputs([], inputs={}, folders={"--cache": folder})
    loaded = Program.load(program)
    require_plain_layers(loaded)
    machine = loaded.machine
    told = f"compiling the RTL of {machine.name}, {machine.rows} x {machine.cols}"
    if not console().is_terminal:  # which has no status line
        typer.echo(f"{told}, where it is not in {folder}", err=True)
    with console().status(told):
        rtl = compile_rtl(machine, output_folder(folder))
    result = compare(rtl, loaded, machine, numbers_for(loaded, seed), memory_seed=seed + 1)
    differences = [*result.timing, *result.numbers]
    if as_json:
        print_json(asdict(result))
    else:
        verdict = "differ" if differences else "agree"
        print(
            f"RTL and engine {verdict}: {result.instructions:,} instructions in {result.latency_cycles:,} cycles, "
            f"{result.output_codes:,} output codes"
        )
        for line in differences:
            print(f"  {printable(line)}")
    if differences:
        raise typer.Exit(1)


def _home_cache() -> Path:
    try:
        return _CACHE.expanduser()
    except RuntimeError as error:
        raise InputError("--cache", "no home folder", f"compiled RTL is kept in {_CACHE}", "Name a folder.") from error
