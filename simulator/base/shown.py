"""How objects show themselves: those that hold arrays by sizes instead of numbers, in a line; tables in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from html import escape
from typing import Any

_MOST = 4  # entries of a container that are shown
_MOST_ROWS = 30  # of a table in a notebook


class Shown:
    """A dataclass (with repr=False) whose ``repr`` names every field: arrays and tensors by type and shape, containers
    of more than a few entries by their number.
    """

    def __repr__(self) -> str:
        told = (f"{field.name}={shown(getattr(self, field.name))}" for field in fields(self) if field.repr)  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(told)})"


def shown(value: Any) -> str:
    """A value in a few words."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, (tuple, list, Mapping)) and len(value) > _MOST:
        return f"<{len(value)} entries>"
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


def html_table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table as notebooks show it, numbers to the right with thousands apart; of many rows the first thirty."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in rows[:_MOST_ROWS])
    more = f"<p>and {len(rows) - _MOST_ROWS:,} more</p>" if len(rows) > _MOST_ROWS else ""
    caption = f'<caption style="text-align:left;white-space:nowrap">{escape(caption)}</caption>'
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _html_cell(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f'<td style="text-align:left">{escape(str(value))}</td>'
    return f'<td style="text-align:right">{f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"}</td>'
