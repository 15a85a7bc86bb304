"""Figures in the prose of documents, by the phrase that they stand in.

A phrase stands once in its document, with other numbers in place of ``{}`` and any white space where it has a blank.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from simulator.base.errors import InputError

Figures = Mapping[str, Any]
NUMBER = r"\d[\d,]*(?:\.\d+)?"


@dataclass(frozen=True)
class Quote:
    """A phrase of a document, with ``{}`` for each figure, and the figures as they are written."""

    document: str
    phrase: str
    figures: Callable[[Figures], Iterable[str]]


def quoted(text: str, quote: Quote, figures: Figures) -> str:
    """A document's text with a phrase's figures as they are now. Raises InputError unless it stands there once."""
    parts = [r"\s+".join(map(re.escape, part.split(" "))) for part in quote.phrase.split("{}")]
    pattern = "".join(part + (f"(?P<_{at}>{NUMBER})" if at < len(parts) - 1 else "") for at, part in enumerate(parts))
    found, wanted = list(re.finditer(pattern, text)), list(quote.figures(figures))
    if len(found) != 1 or len(wanted) != len(parts) - 1:
        raise InputError(
            f"document '{quote.document}', phrase '{quote.phrase}'",
            f"it {len(found)} times, and {len(wanted)} figures for it",
            "a quoted phrase stands in its document once, with a figure for each gap",
            "Change the phrase in benchmarks/docs/quoted_figures.py as the document has changed.",
        )
    for at, figure in reversed(list(enumerate(wanted))):
        begin, end = found[0].span(f"_{at}")
        text = text[:begin] + figure + text[end:]
    return text


def numbers(text: str) -> list[str]:
    """Every number of a text, as it is written."""
    return re.findall(NUMBER, text)


def percent(fraction: float) -> str:
    return f"{100 * fraction:.0f}"
