"""How objects show themselves: those that hold arrays by sizes instead of numbers, in a line; those with parts as a
table, short in a terminal, as HTML in a notebook, and as a data frame.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from typing import Any

from simulator.base.errors import InputError
from simulator.base.text import aligned, shortened

_MOST = 4  # entries of a container that are shown
_MOST_LINES = 10  # of a table in a terminal
_MOST_ROWS = 30  # of a table in a notebook
_LONGEST_CELL = 100  # characters, in a terminal


class Shown:
    """A dataclass (with repr=False) whose ``repr`` names every field: arrays and tensors by type and shape, containers
    of more than a few entries by their number.
    """

    def __repr__(self) -> str:
        told = (f"{field.name}={shown(getattr(self, field.name))}" for field in fields(self) if field.repr)  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(told)})"


def shown(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, Tabled):
        return f"<{value.table().caption}>"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, (tuple, list, Mapping)) and len(value) > _MOST:
        return f"<{len(value)} entries>"
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


@dataclass(frozen=True)
class Table:
    """What an object has to show: a line about the whole, and a row for each of its parts, the first ones first."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def text(self) -> str:
        """For a terminal: the caption, and the first ten rows under their columns, numbers to the right."""
        kept = self.rows[:_MOST_LINES]
        right = [bool(kept) and all(_is_right(row[at]) for row in kept) for at in range(len(self.columns))]
        cells = [[shortened(_told(value), _LONGEST_CELL) for value in row] for row in kept]
        lines = aligned([list(self.columns), *cells], right)
        more = [f"and {len(self.rows) - len(kept):,} more"] if len(self.rows) > len(kept) else []
        return "\n".join([self.caption, *lines, *more])

    def html(self) -> str:
        """For a notebook: of many rows the first thirty."""
        head = "".join(f"<th>{escape(column)}</th>" for column in self.columns)
        body = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in self.rows[:_MOST_ROWS])
        more = f"<p>and {len(self.rows) - _MOST_ROWS:,} more</p>" if len(self.rows) > _MOST_ROWS else ""
        caption = f'<caption style="text-align:left;white-space:nowrap">{escape(self.caption)}</caption>'
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


class Tabled(ABC):
    """What shows itself as a table: short in a terminal, as HTML in a notebook, whole as a data frame."""

    @abstractmethod
    def table(self) -> Table:
        """What it shows of itself."""

    def __repr__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()

    def to_dataframe(self) -> Any:
        """A pandas.DataFrame of all rows of its table. Raises InputError without pandas."""
        table = self.table()
        return data_frame([dict(zip(table.columns, row, strict=True)) for row in table.rows], table.columns)


def data_frame(rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> Any:
    """A pandas.DataFrame with these rows. Raises InputError without pandas."""
    try:
        import pandas
    except ImportError as error:
        raise InputError(
            "to_dataframe", "no package 'pandas'", "it makes the table", "pip install pandas, or use to_dict()."
        ) from error
    return pandas.DataFrame(list(rows), columns=columns)


def _is_right(value: object) -> bool:
    """Whether a value stands at the right side: numbers, and where there is none."""
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _told(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:,.4g}"


def _html_cell(value: object) -> str:
    side = "right" if _is_right(value) else "left"
    return f'<td style="text-align:{side}">{escape(_told(value))}</td>'
