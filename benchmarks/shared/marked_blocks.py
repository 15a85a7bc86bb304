"""Parts of a document that a command writes: what stands between two marks is replaced, the rest is left alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from simulator.base.errors import InputError
from simulator.base.files import read_text, replacing


def marks(name: str) -> tuple[str, str]:
    """The lines before and behind a block, comments of Markdown."""
    return f"<!-- begin {name} -->", f"<!-- end {name} -->"


def replaced(text: str, blocks: Mapping[str, str], where: str) -> str:
    """``text`` with new blocks, an empty line around each. Raises InputError, naming ``where``, unless both marks of
    every block stand there once and in order.
    """
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


def rewrite(path: Path, blocks: Mapping[str, str]) -> None:
    """Replace blocks in a file, atomically; a file that stays the same is not written."""
    before = read_text(path)
    after = replaced(before, blocks, str(path))
    if after != before:
        with replacing(path) as file:
            file.write(after.encode())


def publish(blocks: Mapping[str, str], document: Path | None) -> None:
    """Write blocks into a document's marked places, or print them where none is given."""
    if document is not None:
        rewrite(document, blocks)
    else:
        print("\n".join(f"{name}\n\n{text}" for name, text in blocks.items()), end="")
