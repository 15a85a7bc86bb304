"""``gblr-hw convert --model``: a language model converted in order from the command line, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gblr_hw.cli import main as cli
from gblr_hw.conversion.fit.fit_whole import tiles_of
from gblr_hw.files.checkpoint import load_checkpoint
from gblr_hw.weights.stored import LatticeWeights

Refusal = Callable[..., str]

NET = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM

def build():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True, use_cache=False, attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if ".layers.1." in name and parameter.dim() == 2:
            parameter.data.mul_(6)
    return model, (torch.zeros(1, 8, dtype=torch.int64),)

def plain():
    return torch.nn.Linear(4, 4), (torch.zeros(1, 4),)

def batches():
    torch.manual_seed(1)
    for _ in range(3):
        yield {"input_ids": torch.randint(0, 64, (4, 16)), "labels": None}
"""


@pytest.fixture
def llama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET, encoding="utf-8")
    rng = np.random.default_rng(0)
    np.savez("ids.npz", input_ids=rng.integers(0, 64, (10, 16)))
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["gblr-hw", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


BLOCKS = ("--include", "model.layers.*.mlp.*")


def test_a_model_in_order(llama: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ("convert", "--model", "net.py:build", "--data", "net.py:batches", "-m", "edge-16", "--tiles", 0.6, *BLOCKS)
    ask = (*ask, "--by-loss", "--shrink", "auto", "--work", "work")
    assert run(monkeypatch, *ask, "-o", "a.safetensors", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert sum(row["tiles"] for row in told["layers"]) <= 0.6 * sum(row["dense_tiles"] for row in told["layers"])
    assert 0 < told["latency_cycles"] < told["dense_cycles"] and 0 < told["energy_pj"] < told["dense_energy_pj"]
    # What the second block does counts for much more.
    blocks = [sum(row["tiles"] for row in told["layers"] if f".{block}." in row["name"]) for block in (0, 1)]
    assert blocks[1] > blocks[0]
    found = load_checkpoint("a.safetensors")
    assert len(found) == 6
    assert all(isinstance(weights, LatticeWeights) for weights in found.values())
    # From what an interrupted run left in its folder comes the same file.
    next(iter(Path("work/lattice").iterdir())).unlink()
    assert run(monkeypatch, *ask, "-o", "b.safetensors") == 0
    assert Path("b.safetensors").read_bytes() == Path("a.safetensors").read_bytes()
    # It goes back into the model.
    capsys.readouterr()
    assert run(monkeypatch, "lower", "b.safetensors", "--model", "net.py:build", "--leave-out", "*", "-m", "edge-16",
               "-o", "b.program") == 0  # fmt: skip
    capsys.readouterr()
    assert run(monkeypatch, "simulate", "b.program", "--json") == 0
    assert json.loads(capsys.readouterr().out)["latency_cycles"] == told["latency_cycles"]


def test_in_order_as_python_does_with_warnings(
    llama: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gblr_hw import convert
    from gblr_hw.frontend.own_model import own_batches, own_model
    from simulator import Machine

    monkeypatch.setattr("gblr_hw.conversion.in_order.convert_model.BADLY", 0.05)
    ask = ("convert", "--model", "net.py:build", "--data", "net.py:batches", "-m", "edge-16", "--tiles", 0.95)
    ask += ("--family", "low-rank", "--include", "model.layers.0.mlp.*")
    assert run(monkeypatch, *ask, "-o", "a.safetensors", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    found = convert(
        own_model("net.py:build")[0], Machine.load("edge-16"), 0.95, batches=own_batches("net.py:batches"),
        names="model.layers.0.mlp.*", family="low-rank",
    )  # fmt: skip
    for name, weights in load_checkpoint("a.safetensors").items():
        assert torch.equal(weights.matrix(), found.weights[name].matrix())
    assert told["warnings"] == list(found.warnings) and found.warnings
    assert told["output_error"] == pytest.approx(found.output_error, abs=1e-9)


def test_alone_and_distilled(llama: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ask = (
        "convert",
        "--model",
        "net.py:build",
        "--calibrate",
        "ids.npz",
        "-m",
        "edge-16",
        "--tiles",
        0.7,
        *BLOCKS,
        "--alone",
    )
    assert run(monkeypatch, *ask, "-o", "a.safetensors") == 0
    said = capsys.readouterr().out
    assert said.count("of the dense model's") == 2 and "uJ" in said and "error of the model's output on the" in said
    assert "lattice, written to a.safetensors" in said
    assert run(monkeypatch, *ask, "--by-loss", "--distil", 4, "-o", "b.safetensors") == 0
    before, after = load_checkpoint("a.safetensors"), load_checkpoint("b.safetensors")
    for name, weights in before.items():
        other = after[name]
        assert isinstance(weights, LatticeWeights) and isinstance(other, LatticeWeights)
        assert not torch.equal(weights.matrix(), other.matrix())
    # Evenly, and where it counts.
    tiles = [{name: int(tiles_of(one, 16, 16)) for name, one in found.items()} for found in (before, after)]
    assert len({tiles[0][name] for name in tiles[0]}) < len({tiles[1][name] for name in tiles[1]})
    assert sum(tiles[1].values()) <= sum(tiles[0].values()) + 1


def test_what_is_refused(llama: Path, refusal: Refusal) -> None:
    np.savez("two.npz", input=np.zeros((3, 4)), other=np.zeros((3, 4)))
    np.savez("uneven.npz", input_ids=np.zeros((3, 4), np.int64), attention_mask=np.zeros((2, 4)))
    Path("bad.npz").write_text("nothing")
    model, out = ("--model", "net.py:build"), ("-o", "out.safetensors", "-m", "edge-16")
    for arguments, message in (
        ((*model, "--in-order"), "--data: found nothing; a model is converted on batches of its inputs"),
        (
            ("--model", "net.py:plain", "--data", "two.npz"),
            "--data 'two.npz': found 'other'; names are the model's inputs",
        ),
        ((*model, "--data", "uneven.npz"), "found input_ids (3, 4), attention_mask (2, 4); all arrays have as many"),
        ((*model, "--data", "bad.npz"), "--data 'bad.npz': found"),
        ((*model, "--data", "x.csv"), "--data: found 'x.csv'; it is a .npz or .safetensors file"),
        ((*model, "--data", "net.py:NET"), "data 'net.py:NET': found NET = NoneType"),
        ((*model, "--data", "ids.npz", "--in-order", "--shrink", "2"), "--shrink: found '2'; it is auto, or a share"),
        ((*model, "--data", "ids.npz", "--alone", "--shrink", "auto"), "--shrink with a model"),
        (
            (*model, "--data", "ids.npz", "--latency", "0.5x-dense"),
            "acts with each layer by itself (of a model: --alone)",
        ),
        ((*model, "--data", "ids.npz", "--alone", "--by-loss", "--by-error"), "--by-error with a model and --by-loss"),
        (("net.py", "--in-order"), "checkpoint"),
        ((), "arguments: found no checkpoint; there is a checkpoint or a --model"),
    ):
        assert message in " ".join(refusal("convert", *arguments, *out).split()), arguments
    assert not Path("out.safetensors").exists()
