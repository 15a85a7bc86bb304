"""SCALE-Sim's topology files: a CSV line a layer, as GEMMs or as convolutions, read into GEMMs.

Both formats as scalesim 3.0.0 reads them (its ``topology_utils``), by position, the first line being a heading:

    Layer, M, N, K,                                                                              [Sparsity,]
    Layer, IFMAP height, IFMAP width, filter height, filter width, channels, filters, stride,    [Sparsity,]

Mind the order M, N, K. A convolution without padding becomes the GEMM of its unrolled windows: M output positions,
K = filter height x width x channels, N filters. A name with ``DP`` in it marks a depthwise layer: one such GEMM with a
single channel for each channel.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.base.files import read_text
from simulator.scalesim.systolic_gemm import MAX_SIZE, Gemm

GEMM_SIZES = ("M", "N", "K")
CONV_SIZES = ("IFMAP height", "IFMAP width", "filter height", "filter width", "channels", "filters", "stride")
MAX_DEPTHWISE_CHANNELS = 2**16  # each becomes a layer of its own


@dataclass(frozen=True)
class _Line:
    where: str
    fields: tuple[str, ...]


def read_topology(path: str | Path) -> tuple[Gemm, ...]:
    """The layers of a topology file, in its order.

    SCALE-Sim drops what stands behind a line's last comma and so loses a column where that comma is missing; here both
    ways of ending a line mean the same. Raises InputError naming file and line for anything that is not a topology,
    for filters larger than their input, and for a sparsity other than dense.
    """
    lines = _lines(Path(path))
    if not lines:
        raise _wrong(str(path), "an empty file", "a topology has a heading and a line for each layer")
    heading, *rows = lines
    if _looks_like_data(heading.fields):
        raise _wrong(heading.where, f"'{', '.join(heading.fields)}'", "the first line is a heading, not a layer")
    _check_heading(heading)
    if not rows:
        raise _wrong(str(path), "no layers", "a topology has a line for each layer")
    return tuple(gemm for row in rows for gemm in _gemms(row, heading.fields[-1]))


def _lines(path: Path) -> list[_Line]:
    lines = []
    for number, line in enumerate(read_text(path, "a topology").splitlines(), start=1):
        try:
            (cells,) = csv.reader([line], strict=True, skipinitialspace=True) if line else ([""],)
        except csv.Error as error:
            raise _wrong(f"{path}: line {number}", f"broken CSV ({error})", "a topology is a CSV file") from error
        fields = [cell.strip() for cell in cells]
        # What follows the last comma is a comment in some of SCALE-Sim's own files ("1,#dw").
        if fields[-1] == "" or fields[-1].startswith("#"):
            fields.pop()
        if any(fields):
            lines.append(_Line(f"{path}: line {number}", tuple(fields)))
    return lines


def _looks_like_data(fields: tuple[str, ...]) -> bool:
    return len(fields) > 1 and all(field.isdecimal() for field in fields[1:4])


def _check_heading(heading: _Line) -> None:
    """Raise InputError for columns of a GEMM that are called after another one's size, whatever else stands there."""
    named = [_size_named(field) for field in heading.fields[1:4]]
    if len(heading.fields) <= len(GEMM_SIZES) + 2 and any(
        name and name != size for name, size in zip(named, GEMM_SIZES, strict=False)
    ):
        names = ", ".join(heading.fields[1:4])
        raise _wrong(heading.where, f"the columns {names}", "SCALE-Sim reads them as M, N, K, in this order")


def _size_named(field: str) -> str:
    """The one size that a heading names ("K (inputs)"); nothing if it names none, or several."""
    found = {word for word in re.findall("[A-Z]+", field.upper()) if word in GEMM_SIZES}
    return found.pop() if len(found) == 1 else ""


def _gemms(row: _Line, last: str) -> Iterator[Gemm]:
    """The GEMMs of a layer. last: how the last column is called."""
    name, *values = row.fields
    if len(values) in (len(GEMM_SIZES), len(CONV_SIZES)):
        values.append("1:1")
    if len(values) - 1 not in (len(GEMM_SIZES), len(CONV_SIZES)):
        raise _wrong(
            row.where,
            f"{len(row.fields)} columns",
            f"a GEMM has a name and {', '.join(GEMM_SIZES)}; a convolution a name and {', '.join(CONV_SIZES)}; a "
            "sparsity may follow",
        )
    _check_last(row.where, last, values.pop())
    names = GEMM_SIZES if len(values) == len(GEMM_SIZES) else CONV_SIZES
    sizes = [_size(row.where, what, text) for what, text in zip(names, values, strict=True)]
    if names is GEMM_SIZES:
        m, n, k = sizes
        yield Gemm(name, m, k, n)
    else:
        yield from _convolution(row.where, name, *sizes)


def _convolution(
    where: str, name: str, height: int, width: int, rows: int, cols: int, channels: int, filters: int, stride: int
) -> Iterator[Gemm]:
    if rows > height or cols > width:
        raise _wrong(
            where, f"a filter of {rows} x {cols} on {height} x {width}", "a filter is no larger than its input"
        )
    positions = ceil_div(height - rows + stride, stride) * ceil_div(width - cols + stride, stride)
    if "DP" in name:
        if channels > MAX_DEPTHWISE_CHANNELS:
            raise _wrong(where, f"{channels} channels", f"a depthwise layer has at most {MAX_DEPTHWISE_CHANNELS}")
        for channel in range(channels):
            yield Gemm(f"{name}Channel_{channel}", positions, rows * cols, filters)
    else:
        yield Gemm(name, positions, rows * cols * channels, filters)


def _check_last(where: str, name: str, text: str) -> None:
    """Raise InputError for a batch of several, and for a sparsity other than dense."""
    if "BATCH" in name.upper() and text != "1:1":
        if text != "1":
            raise _wrong(where, f"a batch of {text}", "layers are counted one at a time, so a batch stands in M")
        return
    kept, _, block = text.partition(":")
    if kept != block or not kept.isdecimal():
        raise _wrong(where, f"the sparsity '{text}'", "only dense layers are counted, that is 1:1")


def _size(where: str, what: str, text: str) -> int:
    # int() refuses thousands of digits with an error of its own.
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and 1 <= int(text) <= MAX_SIZE):
        raise _wrong(where, f"{what} = '{text}'", f"a size is a whole number between 1 and {MAX_SIZE}")
    return int(text)


def _wrong(where: str, found: str, rule: str) -> InputError:
    return InputError(where, found, rule, "Compare with SCALE-Sim's topology files.")
