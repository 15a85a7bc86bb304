"""Whether the weights of a layer that is stored on grids are what its tiles' codes stand for."""

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
        dense = isinstance(held, (DenseWeights, LatticeWeights)) and held.grid is not None
        ranks = isinstance(held, LatticeWeights) and held.rank_grid is not None
        if not keeps_codes(schedule, machine, dense=dense, ranks=ranks):
            found.append(schedule.name)
    return {"rounded": ",".join(found)} if found else {}


def keeps_codes(schedule: LayerSchedule, machine: Machine, *, dense: bool = True, ranks: bool = False) -> bool:
    """Whether codes times steps are the stored weights of every DENSE tile, to the last bit of float32; and with ranks
    those of REDUCE tiles times one step of each rank.
    """
    tiles, payload = schedule.tiles, schedule.payload
    return bool(
        _all_kept(
            (tiles.kind == Op.DENSE) & dense, (tiles.kind == Op.REDUCE) & ranks,
            tiles.target.astype(np.int64) * machine.cols, tiles.lane_ptr, tiles.lane, tiles.lo, tiles.hi, tiles.narrow,
            tiles.shift_ptr, tiles.shift, payload.codes, payload.values, payload.row_step,
            np.zeros(schedule.ranks),
        )
    )  # fmt: skip


@nb.njit(cache=True, nogil=True)
def _all_kept(
    is_dense, is_reduce, outputs, lane_ptr, lane, lo, hi, narrow, shift_ptr, shift, codes, values, row_step, rank_step
):
    """rank_step (K,) of zeros: a rank's step is what its first code that is not 0 says."""
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
                elif is_reduce[t]:
                    code = np.float64(codes[at])
                    if narrow[t]:
                        code *= 2.0 ** shift[shift_ptr[t] + which - lane_ptr[t]]
                    if rank_step[lane[which]] == 0 and code != 0:
                        rank_step[lane[which]] = values[at] / code
                    if np.float32(code * rank_step[lane[which]]) != values[at]:
                        return False
                at += 1
    return True
