"""Files that are either the old one or the whole new one, never half of it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from simulator.base.errors import InputError


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Binary file that takes the place of ``path`` once the block ends without an exception.

    Raises ``InputError`` where the folder is missing or may not be written, or where ``path`` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(str(path), "a folder", "the output must be a file", "Give a file name inside that folder.")
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        file = open(scratch, "xb")  # noqa: SIM115 - closed below, before the rename
    except OSError as error:
        raise InputError(
            str(path),
            f"'{error.strerror}' when opening it",
            "the output's folder must exist and be writable",
            f"Create {path.parent} or choose another place.",
        ) from error
    try:
        with file:
            yield file
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def read_text(path: str | Path) -> str:
    """Whole UTF-8 text of ``path``; raises ``InputError`` where it is missing, unreadable or not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            str(path), f"'{error.strerror}' when opening it", "the file must exist and be readable", "Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            str(path),
            f"byte {error.object[error.start]:#04x} at position {error.start}",
            "the file must be UTF-8 text",
            "Give the JSON or CSV file that this program wrote.",
        ) from error
