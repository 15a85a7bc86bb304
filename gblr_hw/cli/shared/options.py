"""Options and small steps that several commands share."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from simulator.base.errors import InputError
from simulator.base.text import printable

if TYPE_CHECKING:
    from gblr_hw.files.accounting import Told

_SECONDS_A_LINE = 10.0  # of progress where there is no terminal

MachineOption = Annotated[
    str,
    typer.Option("--machine", "-m", help="A preset (see `gblr-hw machine list`) or a TOML file.", metavar="NAME|FILE"),
]
GaussianOption = Annotated[
    bool | None,
    typer.Option(
        "--gaussian/--no-gaussian",
        help="Whether a checkpoint in the published layout was trained with the mask's Gaussian term. The file does "
        "not say; our own format does.",
        show_default=False,
    ),
]
_PATTERN = "Shell pattern on names of tensors or layers; may be repeated."
TableOption = Annotated[
    list[str] | None,
    typer.Option("--table", help=f"Matrices that are looked up, not multiplied. {_PATTERN}", metavar="PATTERN"),
]
LayerOption = Annotated[
    list[str] | None,
    typer.Option("--layer", help=f"Matrices that are layers, not look-up tables. {_PATTERN}", metavar="PATTERN"),
]
LeaveOutOption = Annotated[
    list[str] | None,
    typer.Option(
        "--leave-out",
        help=f"Tensors that may stay out, and parameters that keep a model file's values. {_PATTERN}",
        metavar="PATTERN",
    ),
]
TransposedOption = Annotated[
    list[str] | None,
    typer.Option(
        "--transposed", help=f"Dense layers stored inputs first, without a bias to tell. {_PATTERN}", metavar="PATTERN"
    ),
]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--shape", help="Outputs and inputs of a Monarch layer, which padding can hide.", metavar="NAME=OUTxIN"
    ),
]
CovariancesOption = Annotated[
    Path | None,
    typer.Option("--covariances", help="Safetensors with input second moments (n, n) under the layers' names."),
]
IncludeOption = Annotated[
    list[str] | None, typer.Option("--include", help="Shell pattern of layers; may be repeated.", metavar="PATTERN")
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option("--exclude", help="Shell pattern of layers to leave out; may be repeated.", metavar="PATTERN"),
]
# The largest seed that every generator takes, also the next one's, which some commands use for a second one.
SeedOption = Annotated[int, typer.Option("--seed", help="Of random numbers.", min=0, max=2**32 - 2)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, nothing else.")]
TokensOption = Annotated[int, typer.Option("--tokens", help="Activation rows that enter every layer.", min=1)]

console = Console()
errors = Console(stderr=True)


def told_of(
    table: Sequence[str] | None,
    layer: Sequence[str] | None,
    leave_out: Sequence[str] | None,
    transposed: Sequence[str] | None,
) -> Told:
    """``--table``, ``--layer``, ``--leave-out`` and ``--transposed`` as what the user says of a file's tensors."""
    from gblr_hw.files.accounting import Told

    return Told.of(table or (), layer or (), leave_out or (), transposed or ())


def shapes_of(given: Sequence[str]) -> dict[str, tuple[int, int]]:
    """``--shape NAME=OUTxIN`` options as a mapping."""
    found: dict[str, tuple[int, int]] = {}
    for text in given:
        name, _, sizes = text.rpartition("=")
        outputs, _, inputs = sizes.partition("x")
        if not (name and outputs.isdecimal() and inputs.isdecimal()):
            raise InputError("--shape", repr(text), "it is NAME=OUTxIN", "Write such a pair, fc.1=64x96 say.")
        found[name] = (int(outputs), int(inputs))
    return found


def print_json(data: object) -> None:
    """A JSON document on standard output, keys sorted."""
    print(json.dumps(data, indent=2, sort_keys=True))


def say(text: str) -> None:
    """A line on standard output as it stands: names are not taken for markup, and never wrapped."""
    console.print(printable(text), highlight=False, soft_wrap=True, markup=False)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """A callback (done, of, what) that draws a progress bar on standard error, or, where that is no terminal, writes a
    line now and then; silent when ``quiet``.
    """
    if not quiet and not errors.is_terminal:
        yield _lines_now_and_then()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=quiet) as progress:
        task = progress.add_task("", total=None)

        def report(done: int, of: int, what: str) -> None:
            progress.update(task, completed=done, total=of, description=printable(what))

        yield report


def _lines_now_and_then() -> Callable[[int, int, str], None]:
    """A callback that writes a line to standard error, no sooner than some seconds after the one before it, so that
    what is quickly done says nothing.
    """
    last = time.monotonic()

    def report(done: int, of: int, what: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SECONDS_A_LINE:
            last = now
            print(f"{done}/{of} {printable(what)}", file=sys.stderr, flush=True)

    return report
