"""Whatever results a user has (programs, a sweep's points, a study's lines, the demo's folder), as a page's content."""

from __future__ import annotations

import hashlib
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from analysis.file_kinds import SWEEPS
from analysis.page.content import Content, PagePoint, Run, SourceFile
from analysis.pictures.block_map import coverage, draw_block_maps
from analysis.pictures.style import save_figure
from analysis.tables.over_seeds import over_seeds
from analysis.tables.records import NetworkPoint, load_points
from gblr_hw.files.checkpoint import load_checkpoint
from gblr_hw.sweeps.files import is_sweep, load_rows
from gblr_hw.sweeps.measure import MEASURED
from gblr_hw.weights.factors import evaluate
from gblr_hw.weights.family import renamed
from simulator.base.errors import InputError
from simulator.base.files import read_text
from simulator.base.schema import parsed_json
from simulator.program.program import Program
from simulator.program.program_file import is_program
from simulator.timing.simulate import simulate

_KINDS = (
    "programs, points of `gblr-hw sweep` (.json, .csv, .parquet) or of networks (.json, .csv), a study's lines "
    "(.jsonl), checkpoints (.safetensors), or the folder of `gblr-hw demo`"
)
_MOST_MAP_BYTES = 250_000  # of all block maps together


@dataclass
class _Found:
    points: list[PagePoint] = field(default_factory=list)
    swept: list[dict[str, Any]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    maps: list[tuple[str, bytes]] = field(default_factory=list)
    sources: list[SourceFile] = field(default_factory=list)


def read_results(results: Sequence[Path], title: str, version: str) -> Content:
    """All of ``results``, gathered; programs are simulated on the machines that they were lowered for.

    Raises InputError for a file of another kind, for nothing at all, and for a file that is named twice.
    """
    if not results:
        raise InputError("RESULTS", "nothing", "there is something to report", f"Name {_KINDS}.")
    found = _Found()
    for path in results:
        for file in _files(path):
            _read(file, found)
    command = "gblr-hw report " + " ".join(str(path) for path in results)
    fields = [
        key
        for key in dict.fromkeys(key for row in found.swept for key in row)
        if key not in MEASURED and key != "source"
    ]
    return Content(
        title or ", ".join(path.name or str(path) for path in results), version, command, found.points, found.swept,
        fields or ["source"], _told_apart(found.runs), found.maps, found.sources,
    )  # fmt: skip


def _files(path: Path) -> list[Path]:
    """A file itself; of the demo's folder its points, programs and checkpoints."""
    if not path.is_dir():
        return [path]
    inside = [*path.glob("points.json"), *sorted(path.glob("*.program")), *sorted(path.glob("*.safetensors"))]
    if not inside:
        raise InputError(
            f"'{path}'", "a folder without points.json, programs or checkpoints",
            "a folder is what `gblr-hw demo` wrote",
            f"Name {_KINDS}.",
        )  # fmt: skip
    return inside


def _read(path: Path, found: _Found) -> None:
    if str(path) in {one.name for one in found.sources}:
        raise InputError(f"'{path}'", "it twice", "each of RESULTS is named once", "Leave one out.")
    content = path.read_bytes()
    found.sources.append(SourceFile(str(path), len(content), hashlib.sha256(content).hexdigest()))
    ending = path.suffix.lower()
    if ending in SWEEPS.endings:
        _read_table(path, found)
    elif ending == ".jsonl":
        found.points += _study(read_text(path), str(path))
    elif ending == ".safetensors":
        found.maps += _maps(path, _MOST_MAP_BYTES - sum(len(png) for _, png in found.maps))
    elif is_program(path):
        found.runs.append(_run(path))
    else:
        raise InputError(f"'{path}'", "a file of another kind", f"a page is made of {_KINDS}", "Name one of these.")


def _read_table(path: Path, found: _Found) -> None:
    """Points of either kind."""
    if is_sweep(path):
        found.swept += load_rows(path)
    else:
        found.points += _points(load_points(path))


def _points(points: Iterable[NetworkPoint]) -> list[PagePoint]:
    """Seeds of one network on one machine together; networks that are measured otherwise than by accuracy apart."""
    return [
        _page_point(
            one.first.name, one.first.family, "" if one.quality.name == "accuracy" else one.quality.name,
            one.first.machine, [(p.value, p.latency_cycles, p.energy_pj) for p in one.points], one.quality.name,
        )
        for one in over_seeds(points)
    ]  # fmt: skip


def _page_point(
    name: str, family: str, group: str, machine: str, runs: Sequence[tuple[float, float, float]],
    quality: str = "accuracy",
) -> PagePoint:  # fmt: skip
    values, cycles, energies = zip(*runs, strict=True)
    return PagePoint(
        name, family, group, machine, quality, statistics.fmean(values), min(values), max(values), len(runs),
        statistics.fmean(cycles), statistics.fmean(energies),
    )  # fmt: skip


def _study(text: str, where: str) -> list[PagePoint]:
    """Settings of a study, each on the machine that it was trained for; one that a seed cannot reach has no point."""
    groups: dict[tuple[str, str, str, float], list[Mapping[str, Any] | None]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        row = parsed_json(line, f"{where}: line {number}", "a line of a study")
        keys = ("part", "machine", "family", "budget", "seed")
        if not isinstance(row, dict) or not all(key in row for key in keys):
            raise InputError(
                f"{where}: line {number}", "another kind of line", f"a study's lines have {', '.join(keys)}",
                "Give a file such as docs/data/study.jsonl.",
            )  # fmt: skip
        key = (row["part"], row["machine"], renamed(str(row["family"])), row["budget"])
        groups.setdefault(key, []).append(row if "accuracy" in row else None)
    made = []
    for (part, machine, family, budget), rows in groups.items():
        reached = [row for row in rows if row is not None]
        if len(reached) == len(rows):
            runs = [(r["accuracy"], r["latency_cycles"][machine], r["energy_pj"][machine]) for r in reached]
            name = family if len(runs) and family == "dense" and budget == 1 else f"{family}, {budget:g}"
            made.append(_page_point(name, family, part, machine, runs))
    return made


def _run(path: Path) -> Run:
    program = Program.load(path)
    report = simulate(program, program.machine, path.stem)
    name = path.stem.removesuffix(f".{program.machine.name}")
    return Run(name, str(path), report, program.machine.to_toml(), dict(program.provenance))


def _told_apart(runs: Sequence[Run]) -> list[Run]:
    """Whole paths where two programs on one machine have the same name; machine by machine."""
    names = [(run.name, run.report.machine) for run in runs]
    return [replace(run, name=run.file) if names.count((run.name, run.report.machine)) > 1 else run for run in runs]


def _maps(path: Path, left: int) -> list[tuple[str, bytes]]:
    layers = {name: evaluate(weights).in_natural_order() for name, weights in load_checkpoint(path).items()}
    counts = {name: coverage(f.writes, f.reads) for name, f in layers.items() if f.ranks}
    if not counts:
        return []
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "map.png")
        save_figure(draw_block_maps(counts, title=path.stem), picture)
        png = picture.read_bytes()
    return [(path.stem, png)] if len(png) <= left else []
