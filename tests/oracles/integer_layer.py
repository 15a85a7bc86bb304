"""A layer in int8 with plain Python loops and integers: what machine.md, section 9, says, without the simulator's
arithmetic.
"""

from __future__ import annotations

import math

from simulator.machine.machine import Machine
from simulator.program.operations import Op
from simulator.program.schedule import LayerSchedule


def clip(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)


def multiplier_and_shift(ratio: float) -> tuple[int, int]:
    """ratio ~ multiplier / 2^shift with a 26-bit multiplier."""
    if ratio == 0:
        return 0, 1
    mantissa, exponent = math.frexp(ratio)
    multiplier, shift = round(mantissa * 2**26), 26 - exponent
    if multiplier == 2**26:
        multiplier, shift = multiplier // 2, shift - 1
    while shift > 62:
        multiplier, shift = multiplier // 2, shift - 1
    return multiplier, shift


def requantised(value: int, ratio: float, limit: int) -> int:
    multiplier, shift = multiplier_and_shift(ratio)
    return clip((2 * value * multiplier + 2**shift) // 2 ** (shift + 1), -limit, limit)


def token_sums(layer: LayerSchedule, machine: Machine, codes: list[int]) -> list[int]:
    """Accumulators of one token after all tiles, in the order in which they run, saturating after each tile."""
    bits = machine.datatypes.accumulator_bits
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    limit = 2 ** (machine.datatypes.activation_bits - 1) - 1
    tiles, weights, shifts = layer.tiles, layer.payload.codes, iter(layer.tiles.shift.tolist())
    rank_sums: dict[int, int] = {}
    sums = [0] * layer.out_features
    at = 0
    for tile in range(len(tiles)):
        kind, added = int(tiles.kind[tile]), {}
        lanes = range(int(tiles.lane_ptr[tile]), int(tiles.lane_ptr[tile + 1]))
        written = lanes[int(tiles.gathered[tile]) :] if kind == Op.MIX else lanes
        first_input = int(tiles.source[tile]) * machine.rows
        first_output = int(tiles.target[tile]) * machine.cols
        for lane in lanes:
            number = int(tiles.lane[lane])
            if kind in (Op.EXPAND, Op.MIX):
                entering = requantised(rank_sums.get(number, 0), 1.0 / float(layer.payload.rank_divisor[number]), limit)
            elif kind == Op.DENSE:
                entering = codes[first_input + number]
            else:
                entering = 0
            for place in range(int(tiles.lo[lane]), int(tiles.hi[lane])):
                weight = int(weights[at])
                at += 1
                if kind == Op.MIX:
                    into = int(tiles.lane[written[place]])
                    added[into] = added.get(into, 0) + weight * entering
                elif kind == Op.REDUCE:
                    added[number] = added.get(number, 0) + weight * codes[first_input + place]
                else:
                    added[first_output + place] = added.get(first_output + place, 0) + weight * entering
        columns = [int(tiles.lane[lane]) for lane in written]
        if kind not in (Op.REDUCE, Op.MIX):
            columns = [first_output + place for place in range(max((int(tiles.hi[lane]) for lane in lanes), default=0))]
        if tiles.narrow[tile]:  # its shifts come in the order of its columns
            for column in columns:
                added[column] = added.get(column, 0) * 2 ** next(shifts)
        if kind in (Op.REDUCE, Op.MIX):
            for lane in written:  # ranks may lie where others lay: the first to write overwrites
                number = int(tiles.lane[lane])
                before = 0 if tiles.first[lane] else rank_sums[number]
                rank_sums[number] = clip(before + added.get(number, 0), low, high)
        else:
            for output, value in added.items():
                sums[output] = clip(sums[output] + value, low, high)
    return sums


def int8_outputs(layer: LayerSchedule, machine: Machine, rows: list[list[float]], step: float) -> list[list[float]]:
    """What ``execute(..., mode="int8")`` must return for these rows, when ``step`` is that of the inputs."""
    bits = machine.datatypes.accumulator_bits
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    limit = 2 ** (machine.datatypes.activation_bits - 1) - 1
    codes = [[clip(round(x / step), -limit, limit) for x in row] for row in rows]
    steps = [float(x) for x in layer.payload.row_step]
    sums = []
    for token in codes:
        raw = token_sums(layer, machine, token)
        bias = [clip(round(float(b) / (s * step)), low, high) for b, s in zip(layer.payload.bias, steps, strict=True)]
        sums.append([clip(x + b, low, high) for x, b in zip(raw, bias, strict=True)])
    out_step = layer.payload.output_step
    if out_step == 0:
        out_step = max(abs(x * s) for row in sums for x, s in zip(row, steps, strict=True)) * step / limit or 1.0
    return [
        [requantised(x, s * step / out_step, limit) * out_step for x, s in zip(row, steps, strict=True)] for row in sums
    ]
