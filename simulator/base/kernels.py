"""Kernels: functions of integers and arrays that Numba compiles, or that Python runs as they stand where Numba would
take longer to import than they take to run. The results are the same.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from functools import cached_property, partial, update_wrapper
from typing import Any, Literal

import numpy as np

from simulator.base import arithmetic

# Elements of arrays that kernels may go through uncompiled in one process: some 9,000 instructions of a program, which
# take about a quarter of the time in which Numba is imported and what it compiled before is loaded.
_UNCOMPILED = 500_000


Inline = Literal["never", "always"]


class _State(threading.local):
    """Whether this thread is inside an uncompiled kernel, whose own calls stay uncompiled; elements gone through."""

    inside = False
    elements = 0


_state = _State()


class Helper:
    """A function that kernels may call. Python runs it wherever else it is called."""

    def __init__(self, function: Callable[..., Any], inline: Inline = "never") -> None:
        update_wrapper(self, function)
        self.py_func, self._inline = function, inline

    def __call__(self, *arguments: Any) -> Any:
        return self.py_func(*arguments)

    @cached_property
    def compiled(self) -> Any:
        """The function as Numba dispatches it."""
        from numba import njit

        return njit(cache=True, nogil=True, inline=self._inline)(self.py_func)

    @property
    def _numba_type_(self) -> Any:
        """What Numba takes this for in a kernel that calls it."""
        return self.compiled._numba_type_

    @property
    def targetoptions(self) -> Any:
        """Where Numba looks whether it inlines a function."""
        return self.compiled.targetoptions


class Kernel(Helper):
    """A function of integers and arrays, compiled when it is first called, unless Python is done before that."""

    def __call__(self, *arguments: Any) -> Any:
        if "compiled" in self.__dict__:
            return self.compiled(*arguments)
        if _state.inside:
            return self.py_func(*arguments)
        if not _few(arguments):
            return self.compiled(*arguments)
        _state.inside = True
        try:
            with np.errstate(over="raise"):  # narrow integers are widened by Numba, and not by Python
                return self.py_func(*arguments)
        finally:
            _state.inside = False


def kernel(function: Callable[..., Any] | None = None, *, inline: Inline = "never") -> Any:
    """A decorator that makes a `Kernel`. inline: as Numba's own decorator takes it."""
    return partial(Kernel, inline=inline) if function is None else Kernel(function, inline)


def _few(arguments: tuple[Any, ...]) -> bool:
    """Whether Numba is not there yet, and what the arrays hold is little, together with what went before. Records are
    never little: how much there is to do about a memory does not show in its arrays.
    """
    if "numba" in sys.modules:
        return False
    values = list(_flat(arguments))
    if not all(value is None or isinstance(value, (int, np.integer, np.ndarray)) for value in values):
        return False
    elements = sum(value.size for value in values if isinstance(value, np.ndarray))
    if _state.elements + elements > _UNCOMPILED:
        return False
    _state.elements += elements
    return True


def _flat(values: tuple[Any, ...]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple):
            yield from _flat(value)
        else:
            yield value


ceil_div = Helper(arithmetic.ceil_div)
