"""How objects that hold arrays show themselves: sizes instead of numbers, in a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

_MOST = 4  # entries of a container that are shown


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
