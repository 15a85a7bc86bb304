"""Linear algebra in one thread: sums have one order then, and processes do not wait for each other's threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

Given = ParamSpec("Given")
Result = TypeVar("Result")


def one_thread(call: Callable[Given, Result]) -> Callable[Given, Result]:
    """The call with BLAS and OpenMP held to one thread, so that its results have the same bits in every process."""

    @wraps(call)
    def held(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        with threadpool_limits(limits=1):
            return call(*args, **kwargs)

    return held
