"""Text that people read on a terminal: no character that acts on it, and no more than they can take in."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def printable(text: str) -> str:
    """``text`` on one line, with escape sequences in place of characters that are not printed.

    Names come from files of others: an escape code in one would move the cursor, colour or clear the screen.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` characters: the middle goes, because names and values differ at both ends."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return text[:head] + "…" + text[len(text) - (limit - 1 - head) :]


def told(value: object) -> str:
    """``repr(value)``, or what it is where that has no end: integers of thousands of digits, nests of lists."""
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return f"a value of type {type(value).__name__}, too long to be shown"


def aligned(cells: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Lines of a table, the first of ``cells`` being its headings, which a rule stands under."""
    cells = [[printable(" ".join(text.split())) for text in line] for line in cells]
    padded, widths = padded_cells(cells, right)
    return ["  ".join(line).rstrip() for line in (padded[0], ["-" * width for width in widths], *padded[1:])]


def padded_cells(cells: Sequence[Sequence[str]], right: Sequence[bool]) -> tuple[list[list[str]], list[int]]:
    """Cells as wide as their columns, which are three characters wide or more; and these widths."""
    widths = [max(3, *(_width(line[at]) for line in cells)) for at in range(len(right))]
    padded = [
        [_pad(text, width, side) for text, width, side in zip(line, widths, right, strict=True)] for line in cells
    ]
    return padded, widths


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)


def _pad(text: str, width: int, right: bool) -> str:
    gap = " " * (width - _width(text))
    return gap + text if right else text + gap
