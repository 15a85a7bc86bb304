"""Results as one page that opens without a network."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from analysis.page.document import page
from gblr_hw.page.results import read_results
from simulator.base.files import replacing


def report(results: str | Path | Sequence[str | Path], path: str | Path, title: str = "") -> None:
    """Write ``path``, one self-contained HTML file, from ``results``: the files or folders that `gblr-hw report` takes.

    The same files give the same bytes. Raises InputError for files of another kind and where vl-convert-python
    (``pip install 'gblr-hw[page]'``) is missing.
    """
    given = [results] if isinstance(results, (str, Path)) else list(results)
    text = page(read_results([Path(one) for one in given], title, version("gblr-hw")))
    with replacing(path) as file:
        file.write(text.encode("utf-8"))
