"""What compiled kernels call of the plain helpers: the same functions, made known to Numba."""

from __future__ import annotations

from numba.extending import register_jitable

from simulator.base import arithmetic

ceil_div = register_jitable(arithmetic.ceil_div)
