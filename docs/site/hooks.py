"""What `make site` does besides: every page keeps its place in the repository, README.md being the first one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
KEPT = {".md", ".png", ".json", ".jsonl", ".txt", ".html", ".toml"}


def on_files(files: Files, config: Any) -> Files:
    """The repository's documents, and what they link to, in the place of the folder's own; the theme's stay."""
    own = [file for file in files if not Path(file.abs_src_path or "/").is_relative_to(ROOT / "docs")]
    paths = [
        *ROOT.glob("*.md"),
        ROOT / "LICENSE",
        *sorted((ROOT / "docs").rglob("*")),
        *sorted((ROOT / "examples").iterdir()),
    ]
    for path in paths:
        if path.is_file() and (path.suffix in KEPT or (path.parent != ROOT / "docs/site" and path.name == "LICENSE")):
            own.append(_file(path, config))
    return Files(own)


def _file(path: Path, config: Any) -> File:
    return File(str(path.relative_to(ROOT)), str(ROOT), config["site_dir"], config["use_directory_urls"])
