"""Kernels run uncompiled where Numba would take longer to import, with the same results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from simulator.base import kernels
from simulator.base.kernels import Kernel, ceil_div, kernel
from simulator.timing.engine import _advance
from tests.drawn.report_hashes import SEEDS, SHAPES, report_hashes

ROOT = Path(__file__).parents[3]
UNCOMPILED = """
import sys
from simulator.base import kernels
kernels._UNCOMPILED = 10**9
from tests.drawn.report_hashes import report_hashes
print(*report_hashes(), 'numba' in sys.modules)
"""
LITTLE = """
import sys
import numpy as np
from simulator.base import kernels
kernels._UNCOMPILED = 100
@kernels.kernel
def total(values):
    return values.sum()
print(int(total(np.arange(40))), int(total(np.arange(50))), 'numba' in sys.modules)
def compiled(kernel):
    raise SystemExit('compiled')
kernels.Helper.compiled = property(compiled)
total(np.arange(20))
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)


def kernels_of_two() -> tuple[Kernel, Kernel]:
    """A kernel that calls the other one and a helper, and that other one."""

    @kernel
    def doubled(value):  # type: ignore[no-untyped-def]
        return value + value

    @kernel
    def told(values, factor):  # type: ignore[no-untyped-def]
        found = np.empty(values.shape[0], np.int64)
        for i in range(values.shape[0]):
            found[i] = doubled(values[i]) * factor + ceil_div(values[i], 2)
        return found

    return told, doubled


def test_compiled_and_uncompiled_say_the_same() -> None:
    done = run(UNCOMPILED)
    assert done.returncode == 0, done.stderr
    *uncompiled, loaded = done.stdout.split()
    assert loaded == "False"
    assert uncompiled == list(report_hashes())
    assert len(set(uncompiled)) == len(uncompiled) == SEEDS * (len(SHAPES) + 1)
    assert numba.__name__ in sys.modules and _advance.compiled.signatures  # ours were compiled


def test_what_is_more_than_little_is_compiled() -> None:
    done = run(LITTLE)
    assert done.stdout.split() == ["780", "1225", "False"]
    assert done.stderr.strip() == "compiled"


def test_kernels_call_kernels_and_helpers_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.array([1, 5, -3])
    told, _ = kernels_of_two()
    assert told(values, 3).tolist() == [7, 33, -19]
    assert told.compiled.signatures
    monkeypatch.setattr(kernels, "_few", lambda arguments: True)
    told, doubled = kernels_of_two()
    assert told(values, 3).tolist() == [7, 33, -19]
    assert "compiled" not in told.__dict__ | doubled.__dict__
    assert ceil_div(np.array([3, 4]), 2).tolist() == [2, 2] and ceil_div(7, 2) == 4


def test_an_integer_that_would_not_fit_uncompiled_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_few", lambda arguments: True)
    sum_of_first = kernel(lambda values: values[0] + values[1])
    with pytest.raises(FloatingPointError):
        sum_of_first(np.array([100, 100], np.int8))
