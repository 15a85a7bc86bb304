"""``gblr-hw compare``: programs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from analysis.tables.comparison import ComparedRow
from analysis.tables.table import Column, format_table
from gblr_hw.cli.options.shared_options import JsonOption
from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.telling import print_json, say
from gblr_hw.page.compare import MEASURES, compare
from simulator.base.errors import InputError
from simulator.program.program import Program

_ACTS_WITH = {**dict.fromkeys(("programs", "measure", "as_json"), ALWAYS), "top": ("a table",)}
_SCALE = {"energy_pj": 1e-6}
_UNIT = {"latency_cycles": "cycles", "dram_bytes": "DRAM bytes", "energy_pj": "uJ", "macs": "multiply-accumulates"}


def compare_command(
    context: typer.Context,
    programs: Annotated[list[Path], typer.Argument(help="Programs, the one to compare with first.")],
    measure: Annotated[
        Literal["cycles", "bytes", "energy", "macs"], typer.Option("--by", help="What is compared.")
    ] = "cycles",
    top: Annotated[int, typer.Option("--top", help="Operators shown, largest differences first.", min=1)] = 20,
    as_json: JsonOption = False,
) -> None:
    """Compare programs operator by operator: where the cycles, bytes and joules of one differ from another's.

    Operators are matched by name; each program runs on the machine that it was lowered for.
    """
    check_acting(context, ["--json" if as_json else "a table"], _ACTS_WITH)
    loaded = [Program.load(path) for path in programs]
    rows = compare(loaded, by=measure).rows
    names = _short_names(programs)
    if as_json:
        print_json(
            {
                "programs": [
                    {"program": str(path), "machine": one.machine.name}
                    for path, one in zip(programs, loaded, strict=True)
                ],
                "measure": MEASURES[measure],
                "rows": [{"name": row.name, "values": row.values, "causes": row.causes} for row in rows],
            }
        )
        return
    _tell(rows, [f"{name} on {one.machine.name}" for name, one in zip(names, loaded, strict=True)], measure, top)


def _short_names(programs: list[Path]) -> list[str]:
    """File names without their ending; where two are the same, whole paths."""
    names = [path.stem for path in programs]
    for path in programs:
        if programs.count(path) > 1:
            raise InputError(f"'{path}'", "it twice", "each program is named once", "Leave one out.")
    return names if len(set(names)) == len(names) else [str(path) for path in programs]


def _tell(rows: tuple[ComparedRow, ...], names: list[str], measure: str, top: int) -> None:
    key = MEASURES[measure]
    scale = _SCALE.get(key, 1.0)

    def number(value: object) -> str:
        assert isinstance(value, float)
        return f"{value * scale:,.2f}" if key in _SCALE else f"{value:,.0f}"

    told = [
        {
            "name": row.name,
            **{f"value{index}": value for index, value in enumerate(row.values)},
            "ratio": row.ratio,
            "difference": row.difference,
            "why": row.mostly if measure == "cycles" else None,
        }
        for row in (rows[0], *rows[1 : top + 1])
    ]
    columns = [
        Column("operator", "name", align="left"),
        *(Column(f"{index + 1}", f"value{index}", number) for index in range(len(names))),
        Column("ratio", "ratio", lambda value: f"{value:.3f}"),
        Column("difference", "difference", number),
        *([Column("mostly of", "why", align="left")] if measure == "cycles" else []),
    ]
    print(format_table(columns, told), end="")
    for index, name in enumerate(names):
        say(f"{index + 1}: {name}, in {_UNIT[key]}")
    if len(rows) - 1 > top:
        say(f"{top} of {len(rows) - 1} operators; the ratio and the difference are of the last program to the first")
