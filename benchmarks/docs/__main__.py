"""Documents from their figures: every table, figure in prose and picture that rests on docs/data.

``python -m benchmarks.docs`` (``make docs``) rewrites the marked blocks and quoted figures of README.md and docs/*.md,
and the pictures that are drawn from data alone, and names what has changed. Nothing is measured or trained; half a
minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.docs.blocks import BLOCKS
from benchmarks.docs.pictures import draw
from benchmarks.docs.quoted_figures import QUOTES
from benchmarks.docs.quotes import quoted
from benchmarks.docs.sources import load
from benchmarks.shared.marked_blocks import replaced
from simulator.base.errors import InputError
from simulator.base.files import read_text, replacing

ROOT = Path(__file__).parents[2]


def documents() -> tuple[str, ...]:
    """Those that have blocks or quoted figures."""
    return tuple(dict.fromkeys(one.document for one in (*BLOCKS, *QUOTES)))


def rewritten(document: str, text: str, figures: Mapping[str, Any]) -> str:
    """A document's text with its figures as they are now. Raises InputError where a block or a quoted phrase is not
    there once, or a marked block is nobody's.
    """
    blocks = {block.name: block.written(figures) for block in BLOCKS if block.document == document}
    text = replaced(text, blocks, document)
    for quote in QUOTES:
        if quote.document == document:
            text = quoted(text, quote, figures)
    return text


def write(root: Path) -> list[str]:
    """Rewrite all documents and draw the pictures; the names of what has changed."""
    figures = load(root)
    changed = []
    for name in documents():
        before = read_text(root / name)
        after = rewritten(name, before, figures)
        if after != before:
            with replacing(root / name) as file:
                file.write(after.encode())
            changed.append(name)
    return [*changed, *draw(root, figures)]


def told(changed: Iterable[str]) -> str:
    return "".join(f"{name}\n" for name in changed) or "nothing has changed\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    try:
        print(told(write(ROOT)), end="")
    except InputError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
