"""Workers that are other processes in all but name, and as quick as none."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from gblr_hw.jobs.executors import Call, Task, Workers


def work_elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two copies of what is shared take turns, all that comes and goes is copied, and results come last first. Returns
    the sizes of batches, as they come.
    """
    batches: list[int] = []
    copies: dict[int, tuple[Any, tuple[Any, Any]]] = {}

    def results_of(self: Workers, call: Call[Any], shared: Any, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        batches.append(len(tasks))
        if copies.get(0, (None,))[0] is not shared:
            copies[0] = shared, (_copy(shared), _copy(shared))
        held = copies[0][1]
        for index in reversed(range(len(tasks))):
            yield index, _copy(_copy(call)(held[index % 2], *_copy(tasks[index])))

    monkeypatch.setattr(Workers, "results_of", results_of)
    return batches


def _copy(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))
