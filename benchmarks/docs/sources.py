"""What documents rest on: every file of figures, and the command that makes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.tables.contenders import Contender, load_contenders
from benchmarks.shared.result_lines import ResultLines
from benchmarks.study import trained_out
from benchmarks.study.claims import all_runs
from benchmarks.study.runs import MEASURED_ON
from benchmarks.study.settings import Study, read_study
from simulator.base.errors import InputError
from simulator.base.files import read_text

Read = Callable[[Path], Any]


def read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise InputError(
            f"figures '{path}'", str(error), "the file is JSON", "Run the command that makes it."
        ) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Lines of JSON."""
    try:
        return [json.loads(line) for line in read_text(path).splitlines()]
    except ValueError as error:
        raise InputError(
            f"figures '{path}'", str(error), "each line is JSON", "Run the command that makes it."
        ) from error


def _contenders(path: Path) -> tuple[Contender, ...]:
    return load_contenders(path)


def read_whole_study(path: Path) -> Study:
    """The study's results, with the runs that it asks for and does not have."""
    return read_study(path, all_runs(), MEASURED_ON)


def _trained_out(path: Path) -> list[dict[str, Any]]:
    return ResultLines(path, trained_out.KEY).rows


@dataclass(frozen=True)
class Source:
    """A file of figures, what makes it, and how it is read."""

    path: str
    command: str
    read: Read


def _json(name: str, command: str) -> Source:
    """A file of docs/data that its command writes with ``--out``."""
    return Source(f"docs/data/{name}.json", f"{command} --out docs/data/{name}.json", read_json)


SOURCES: Mapping[str, Source] = {
    "demo": _json("demo", "python -m benchmarks.demo.three_seeds"),
    "dram": _json("dram", "python -m benchmarks.dram.standards"),
    "dram rankings": Source("docs/data/dram_rankings.jsonl", "python -m benchmarks.dram.rankings", read_lines),
    "dram study": Source("docs/data/dram_study.jsonl", "python -m benchmarks.dram.study_rankings", read_lines),
    "study": Source("docs/data/study.jsonl", "python -m benchmarks.study.study", read_whole_study),
    "trained out": Source("docs/data/trained_out.jsonl", "python -m benchmarks.study.trained_out", _trained_out),
    "study structures": _json("study_structures", "python -m benchmarks.study.structures"),
    "waterfall": Source("docs/data/waterfall.json", "python -m benchmarks.study.waterfall", read_json),
    "MiniLM conversion": Source(
        "docs/data/minilm_conversion.jsonl", "python -m benchmarks.minilm.conversion", read_lines
    ),
    "MiniLM quality": _json("minilm_quality", "python -m benchmarks.minilm.conversion_quality"),
    "MiniLM bits": _json("minilm_bits", "python -m benchmarks.minilm.bits"),
    "MiniLM width": _json("minilm_width", "python -m benchmarks.minilm.width_conversion"),
    "MiniLM study": Source(
        "docs/data/minilm_study.jsonl", "python -m benchmarks.minilm.study --work minilm-work", read_lines
    ),
    "SmolLM2": Source("docs/data/smollm.jsonl", "python -m benchmarks.smollm.study --work smollm-work", read_lines),
    "Whisper": Source("docs/data/whisper.jsonl", "python -m benchmarks.whisper.study --work whisper-work", read_lines),
    "convolutions": Source(
        "docs/data/convolutions.jsonl", "python -m benchmarks.convolutions.study --work conv-work", read_lines
    ),
    "sentences": Source(
        "docs/data/sentences.jsonl", "python -m benchmarks.sentences.study --work sentences-work", read_lines
    ),
    "projection": _json("projection", "python -m benchmarks.structures.projection"),
    "projection kinds": Source(
        "docs/data/projection_kinds.jsonl",
        "python -m benchmarks.structures.projection_kinds --tiles 0.05 0.1",
        read_lines,
    ),
    "training step": _json("training_step", "python -m benchmarks.speed.training_step [--compile]"),
    "cost model": _json("cost_model", "python -m benchmarks.structures.cost_model"),
    "formats": Source("docs/data/formats.jsonl", "python -m benchmarks.structures.formats", read_lines),
    "mixed lattice": _json("mixed_lattice", "python -m benchmarks.structures.mixed_lattice --covariances FILE"),
    "doors": Source("docs/data/doors.jsonl", "python -m benchmarks.structures.doors", read_lines),
    "BLAST descent": _json("blast_descent", "python -m benchmarks.structures.blast_descent"),
    "int8 formats": _json("int8_formats", "python -m benchmarks.structures.int8_formats"),
    "random layer": _json("random_layer", "python -m benchmarks.structures.random_layer"),
    "accuracy": _json("network_accuracy", "python -m benchmarks.networks.network_accuracy --work minilm-work"),
    "models": Source("docs/data/models.jsonl", "python -m benchmarks.networks.models --again", read_lines),
    "zoo": Source("docs/data/zoo.jsonl", "make zoo", read_lines),
    "ViT-Base": Source(
        "docs/data/vit_base.txt", "gblr-hw simulate vit.program --top 12 > docs/data/vit_base.txt", read_text
    ),
    "fusion": _json("fusion", "python -m benchmarks.networks.fusion"),
    "advice": Source("docs/data/advice.jsonl", "python -m benchmarks.networks.advice --smollm2 FILE.gguf", read_lines),
    "regimes": Source("docs/data/regimes.jsonl", "python -m benchmarks.networks.regimes", read_lines),
    "image bytes": _json("image_bytes", "python -m benchmarks.networks.image_bytes"),
    "plain as network": _json("plain_as_network", "python -m benchmarks.networks.plain_as_network"),
    "sweeps": Source("docs/data/network_sweeps.json", "python -m benchmarks.networks.network_sweeps", read_json),
    "engine": _json("engine_speed", "python -m benchmarks.speed.engine_speed"),
    "start-up": _json("start_up", "python -m benchmarks.speed.start_up"),
    "lowering": _json("lowering_speed", "python -m benchmarks.speed.lowering_speed"),
    "growth": _json("growth", "python -m benchmarks.speed.growth"),
    "cost price": _json("cost_price", "python -m benchmarks.speed.cost_price"),
    "packed layers": _json("packed_layers", "python -m benchmarks.speed.packed_layers"),
    "peers": _json("peers", "python -m benchmarks.peers.peers"),
    "GEMM cycles": _json("gemm_cycles", "python -m benchmarks.peers.gemm_cycles"),
    "synthesis": Source("docs/synthesis.json", "make synth", read_json),
    "permutation price": _json("permutation_price", "python -m benchmarks.synthesis.permutation_price"),
    "codesign": _json("codesign_minilm", "python -m benchmarks.codesign.summary front.json"),
    "float lanes": _json("float_lanes", "python -m benchmarks.energy_tables.float_lanes"),
    "energy reference": _json("energy_reference", "python -m benchmarks.energy_tables.reference_case"),
    "family order": Source(
        "docs/data/family_order.jsonl", "python -m benchmarks.energy_tables.family_order", _contenders
    ),
    "corpus": _json("corpus", "python -m tests.drawn.corpus"),
    "mutants": _json("mutants", "python -m tests.mutation.mutation"),
}


def load(root: Path) -> dict[str, Any]:
    """Every source's figures. Raises InputError where a file is missing or is not what its command writes."""
    found = {}
    for name, source in SOURCES.items():
        path = root / source.path
        if not path.is_file():
            raise InputError(
                f"figures '{source.path}'", "no such file", "documents rest on it", f"Run `{source.command}`."
            )
        found[name] = source.read(path)
    return found
