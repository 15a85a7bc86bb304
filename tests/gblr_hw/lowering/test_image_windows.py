"""Windows out of rows of the image that stay in the scratchpad: the same numbers, and every pixel from DRAM once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gblr_hw import lower
from gblr_hw.frontend.random_gblr import replace_by_random_gblr
from gblr_hw.lowering.calibration_batches import port_arrays
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.network.image_rows import ImageRows
from simulator.network.network import Operand, Window
from simulator.numbers.execute_network import execute_network
from simulator.program.isa import Instructions
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine
from simulator.timing.reference import run_reference
from simulator.timing.reference_durations import reference_timing
from tests.oracles.hazards import hazards, orders

_MID = Machine.load("mid-32")


def _machine(side: int, kib: int = 8, gb_per_s: float = 0.2) -> Machine:
    """A slow channel, so that windows are worth what they cost, and hardly any memory."""
    return _MID.with_(
        name=f"small-{side}",
        array={"rows": side, "cols": side},
        scratchpad={"kib": kib},
        accumulator={"kib": 1},
        weight_buffer={"kib": 1},
        vector={"lanes": side},
        dram={"gb_per_s": gb_per_s},
    )


def _images(program: Program) -> list[Operand]:
    assert program.network is not None
    return [one for o in program.network.operators for one in o.operands if one.access == "image"]


def _agrees(program: Program, model: nn.Module, x: torch.Tensor) -> None:
    assert program.network is not None
    timing = resolve_timing(program, program.machine)
    events = run_engine(timing)
    with torch.no_grad():
        want = model(x).numpy()
    for order in (None, *orders(timing, events).values()):
        (got,) = execute_network(program, port_arrays(program.network.inputs, (x,)), order=order).values()
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * max(1, np.abs(want).max()))


_KERNEL = st.sampled_from([1, 2, 3, 5, 7])


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, torch.Tensor]:
    """A convolution of what another operator wrote, of any kernel, stride, dilation, padding and groups."""
    kernel = draw(_KERNEL), draw(_KERNEL)
    dilation = draw(st.sampled_from([1, 1, 2])), draw(st.sampled_from([1, 1, 2]))
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    same = draw(st.booleans()) and draw(st.booleans())  # of an even kernel more behind than before
    stride = (1, 1) if same else (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    padding = "same" if same else tuple(draw(st.integers(0, min(3, one - 1))) for one in reach)
    sides = [draw(st.integers(max(1, one - (0 if same else 2 * pad)), one + 7))
             for one, pad in zip(reach, (0, 0) if same else padding, strict=True)]  # fmt: skip
    sides = [max(size, reach_ if same else reach_ - 2 * pad, 1)
             for size, reach_, pad in zip(sides, reach, (0, 0) if same else padding, strict=True)]  # fmt: skip
    channels = draw(st.sampled_from([1, 3, 4, 6, 8, 12, 17]))
    groups = channels if draw(st.booleans()) else 1
    outputs = groups if groups > 1 else draw(st.integers(1, 9))
    torch.manual_seed(draw(st.integers(0, 99)))
    conv = nn.Conv2d(channels, outputs, kernel, stride, padding, dilation, groups)
    model = nn.Sequential(nn.Conv2d(2, channels, 1), nn.ReLU(), conv, nn.ReLU()).double().eval()
    return model, torch.randn(draw(st.integers(1, 3)), 2, *sides).double()


@settings(max_examples=30, deadline=None)
@given(given=convolutions(), side=st.sampled_from([4, 8]), kib=st.sampled_from([4, 8]))
def test_a_convolution_of_an_image_computes_what_torch_does(
    given: tuple[nn.Module, torch.Tensor], side: int, kib: int
) -> None:
    _agrees(lower(given[0], _machine(side, kib), example_inputs=(given[1],)), *given)


@settings(max_examples=12, deadline=None)
@given(given=convolutions())
def test_no_row_is_replaced_before_its_last_window_was_read(given: tuple[nn.Module, torch.Tensor]) -> None:
    model, x = given
    program = lower(model, _machine(4, 4), example_inputs=(x[:, :, :9, :9],) if min(x.shape[2:]) > 9 else (x,))
    timing = resolve_timing(program, program.machine)
    events = run_engine(timing)
    np.testing.assert_array_equal(events.done, run_reference(reference_timing(program, program.machine)).done)
    assert hazards(program, program.machine, timing, events) == []


@settings(max_examples=20, deadline=None)
@given(given=convolutions(), side=st.sampled_from([4, 8]))
def test_every_pixel_comes_once(given: tuple[nn.Module, torch.Tensor], side: int) -> None:
    """Closed form: the rows of the image that some window reads, from the first column that is read to the last."""
    model, x = given
    program = lower(model, _machine(side, 64), example_inputs=(x,))
    ins = program.instructions
    for operand in _images(program):
        window = operand.window
        assert window is not None
        sides = list(
            zip(window.output, window.stride, window.padding, window.kernel, window.dilation, window.image, strict=True)
        )
        reached = []
        for count, s, p, kernel, d, size in sides:
            begins = [o * s - p for o in range(count)]
            spans = [range(begin, begin + (kernel - 1) * d + 1) for begin in begins]
            reached.append({place for span in spans for place in span} & set(range(size)))
        columns = max(reached[1], default=-1) - min(reached[1], default=0) + 1
        (layer,) = {i for i, o in enumerate(program.network.operators) if operand in o.operands}  # type: ignore[union-attr]
        loads = (ins.op == Op.LOAD_INPUT) & (ins.layer == layer)
        moved = ins.dram_bytes[loads & (ins.dram_bytes > 1)].sum()
        wanted = len(x) * len(reached[0]) * columns * -(-operand.width // side) * side
        # A block whose windows lie apart brings what is between them, too.
        gaps = window.kernel[0] > 1 and window.stride[0] > (window.kernel[0] - 1) * window.dilation[0] + 1
        assert moved == wanted or (
            gaps and wanted <= moved <= len(x) * np.prod(window.image) * -(-operand.width // side) * side
        )


@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("stride", [1, 2])
def test_int8_codes_are_those_of_windows_from_dram(groups: int, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    conv = nn.Conv2d(6, 6, 3, stride, 1, groups=groups)
    model = nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), conv, nn.ReLU(), nn.MaxPool2d(3, 2, 1)).eval()
    x = torch.randn(2, 2, 11, 13)
    results, images = [], []
    for keep in (True, False):
        if not keep:
            monkeypatch.setattr(
                "gblr_hw.lowering.whole_network.with_images", lambda network, schedules, _: (network, schedules)
            )
        program = lower(model, _machine(8), example_inputs=(x,), calibration=[(x,)])
        assert program.network is not None
        results.append(next(iter(execute_network(program, port_arrays(program.network.inputs, (x,)), "int8").values())))
        images.append(len(_images(program)))
    assert images == [2, 0]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 1, 1), nn.MaxPool2d((2, 3), (3, 1), (1, 0), (1, 2))]
)
def test_pools_read_windows_of_images(pool: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 5, 1), pool).double().eval()
    x = torch.randn(2, 2, 9, 10).double()
    program = lower(model, _machine(4), example_inputs=(x,))
    assert len(_images(program)) == 1
    _agrees(program, model, x)


def test_gblr_layers_read_images_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 12, 1), nn.ReLU(), nn.Conv2d(12, 40, 3, 1, 1), nn.ReLU()).double().eval()
    replace_by_random_gblr(model, 0.3)
    x = torch.randn(2, 3, 9, 9).double()
    program = lower(model, _machine(8, 16), example_inputs=(x,))
    assert len(_images(program)) == 1
    assert any((layer.tiles.kind == Op.REDUCE).any() for layer in program.layers)
    _agrees(program, model, x)


@given(
    kernel=st.tuples(_KERNEL, _KERNEL), dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)), width=st.integers(1, 9), first=st.integers(0, 40),
    count=st.integers(1, 16),
)  # fmt: skip
def test_runs_are_those_of_the_addresses(
    kernel: tuple[int, int], dilation: tuple[int, int], stride: tuple[int, int], width: int, first: int, count: int
) -> None:
    """Lane by lane: a byte that is not the next one, or lies in another row of the image, begins a run."""
    image = tuple(d * (k - 1) + 3 for k, d in zip(kernel, dilation, strict=True))
    window = Window(image, kernel, stride, (1, 1), dilation)  # type: ignore[arg-type]
    places = window.output[0] * window.output[1]
    operand = Operand("x", places, kernel[0] * kernel[1], width, access="image", window=window)
    rows, channels = ImageRows.of(operand), np.arange(first, min(first + count, kernel[0] * kernel[1] * width))
    if not len(channels):
        return
    kept = rows.rows.size
    taken = rows.addresses(np.array([0]), channels, kept)[0]
    breaks = (np.diff(taken) != 1) | (np.diff(taken // rows.row_bytes) != 0)
    assert rows.runs(channels) == 1 + int(np.count_nonzero(breaks))


def _changed(program: Program, at: int, column: str, value: int) -> None:
    values = np.array(getattr(program.instructions, column))
    values[at] = value
    rest = {f: getattr(program.instructions, f) for f in Instructions.__dataclass_fields__ if f != column}
    replace(program, instructions=Instructions(**{column: values}, **rest))


def test_rows_that_are_not_kept_are_refused() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, 1, 1)).eval()
    program = lower(model, _machine(4, kib=1), example_inputs=(torch.randn(1, 2, 12, 12),))
    (operand,) = _images(program)
    ins = program.instructions
    layer = next(i for i, o in enumerate(program.network.operators) if operand in o.operands)  # type: ignore[union-attr]
    load = int(np.flatnonzero((ins.op == Op.LOAD_INPUT) & (ins.layer == layer))[0])
    tile = int(np.flatnonzero((ins.op == Op.DENSE) & (ins.layer == layer))[0])
    for at, column, value, message in (
        (
            load,
            "tokens",
            operand.kept + 1,
            f"field 'tokens': found {operand.kept + 1}; the region keeps {operand.kept} rows",
        ),
        (load, "dst", 1023, f"field 'src': found 1023; {operand.kept} rows fit"),
        (tile, "src", 1023, f"field 'src': found 1023; {operand.kept} rows fit"),
        (tile, "tokens", 60, f"their windows lie in the {operand.kept} rows that are kept"),
        (load, "token0", 13, "field 'token0'"),
        (load, "chunk", 2, "field 'chunk': found 2; it lies between 0 and 1"),
    ):
        with pytest.raises(InputError, match=message):
            _changed(program, at, column, value)
