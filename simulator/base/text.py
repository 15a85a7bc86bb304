"""Text that people read on a terminal: no character that acts on it, and no more than they can take in."""

from __future__ import annotations


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
