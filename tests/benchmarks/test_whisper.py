"""Whisper's benchmark on a tiny random network: the file's layout undone, loss, greedy words and tables written out."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import WhisperConfig, WhisperForConditionalGeneration

from benchmarks.shared.bootstrap import mean_interval
from benchmarks.whisper import measure
from benchmarks.whisper.measure import filled, greedy, word_errors, written
from benchmarks.whisper.network import from_ctranslate2, made_of, matrices, read_ctranslate2
from benchmarks.whisper.speech import Utterance, passage, recordings
from benchmarks.whisper.study import without
from benchmarks.whisper.tables import rivals_table, speech_table
from gblr_hw.weights.stored import DenseWeights

END = 3
# Of a decoder's layer, in the file and in transformers; an encoder's has those without a "/attention".
NAMES = {
    "self_attention/layer_norm": ["self_attn_layer_norm"], "attention/layer_norm": ["encoder_attn_layer_norm"],
    "ffn/layer_norm": ["final_layer_norm"],
    "self_attention/linear_0": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "self_attention/linear_1": ["self_attn.out_proj"], "attention/linear_0": ["encoder_attn.q_proj"],
    "attention/linear_1": ["encoder_attn.k_proj", "encoder_attn.v_proj"], "attention/linear_2": ["encoder_attn.out_proj"],
    "ffn/linear_0": ["fc1"], "ffn/linear_1": ["fc2"],
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> WhisperForConditionalGeneration:
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=40, d_model=32, num_mel_bins=80, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, max_source_positions=1500,
        max_target_positions=150, pad_token_id=None, bos_token_id=None, eos_token_id=None, use_cache=False,
    )  # fmt: skip
    made = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for one in made.parameters():
            one.add_(0.2 * torch.randn_like(one))
        for one in (layer.half().float() for layer in made.parameters()):
            assert one.isfinite().all()
    return made.half().float()  # numbers that the file holds


def in_the_file(model: WhisperForConditionalGeneration) -> dict[str, Tensor]:
    """The network's tensors under the file's names."""
    own, found = model.state_dict(), {}
    for side in ("encoder", "decoder"):
        for index in range(2):
            for part, modules in NAMES.items():
                if side == "encoder" and part.startswith("attention"):
                    continue
                at = [f"model.{side}.layers.{index}.{module}" for module in modules]
                norm = part.endswith("norm")
                kinds = {"gamma": "weight", "beta": "bias"} if norm else {"weight": "weight", "bias": "bias"}
                for kind, theirs in kinds.items():
                    parts = [own.get(f"{one}.{theirs}", torch.zeros(len(own[f"{one}.weight"]))) for one in at]
                    found[f"{side}/layer_{index}/{part}/{kind}"] = torch.cat(parts)
        for kind, theirs in {"gamma": "weight", "beta": "bias"}.items():
            found[f"{side}/layer_norm/{kind}"] = own[f"model.{side}.layer_norm.{theirs}"]
        found[f"{side}/position_encodings/encodings"] = own[f"model.{side}.embed_positions.weight"]
    for conv in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            found[f"encoder/{conv}/{kind}"] = own[f"model.encoder.{conv}.{kind}"]
    return found | {"decoder/embeddings/weight": own["model.decoder.embed_tokens.weight"]}


def file_of(tensors: dict[str, Tensor]) -> bytes:
    def text(one: str) -> bytes:
        return struct.pack("<H", len(one) + 1) + one.encode() + b"\0"

    data = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(tensors) + 1)
    for name, tensor in tensors.items():
        data += text(name) + struct.pack(f"<B{tensor.dim()}I", tensor.dim(), *tensor.shape)
        data += struct.pack("<BI", 4, 2 * tensor.numel()) + tensor.half().numpy().tobytes()
    data += text("decoder/num_heads") + struct.pack("<BBIh", 0, 2, 2, 6)
    return data + struct.pack("<I", 1) + text("decoder/projection/weight") + text("decoder/embeddings/weight")


def test_a_file_gives_the_network_back(model: WhisperForConditionalGeneration) -> None:
    state = from_ctranslate2(read_ctranslate2(file_of(in_the_file(model))))
    again = made_of(state, head=16)
    assert len(matrices(again)) == 2 * 6 + 2 * 10
    heard, ids = torch.randn(1, 80, 3000), torch.tensor([[1, 2, 5]])
    with torch.no_grad():
        one, other = (net(input_features=heard, decoder_input_ids=ids).logits for net in (model, again))
    assert torch.equal(one, other)
    with pytest.raises(SystemExit, match="a CTranslate2 file of version 5: only 6 is read"):
        read_ctranslate2(struct.pack("<I", 5))


@pytest.fixture
def _words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids 5, 6, ... are the words a, b, ...; 1 and 2 come first, 3 ends, 7 is never written, 8 not at first."""

    class Words:
        def decode(self, ids: list[int]) -> str:
            return " ".join(chr(ord("a") + one - 5) for one in ids)

    def tokens(text: str) -> Tensor:
        return torch.tensor([1, 2, *(ord(one) - ord("a") + 5 for one in text.split()), END])

    monkeypatch.setattr(measure, "tokens", tokens)
    monkeypatch.setattr(measure, "tokenizer", Words)
    monkeypatch.setattr(measure, "suppressed", lambda: ([7], [8]))


