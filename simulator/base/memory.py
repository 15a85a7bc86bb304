"""How much memory there is, so that what needs more is refused before it is asked for."""

from __future__ import annotations

import os
from pathlib import Path

from simulator.base.errors import InputError


def available_bytes() -> int | None:
    """Bytes of memory that this process may still take; None where the system does not say.

    Linux: what the kernel would give without swapping, and what the control group leaves (a container's limit).
    """
    found = [amount for amount in (_free(), _left_in_group()) if amount is not None]
    return min(found) if found else None


def check_memory(where: str, value: str, needed_bytes: float, remedy: str) -> None:
    """Raise InputError if there is less memory than what is ``needed_bytes`` at ``where``."""
    have = available_bytes()
    if have is not None and needed_bytes > have:
        raise InputError(
            where,
            f"{value}, which takes some {needed_bytes / 2**30:.1f} GiB of memory",
            f"this computer has {have / 2**30:.1f} GiB to give",
            remedy,
        )


def _free() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, AttributeError):
            return None
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return kib["MemAvailable"] * 1024 if "MemAvailable" in kib else None


def _left_in_group() -> int | None:
    folder = Path("/sys/fs/cgroup")
    try:
        most, used, table = (
            (folder / name).read_text(encoding="ascii") for name in ("memory.max", "memory.current", "memory.stat")
        )
    except OSError:
        return None
    if not most.strip().isdigit():
        return None
    # Cached pages of files count as used, and are given back when asked for.
    cached = next((int(line.split()[1]) for line in table.splitlines() if line.startswith("file ")), 0)
    return max(0, int(most) - int(used) + cached)
