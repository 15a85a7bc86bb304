"""What every part of the simulator needs: errors, files, columns, arithmetic; and a place for compiled kernels."""

from simulator.base.kernel_cache import find_place

find_place()
