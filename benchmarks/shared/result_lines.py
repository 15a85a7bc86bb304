"""Results as lines of JSON that an interrupted run leaves whole, so that the next one goes on after them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gblr_hw.weights.family import renamed
from simulator.base.errors import InputError
from simulator.base.files import replacing


class ResultLines:
    """A JSONL file of results, each with the fields of `key` telling what it is the result of."""

    def __init__(self, path: Path, key: tuple[str, ...]) -> None:
        self.path, self.key = path, key
        self._lines: list[dict[str, Any]] = _read(path, key) if path.exists() else []

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All results, a family that was recorded under an old name or label under today's."""
        return [
            {field: renamed(value) if isinstance(value, str) else value for field, value in line.items()}
            for line in self._lines
        ]

    def has(self, **what: object) -> bool:
        """Is the result of these key fields there?"""
        return any(all(row[field] == what[field] for field in self.key) for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Take in a result and write the file, sorted by key so that the order of finishing leaves no trace; what was
        recorded stays as it was.
        """
        self._lines.append(row)
        self._write()

    def replace(self, row: dict[str, Any]) -> None:
        """Put a result in the place of the one of the same key fields, and write the file."""
        same = [all(one[field] == row[field] for field in self.key) for one in self.rows]
        self._lines = [row if is_same else one for one, is_same in zip(self._lines, same, strict=True)]
        self._write()

    def _write(self) -> None:
        self._lines.sort(key=lambda one: [(isinstance(one[field], str), one[field]) for field in self.key])
        with replacing(self.path) as file:
            file.write("".join(json.dumps(one) + "\n" for one in self._lines).encode())


def _read(path: Path, key: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            row = json.loads(line)
            missing = [field for field in key if field not in row]
        except (json.JSONDecodeError, TypeError) as error:
            raise _bad_line(path, number, str(error)) from error
        if missing:
            raise _bad_line(path, number, f"no field '{missing[0]}'")
        rows.append(row)
    return rows


def _bad_line(path: Path, number: int, found: str) -> InputError:
    return InputError(
        f"results '{path}', line {number}", found, "each line is one result in JSON", "Delete the line or the file."
    )
