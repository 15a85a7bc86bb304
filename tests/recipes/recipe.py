"""Recipes of docs/house.md that are tried: a change is made in a copy of the product, and a check is run there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("simulator", "analysis", "gblr_hw", "docs/machine.md")


@dataclass(frozen=True)
class Edit:
    """In ``file``, ``old`` stands once and becomes ``new``."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Recipe:
    """What a change takes. ``most``: files that it may touch, as docs/house.md promises."""

    change: str
    most: int
    edits: tuple[Edit, ...]

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(sorted({edit.file for edit in self.edits}))


def after(file: str, line: str, added: str) -> Edit:
    """The edit that puts ``added`` behind a line."""
    return Edit(file, line, line + added)


def carry_out(recipe: Recipe, folder: Path) -> None:
    """Copy the product into ``folder`` and make the recipe's edits there; ValueError for one that does not fit."""
    for part in PARTS:
        source, target = ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    for edit in recipe.edits:
        path = folder / edit.file
        text = path.read_text(encoding="utf-8")
        if text.count(edit.old) != 1:
            raise ValueError(f"{edit.file}: {edit.old!r} stands there {text.count(edit.old)} times, not once")
        path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")


def run_check(module: str, folder: Path) -> str:
    """Run ``check()`` of a recipe's module against the changed copy; returns what went wrong, empty if nothing did."""
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "NUMBA_DISABLE_JIT": "1"}
    code = (
        "import simulator; "
        f"assert simulator.__file__.startswith({str(folder)!r}), simulator.__file__; "
        f"from {module} import check; check()"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr[-3000:]
