"""Where calls are made that do not hang on each other: in this process, in several, or on a Dask cluster. What comes
back is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from itertools import islice
from types import TracebackType
from typing import Any, Generic, TypeVar

from simulator.base.errors import InputError

Result = TypeVar("Result")
Shared = TypeVar("Shared")
Call = Callable[..., Result]
Task = tuple[Any, ...]

_MOST_LOSSES = 5  # of workers, with no task done in between
# What a worker of this machine holds: the first argument of all calls, so that a network goes to it once.
_held: list[Any] = []


class Workers(Generic[Shared]):
    """Processes of this machine, or a Dask cluster, for one batch of calls after another.

    shared: first argument of every call, which goes to a worker once. jobs: processes, which start with the first batch
    of two tasks and stay until the `with` block ends; with one, calls are made here. scheduler: address of a Dask
    scheduler, in their place; the block begins by calling there.

    Raises InputError for less than one process, and where no scheduler is there.
    """

    def __init__(self, shared: Shared, jobs: int = 1, scheduler: str | None = None) -> None:
        if jobs < 1:
            raise InputError("--jobs", str(jobs), "at least one process", "Leave it out for one.")
        self.shared, self.jobs = shared, jobs
        self._scheduler = scheduler
        self._client: Any = None
        self._at_cluster: Any = None  # what is shared, as the cluster holds it
        self._processes: Any = None

    def __enter__(self) -> Workers[Shared]:
        if self._scheduler is not None:
            self._client = _client(self._scheduler)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end(kill=error is not None)
        if self._client is not None:
            self._client.close()
            self._client = self._at_cluster = None

    def results_of(self, call: Call[Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """(index, call(shared, *task)) of each task, as they are done.

        A worker that dies takes its tasks with it: they are given to others. What a call raises is raised here. Raises
        InputError where workers keep dying.
        """
        if self._client is not None:
            yield from self._on_cluster(call, tasks)
        elif self.jobs == 1 or len(tasks) < 2:
            for index, task in enumerate(tasks):
                yield index, call(self.shared, *task)
        else:
            yield from self._in_processes(call, tasks)

    def _in_processes(self, call: Call[Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        left, losses = dict(enumerate(tasks)), 0
        try:
            while left:
                try:
                    for index, result in _drained(self._started(), call, list(left.items()), 2 * self.jobs):
                        del left[index]
                        losses = 0
                        yield index, result
                except BrokenExecutor as error:
                    self._end(kill=True)
                    losses += 1
                    if losses == _MOST_LOSSES:
                        raise InputError(
                            "--jobs", f"{self.jobs}, and {losses} times a worker that ended before a task was done",
                            "workers have the memory that they need", "Use fewer, or --jobs 1 to see what happens.",
                        ) from error  # fmt: skip
        finally:
            if left:
                self._end(kill=True)

    def _started(self) -> Executor:
        if self._processes is None:
            from joblib.externals.loky import ProcessPoolExecutor

            self._processes = ProcessPoolExecutor(self.jobs, initializer=_hold, initargs=(self.shared,))
        return self._processes

    def _end(self, *, kill: bool) -> None:
        if self._processes is not None:
            self._processes.shutdown(wait=not kill, kill_workers=kill)
            self._processes = None

    def _on_cluster(self, call: Call[Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        from distributed import as_completed

        if self._at_cluster is None:
            (self._at_cluster,) = self._client.scatter([self.shared], broadcast=True)  # one thing, whatever it holds
        futures = [self._client.submit(call, self._at_cluster, *task, pure=False) for task in tasks]
        places = {future.key: index for index, future in enumerate(futures)}
        for future, result in as_completed(futures, loop=self._client.loop, with_results=True):
            yield places[future.key], result


def results_of(
    call: Call[Result], shared: Any, tasks: Sequence[Task], jobs: int = 1, scheduler: str | None = None
) -> Iterator[tuple[int, Result]]:
    """(index, call(shared, *task)) of each task, as they are done: one batch of `Workers`, with their errors."""
    with Workers(shared, min(jobs, max(1, len(tasks))), scheduler) as workers:
        yield from workers.results_of(call, tasks)


def announced(
    results: Iterable[tuple[int, Result]], tasks: int, tell: Callable[[int, int], None]
) -> Iterator[tuple[int, Result]]:
    """The results of so many tasks. tell: called with (tasks done, index of the first that is not) ahead of each."""
    left = dict.fromkeys(range(tasks))
    if left:
        tell(0, 0)
    for index, result in results:
        del left[index]
        yield index, result
        if left:
            tell(tasks - len(left), next(iter(left)))


def _client(scheduler: str) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError(
            "--scheduler", "no package 'distributed'", "it speaks with the cluster", "pip install 'gblr-hw[cluster]'."
        ) from error
    try:
        return Client(scheduler, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--scheduler '{scheduler}'", str(error).splitlines()[0] if str(error) else type(error).__name__,
            "a Dask scheduler listens there", "Start one with `dask scheduler`, and name its tcp://HOST:PORT.",
        ) from error  # fmt: skip


def _drained(
    executor: Executor, call: Call[Result], left: Sequence[tuple[int, Task]], most: int
) -> Iterator[tuple[int, Result]]:
    """Results in the order of completion, with at most so many tasks handed out at a time."""
    waiting, running = iter(left), dict[Future[Any], int]()
    while True:
        for index, task in islice(waiting, most - len(running)):
            running[executor.submit(_call_held, call, task)] = index
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield running.pop(future), future.result()


def _hold(shared: Any) -> None:
    _held[:] = [shared]


def _call_held(call: Call[Result], task: Task) -> Result:
    return call(_held[0], *task)
