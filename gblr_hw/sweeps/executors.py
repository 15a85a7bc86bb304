"""Where points are measured: in this process, in several, or on a Dask cluster. The rows are the same everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from itertools import islice

from gblr_hw.sweeps.axes import Settings
from gblr_hw.sweeps.measure import Row, measure_point
from gblr_hw.sweeps.sources import Source
from simulator import Machine
from simulator.base.errors import InputError

_MOST_LOSSES = 5  # of workers, with no point done in between
# What a worker of this machine holds, so that a network goes to it once.
_held: list[Source] = []


def measured(
    source: Source, base: Machine, tokens: int, points: Sequence[Settings], jobs: int, scheduler: str | None
) -> Iterator[tuple[int, Row]]:
    """(index, row) of each point, as they are done.

    A worker that dies takes its points with it: they are given to others. Raises InputError where workers keep dying,
    or the scheduler is not there.
    """
    if scheduler is not None:
        yield from _on_cluster(source, base, tokens, points, scheduler)
    elif jobs == 1 or len(points) < 2:
        for index, settings in enumerate(points):
            yield index, measure_point(source, base, tokens, settings)
    else:
        yield from _in_processes(source, base, tokens, points, min(jobs, len(points)))


def _in_processes(
    source: Source, base: Machine, tokens: int, points: Sequence[Settings], jobs: int
) -> Iterator[tuple[int, Row]]:
    from joblib.externals.loky import ProcessPoolExecutor

    left, losses = dict(enumerate(points)), 0
    while left:
        executor = ProcessPoolExecutor(jobs, initializer=_hold, initargs=(source,))
        try:
            for index, row in _drained(executor, base, tokens, list(left.items()), 2 * jobs):
                del left[index]
                losses = 0
                yield index, row
        except BrokenExecutor as error:
            losses += 1
            if losses == _MOST_LOSSES:
                raise InputError(
                    "--jobs", f"{jobs}, and {losses} times a worker that ended before a point was done",
                    "workers have the memory that they need", "Use fewer, or --jobs 1 to see what happens.",
                ) from error  # fmt: skip
        finally:
            executor.shutdown(wait=not left, kill_workers=bool(left))


def _on_cluster(
    source: Source, base: Machine, tokens: int, points: Sequence[Settings], scheduler: str
) -> Iterator[tuple[int, Row]]:
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise InputError(
            "--scheduler", "no package 'distributed'", "it speaks with the cluster", "pip install 'gblr-hw[cluster]'."
        ) from error
    try:
        client = Client(scheduler, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--scheduler '{scheduler}'", str(error).splitlines()[0] if str(error) else type(error).__name__,
            "a Dask scheduler listens there", "Start one with `dask scheduler`, and name its tcp://HOST:PORT.",
        ) from error  # fmt: skip
    with client:
        held = client.scatter(source, broadcast=True)
        futures = [client.submit(measure_point, held, base, tokens, dict(one), pure=False) for one in points]
        places = {future.key: index for index, future in enumerate(futures)}
        for future, row in as_completed(futures, loop=client.loop, with_results=True):
            yield places[future.key], row


def _drained(
    executor: Executor, base: Machine, tokens: int, left: Sequence[tuple[int, Settings]], most: int
) -> Iterator[tuple[int, Row]]:
    """Results in the order of completion, with at most so many points handed out at a time."""
    waiting, running = iter(left), dict[Future[Row], int]()
    while True:
        for index, settings in islice(waiting, most - len(running)):
            running[executor.submit(_measure_held, base, tokens, dict(settings))] = index
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield running.pop(future), future.result()


def _hold(source: Source) -> None:
    _held[:] = [source]


def _measure_held(base: Machine, tokens: int, settings: Settings) -> Row:
    return measure_point(_held[0], base, tokens, settings)
