"""Points that are done, kept one a line: a sweep that was stopped, or grew, goes on from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from simulator.base.files import output_folder


class Journal:
    """Rows by key, in a file of JSON lines, `name`, in a folder; without a folder, in memory only.

    A line that is not whole, as a killed process leaves one, counts as not there.
    """

    def __init__(self, folder: str | Path | None, name: str = "points.jsonl") -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self._path: Path | None = None
        if folder is None:
            return
        self._path = output_folder(folder) / name
        if not self._path.is_file():
            return
        text = self._path.read_bytes()
        for line in text.splitlines():
            try:
                found = json.loads(line)
                self.rows[found["key"]] = dict(found["row"])
            except (ValueError, KeyError, TypeError):
                continue
        if text and not text.endswith(b"\n"):
            with self._path.open("ab") as file:
                file.write(b"\n")

    def add(self, key: str, row: dict[str, Any]) -> None:
        """Keep one row, on disk before this returns."""
        self.rows[key] = row
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(json.dumps({"key": key, "row": row}).encode() + b"\n")
