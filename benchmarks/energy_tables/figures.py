"""What an energy table says besides its grids of memories, node by node: figures published and of tools, and the rules
that lead from one node to another.

Published at both ends (45 and 7 nm): in between along the logarithm of the node. Published at 45 nm alone: scaled as
the tools scale the same part. At 7 nm nothing was checked against a tool of that node: intervals are wider.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

NODES = (45, 22, 7)
EXTRAPOLATED = 7  # CACTI ends at 22 nm


@dataclass(frozen=True)
class Figure:
    """A value, its interval, and a key of `sources.SOURCES`."""

    value: float
    low: float
    high: float
    source: str


# Tool runs by node, pJ: Aladdin's multiplier, adder and register, NeuroSim's flip-flop; um2 of Aladdin's multiplier.
_TOOL_MULTIPLIER = {45: 0.912, 22: 0.2682, 7: 0.086}
_TOOL_ADDER = {45: 0.242, 22: 0.0711, 7: 0.0228}
_TOOL_REGISTER = {45: 0.01036, 22: 0.00305, 7: 0.00098}
_FLIP_FLOP = {45: 0.00936, 22: 0.002552, 7: 0.000835}
_MULTIPLIER_UM2 = {45: 580.05, 22: 145.42, 7: 34.25}
# Leakage over area, uW per mm2: NeuroSim's flip-flop, Aladdin's multiplier.
_LEAST_LEAKAGE = {45: 0.00038 / 5.171e-6, 22: 0.00016 / 1.236e-6, 7: 0.00012 / 0.175e-6}
_MOST_LEAKAGE = {45: 5.754 / 580.05e-6, 22: 1.692 / 145.42e-6, 7: 0.543 / 34.25e-6}
# pJ at 45 nm (Horowitz 2014) and at 7 nm (Jouppi et al. 2021).
_PUBLISHED = {
    "mul_i8": (0.2, 0.07),
    "mul_i32": (3.1, 1.48),
    "add_i8": (0.03, 0.007),
    "add_i32": (0.1, 0.03),
    "mul_f16": (1.1, 0.34),
    "add_f16": (0.4, 0.16),
    "mul_f32": (3.7, 1.31),
    "add_f32": (0.9, 0.38),
}
_WIRE = {
    45: Figure(0.2495, 0.098, 0.376, "cacti7_wire"),
    22: Figure(0.1555, 0.098, 0.187, "cacti7_wire"),
    7: Figure(0.1555 * (0.7 / 0.8) ** 2, 0.05, 0.187, "wire_swing"),
}
_SYNTHESISED_CELL_UM2 = 18158.73 + 29 * 139.8925  # area table cmos-180, a cell of mid-32, which 8 + 21 bits pass
_SYNTHESISED_LANE_UM2 = 177516.0
_PITCH_MM = Figure(0.0346, 0.025, 0.05, "floorplan")


def rounded(value: float) -> float:
    """Four digits are more than any source has."""
    return float(f"{value:.4g}")


def _figure(value: float, low: float, high: float, source: str) -> Figure:
    return Figure(rounded(value), rounded(low), rounded(high), source)


def _published(name: str, node: int, tool: dict[int, float]) -> Figure:
    """Low: the figure at 45 nm, scaled as the tool's. High: the tool's own at the width, no less than twice at 7 nm."""
    first, last = _PUBLISHED[name]
    value = first * (last / first) ** (math.log(45 / node) / math.log(45 / 7))
    low = min(value, first * tool[node] / tool[45])
    width = {"mul_i8": 1.0, "mul_i32": 12.68 / 0.912, "add_i32": 1.0}.get(name)
    high = 2 * value if width is None else width * tool[node]
    source = {45: "horowitz2014", 7: "jouppi2021"}.get(node, "between")
    return _figure(value, low, max(high, 2 * value if node == EXTRAPOLATED else value), source)


def operations(node: int) -> dict[str, Figure]:
    """The entries that price events."""
    multiply = _published("mul_i8", node, _TOOL_MULTIPLIER)
    register = {
        45: _figure(_FLIP_FLOP[45], _FLIP_FLOP[45] / 2, _TOOL_REGISTER[45], "neurosim13"),
        22: _figure(_FLIP_FLOP[22], _FLIP_FLOP[22] / 2, _TOOL_REGISTER[22], "neurosim13"),
        7: _figure(_FLIP_FLOP[7], _FLIP_FLOP[7] / 2, 2 * _TOOL_REGISTER[7], "neurosim13_wide"),
    }
    bits = "product_bits" if node == 45 else "product_bits_scaled"
    wire = _WIRE[node]
    return {
        "mul_i8": multiply,
        "mul_i4_i8": _figure(multiply.value / 2, multiply.low / 2, multiply.high, bits),
        "add_i32": _published("add_i32", node, _TOOL_ADDER),
        "mul_i32": _published("mul_i32", node, _TOOL_MULTIPLIER),
        "register_bit": register[node],
        "wire_bit_mm": _figure(wire.value, wire.low, wire.high, wire.source),
    }


def arithmetic(node: int) -> dict[str, Figure]:
    """Other types and widths, beside those that price events."""
    multiply = _published("mul_i8", node, _TOOL_MULTIPLIER)
    bits = "product_bits" if node == 45 else "product_bits_scaled"
    found = {"mul_i4": _figure(multiply.value / 4, multiply.low / 4, multiply.high, bits)}
    for name in ("add_i8", "mul_f16", "add_f16", "mul_f32", "add_f32"):
        found[name] = _published(name, node, _TOOL_MULTIPLIER if name.startswith("mul") else _TOOL_ADDER)
    return found | {"float_lane": _float_lane(found)}


def _float_lane(of: dict[str, Figure]) -> Figure:
    """An element of a VECTOR's pass: a multiplication and an addition. Low: both in float16, at their low."""
    value = of["mul_f32"].value + of["add_f32"].value
    low = of["mul_f16"].low + of["add_f16"].low
    return _figure(value, low, of["mul_f32"].high + of["add_f32"].high, "float_lane")


