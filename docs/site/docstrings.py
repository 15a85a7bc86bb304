"""Docstrings of the house as Markdown: what stands under Parameters or Raises, an argument a line, becomes a list."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ITEM = re.compile(r"^(\*{0,2}[A-Za-z_]\w*(?:, \*{0,2}[A-Za-z_]\w*)*): (.*)$")
_RULE = re.compile(r"^-{3,}$")


def in_markdown(docstring: str) -> str:
    """The same text with its underlined headings in bold, and runs of ``name: what it is`` as lists."""
    lines, found = docstring.splitlines(), list[str]()
    inside = False
    for at, line in enumerate(lines):
        if _RULE.match(line):
            continue
        if at + 1 < len(lines) and _RULE.match(lines[at + 1]):
            found += [f"**{line}**", ""]
            inside = False
            continue
        item = _ITEM.match(line)
        starts = inside or at == 0 or not lines[at - 1].strip() or bool(_RULE.match(lines[at - 1]))
        if item and starts:
            found += [*([] if inside else [""]), f"- **{item[1]}**: {item[2]}"]
            inside = True
        else:
            inside = inside and line.startswith(" ")
            found.append(line)
    return "\n".join(found)


class HouseDocstrings(Extension):
    """Rewrites every docstring as it is read."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = in_markdown(obj.docstring.value)
