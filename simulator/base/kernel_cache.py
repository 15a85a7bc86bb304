"""A place for compiled kernels, whatever may not be written: containers and clusters have installations that are
read-only and no home folder.
"""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path


def find_place() -> None:
    """Have compiled kernels kept in a temporary folder where Numba finds no place for them, and say so when it is made.

    Numba's own places are NUMBA_CACHE_DIR, the folder beside each module, and the user's cache; without any, a module
    with a kernel does not import. Called before the first of ours is; where the folder beside this module may be
    written, Numba is not even loaded for it.
    """
    if _may_write_beside():
        return
    from numba import njit
    from numba.core import config

    try:
        njit(cache=True)(_kernel)
    except RuntimeError:
        folder, is_new = _folder_of_user()
        config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
        if is_new:
            print(
                f"note: compiled kernels are kept in {folder}, since neither the installation nor a home folder may be "
                "written; NUMBA_CACHE_DIR names another place",
                file=sys.stderr,
            )


def _may_write_beside() -> bool:
    """Whether Python's own cache beside this module may be written, which is Numba's second place."""
    folder = Path(__file__).parent / "__pycache__"
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _kernel() -> None:
    """Never called: what Numba is asked to find a place for."""


def _folder_of_user() -> tuple[Path, bool]:
    """A temporary folder that only this user can write, and whether it is new: compiled code of others is never run. It
    stays for the next run; one that goes with the process where another user has taken its name.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"gblr-hw-kernels-{user}"
    is_new = not os.path.lexists(folder)
    if is_new:
        folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & 0o077
    if own or sys.platform == "win32":
        return folder, is_new
    own_folder = Path(tempfile.mkdtemp(prefix="gblr-hw-kernels-"))
    atexit.register(shutil.rmtree, own_folder, ignore_errors=True)
    return own_folder, True