@pytest.mark.usefixtures("_words")
def test_loss_and_greedy_words_are_those_of_whole_runs(model: WhisperForConditionalGeneration) -> None:
    rng = np.random.default_rng(0)
    said = Utterance("a b d", rng.normal(size=16_000).astype(np.float32), "")
    states = model.model.encoder(measure.features([said])).last_hidden_state
    ids = torch.tensor([[1, 2, 5, 6, 8, END]])
    with torch.no_grad():
        logits = model(encoder_outputs=(states,), decoder_input_ids=ids[:, :-1]).logits[0]
        loss = functional.cross_entropy(logits[1:], ids[0, 2:], reduction="sum")
    (found,) = written(model, [said])
    assert found.loss == pytest.approx(float(loss), rel=1e-5, abs=1e-5)
    assert (found.tokens, found.words) == (4, 3)
    chosen: list[int] = []
    with torch.no_grad():
        for _ in range(12):
            given = torch.tensor([[1, 2, *chosen]])
            row = model(encoder_outputs=(states,), decoder_input_ids=given).logits[0, -1]
            row[[7] if chosen else [7, 8]] = -torch.inf
            chosen.append(int(row.argmax()))
    made = greedy(model, states)
    upto = chosen.index(END) if END in chosen else len(chosen)
    assert made[:12] == chosen[:upto] and len(made) <= measure.MOST
    (silent,) = written(model, [said], silence=True, decode=False)
    assert silent.loss != found.loss and silent.errors == 3


def test_words_wrong_are_the_fewest_changes() -> None:
    assert word_errors(["a", "b", "c"], ["a", "b", "c"]) == 0
    assert word_errors(["a", "b", "c"], []) == 3
    assert word_errors([], ["a", "b"]) == 2
    assert word_errors(["a", "b", "c", "d"], ["b", "x", "d", "e"]) == 3


def test_layers_are_filled_in_and_left_out(model: WhisperForConditionalGeneration) -> None:
    name = "model.decoder.layers.1.fc1"
    layer = model.get_submodule(name)
    heard, ids = torch.randn(1, 80, 3000), torch.tensor([[1, 2, 5]])
    with torch.no_grad():
        other = filled(model, {name: DenseWeights(2 * layer.weight, layer.bias)})
        short = without(model, {"encoder": [0], "decoder": [0]})
        outputs = [net(input_features=heard, decoder_input_ids=ids).logits for net in (model, other, short)]
    assert not torch.allclose(outputs[0], outputs[1]) and not torch.allclose(outputs[0], outputs[2])
    assert torch.equal(short.model.decoder.layers[0].fc1.weight, layer.weight)
    assert len(model.model.encoder.layers) == 2 and len(short.model.encoder.layers) == 1
    assert short.model.decoder.layers[0].self_attn.layer_idx == 0


def test_a_passage_is_of_sentences_that_all_voices_say_alike() -> None:
    text = 'Headline of news\n\nFirst, a short one. It cost 5bn dollars. "Well," he said. Here is one.\n\nAnd another of words.'
    assert passage(text, 4) == "First, a short one."
    assert passage(text, 6) == "Here is one. And another of words."
    assert passage(text, 8) is None


def test_without_recordings_it_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no file '.*transcription': apt-get install pocketsphinx-testdata"):
        recordings(tmp_path)


def test_an_interval_weighs_what_it_draws() -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.normal(1, 0.2, 400), rng.uniform(1, 3, 400)
    low, high = mean_interval(values, weights)
    mean = float((values * weights).sum() / weights.sum())
    width = 1.96 * 0.2 * float(np.sqrt((weights**2).sum()) / weights.sum())
    assert (low, high) == pytest.approx((mean - width, mean + width), abs=0.004)


def row(method: str, cycles: int, losses: list[float]) -> dict[str, object]:
    """Ten utterances a set, ten tokens and five words each, one of which is wrong."""
    said = [[one, 10, 1, 5] for one in losses] * 5
    return {"method": method, "share": 0.5, "tiles": 0.5, "latency_cycles": cycles, "encoder_cycles": cycles // 2, "dram_bytes": 5 * cycles,
            "spoken": said, "recorded": said}  # fmt: skip


def test_tables_say_what_the_rows_do() -> None:
    rows = [row("dense", 1000, [5, 7]), row("low-rank-by-loss", 610, [9, 11]), row("lattice-by-loss", 600, [7, 9]),
            row("layers-dropped", 590, [6, 8]), row("layers-dropped", 700, [1, 1])]  # fmt: skip
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in speech_table(rows).splitlines()[2:]]
    assert lines[0][:8] == ["dense", "0.500", "1.000", "1.000", "1.000", "0.60", "", "20 (20-20)"]
    assert lines[3][:8] == [
        "low rank, by loss",
        "0.500",
        "0.610",
        "0.610",
        "0.610",
        "1.00",
        "+0.40 to +0.40",
        "20 (20-20)",
    ]
    rivals = [[cell.strip() for cell in line.strip("|").split("|")] for line in rivals_table(rows).splitlines()[2:]]
    assert [[one[2], one[3], one[4], one[6]] for one in rivals] == [
        ["layers dropped", "0.590", "+0.10", "rival"],
        ["low rank, by loss", "0.610", "-0.20", "lattice"],
    ]
