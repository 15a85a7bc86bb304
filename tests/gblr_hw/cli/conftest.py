"""What the command line's tests share: a run with its exit code and what it said, and files to run it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from analysis.tables.records import NetworkPoint, save_points
from gblr_hw.cli import main as cli
from gblr_hw.files.checkpoint import save_checkpoint
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.stored import DenseWeights
from simulator.machine.machine import Machine

Refusal = Callable[..., str]


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Run a command that must end with exit code 2 and one paragraph of under 1,000 characters: that paragraph."""

    def command(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["gblr-hw", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr().err
        assert stop.value.code == 2, (stop.value.code, said)
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert len(said) < 1000
        return said

    return command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a checkpoint of two dense layers, a program, a machine, points, a topology, a model."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    layers = {name: DenseWeights(torch.randn(16, 16)) for name in ("a", "b")}
    save_checkpoint(layers, "c.safetensors")
    lower(layers, Machine.load("edge-16"), tokens=4).save("p.program")
    Path("m.toml").write_text(Machine.load("edge-16").to_toml())
    save_points([NetworkPoint("n", "dense", 0.9, 10, "mid-32", 100, 1e-7, 1.0)], "points.json")
    Path("t.csv").write_text("Layer,M,N,K,\nfirst,20,70,40,\n")
    Path("net.py").write_text(
        "import torch\ndef build():\n    return torch.nn.Linear(6, 3), (torch.randn(4, 6),)\n", encoding="utf-8"
    )
    return tmp_path
