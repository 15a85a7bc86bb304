"""An interruption on its way to the shell."""

from __future__ import annotations


class Interruption(BaseException):
    """Ctrl-C inside a command: no library takes it for its own, as they do a KeyboardInterrupt."""


def stems_from_interruption(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: compiled kernels that it meets fail with a SystemError."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
