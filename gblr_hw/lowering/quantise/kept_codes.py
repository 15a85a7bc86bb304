"""Whether the dense weights of a layer on a grid are what its tiles' codes stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numba as nb
import numpy as np

from gblr_hw.weights.stored import DenseWeights, LatticeWeights, LayerWeights
from simulator.machine.machine import Machine
from simulator.program.operations import Op
from simulator.program.schedule import LayerSchedule


def rounded_anew(
    schedules: Sequence[LayerSchedule], weights: Mapping[str, LayerWeights], machine: Machine
) -> dict[str, str]:
    """Provenance: the layers that are stored on a grid which their tiles could not keep; nothing without any."""
    found = []
    for schedule in schedules:
        held = weights.get(schedule.name, weights.get(schedule.name.rpartition("[")[0]))
        on_grid = isinstance(held, (DenseWeights, LatticeWeights)) and held.grid is not None
        if on_grid and not keeps_codes(schedule, machine):
            found.append(schedule.name)
    return {"rounded": ",".join(found)} if found else {}


def keeps_codes(schedule: LayerSchedule, machine: Machine) -> bool:
    """Whether codes times steps are the stored weights of every DENSE tile, to the last bit of float32."""
    tiles, payload = schedule.tiles, schedule.payload
    return bool(
        _all_kept(
            tiles.kind == Op.DENSE, tiles.target.astype(np.int64) * machine.cols, tiles.lane_ptr, tiles.lo, tiles.hi,
            tiles.narrow, tiles.shift_ptr, tiles.shift, payload.codes, payload.values, payload.row_step,
        )
    )  # fmt: skip


@nb.njit(cache=True, nogil=True)
def _all_kept(is_dense, outputs, lane_ptr, lo, hi, narrow, shift_ptr, shift, codes, values, row_step):
    at = 0
    for t in range(is_dense.shape[0]):
        for which in range(lane_ptr[t], lane_ptr[t + 1]):
            for j in range(lo[which], hi[which]):
                if is_dense[t]:
                    step = row_step[outputs[t] + j]
                    if narrow[t]:
                        step *= 2.0 ** shift[shift_ptr[t] + j]
                    if np.float32(codes[at] * step) != values[at]:
                        return False
                at += 1
    return True
