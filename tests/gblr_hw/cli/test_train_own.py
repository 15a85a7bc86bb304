"""``gblr-hw train --model``: a module and loaders of one's own, brought to a latency, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gblr_hw.cli import main as cli

Refusal = Callable[..., str]

MINE = """
from pathlib import Path

import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 4)), (torch.zeros(64, 32),)

def _drawn(count):
    x = torch.randn(count, 32, generator=torch.Generator().manual_seed(count))
    return [(part, part[:, :4].argmax(1)) for part in x.split(32)]

def loaders():
    return _drawn(256), _drawn(128)

def squares():
    loss = lambda model, batch: ((model(batch[0]) - nn.functional.one_hot(batch[1], 4)) ** 2).mean()
    return _drawn(64), _drawn(32), loss

def one():
    return _drawn(64)

def endless():
    return iter(_drawn(64)), _drawn(32)

def empty():
    return _drawn(64), []

def unpaired():
    return [part for part, _ in _drawn(64)], _drawn(32)

def narrow():
    return [(part[:, :8], wanted) for part, wanted in _drawn(64)], _drawn(32)

class Failing:
    # Batches that fail in the third epoch, until a file says that they do so no more.
    def __init__(self):
        self.epoch = 0

    def __len__(self):
        return 4

    def __iter__(self):
        self.epoch += 1
        if self.epoch == 4 and not Path("mended").exists():  # the first batch was looked at before
            raise OSError("the disk is gone")
        drawn = _drawn(128)
        return iter([drawn[i] for i in torch.randperm(4).tolist()])

def failing():
    return Failing(), _drawn(64)

def vector():
    return _drawn(64), _drawn(32), lambda model, batch: model(batch[0])
"""
ASK = ("train", "--model", "mine.py:build", "-m", "edge-16", "--target-latency", "0.8x-dense", "-o", "net.safetensors")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE, encoding="utf-8")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["gblr-hw", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_an_own_model_meets_a_latency_and_lowers_to_it(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *ASK, "--data", "mine.py:loaders", "--epochs", 15, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["latency_cycles"] <= told["target_cycles"] < told["dense_latency_cycles"]
    assert told["held_out"]["accuracy"] > told["held_out_before"]["accuracy"] + 0.2
    assert told["held_out"]["loss"] < told["held_out_before"]["loss"] and len(told["training_losses"]) == 15
    lowering = ("lower", "net.safetensors", "--model", "mine.py:build", "-m", "edge-16", "-o", "net.program")
    assert run(monkeypatch, *lowering) == 0
    capsys.readouterr()
    assert run(monkeypatch, "simulate", "net.program", "--json") == 0
    assert json.loads(capsys.readouterr().out)["latency_cycles"] == told["latency_cycles"]


def test_a_loss_of_ones_own_is_what_is_told(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *ASK, "--data", "mine.py:squares", "--epochs", 1) == 0
    said = capsys.readouterr().out
    assert "held out: loss" in said and "accuracy" not in said
    assert "lower it with: gblr-hw lower net.safetensors --model mine.py:build -m edge-16" in said


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What stops it is an error of the loader's, told with its line; batches are drawn from PyTorch's generator."""
    ask = (*ASK, "--data", "mine.py:failing", "--epochs", 5)
    assert run(monkeypatch, *ask, "--checkpoint", "run.pt") == 2
    line = next(i for i, text in enumerate(MINE.splitlines(), start=1) if "the disk is gone" in text)
    assert f"data 'mine.py:failing', mine.py:{line}: found OSError: the disk is gone; " in capsys.readouterr().err
    kept = Path("run.pt").read_bytes()
    Path("mended").touch()
    assert run(monkeypatch, *ask, "--checkpoint", "run.pt", "--json") == 0
    resumed, losses = Path("net.safetensors").read_bytes(), json.loads(capsys.readouterr().out)["training_losses"]
    assert run(monkeypatch, *ask, "--json") == 0  # in one go
    assert losses == json.loads(capsys.readouterr().out)["training_losses"] and len(losses) == 5
    assert Path("net.safetensors").read_bytes() == resumed
    Path("run.pt").write_bytes(kept)
    assert run(monkeypatch, *ask, "--checkpoint", "run.pt", "--learning-rate", 0.01) == 2
    assert "checkpoint 'run.pt': found a run of lattice to" in capsys.readouterr().err
    Path("run.pt").write_bytes(b"no run")
    assert run(monkeypatch, *ask, "--checkpoint", "run.pt") == 2
    assert "it holds no run of a model of one's own. Delete it" in capsys.readouterr().err


def test_an_error_that_is_not_the_users_is_not_told_as_theirs(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gblr_hw.training import latency_target

    def broken(*arguments: object, **options: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(latency_target, "whole_hardware_of", broken)
    monkeypatch.setattr("sys.argv", ["gblr-hw", *ASK, "--data", "mine.py:loaders"])
    with pytest.raises(KeyError, match="ours"):
        cli.main()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--data with mine.py:build: found 'digits'; it is FILE.py:FUNCTION; the function takes nothing and returns"),
        (("--data", "mine.py:none"), "data 'mine.py:none': found none = NoneType; the function takes nothing"),
        (("--data", "other.py:loaders"), "data 'other.py:loaders': found no file 'other.py'"),
        (("--data", "mine.py:one"), "data 'mine.py:one': found list; the function takes nothing and returns (batches to"),
        (("--data", "mine.py:endless"), "data 'mine.py:endless': found training batches: list_iterator"),
        (("--data", "mine.py:empty"), "data 'mine.py:empty': found held-out batches: none"),
        (("--data", "mine.py:unpaired"), "data 'mine.py:unpaired': found a training batch of Tensor"),
        (("--data", "mine.py:narrow"), "data 'mine.py:narrow': training batch: found RuntimeError: mat1 and mat2"),
        (("--data", "mine.py:vector"), "the loss is one number, not (32, 4)"),
        (("--data", "mine.py:loaders", "--model", "vit-base"), "--model: found 'vit-base'; a model to train is FILE.py"),
        (("--data", "mine.py:loaders", "--family", "gblr"), "family: found 'gblr'; it must be one of low_rank"),
        (("--data", "mine.py:loaders", "--target-energy", "9uJ"), "--target-energy with --model: found nothing for it"),
        (("--data", "mine.py:loaders", "--target-latency", "1cycles"), "target: found 1; 6 tiles in replaced"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_told(
    options: tuple[object, ...], message: str, mine: Path, refusal: Refusal
) -> None:
    assert message in refusal(*ASK, *options)
    assert not Path("net.safetensors").exists()


def test_a_learning_rate_acts_with_a_model_only(mine: Path, refusal: Refusal) -> None:
    said = refusal("train", "-o", "x", "--target-latency", "0.6x-dense", "--learning-rate", 0.1)
    assert "--learning-rate with a family that is trained towards a target: found nothing for it to act on" in said
