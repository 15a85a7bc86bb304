"""A sweep's rows as a file: CSV, or JSON with its schema's name and version."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulator.base.files import replacing

FORMAT, VERSION = "gblr-hw sweep", 1


def save_rows(rows: Sequence[dict[str, Any]], path: str | Path, about: dict[str, Any]) -> None:
    """Write rows to a ``.csv`` file (a header, then one line each) or a ``.json`` one ({"format", "version", "about",
    "points"}), atomically. about: what was run, in the JSON only.
    """
    if Path(path).suffix.lower() == ".json":
        document = {"format": FORMAT, "version": VERSION, "about": about, "points": list(rows)}
        text = json.dumps(document, indent=1) + "\n"
    else:
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = buffer.getvalue()
    with replacing(path) as file:
        file.write(text.encode("utf-8"))
