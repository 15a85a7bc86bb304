"""An interruption on its way to the shell."""

from __future__ import annotations


class Interruption(BaseException):
    """Ctrl-C inside a command: no library takes it for its own, as they do a KeyboardInterrupt."""
