"""What commands print: lines, JSON, progress. Rich is loaded for what only it can draw."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from simulator.base.text import printable

if TYPE_CHECKING:
    from rich.console import Console

_SECONDS_A_LINE = 10.0  # of progress where there is no terminal


@cache
def console(stderr: bool = False) -> Console:
    """Standard output, or standard error, as Rich draws on it."""
    from rich.console import Console

    return Console(stderr=stderr)


def heading(text: str) -> None:
    """A line on standard output that stands out, as it stands: names are not taken for markup, and never wrapped."""
    console().print(printable(text), style="bold", markup=False, highlight=False, soft_wrap=True)


def print_json(data: object) -> None:
    """A JSON document on standard output, keys sorted."""
    print(json.dumps(data, indent=2, sort_keys=True))


def say(text: str) -> None:
    """A line on standard output, as it stands."""
    print(printable(text))


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """A callback (done, of, what) that draws a progress bar on standard error, or, where that is no terminal, writes a
    line now and then; silent when ``quiet``.
    """
    if quiet:
        yield lambda done, of, what: None
        return
    errors = console(stderr=True)
    if not errors.is_terminal:
        yield _lines_now_and_then()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
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
