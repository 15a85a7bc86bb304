"""Requantisation: multiply by a 26-bit integer, shift right, round half up, saturate (rule N4)."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Shape, Signal, Value

from simulator.numbers.numerics import MULTIPLIER_BITS, code_limit


def saturated(m: Module, value: Value, bits: int, name: str) -> Signal:
    """``value`` clipped to two's complement of ``bits`` bits (rule N2)."""
    result = Signal(Shape(bits, signed=True), name=name)
    high, low = 2 ** (bits - 1) - 1, -(2 ** (bits - 1))
    m.d.comb += result.eq(Mux(value > high, high, Mux(value < low, low, value)))
    return result


def requantised(m: Module, value: Value, scale: Value, bits: int, advance: list[Value], name: str) -> Signal:
    """The code of ``value`` (signed) under ``scale`` (multiplier, then shift) after ``len(advance)`` register stages,
    each of which loads where its bit of ``advance`` is set.
    """
    registers = _registers_after(len(advance))
    multiplier, shift = Signal(MULTIPLIER_BITS, name=f"{name}_multiplier"), scale[MULTIPLIER_BITS:]
    m.d.comb += multiplier.eq(scale)
    product = Signal(Shape(len(value) + MULTIPLIER_BITS + 1, signed=True), name=f"{name}_product")
    m.d.comb += product.eq(value * multiplier)
    stage = 0

    def staged(signal: Signal, count: int) -> Signal:
        nonlocal stage
        for _ in range(count):
            following = Signal(signal.shape(), name=f"{name}_stage{stage}_{signal.name}")
            with m.If(advance[stage]):
                m.d.sync += following.eq(signal)
            signal, stage = following, stage + 1
        return signal

    shift_now = Signal(6, name=f"{name}_shift")
    m.d.comb += shift_now.eq(shift)
    before = stage
    product = staged(product, registers[0])
    stage = before
    shift_now = staged(shift_now, registers[0])
    halves = Signal(Shape(len(product), signed=True), name=f"{name}_halves")
    rounded = Signal(Shape(len(product) + 1, signed=True), name=f"{name}_rounded")
    m.d.comb += [halves.eq(product >> (shift_now - 1)[:6]), rounded.eq((halves + 1) >> 1)]
    rounded = staged(rounded, registers[1])
    limit = code_limit(bits)
    code = Signal(Shape(bits, signed=True), name=f"{name}_code")
    m.d.comb += code.eq(Mux(rounded > limit, limit, Mux(rounded < -limit, -limit, rounded)))
    return staged(code, registers[2])


def _registers_after(stages: int) -> tuple[int, int, int]:
    """Register stages behind the multiplier, the shifter and the saturation."""
    if stages >= 3:
        return 1, 1, stages - 2
    return (1, 0, 1) if stages == 2 else (0, 0, stages)
