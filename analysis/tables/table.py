"""Rows of values as aligned plain text or as a Markdown table, numbers with their units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from simulator.base.errors import InputError
from simulator.base.text import aligned, padded_cells, printable

_PREFIXES = (
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1.0, ""),
    (1e-3, "m"),
    (1e-6, "µ"),
    (1e-9, "n"),
    (1e-12, "p"),
)


@dataclass(frozen=True)
class Column:
    """A column: its heading (with the unit), the key of its value in a row, how a value is written, and its side.

    ``write`` is not asked for missing values (absent or None): they are written ``-``.
    """

    heading: str
    key: str
    write: Callable[[object], str] = str
    align: str = "right"


def format_table(columns: Iterable[Column], rows: Iterable[Mapping[str, object]], markdown: bool = False) -> str:
    """``rows`` under ``columns`` as text that ends in a newline; in Markdown bars and newlines in cells are escaped.

    Raises ``InputError`` without columns or for an alignment other than ``"left"`` and ``"right"``.
    """
    columns = tuple(columns)
    if not columns:
        raise InputError("format_table: columns", "no column", "a table needs at least one", "Give a column.")
    for column in columns:
        if column.align not in ("left", "right"):
            raise InputError(
                f"column {column.heading!r}", repr(column.align), 'align is "left" or "right"', "Choose one."
            )
    cells = [[column.heading for column in columns]]
    cells += [[_cell(column, row) for column in columns] for row in rows]
    right = [column.align == "right" for column in columns]
    if not markdown:
        return "\n".join(aligned(cells, right)) + "\n"
    padded, widths = padded_cells([[_in_markdown(text) for text in line] for line in cells], right)
    rule = ["-" * (width - 1) + ":" if side else "-" * width for width, side in zip(widths, right, strict=True)]
    lines = ["| " + " | ".join(line) + " |" for line in (padded[0], rule, *padded[1:])]
    return "\n".join(lines) + "\n"


def count(value: object) -> str:
    """``1234567`` -> ``"1,234,567"``."""
    return f"{_number(value):,.0f}"


def percent(value: object) -> str:
    """A fraction: ``0.968`` -> ``"96.8 %"``."""
    return f"{100 * _number(value):.1f} %"


def ratio(value: object) -> str:
    """``0.2981`` -> ``"0.298x"``."""
    return f"{_number(value):.3f}x"


def seconds(value: object) -> str:
    """``1.234e-5`` -> ``"12.34 µs"``."""
    return with_prefix(_number(value), "s")


def energy_from_pj(value: object) -> str:
    """Picojoules with the prefix that suits them: ``1.5e6`` -> ``"1.5 µJ"``."""
    return with_prefix(_number(value) * 1e-12, "J")


def with_prefix(value: float, unit: str) -> str:
    """Four significant digits with a decimal prefix between p and T."""
    if value == 0:
        return f"0 {unit}"
    for scale, letter in _PREFIXES:
        if abs(value) >= scale * 0.99995:
            return f"{value / scale:.4g} {letter}{unit}"
    return f"{value:.4g} {unit}"


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(
            "table cell", repr(value), "the column holds numbers", "Give a number, or None where there is none."
        )
    return value


def _cell(column: Column, row: Mapping[str, object]) -> str:
    value = row.get(column.key)
    return "-" if value is None else column.write(value)


def _in_markdown(text: str) -> str:
    return printable(" ".join(text.split())).replace("|", "\\|")
