"""Arrays as kernels want them: one type, contiguous, read-only, so that each kernel is compiled once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def kernel_input(values: np.ndarray, dtype: npt.DTypeLike) -> np.ndarray:
    """A contiguous, read-only view of ``values`` in ``dtype``; copied only if it is of another type or layout."""
    view: np.ndarray = np.ascontiguousarray(values, dtype=dtype).view()
    view.setflags(write=False)
    return view
