"""The notebook of examples/ runs as it stands, and gives the outputs that are kept in it."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from matplotlib.image import imread

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
LARGEST_BYTES = 200_000


# Runs a notebook from its first cell to its last one, in a process of its own: sockets that its kernel leaves open are
# not ours to close.
RUN = """
import sys, nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
manager = AsyncKernelManager(transport="ipc")
where = {"metadata": {"path": sys.argv[3]}}
NotebookClient(notebook, km=manager, timeout=600, record_timing=False, resources=where).execute()
nbformat.write(notebook, sys.argv[2])
"""


def executed(notebook: Any, folder: Path) -> Any:
    """The notebook without its outputs, and what comes of running it; an error in a cell is one here."""
    fresh = nbformat.from_dict({**notebook, "cells": [dict(cell) for cell in notebook.cells]})
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(fresh, folder / "fresh.ipynb")
    run = [sys.executable, "-c", RUN, str(folder / "fresh.ipynb"), str(folder / "made.ipynb"), str(ROOT)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    made = nbformat.read(folder / "made.ipynb", as_version=4)
    made.metadata = notebook.metadata  # not the interpreter's version
    return made


def shown(notebook: Any) -> list[list[dict[str, Any]]]:
    """What each cell shows, by kind."""
    found = []
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        found.append([dict(one.get("data", {"text": one.get("text")})) for one in outputs])
    return found


def pixels(picture: str) -> np.ndarray:
    return np.asarray(imread(io.BytesIO(base64.b64decode(picture)), format="png"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_gives_what_it_shows(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kept = nbformat.read(path, as_version=4)
    made = executed(kept, tmp_path)
    if request.config.getoption("--update-goldens"):
        nbformat.write(made, path)
        kept = made
    for cell, before, now in zip(kept.cells, shown(kept), shown(made), strict=True):
        assert [sorted(one) for one in now] == [sorted(one) for one in before], cell.source
        for old, new in zip(before, now, strict=True):
            # Pixels are compared, not bytes: how a picture is compressed depends on the library that does it.
            if "image/png" in old:
                np.testing.assert_allclose(pixels(new.pop("image/png")), pixels(old.pop("image/png")), atol=0.02)
            assert new == old, cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_small_and_shows_tables_and_a_picture(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < LARGEST_BYTES
    assert not re.search(r"/(home|root|work|tmp|usr)/", text)
    kinds = [kind for cell in shown(nbformat.read(path, as_version=4)) for output in cell for kind in output]
    assert kinds.count("image/png") >= 1 and kinds.count("text/html") >= 4


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS
