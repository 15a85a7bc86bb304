"""Complex values as the graph holds them: two real ones."""

from __future__ import annotations

from dataclasses import dataclass

from gblr_hw.frontend.graph.layout import View


@dataclass(frozen=True)
class Complex:
    """A framework's complex tensor; ``imag``: None where it is zero throughout."""

    real: View
    imag: View | None

    @property
    def shape(self) -> tuple[int, ...]:
        """The framework's shape."""
        return self.real.shape
