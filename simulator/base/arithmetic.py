"""Integer arithmetic that every floor of the code uses. Kernels take it from ``simulator.base.kernels``."""

from __future__ import annotations

from typing import Any


def ceil_div(dividend: Any, divisor: Any) -> Any:
    """The least integer that is not below dividend / divisor: how many parts of size ``divisor`` hold all of it.

    Both are integers, arrays of integers or integer tensors, of any sign; the divisor is not 0.
    """
    return -(-dividend // divisor)
