"""``gblr-hw sensitivity``: whether an order of families survives the intervals of all prices, and other DRAM."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from analysis.file_kinds import PICTURES
from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.options import JsonOption, print_json, say
from gblr_hw.cli.shared.outputs import Output, check_outputs, machine_file, table_file
from gblr_hw.cli.shared.priced import priced_by
from simulator.base.errors import InputError
from simulator.base.text import printable
from simulator.machine.machine import Machine

_ACTS_WITH = dict.fromkeys(("files", "output", "machine", "energy_table", "accuracy", "as_json"), ALWAYS)


def sensitivity_command(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Points (.json, .csv) of `gblr-hw demo`, reports (.json) of `simulate --report`, or lines "
            "(.jsonl) of a study, with their counted events; several are joined.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Tornado picture to draw (PNG, SVG or PDF).")
    ] = None,
    machine: Annotated[
        list[str] | None,
        typer.Option(
            "--machine",
            "-m",
            help="TOML file of a machine in the results that is no preset; repeatable.",
            metavar="FILE",
        ),
    ] = None,
    energy_table: Annotated[
        str | None,
        typer.Option("--energy-table", help="Price events by another table than the machines'.", metavar="NAME|FILE"),
    ] = None,
    accuracy: Annotated[
        float | None,
        typer.Option(
            "--accuracy",
            help="What a family's run must reach to stand for it; without it the highest that all families reach.",
            min=0.0,
            max=1.0,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Whether the order of families survives every entry's interval and every DRAM; a sentence for each claim."""
    from analysis.tables.contenders import load_contenders
    from analysis.tables.robustness import claim_table, claims_of, sentence

    check_acting(context, ["results"], _ACTS_WITH)
    read: dict[str, Path | None] = {f"'{file}', whose results are read": file for file in files}
    read |= {f"--machine '{name}'": machine_file(name) for name in machine or ()}
    check_outputs([Output("--output", output, PICTURES)], inputs={**read, "--energy-table": table_file(energy_table)})
    known = {loaded.name: loaded for loaded in map(Machine.load, machine or ())}

    def machine_of(name: str) -> Machine:
        return priced_by(known.get(name) or _preset(name), energy_table)

    claims = claims_of([run for file in files for run in load_contenders(file)], machine_of, accuracy)
    if output is not None:
        from analysis.pictures.style import save_figure
        from analysis.pictures.tornado import draw_tornado

        save_figure(draw_tornado(claims), output)
    if as_json:
        print_json([{**asdict(claim), "survives": claim.survives, "said": sentence(claim)} for claim in claims])
        return
    print(claim_table(claims))
    for claim in claims:
        print(printable(sentence(claim)))
    if output is not None:
        say(f"picture written to {output}")


def _preset(name: str) -> Machine:
    try:
        return Machine.load(name)
    except InputError as error:
        raise InputError(
            f"results on machine '{name}'",
            error.value,
            "its energy table and sizes are needed",
            "Give its --machine FILE.",
        ) from error
