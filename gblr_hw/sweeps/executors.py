"""Where calls are made that do not hang on each other: in this process, in several, or on a Dask cluster. What comes
back is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from itertools import islice
from typing import Any, TypeVar

from simulator.base.errors import InputError

Result = TypeVar("Result")
Call = Callable[..., Result]
Task = tuple[Any, ...]

_MOST_LOSSES = 5  # of workers, with no task done in between
# What a worker of this machine holds: the call and its first argument, so that a network goes to it once.
_held: list[Any] = []


def results_of(
    call: Call[Result], shared: Any, tasks: Sequence[Task], jobs: int = 1, scheduler: str | None = None
) -> Iterator[tuple[int, Result]]:
    """(index, call(shared, *task)) of each task, as they are done.

    jobs: processes. scheduler: address of a Dask scheduler, in their place. A worker that dies takes its tasks with it:
    they are given to others. What a call raises is raised here. Raises InputError where workers keep dying, or the
    scheduler is not there.
    """
    if jobs < 1:
        raise InputError("--jobs", str(jobs), "at least one process", "Leave it out for one.")
    if scheduler is not None:
        yield from _on_cluster(call, shared, tasks, scheduler)
    elif jobs == 1 or len(tasks) < 2:
        for index, task in enumerate(tasks):
            yield index, call(shared, *task)
    else:
        yield from _in_processes(call, shared, tasks, min(jobs, len(tasks)))


def _in_processes(call: Call[Result], shared: Any, tasks: Sequence[Task], jobs: int) -> Iterator[tuple[int, Result]]:
    from joblib.externals.loky import ProcessPoolExecutor

    left, losses = dict(enumerate(tasks)), 0
    while left:
        executor = ProcessPoolExecutor(jobs, initializer=_hold, initargs=(call, shared))
        try:
            for index, result in _drained(executor, list(left.items()), 2 * jobs):
                del left[index]
                losses = 0
                yield index, result
        except BrokenExecutor as error:
            losses += 1
            if losses == _MOST_LOSSES:
                raise InputError(
                    "--jobs", f"{jobs}, and {losses} times a worker that ended before a task was done",
                    "workers have the memory that they need", "Use fewer, or --jobs 1 to see what happens.",
                ) from error  # fmt: skip
        finally:
            executor.shutdown(wait=not left, kill_workers=bool(left))


def _on_cluster(call: Call[Result], shared: Any, tasks: Sequence[Task], scheduler: str) -> Iterator[tuple[int, Result]]:
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
        (held,) = client.scatter([shared], broadcast=True)  # one thing, whatever it holds
        futures = [client.submit(call, held, *task, pure=False) for task in tasks]
        places = {future.key: index for index, future in enumerate(futures)}
        for future, result in as_completed(futures, loop=client.loop, with_results=True):
            yield places[future.key], result


def _drained(executor: Executor, left: Sequence[tuple[int, Task]], most: int) -> Iterator[tuple[int, Any]]:
    """Results in the order of completion, with at most so many tasks handed out at a time."""
    waiting, running = iter(left), dict[Future[Any], int]()
    while True:
        for index, task in islice(waiting, most - len(running)):
            running[executor.submit(_call_held, task)] = index
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield running.pop(future), future.result()


def _hold(*call: Any) -> None:
    _held[:] = call


def _call_held(task: Task) -> Any:
    call, shared = _held
    return call(shared, *task)
