"""Where calls are made: the same results in this process, in others that stay, and where one of them dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_info

from gblr_hw.jobs.executors import Workers, announced, results_of
from gblr_hw.jobs.one_thread import one_thread
from simulator.base.errors import InputError


def test_processes_stay_for_one_batch_after_another_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    mark = tmp_path / "died"

    def power(base: int, exponent: int) -> tuple[int, int]:
        return base**exponent, os.getpid()

    def dies_once(base: int, exponent: int) -> tuple[int, int]:
        if exponent == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return power(base, exponent)

    tasks = [(exponent,) for exponent in range(6)]
    with Workers(jobs=2) as workers:
        first, second = (dict(workers.results_of(power, base, tasks)) for base in (3, 5))
        after = dict(workers.results_of(dies_once, 5, tasks))
        assert dict(workers.results_of(power, 3, tasks[:1])) == {0: (1, os.getpid())}  # one task is no batch
    assert mark.exists()
    for base, found in ((3, first), (5, second), (5, after)):
        assert {index: value for index, (value, _) in found.items()} == {index: base**index for index in range(6)}
    where = [{process for _, process in found.values()} for found in (first, second, after)]
    assert os.getpid() not in where[0] | where[1] | where[2] and len(where[0] | where[1]) <= 2


def test_what_a_call_raises_is_raised_and_nothing_is_left_running() -> None:
    def fails(shared: None, index: int) -> int:
        if index == 1:
            raise InputError("layer", "nothing", "it has weights", "Give some.")
        return index

    with pytest.raises(InputError, match="it has weights"):
        list(results_of(fails, None, [(index,) for index in range(4)], jobs=2))
    with pytest.raises(InputError, match="--jobs: found 0; at least one process"):
        list(results_of(fails, None, [(0,)], jobs=0))


@pytest.mark.night
def test_workers_that_keep_dying_are_told() -> None:
    def dies(shared: None, index: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(InputError, match="--jobs: found 2, and 5 times a worker that ended before a task was done"):
        list(results_of(dies, None, [(0,), (1,)], jobs=2))


def test_the_first_task_that_is_not_done_is_announced() -> None:
    told: list[tuple[int, int]] = []
    results = announced([(2, "c"), (0, "a"), (1, "b")], 3, lambda *at: told.append(at))
    assert list(results) == [(2, "c"), (0, "a"), (1, "b")]
    assert told == [(0, 0), (1, 0), (2, 1)]
    assert list(announced([], 0, lambda *at: told.append(at))) == [] and len(told) == 3


def test_one_thread_is_one_for_linear_algebra() -> None:
    @one_thread
    def threads(kind: str) -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == kind]

    for kind in ("blas", "openmp"):
        found: list[Any] = threads(kind)
        assert found and set(found) == {1}
