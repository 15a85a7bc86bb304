"""What commands print: lines, JSON, progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from simulator.base.text import printable

_SECONDS_A_LINE = 10.0  # of progress where there is no terminal

console = Console()
errors = Console(stderr=True)


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
