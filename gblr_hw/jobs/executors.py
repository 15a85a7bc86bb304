"""Where calls are made that do not hang on each other: in this process, in several, or on a Dask cluster. What comes
back is the same everywhere.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, TypeVar
from uuid import uuid4

from simulator.base.errors import InputError

Result = TypeVar("Result")
Call = Callable[..., Result]
Task = tuple[Any, ...]

_MOST_LOSSES = 5  # of workers, with no task done in between
# What a worker of this machine holds: the file that a call's first argument came in, and that argument, so that a
# network is read once.
_held: list[Any] = ["", None]


class Workers:
    """Processes of this machine, or a Dask cluster, for one batch of calls after another.

    jobs: processes, which start with the first batch of two tasks and stay until the `with` block ends; with one, calls
    are made here. scheduler: address of a Dask scheduler, in their place; the block begins by calling there.

    Raises InputError for less than one process, and where no scheduler is there.
    """

    def __init__(self, jobs: int = 1, scheduler: str | None = None) -> None:
        if jobs < 1:
            raise InputError("--jobs", str(jobs), "at least one process", "Leave it out for one.")
        self.jobs = jobs
        self._scheduler = scheduler
        self._client: Any = None
        self._processes: Any = None
        self._folder: TemporaryDirectory[str] | None = None
        self._lent: tuple[Any, Any] | None = None  # what is shared, and the file or future that workers have it from

    def __enter__(self) -> Workers:
        if self._scheduler is not None:
            self._client = _client(self._scheduler)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end(kill=error is not None)
        self._lent = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        if self._client is not None:
            self._client.close()
            self._client = None

    def results_of(self, call: Call[Result], shared: Any, tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """(index, call(shared, *task)) of each task, as they are done: one batch at a time.

        shared: goes to a worker once, also for further batches with the same object, which must not have changed in
        what calls need. A worker that dies takes its tasks with it: they are given to others. What a call raises is
        raised here. Raises InputError where workers keep dying.
        """
        if self._client is not None:
            yield from self._on_cluster(call, shared, tasks)
        elif self.jobs == 1 or len(tasks) < 2:
            for index, task in enumerate(tasks):
                yield index, call(shared, *task)
        else:
            yield from self._in_processes(partial(_call_held, self._file_of(shared), call), tasks)

    def _in_processes(self, call: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
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

            self._processes = ProcessPoolExecutor(self.jobs)
        return self._processes

    def _end(self, *, kill: bool) -> None:
        if self._processes is not None:
            self._processes.shutdown(wait=not kill, kill_workers=kill)
            self._processes = None

    def _file_of(self, shared: Any) -> str:
        if self._lent is None or self._lent[0] is not shared:
            if self._folder is None:
                self._folder = TemporaryDirectory(prefix="gblr-hw-")
            elif self._lent is not None:
                Path(self._lent[1]).unlink()
            path = Path(self._folder.name) / uuid4().hex
            with path.open("wb") as file:
                pickle.dump(shared, file)
            self._lent = shared, str(path)
        return self._lent[1]

    def _on_cluster(self, call: Call[Result], shared: Any, tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        from distributed import as_completed

        if self._lent is None or self._lent[0] is not shared:
            (held,) = self._client.scatter([shared], broadcast=True)  # one thing, whatever it holds
            self._lent = shared, held
        futures = [self._client.submit(call, self._lent[1], *task, pure=False) for task in tasks]
        places = {future.key: index for index, future in enumerate(futures)}
        for future, result in as_completed(futures, loop=self._client.loop, with_results=True):
            yield places[future.key], result


def results_of(
    call: Call[Result], shared: Any, tasks: Sequence[Task], jobs: int = 1, scheduler: str | None = None
) -> Iterator[tuple[int, Result]]:
    """(index, call(shared, *task)) of each task, as they are done: one batch of `Workers`, with their errors."""
    with Workers(min(jobs, max(1, len(tasks))), scheduler) as workers:
        yield from workers.results_of(call, shared, tasks)


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
    executor: Executor, call: Callable[[Task], Result], left: Sequence[tuple[int, Task]], most: int
) -> Iterator[tuple[int, Result]]:
    """Results in the order of completion, with at most so many tasks handed out at a time."""
    waiting, running = iter(left), dict[Future[Any], int]()
    while True:
        for index, task in islice(waiting, most - len(running)):
            running[executor.submit(call, task)] = index
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield running.pop(future), future.result()


def _call_held(path: str, call: Call[Result], task: Task) -> Result:
    if _held[0] != path:
        _held[:] = path, pickle.loads(Path(path).read_bytes())
    return call(_held[1], *task)
