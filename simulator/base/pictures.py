"""Pictures that objects draw of themselves. Which there are is told from above (`analysis`), so that nothing down here
knows how to draw.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from simulator.base.errors import InputError

_PICTURES: dict[str, dict[str, tuple[str, str]]] = {}


class Pictured:
    """What can be drawn, in one way or several."""

    def plot(self, kind: str | None = None, **options: Any) -> Any:
        """A matplotlib figure, which a notebook shows, and ``savefig`` writes.

        kind: which picture, the first one if None. options: those of the function that draws it, such as ``title``.

        Raises InputError for a kind that there is not, and before anything of ``gblr_hw`` or ``analysis`` is imported.
        """
        there = _PICTURES.get(type(self).__name__, {})
        if not there:
            rule = "pictures are drawn by the package 'analysis'"
            raise InputError(f"{type(self).__name__}.plot", "no picture", rule, "Write `import analysis` first.")
        name = next(iter(there)) if kind is None else kind
        if name not in there:
            raise InputError(
                f"{type(self).__name__}.plot", f"kind {kind!r}", f"it is one of {', '.join(there)}", "Choose one."
            )
        module, function = there[name]
        return getattr(import_module(module), function)(self, **options)


def add_picture(owner: str, kind: str, module: str, function: str) -> None:
    """Objects of the class ``owner`` are drawn as ``kind`` by ``function(object, **options)`` of ``module``."""
    _PICTURES.setdefault(owner, {})[kind] = (module, function)