def geometry(node: int) -> dict[str, Figure]:
    """Lengths, activity, and areas of a lane of the vector unit: its integer part, its float part."""
    area = _MULTIPLIER_UM2[node] / _MULTIPLIER_UM2[45]
    side, own = math.sqrt(area), node == 45
    slack = 1.4 if node == EXTRAPOLATED else 1.0
    lane = _SYNTHESISED_LANE_UM2 * (1e6 * _PITCH_MM.value**2) / _SYNTHESISED_CELL_UM2
    return {
        "cell_pitch_mm": _figure(
            _PITCH_MM.value * side,
            _PITCH_MM.low * side / slack,
            _PITCH_MM.high * side * slack,
            "floorplan" if own else "floorplan_scaled",
        ),
        "wire_activity": Figure(0.5, 0.25, 1.0, "halfswing"),
        "lane_um2": _figure(lane * area, (3495 + 137) * area, 2 * lane * area, "lane_synthesis"),
        "float_lane_um2": _figure((7700 + 4184) * area, (1640 + 1360) * area, 2 * (7700 + 4184) * area, "sze2017"),
    }


def clock(node: int) -> dict[str, Figure]:
    """What every register bit costs in every cycle, and control's share of the registers."""
    bit = _FLIP_FLOP[node]
    return {
        "register_bit": _figure(bit / 3, 0.0, bit, "clock_third"),
        "control_share": Figure(0.05, 0.02, 0.15, "tpu_control"),
    }


def logic_leakage(node: int) -> Figure:
    """uW per mm2 of logic at the table's temperature."""
    low, high = _LEAST_LEAKAGE[node], _MOST_LEAKAGE[node]
    return _figure(math.sqrt(low * high), low, high, "leak_tools")


def dram() -> dict[str, tuple[Figure, Figure, Figure]]:
    """Kind -> pJ a bit, background and refresh in mW for each GB/s of bandwidth: DRAM is made in nodes of its own."""
    ddr4_gbs, lpddr4_gbs = 2.4, 6.4  # of one device
    ddr4_idle, ddr4_down = 44.0 * 1.2 / ddr4_gbs, 17.0 * 1.2 / ddr4_gbs
    ddr4_ref = (118.0 - 44.0) * 1.2 * 313 / 4680 / ddr4_gbs
    lp4_idle = (2.25 * 1.8 + 30.0 * 1.1 + 0.75 * 1.1) / lpddr4_gbs
    lp4_down = (1.2 * 1.8 + 3.0 * 1.1 + 0.75 * 1.1) / lpddr4_gbs
    lp4_ref = ((10.0 - 2.25) * 1.8 + (90.0 - 30.0) * 1.1) * 448 / 6246 / lpddr4_gbs
    ddr4_bit = (184.5 - 44.0) * 1.2 / (8 * ddr4_gbs)
    return {
        "ddr4": (
            _figure(20.3, ddr4_bit, 40.6, "ddr4"),
            _figure(ddr4_idle, ddr4_down, 1.5 * ddr4_idle, "ddr4_idd"),
            _figure(ddr4_ref, ddr4_ref / 2, 2 * ddr4_ref, "ddr4_ref"),
        ),
        "lpddr4": (
            Figure(8.0, 4.0, 20.3, "lpddr4"),
            _figure(lp4_idle, lp4_down, 1.5 * lp4_idle, "lpddr4_idd"),
            _figure(lp4_ref, lp4_ref / 2, 2 * lp4_ref, "lpddr4_ref"),
        ),
        "lpddr5": (
            Figure(5.6, 4.0, 8.0, "lpddr5"),
            _figure(lp4_idle / 2, lp4_down / 2, 1.5 * lp4_idle, "lpddr5_idd"),
            _figure(lp4_ref / 2, lp4_ref / 4, 2 * lp4_ref, "lpddr5_ref"),
        ),
        "hbm2": (
            Figure(6.25, 3.9, 7.0, "hbm2"),
            _figure(3.0, lp4_down, 1.5 * lp4_idle, "hbm2_idd"),
            _figure(0.45, 0.225, 1.35, "hbm2_ref"),
        ),
    }
