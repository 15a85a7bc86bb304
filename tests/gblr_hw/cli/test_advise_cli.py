"""``gblr-hw advise``: checkpoints, models with their network around them, files, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gblr_hw.cli.main import main
from gblr_hw.files.checkpoint import save_checkpoint
from gblr_hw.weights.stored import DenseWeights
from tests.gblr_hw.cli.conftest import Refusal

WAYS = ("--way", "dense_int4", "--way", "low_rank", "--way", "block_sparse")


@pytest.fixture
def layers(folder: Path) -> Path:
    torch.manual_seed(1)
    u, v = torch.randn(64, 6), torch.randn(6, 64)
    save_checkpoint(
        {"up": DenseWeights(u @ v), "down": DenseWeights(v.T @ u.T + torch.randn(64, 64) / 8)}, "net.safetensors"
    )
    return folder


def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    monkeypatch.setattr("sys.argv", ["gblr-hw", "advise", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_a_checkpoint(layers, monkeypatch, capsys):
    text = told(monkeypatch, capsys, "net.safetensors", "-m", "edge-16", "--tokens", "1,256", "--error", "0.15", *WAYS)
    assert "1 token, 4.2 GB/s: dense, 4 bits with 0." in text
    assert "256 tokens, 4.2 GB/s: low rank with 0." in text
    assert "closed forms beside the simulator" in text


def test_files_are_the_same_every_time(layers, monkeypatch, capsys):
    for name in ("first", "second"):
        told(
            monkeypatch, capsys, "net.safetensors", "--tokens", "1,256", "--no-simulate", *WAYS, "--tiles", "0.5",
            "-o", f"{name}.json", "--picture", f"{name}.png",
        )  # fmt: skip
    for ending in ("json", "png"):
        assert Path(f"first.{ending}").read_bytes() == Path(f"second.{ending}").read_bytes()
    document = json.loads(Path("first.json").read_text())
    assert [regime["tokens"] for regime in document["regimes"]] == [1, 256]
    assert document["simulated"] == []


def test_a_model_runs_whole(layers, monkeypatch, capsys):
    Path("mine.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef build():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64)), (torch.randn(40, 64),)\n"
    )
    text = told(monkeypatch, capsys, "--model", "mine.py:build", "--tiles", "0.5", *WAYS, "--json")
    document = json.loads(text)
    assert document["activations_on_chip"]
    dense = next(one for one in document["simulated"] if one["way"] == "dense_int8")
    assert dense["latency_cycles"] == pytest.approx(dense["closed_form"], rel=0.2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tokens", "0"], "whole numbers from 1"),
        (["--tokens", "1,x"], "whole numbers from 1"),
        (["--bandwidth", "-3"], "GB/s above 0"),
        (["--by", "price"], "latency, energy, bytes"),
        (["--error", "0.1", "--tiles", "0.5"], "compared at one of them"),
        (["--error", "7"], "to below 1"),
        (["--way", "low rank"], "dense_int8"),
        (["--random-weights"], "acts with --model"),
        (["--include", "zz*"], "no dense layer of that name"),
        (["--picture", "map.gif"], "png"),
        (["-o", "net.safetensors"], "never replaces"),
        (["--narrow-bits", "3"], "narrow_bits"),
        (["--narrow-bits", "0"], "no narrow tiles"),
        (["--jobs", "2", "--scheduler", "tcp://127.0.0.1:1"], "one of them says where work is done"),
    ],
)
def test_bad_input(layers, refusal: Refusal, options, said):
    assert said in refusal("advise", "net.safetensors", *options)


def test_a_model_of_given_inputs_takes_no_tokens(layers, refusal: Refusal):
    assert "its own example inputs" in refusal("advise", "--model", "net.py:build", "--tokens", "4", "--tiles", "0.5")


def test_random_weights_have_no_error(layers, refusal: Refusal):
    assert "errors of random weights" in refusal("advise", "--model", "transformers:gpt2", "--random-weights")


def test_nothing_to_compare(layers, refusal: Refusal):
    assert "neither a checkpoint nor --model" in refusal("advise")
