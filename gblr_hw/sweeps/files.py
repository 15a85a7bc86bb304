"""A sweep's rows as a file: CSV, Parquet, or JSON with its schema's name and version."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from analysis.file_kinds import SWEEPS
from gblr_hw.sweeps.axes import TEXT_FIELDS
from gblr_hw.sweeps.measure import MEASURED
from gblr_hw.sweeps.parquet import parquet_bytes, parquet_rows
from simulator.base.errors import InputError
from simulator.base.files import read_text, replacing
from simulator.base.schema import parsed_json

FORMAT, VERSION = "gblr-hw sweep", 1
_NEEDED = ("latency_cycles", "latency_ms", "energy_pj", "error")
# Columns that hold texts, whatever the texts look like.
_TEXTS = ("source", *TEXT_FIELDS, *(name for name, kind in MEASURED.items() if kind is str))


def save_rows(rows: Sequence[dict[str, Any]], path: str | Path, about: dict[str, Any]) -> None:
    """Write rows to a ``.csv`` file (a header, then one line each), a ``.json`` one ({"format", "version", "about",
    "points"}) or a ``.parquet`` one, atomically; the same rows give the same bytes. about: what was run, not in CSV.

    Raises InputError for another ending, and for Parquet without the package pyarrow.
    """
    ending = SWEEPS.ending(path)
    if ending == ".parquet":
        content = parquet_bytes(_whole(rows), {"format": FORMAT, "version": VERSION, "about": about})
    elif ending == ".json":
        document = {"format": FORMAT, "version": VERSION, "about": about, "points": list(rows)}
        content = (json.dumps(document, indent=1) + "\n").encode()
    else:
        content = _csv(rows).encode()
    with replacing(path) as file:
        file.write(content)


def load_rows(path: str | Path) -> list[dict[str, Any]]:
    """Read what `save_rows` wrote: the same rows. Raises InputError for a file that holds none."""
    ending, where = SWEEPS.ending(path), str(path)
    if ending == ".parquet":
        return _checked(parquet_rows(Path(path), FORMAT), where)
    if ending == ".csv":
        read = csv.DictReader(io.StringIO(read_text(path), newline=""))
        return _checked([{key: _value(key, cell) for key, cell in row.items()} for row in read], where)
    document = parsed_json(read_text(path), where, "a file of points")
    kind = document.get("format") if isinstance(document, dict) else None
    if kind != FORMAT:
        rule, remedy = f"its format is {FORMAT!r}", "Give points that `gblr-hw sweep` wrote."
        raise InputError(where, f"format {kind!r}", rule, remedy)
    return _checked(document.get("points"), where)


def is_sweep(path: str | Path) -> bool:
    """Whether a file of points (CSV, JSON or Parquet) is a sweep's, and not one of measured networks."""
    ending = SWEEPS.ending(path)
    if ending == ".csv":
        # A sweep's rows may have a family too; they have a source where measured networks have a name.
        columns = next(csv.reader(io.StringIO(read_text(path), newline="")), [])
        return "source" in columns or "family" not in columns
    if ending == ".json":
        document = parsed_json(read_text(path), str(path), "a file of points")
        return isinstance(document, dict) and document.get("format") == FORMAT
    return True


def _whole(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows column by column."""
    names = dict.fromkeys(key for row in rows for key in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _value(column: str, cell: str | None) -> object:
    """A cell of CSV as JSON has it."""
    if cell is None or cell == "":
        return None
    if column in _TEXTS:
        return cell
    if cell in ("True", "False"):
        return cell == "True"
    kinds: tuple[Callable[[str], object], ...] = (int, float)
    for kind in kinds:
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def _checked(rows: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(where, "no rows", "a sweep has at least one point", "Sweep anew.")
    for number, row in enumerate(rows, start=1):
        missing = [key for key in _NEEDED if key not in row]
        if missing:
            rule = f"a sweep's rows have {', '.join(_NEEDED)}"
            raise InputError(f"{where}: row {number}", f"no {missing[0]!r}", rule, "Sweep anew.")
    return rows
