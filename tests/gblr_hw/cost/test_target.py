"""Targets as users write them, and the controller that reaches one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gblr_hw.cost.target import TargetController, parse_energy_target, parse_target
from simulator.base.errors import InputError


@pytest.mark.parametrize(
    ("text", "cycles"),
    [
        ("0.4x-dense", 40_000),
        (" 0.4X-Dense ", 40_000),
        ("12000", 12_000),
        ("12000cycles", 12_000),
        ("1.2e4 cycles", 12_000),
        ("0.05ms", 25_000),
        (".05 ms", 25_000),
    ],
)
def test_forms(text: str, cycles: float) -> None:
    assert parse_target(text).cycles(dense_cycles=100_000, clock_ghz=0.5) == pytest.approx(cycles)


@pytest.mark.parametrize(
    "text", ["", "fast", "-3", "0", "0x-dense", "0.4y-dense", "nan", "inf", "3s", "1e999", "40%", "1 2"]
)
def test_nonsense_is_refused_with_the_forms_that_work(text: str) -> None:
    with pytest.raises(InputError, match=r"0\.4x-dense"):
        parse_target(text)


def test_a_target_above_dense_is_refused() -> None:
    with pytest.raises(InputError, match="below the dense network's 1000 cycles"):
        parse_target("1.2x-dense").cycles(1000, 1.0)


@given(st.floats(0.01, 1e9))
def test_what_is_printed_reads_back(value: float) -> None:
    target = parse_target(f"{value!r}ms")
    assert parse_target(str(target)).value == pytest.approx(target.value, rel=1e-5)


@pytest.mark.parametrize("stiffness", [1e-3, 1e-2, 1e-1])
@pytest.mark.parametrize("fraction", [0.5, 0.1])
def test_the_controller_reaches_the_target_whatever_resists(stiffness: float, fraction: float) -> None:
    """A toy network: strength lowers the latency, the loss pushes it back up; the scales differ by a hundredfold."""
    controller, width = TargetController(1000 * fraction), 1.0
    steps = 400
    for step in range(steps):
        width = min(1.0, width * (1 + 0.02 * stiffness))
        width = max(0.0, width - controller.update(1000 * width, step / steps))
    assert width * 1000 <= 1000 * fraction * 1.02
    assert width * 1000 >= 1000 * fraction * 0.7


def test_the_path_is_geometric_and_ends_at_the_target() -> None:
    controller = TargetController(100.0, start=0.0, end=0.5)
    controller.update(10_000.0, 0.0)
    assert controller.path(0.25) == pytest.approx(1000.0)
    assert controller.path(0.9) == pytest.approx(100.0)
    assert controller.update(99.0, 0.9) == 0.0


def test_a_restored_controller_goes_on_alike() -> None:
    first = TargetController(100.0)
    for step in range(20):
        first.update(1000.0 - step, step / 50)
    second = TargetController(100.0)
    second.load_state_dict(first.state_dict())
    assert second.update(900.0, 0.5) == first.update(900.0, 0.5)
    assert math.isfinite(second.strength)


@pytest.mark.parametrize(
    ("text", "picojoules"), [("0.4x-dense", 40_000), ("2e-8J", 20_000), ("20 nJ", 20_000), ("0.02uj", 20_000)]
)
def test_energy_forms(text: str, picojoules: float) -> None:
    assert parse_energy_target(text).picojoules(dense_pj=100_000) == pytest.approx(picojoules)


@pytest.mark.parametrize("text", ["", "3", "3cycles", "1ms", "0uJ", "-1uJ", "2kJ"])
def test_energies_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="'80uJ'"):
        parse_energy_target(text)


def test_an_energy_above_dense_is_refused() -> None:
    with pytest.raises(InputError, match="below the dense network's 1000 pJ"):
        parse_energy_target("1uJ").picojoules(1000)
