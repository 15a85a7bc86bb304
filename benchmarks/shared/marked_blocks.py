"""Parts of a document that a command writes: what stands between two marks is replaced, the rest is left alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

from simulator.base.errors import InputError


def marks(name: str) -> tuple[str, str]:
    """The lines before and behind a block, comments of Markdown."""
    return f"<!-- begin {name} -->", f"<!-- end {name} -->"


def marked(text: str) -> list[str]:
    """Names of the blocks that begin in a text."""
    return re.findall(r"^<!-- begin (.+) -->$", text, re.MULTILINE)


def replaced(text: str, blocks: Mapping[str, str], where: str) -> str:
    """``text`` with new blocks, an empty line around each. Raises InputError, naming ``where``, unless both marks of
    every block stand there once and in order, and no other block is marked.
    """
    strangers = sorted(set(marked(text)) - set(blocks))
    if strangers:
        raise InputError(
            f"document '{where}', block '{strangers[0]}'",
            "a marked block that nothing makes",
            f"its blocks are {', '.join(blocks) or 'none'}",
            "Take the marks away, or add the block.",
        )
    for name, block in blocks.items():
        begin, end = marks(name)
        first, last = text.find(begin), text.find(end)
        if text.count(begin) != 1 or text.count(end) != 1 or last < first:
            raise InputError(
                f"document '{where}', block '{name}'",
                f"{text.count(begin)} lines '{begin}' and {text.count(end)} lines '{end}'",
                "a block lies between one of each",
                "Put both lines where the block belongs.",
            )
        text = f"{text[: first + len(begin)]}\n\n{block.strip()}\n\n{text[last:]}"
    return text
