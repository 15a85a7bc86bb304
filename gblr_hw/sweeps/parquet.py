"""Columns as a Parquet file, by the optional package pyarrow."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gblr_hw.sweeps.measure import MEASURED
from simulator.base.errors import InputError

_ABOUT = b"gblr-hw"  # in the file's metadata: format, version and what was run, as JSON


def parquet_bytes(columns: Mapping[str, Sequence[Any]], about: Mapping[str, Any]) -> bytes:
    """A file of these columns. What is measured has its own type, whatever is empty; a setting is whole numbers, real
    ones, truths or texts, and texts where its values differ in kind. InputError without pyarrow.
    """
    arrow = _arrow()
    types = {int: arrow.int64(), float: arrow.float64(), bool: arrow.bool_(), str: arrow.string()}
    kinds = {name: MEASURED.get(name) or _kind(values) for name, values in columns.items()}
    arrays = [
        arrow.array([None if one is None else kinds[name](one) for one in values], types[kinds[name]])
        for name, values in columns.items()
    ]
    metadata = {_ABOUT: json.dumps(about).encode()}
    schema = arrow.schema([(name, types[kind]) for name, kind in kinds.items()], metadata)
    buffer = io.BytesIO()
    arrow.parquet.write_table(arrow.Table.from_arrays(arrays, schema=schema), buffer)
    return buffer.getvalue()


def parquet_rows(path: Path, form: str) -> list[dict[str, Any]]:
    """The rows of a file of that format. InputError without pyarrow, and for another file."""
    arrow = _arrow()
    try:
        table = arrow.parquet.read_table(path)
    except (arrow.ArrowException, OSError) as error:
        text = (str(error).splitlines() or [""])[0]
        raise InputError(f"'{path}'", text, "it is a Parquet file", "Sweep anew.") from error
    about = json.loads((table.schema.metadata or {}).get(_ABOUT, b"{}"))
    if about.get("format") != form:
        remedy = "Give points that `gblr-hw sweep` wrote."
        raise InputError(str(path), f"format {about.get('format')!r}", f"its format is {form!r}", remedy)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def check_parquet() -> None:
    """Raise InputError without pyarrow."""
    _arrow()


def _kind(values: Sequence[Any]) -> type:
    kinds = {type(one) for one in values if one is not None}
    if kinds == {int, float}:
        return float
    return kinds.pop() if len(kinds) == 1 else str


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        rule = "it writes and reads Parquet"
        raise InputError(
            "a .parquet file", "no package 'pyarrow'", rule, "pip install 'gblr-hw[parquet]', or take .csv or .json."
        ) from error
    return pyarrow
