"""Files that are either the old one or the whole new one, never half of it, and what an output may be.

Everything is written in a scratch folder beside its place, which is locked while its writer lives: what a killed run
left behind is told by that, and goes with the next write there.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError

from simulator.base.errors import InputError

if sys.platform != "win32":
    import fcntl

_SCRATCH = (".gblr-hw-", ".tmp")  # how names of scratch folders begin and end
_KINDS = {
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
_MOST_TEXT = 1 << 26  # bytes
_RULE = "an output is a file in a folder that exists, and both may be written"


@dataclass(frozen=True)
class FileKind:
    """A kind of file that is told by its ending. name: what several are called ("pictures")."""

    name: str
    endings: tuple[str, ...]

    def ending(self, path: str | Path) -> str:
        """The ending that the name has, in small letters. Raises ``InputError`` where it has none of the kind's."""
        found = [ending for ending in self.endings if Path(path).name.lower().endswith(ending)]
        if not found:
            *some, last = self.endings
            named = f"{', '.join(some)} or {last}" if some else last
            raise InputError(
                str(path),
                f"the ending '{Path(path).suffix.lower()}'",
                f"{self.name} are {named} files",
                "Choose one of these endings.",
            )
        return max(found, key=len)


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Binary file that takes the place of ``path`` once the block ends without an exception.

    Raises ``InputError`` as `output_file` does, and where the system refuses to write (a full disk).
    """
    with replacing_named(path) as scratch, open(scratch, "wb") as file:
        yield file


@contextmanager
def replacing_named(path: str | Path) -> Iterator[Path]:
    """As `replacing`, for writers that open the file themselves: its name for now."""
    target = output_file(path)
    try:
        with _scratch_folder(target.parent) as folder:
            scratch = folder / "whole"
            scratch.touch(exist_ok=False)
            # Libraries may write for the owner alone: the file is as readable as the old one, or as any new one.
            mode = stat.S_IMODE((target if target.exists() else scratch).stat().st_mode)
            yield scratch
            scratch.chmod(mode)
            os.replace(scratch, target)
    except (OSError, SafetensorError) as error:
        # What the block reads besides has a name of its own.
        name = getattr(error, "filename", None)
        if name is not None and _SCRATCH[0] not in str(name):
            raise
        raise InputError(
            f"output '{path}'",
            f"'{getattr(error, 'strerror', None) or error}' when writing it",
            "the system must let it be written whole; what was there before is kept",
            "Free some space or choose another place.",
        ) from error


def output_file(path: str | Path) -> Path:
    """The regular file that an output named ``path`` makes or replaces: links are followed.

    Raises ``InputError`` for a device, pipe, socket or folder, for the file that standard output goes to, for a name
    that the system does not take, and where the file or its folder may not be written or the folder does not exist.
    """
    where = f"output '{path}'"
    try:
        found = os.stat(path)
    except FileNotFoundError:
        found = None
    except (OSError, ValueError) as error:
        raise InputError(
            where, f"'{getattr(error, 'strerror', None) or error}'", _RULE, "Choose another name."
        ) from error
    target = Path(os.path.realpath(path))
    if found is not None and not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no regular file")
        raise InputError(where, kind, "an output is a regular file, which it replaces", "Give a file's name.")
    if found is not None and _is_standard_stream(found):
        raise InputError(
            where,
            "the file that standard output or standard error goes to",
            "an output replaces its file, and what is printed would be lost",
            "Give another name.",
        )
    if not target.parent.is_dir():
        raise InputError(where, f"no folder '{target.parent}'", _RULE, "Create the folder, or name another.")
    if found is not None and not os.access(target, os.W_OK):
        raise InputError(where, "a file that may not be written", _RULE, "Choose another name.")
    _check_folder_rights(where, target.parent)
    return target


def output_folder(path: str | Path, make: bool = True) -> Path:
    """A folder for outputs, made if it is missing; with ``make`` false it is only checked that this will work.

    Raises ``InputError`` where something else has its name and where it cannot be made or written.
    """
    path, where = Path(path), f"folder '{path}'"
    rule = "it is a folder that exists or can be made, and may be written"
    try:
        nearest = path
        while not os.path.lexists(nearest) and nearest != nearest.parent:
            nearest = nearest.parent
        if not nearest.is_dir():
            raise InputError(where, "a file" if nearest == path else f"a file '{nearest}'", rule, "Name another.")
        _check_folder_rights(where, nearest)
        if make:
            path.mkdir(parents=True, exist_ok=True)
        else:
            _check_name(path)
    except OSError as error:
        raise InputError(where, f"'{error.strerror}'", rule, "Name another.") from error
    return path


def _check_name(path: Path) -> None:
    """Raise OSError for a name that the system does not take, whether or not it is there."""
    with suppress(FileNotFoundError):
        os.lstat(path)


def _check_folder_rights(where: str, folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(where, f"the folder '{folder}', which may not be written", _RULE, "Choose another place.")


def _is_standard_stream(found: os.stat_result) -> bool:
    for stream in (1, 2):
        try:
            if os.path.samestat(found, os.fstat(stream)):
                return True
        except OSError:  # a closed one is nothing's name
            continue
    return False


@contextmanager
def _scratch_folder(parent: Path) -> Iterator[Path]:
    """An empty folder in ``parent`` that is this process's until the block ends, and then gone."""
    _remove_abandoned(parent)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_SCRATCH[0], suffix=_SCRATCH[1], dir=parent))
        lock = _lock(folder, wait=True)
        # Another process may have taken it for an abandoned one before it was locked.
        if folder.exists():
            break
        _unlock(lock)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(lock)


@cache  # once a folder in each process: a work folder may hold thousands of files, and is written as often
def _remove_abandoned(parent: Path) -> None:
    """Remove the scratch folders in ``parent`` whose writers are dead; where locks do not work none is."""
    for folder in parent.glob(f"{_SCRATCH[0]}*{_SCRATCH[1]}"):
        lock = _lock(folder, wait=False)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            _unlock(lock)


def _lock(folder: Path, wait: bool) -> int | None:
    """A handle that locks the folder until it is closed, also by the process's death; None if it is gone, if another
    process has it (and there is no ``wait``), or if its file system has no locks.
    """
    if sys.platform == "win32":
        return None
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        return None
    return handle


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def read_text(path: str | Path, what: str = "the file") -> str:
    """Whole UTF-8 text of ``path``; raises ``InputError`` where it is missing, unreadable, no regular file (a pipe may
    never end), larger than any text of ours, or not UTF-8.
    """
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no regular file")
            raise InputError(str(path), kind, f"{what} must be a regular file", "Save it as one.")
        if found.st_size > _MOST_TEXT:
            size = f"{found.st_size} bytes"
            raise InputError(str(path), size, f"{what} has at most {_MOST_TEXT}", "Check that it is the right file.")
        return Path(path).read_text(encoding="utf-8-sig")  # editors of some systems mark it so
    except OSError as error:
        raise InputError(
            str(path), f"'{error.strerror}' when opening it", f"{what} must exist and be readable", "Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            str(path),
            f"byte {error.object[error.start]:#04x} at position {error.start}",
            f"{what} must be UTF-8 text",
            "Save it as UTF-8.",
        ) from error
