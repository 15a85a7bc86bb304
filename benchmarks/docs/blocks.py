"""The tables that documents show: where each stands, what it rests on, and what makes its text from the figures.

A block stands in its document between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``. Behind its table it says which
file it rests on and which command makes that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from benchmarks.codesign import tables as codesign
from benchmarks.convolutions.tables import MEASURES, networks_table
from benchmarks.demo import tables as demo
from benchmarks.docs.sources import SOURCES
from benchmarks.dram import ranking_tables as dram_rankings
from benchmarks.dram import study_tables as dram_study
from benchmarks.dram import tables as dram
from benchmarks.energy_tables.family_order import order_table
from benchmarks.energy_tables.float_lanes import float_lanes_table
from benchmarks.energy_tables.reference_case import chips_table, reference_table
from benchmarks.minilm import tables as minilm
from benchmarks.networks import regime_sentences, regime_tables
from benchmarks.networks import tables as networks
from benchmarks.peers import tables as peers
from benchmarks.sentences.tables import sentences_table
from benchmarks.smollm import tables as smollm
from benchmarks.speed import tables as speed
from benchmarks.structures import tables as structures
from benchmarks.study import claims, summary, trained_out_tables, waterfall_tables
from benchmarks.study.structures import structure_tables
from benchmarks.synthesis import area_fit
from benchmarks.synthesis import tables as synthesis
from benchmarks.verification import tables as verification
from benchmarks.whisper import tables as whisper
from benchmarks.zoo import tables as zoo

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Block:
    """A block of a document: the sources of its figures and what makes its text."""

    document: str
    name: str
    sources: tuple[str, ...]
    text: Callable[[Figures], str]

    def written(self, figures: Figures) -> str:
        """Its text, and what it rests on."""
        return f"{self.text(figures).strip()}\n\n{self.resting_on(figures)}\n"

    def resting_on(self, figures: Figures) -> str:
        """Files and commands in a line, and how figures came into a file that no command has written yet."""
        told = []
        for name in self.sources:
            source, data = SOURCES[name], figures[name]
            link = os.path.relpath(source.path, PurePosixPath(self.document).parent)
            note = f" ({data['taken']})" if isinstance(data, dict) and "taken" in data else ""
            told.append(f"[{PurePosixPath(source.path).name}]({link}), made by `{source.command}`{note}")
        return f"*From {'; and '.join(told)}.*"


def _rows(source: str, table: Callable[[Any], str], field: str = "rows") -> Callable[[Figures], str]:
    """A table of one list in a source."""
    return lambda figures: table(figures[source][field])


def _whole(source: str, table: Callable[[Any], str]) -> Callable[[Figures], str]:
    """A table of a whole source."""
    return lambda figures: table(figures[source])


README, RESULTS, NETWORKS, SPEED = "README.md", "docs/results.md", "docs/networks.md", "docs/speed.md"
MACHINE, MODELS, REGIMES = "docs/machine.md", "docs/models.md", "docs/regimes.md"
CLAIMS, CLAIM_TABLES, SYNTHESIS = "docs/claims.md", "docs/claims-tables.md", "docs/synthesis.md"
BITS, ENERGY, DRAM = "docs/bits.md", "docs/energy.md", "docs/dram.md"
CODESIGN, REFERENCES, VERIFICATION = "docs/codesign.md", "docs/references.md", "docs/verification.md"
# The study's claims stand in the document itself, what they rest on in its appendix.
SHORT_CLAIMS = ("completeness", "claims", "chosen")
PEER_GEMMS = ("197x768x768", "197x768x3072")

BLOCKS: tuple[Block, ...] = (
    Block(README, "demo", ("demo",), _rows("demo", demo.first_seed_table)),
    Block(
        README,
        "claims in short",
        ("study",),
        lambda figures: summary.short_claims(figures["study"], "digits", ("edge-16", "mid-32", "plain-32")),
    ),
    Block(README, "smollm", ("SmolLM2",), _whole("SmolLM2", smollm.perplexity_table)),
    Block(README, "networks", ("models",), _whole("models", partial(networks.short_models_table, machine="mid-32"))),
    Block(
        RESULTS,
        "digits",
        ("demo",),
        lambda figures: demo.seeds_table(figures["demo"]["rows"], figures["demo"]["seeds"]),
    ),
    Block(RESULTS, "matrices", ("MiniLM quality",), _rows("MiniLM quality", minilm.quality_table)),
    Block(RESULTS, "conversion", ("MiniLM conversion",), _whole("MiniLM conversion", minilm.conversion_table)),
    Block(
        RESULTS,
        "descent through masks",
        ("MiniLM width", "MiniLM quality"),
        lambda figures: minilm.width_table(figures["MiniLM width"]["rows"], figures["MiniLM quality"]["rows"]),
    ),
    Block(BITS, "matrices", ("MiniLM bits",), _rows("MiniLM bits", minilm.bits_table)),
    Block(BITS, "budgets", ("MiniLM bits",), _rows("MiniLM bits", minilm.bits_budget_table, "budgets")),
    Block(RESULTS, "smollm", ("SmolLM2",), _whole("SmolLM2", smollm.perplexity_table)),
    Block(RESULTS, "smollm rivals", ("SmolLM2",), _whole("SmolLM2", smollm.rivals_table)),
    Block(
        RESULTS,
        "smollm pruned rivals",
        ("SmolLM2",),
        _whole("SmolLM2", partial(smollm.rivals_table, ours=smollm.PRUNED_LATTICE, name="pruned lattice")),
    ),
    Block(RESULTS, "whisper", ("Whisper",), _whole("Whisper", whisper.speech_table)),
    Block(RESULTS, "whisper rivals", ("Whisper",), _whole("Whisper", whisper.rivals_table)),
    *(
        Block(RESULTS, network, ("convolutions",), _whole("convolutions", partial(networks_table, network=network)))
        for network in MEASURES
    ),
    Block(
        RESULTS,
        "sentences minilm",
        ("sentences",),
        _whole("sentences", partial(sentences_table, network="minilm")),
    ),
    Block(RESULTS, "families", ("MiniLM study",), _whole("MiniLM study", minilm.study_table)),
    Block(RESULTS, "projection", ("projection",), _rows("projection", structures.projection_table)),
    Block(RESULTS, "projection kinds", ("projection kinds",), _whole("projection kinds", structures.kinds_table)),
    Block(RESULTS, "training steps", ("training step",), _whole("training step", speed.training_step_table)),
    Block(RESULTS, "cost model", ("cost model",), _rows("cost model", structures.cost_model_table)),
    Block(RESULTS, "cost gradient", ("cost model",), _rows("cost model", structures.cost_gradient_table, "gradients")),
    Block(RESULTS, "random layer", ("random layer",), _rows("random layer", structures.random_layer_table)),
    Block(RESULTS, "formats", ("formats",), _whole("formats", structures.formats_table)),
    Block(RESULTS, "mixed lattice", ("mixed lattice",), _rows("mixed lattice", structures.mixed_lattice_table)),
    Block(RESULTS, "doors", ("doors",), _whole("doors", structures.doors_table)),
    Block(RESULTS, "blast descent", ("BLAST descent",), _rows("BLAST descent", structures.blast_descent_table)),
    Block(RESULTS, "int8 formats", ("int8 formats",), _rows("int8 formats", structures.int8_formats_table)),
    Block(RESULTS, "int8", ("accuracy",), _rows("accuracy", networks.accuracy_table)),
    *(
        Block(
            NETWORKS,
            f"networks, {machine}",
            ("models",),
            _whole("models", partial(networks.models_table, machine=machine)),
        )
        for machine in ("mid-32", "cloud-128")
    ),
    Block(NETWORKS, "ViT-Base", ("ViT-Base",), _whole("ViT-Base", networks.kinds_text)),
    Block(
        MACHINE,
        "plain as network",
        ("plain as network",),
        _rows("plain as network", networks.plain_as_network_table),
    ),
    Block(MODELS, "whole", ("zoo",), _whole("zoo", zoo.whole_table)),
    Block(MODELS, "refused", ("zoo",), _whole("zoo", zoo.refused_table)),
    Block("docs/advice.md", "advice", ("advice",), _whole("advice", networks.advice_table)),
    Block(REGIMES, "summary", ("regimes",), _whole("regimes", regime_tables.summary_table)),
    Block(REGIMES, "structures", ("regimes",), _whole("regimes", regime_tables.structures_text)),
    Block(REGIMES, "reasons", ("regimes",), _whole("regimes", regime_sentences.reasons_text)),
    Block(REGIMES, "programs", ("regimes",), _whole("regimes", regime_tables.regimes_table)),
    Block(NETWORKS, "image bytes", ("image bytes",), _rows("image bytes", networks.image_bytes_table)),
    Block(NETWORKS, "groups", ("fusion",), _rows("fusion", networks.fusion_table)),
    Block(DRAM, "families", ("dram",), _rows("dram", dram.families_text, "families")),
    Block(DRAM, "ViT-Base", ("dram",), _rows("dram", dram.networks_table, "networks")),
    Block(DRAM, "networks", ("dram rankings",), _whole("dram rankings", dram_rankings.networks_text)),
    Block(DRAM, "study", ("dram study",), _whole("dram study", dram_study.setting_text)),
    Block(DRAM, "study settings", ("dram study",), _whole("dram study", dram_study.settings_text)),
    Block(DRAM, "study claims", ("dram study",), _whole("dram study", dram_study.claims_text)),
    Block(DRAM, "layout", ("dram",), _rows("dram", dram.layout_text, "layouts")),
    Block(DRAM, "patterns", ("dram",), _rows("dram", dram.patterns_table, "patterns")),
    Block(DRAM, "speed", ("dram",), _rows("dram", dram.speed_table, "speed")),
    Block(SPEED, "simulating", ("engine",), _whole("engine", speed.engine_table)),
    Block(SPEED, "start-up", ("start-up",), _rows("start-up", speed.start_table)),
    Block(SPEED, "lowering", ("lowering",), _whole("lowering", speed.lowering_table)),
    Block(SPEED, "passes", ("lowering",), _whole("lowering", speed.passes_table)),
    Block(SPEED, "growth", ("growth",), _whole("growth", speed.growth_table)),
    Block("docs/training.md", "cost price", ("cost price",), _rows("cost price", speed.cost_price_table)),
    Block(SPEED, "packed layers", ("packed layers",), _whole("packed layers", speed.packed_table)),
    *(
        Block(CLAIMS if name in SHORT_CLAIMS else CLAIM_TABLES, name, ("study",), _whole("study", table))
        for name, table in claims.BLOCKS.items()
    ),
    Block(
        CLAIMS,
        "trained out",
        ("trained out", "study"),
        lambda figures: trained_out_tables.trained_out_text(figures["trained out"], figures["study"]),
    ),
    Block(CLAIM_TABLES, "trained out, pairs", ("trained out",), _whole("trained out", trained_out_tables.pairs_table)),
    Block(
        CLAIM_TABLES,
        "waterfall, random intervals",
        ("waterfall",),
        _whole("waterfall", lambda data: waterfall_tables.step_tables(waterfall_tables.random_waterfalls(data))),
    ),
    Block(
        CLAIM_TABLES,
        "waterfall, networks",
        ("waterfall", "study"),
        lambda figures: waterfall_tables.step_tables(
            waterfall_tables.network_waterfalls(figures["waterfall"], figures["study"])
        ),
    ),
    Block(
        CLAIM_TABLES,
        "scatter, networks",
        ("waterfall",),
        _rows("waterfall", waterfall_tables.scatter_table, "scatter"),
    ),
    Block(CLAIM_TABLES, "structures", ("study structures",), _rows("study structures", structure_tables, "networks")),
    Block(SYNTHESIS, "parts", ("synthesis",), _whole("synthesis", synthesis.parts_table)),
    Block(SYNTHESIS, "networks", ("synthesis",), _whole("synthesis", synthesis.networks_table)),
    Block(SYNTHESIS, "prices", ("synthesis",), _whole("synthesis", synthesis.prices_table)),
    Block(SYNTHESIS, "mix", ("synthesis",), _whole("synthesis", synthesis.mix_table)),
    Block(SYNTHESIS, "banks", ("permutation price",), _rows("permutation price", synthesis.banks_table)),
    Block(CODESIGN, "area model", ("synthesis",), _whole("synthesis", area_fit.area_table)),
    Block(
        CODESIGN,
        "plain and scatter",
        ("codesign",),
        _rows("codesign", codesign.comparison_table, "plain_and_scatter"),
    ),
    Block(CODESIGN, "front", ("codesign",), _rows("codesign", codesign.front_table, "front")),
    Block(ENERGY, "energy reference", ("energy reference",), _rows("energy reference", reference_table)),
    Block(ENERGY, "chips", ("energy reference",), _rows("energy reference", chips_table, "chips")),
    Block(ENERGY, "float lanes", ("float lanes",), _rows("float lanes", float_lanes_table)),
    Block(ENERGY, "family order", ("family order",), _whole("family order", order_table)),
    Block(REFERENCES, "GEMM cycles", ("GEMM cycles",), _rows("GEMM cycles", peers.gemm_cycles_table)),
    Block(REFERENCES, "speed", ("peers",), _whole("peers", partial(peers.speed_table, gemms=PEER_GEMMS))),
    Block(VERIFICATION, "corpus", ("corpus",), _whole("corpus", verification.corpus_kinds_table)),
    Block(VERIFICATION, "reach", ("corpus",), _whole("corpus", verification.corpus_reach_table)),
    Block(VERIFICATION, "mutants", ("mutants",), _rows("mutants", verification.mutants_table, "mutants")),
)
