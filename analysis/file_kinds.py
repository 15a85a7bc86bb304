"""The kinds of files that are written here, and their endings: known without loading what writes them."""

from __future__ import annotations

from simulator.base.files import FileKind

PICTURES = FileKind("pictures", (".png", ".svg", ".pdf"))
TRACES = FileKind("traces", (".json", ".json.gz"))
POINTS = FileKind("network points", (".json", ".csv"))
SWEEPS = FileKind("points of a sweep", (".csv", ".json", ".parquet"))
DRAM_TRACES = FileKind("DRAM traces", (".ldst", ".rw"))
PAGES = FileKind("pages", (".html",))
