"""``gblr-hw sensitivity``: whether an order of families survives the intervals of all prices, and other DRAM."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from analysis.file_kinds import PICTURES
from gblr_hw.cli.options.sensitivity_options import SensitivityOptions
from gblr_hw.cli.options.taking import takes
from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.outputs import Output, check_outputs, machine_file, table_file
from gblr_hw.cli.shared.priced import priced_by
from gblr_hw.cli.shared.telling import print_json, say
from simulator.base.errors import InputError
from simulator.base.text import printable
from simulator.machine.machine import Machine

_ACTS_WITH = dict.fromkeys(("files", "output", "machine", "energy_table", "accuracy", "as_json"), ALWAYS)


@takes(SensitivityOptions)
def sensitivity_command(context: typer.Context, options: SensitivityOptions) -> None:
    """Whether the order of families survives every entry's interval and every DRAM; a sentence for each claim."""
    from analysis.tables.contenders import load_contenders
    from analysis.tables.robustness import claim_table, claims_of, sentence

    check_acting(context, ["results"], _ACTS_WITH)
    output, machines, energy_table = options.output, options.machine or (), options.energy_table
    read: dict[str, Path | None] = {f"'{file}', whose results are read": file for file in options.files}
    read |= {f"--machine '{name}'": machine_file(name) for name in machines}
    check_outputs([Output("--output", output, PICTURES)], inputs={**read, "--energy-table": table_file(energy_table)})
    known = {loaded.name: loaded for loaded in map(Machine.load, machines)}

    def machine_of(name: str) -> Machine:
        return priced_by(known.get(name) or _preset(name), energy_table)

    runs = [run for file in options.files for run in load_contenders(file)]
    claims = claims_of(runs, machine_of, options.accuracy)
    if output is not None:
        from analysis.pictures.style import save_figure
        from analysis.pictures.tornado import draw_tornado

        save_figure(draw_tornado(claims), output)
    if options.as_json:
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
