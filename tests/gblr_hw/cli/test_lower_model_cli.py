"""``gblr-hw lower --model``: known networks and the user's own, weights, unknown operations, bad input."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gblr_hw import GBLRLinear, save_checkpoint
from gblr_hw.cli.main import main
from simulator.numbers.execute_network import execute_network
from simulator.program.program import Program

_MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(6, 10), nn.LayerNorm(10), nn.Linear(10, 3)

    def forward(self, x):
        return self.second(torch.relu(self.norm(self.first(x))))

class Odd(Net):
    def forward(self, x):
        return super().forward(torch.special.bessel_j0(x))

def build():
    torch.manual_seed(0)
    return Net(), (torch.randn(4, 6),)

def odd():
    return Odd(), (torch.randn(4, 6),)

class Scaled(Net):
    def forward(self, x, *, scale, shift=None):
        x = x * scale
        return super().forward(x if shift is None else x + shift)

def scaled():
    torch.manual_seed(0)
    return Scaled(), (torch.randn(4, 6),), {"scale": torch.randn(6), "shift": torch.randn(4, 6)}

def halves():
    model, inputs = build()
    with torch.no_grad():
        model.second.weight[:, :] = 0
    return model, inputs

def named():
    return Scaled(), (torch.randn(4, 6),), {3: torch.randn(6)}

def nothing():
    return 3
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(_MODEL)
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def command(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["gblr-hw", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0)

    return command


def test_a_model_of_ones_own_is_lowered_and_simulated(run, model: Path, tmp_path: Path, capsys) -> None:
    target = tmp_path / "net.program"
    assert run("lower", "--model", f"{model}:build", "-o", target) == 0
    assert "3 operators, " in capsys.readouterr().out
    assert run("simulate", target, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [layer["kind"] for layer in report["layers"]].count("linear") == 2


def test_json_names_operators_and_tiles(run, model: Path, tmp_path: Path, capsys) -> None:
    assert run("lower", "--model", f"{model}:build", "-o", tmp_path / "net.program", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["tiles"] == 2
    assert [layer["form"] for layer in summary["layers"]] == ["dense", "vector", "dense"]


def test_the_graph_and_its_groups_are_printed_on_request(run, model: Path, tmp_path: Path, capsys) -> None:
    target = tmp_path / "net.program"
    run("lower", "--model", f"{model}:build", "-o", target, "--dump-after", "network", "--dump-after", "fuse_groups")
    out = capsys.readouterr().out
    assert "linear first -> " in out
    assert "group of 3: first .. second, 4 rows in blocks of 4, weights stay" in out


def test_a_checkpoint_fills_the_model_with_gblr_layers(run, model: Path, tmp_path: Path, capsys) -> None:
    torch.manual_seed(1)
    layer = GBLRLinear(6, 10, 4).eval()
    save_checkpoint({"first": layer.weights(), "second": GBLRLinear(10, 3, 2).weights()}, tmp_path / "c.safetensors")
    target = tmp_path / "net.program"
    command = ("lower", tmp_path / "c.safetensors", "--model", f"{model}:build", "-o", target)
    assert run(*command) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "nothing for 2 parameters, of which norm.bias, norm.weight; every parameter of the model has a value" in told
    assert "let them keep what the model's code gives them: --leave-out PATTERN." in told
    assert not target.exists()
    assert run(*command, "--leave-out", "norm.*") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "not in the checkpoint, with the values of the model's code: norm.bias, norm.weight" in told
    program = Program.load(target)
    assert [one.name for one in program.layers if one.form != "vector"] == ["first", "second"]
    x = np.random.default_rng(0).normal(size=(4, 6))
    (found,) = execute_network(program, {program.network.inputs[0].name: x}).values()
    assert found.shape == (4, 3)
    assert program.layers[0].multiplications <= 4 * 16


def test_a_plain_checkpoint_fills_norms_too(run, model: Path, tmp_path: Path) -> None:
    state = {"first.weight": torch.zeros(10, 6), "first.bias": torch.zeros(10), "norm.weight": torch.zeros(10),
             "norm.bias": torch.ones(10), "second.weight": torch.ones(3, 10), "second.bias": torch.zeros(3)}  # fmt: skip
    save_file(state, tmp_path / "c.safetensors")
    target = tmp_path / "net.program"
    assert run("lower", tmp_path / "c.safetensors", "--model", f"{model}:build", "-o", target) == 0
    program = Program.load(target)
    (found,) = execute_network(program, {program.network.inputs[0].name: np.ones((4, 6))}).values()
    assert np.array_equal(found, np.full((4, 3), 10.0))


def test_every_tensor_and_parameter_is_accounted_for(run, model: Path, tmp_path: Path, capsys) -> None:
    state = {"net.first.weight": torch.zeros(10, 6), "net.first.bias": torch.zeros(10), "net.norm.weight": torch.zeros(10),
             "net.norm.bias": torch.ones(10), "net.last.weight": torch.ones(3, 10), "net.last.bias": torch.zeros(3),
             "net.loss.weight": torch.ones(2, 2)}  # fmt: skip
    save_file(state, tmp_path / "c.safetensors")
    target = tmp_path / "net.program"
    command = ("lower", tmp_path / "c.safetensors", "--model", f"{model}:build", "-o", target)
    assert run(*command) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert (
        "found 3 tensors that the model has no place for (29.1 % of the file's weights): last.bias, last.weight" in told
    )
    assert run(*command, "--rename", "net.last.=net.second.", "--leave-out", "loss.*") == 0
    (found,) = execute_network(
        Program.load(target), {Program.load(target).network.inputs[0].name: np.ones((4, 6))}
    ).values()
    assert np.array_equal(found, np.full((4, 3), 10.0))
    target.unlink()
    assert run(*command, "--rename", "net.last.=net.second.", "--leave-out", "nothing.*") == 2
    assert (
        "--leave-out 'nothing.*': found no tensor without a place in the model, and no parameter"
        in capsys.readouterr().err
    )
    assert run(*command, "--table", "first") == 2
    assert "it acts with a checkpoint's layers" in capsys.readouterr().err
    assert run("lower", tmp_path / "c.safetensors", "--rename", "a=b") == 2
    assert "it acts with a model's checkpoint" in capsys.readouterr().err
    assert not target.exists()


def test_a_checkpoint_alone_tells_what_it_leaves_out(run, tmp_path: Path, capsys) -> None:
    state = {"wte.weight": torch.ones(50, 8), "fc.weight": torch.ones(4, 8), "experts.w": torch.ones(2, 8, 8)}
    save_file(state, tmp_path / "c.safetensors")
    target = tmp_path / "c.program"
    assert run("lower", tmp_path / "c.safetensors", "-o", target) == 2
    assert "1 tensors that no layer accounts for, 22.9 % of the weights: experts.w (2, 8, 8)" in capsys.readouterr().err
    assert run("lower", tmp_path / "c.safetensors", "-o", target, "--leave-out", "experts.*", "--json") == 0
    told = json.loads(capsys.readouterr().out)["left_out"]
    assert told == [
        "left out, looked up, not multiplied: wte.weight (71.4 % of the file's weights)",
        "left out, as asked for: experts.w (22.9 % of the file's weights)",
    ]


def test_a_shape_that_padding_hides_is_told(run, tmp_path: Path, capsys) -> None:
    state = {"fc.blkdiag1": torch.ones(2, 2, 3), "fc.blkdiag2": torch.ones(2, 4, 2), "head.weight": torch.ones(4, 8)}
    path, target = tmp_path / "c.safetensors", tmp_path / "c.program"
    save_file(state, path)
    assert run("lower", path, "-o", target, "--shape", "fc=7x5") == 0
    assert [(one.out_features, one.in_features) for one in Program.load(target).layers] == [(7, 5), (4, 8)]
    capsys.readouterr()
    assert run("show", path, "--shape", "fc=7x5", "--json") == 0
    assert json.loads(capsys.readouterr().out)["layers"][0]["out_features"] == 7
    assert run("show", path, "--shape", "fc=7") == 2
    assert "--shape: found 'fc=7'; it is NAME=OUTxIN. Write such a pair" in capsys.readouterr().err
    assert run("lower", path, "-o", target, "--shape", "head=4x8") == 2
    assert "only factors that are padded do not say their layer's shape" in capsys.readouterr().err


def test_an_onnx_model_is_lowered_whole(run, tmp_path: Path, capsys) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    weight = onnx.numpy_helper.from_array(np.eye(6, 4, dtype=np.float32), "fc.weight")
    values = [helper.make_tensor_value_info(name, 1, ["rows", size]) for name, size in (("x", 6), ("y", 4))]
    nodes = [helper.make_node("MatMul", ["x", "fc.weight"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weight])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(tmp_path / "net.onnx")
    )
    target = tmp_path / "net.program"
    assert run("lower", tmp_path / "net.onnx", "--size", "x.0=3", "-o", target) == 0
    program = Program.load(target)
    assert program.layers[0].name == "fc"
    (found,) = execute_network(program, {program.network.inputs[0].name: np.full((3, 6), -1.0)}).values()
    assert np.array_equal(found, np.zeros((3, 4)))
    for given, message in (("x.0", "it is INPUT.AXIS=N or AXIS=N"), ("rows=3", "it is INPUT.AXIS=N or AXIS=N")):
        assert run("lower", tmp_path / "net.onnx", "--size", given) == 2
        assert message in capsys.readouterr().err
    save_file({"fc.weight": torch.ones(3, 4)}, tmp_path / "c.safetensors")
    assert run("lower", tmp_path / "c.safetensors", "--size", "x.0=3") == 2
    assert "it acts with an ONNX model" in capsys.readouterr().err


def test_an_unknown_operation_names_its_line_and_can_be_treated(run, model: Path, tmp_path: Path, capsys) -> None:
    target = tmp_path / "net.program"
    assert run("lower", "--model", f"{model}:odd", "-o", target) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "aten.special_bessel_j0.default" in told
    assert re.search(r"net.py:1[0-9]: return super\(\).forward\(torch.special.bessel_j0\(x\)\)", told)
    assert "--treat" in told
    assert not target.exists()
    assert (
        run("lower", "--model", f"{model}:odd", "-o", target, "--treat", "aten.special_bessel_j0.default=vector") == 0
    )
    assert target.exists()


def test_keyword_arguments_are_inputs(run, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "net.program"
    assert run("lower", "--model", f"{model}:scaled", "-o", target) == 0
    program = Program.load(target)
    assert program.network is not None
    assert [port.name for port in program.network.inputs] == ["x", "scale", "shift"]
    scope: dict[str, Any] = {}
    exec(model.read_text(), scope)  # the same model
    net, (x,), named = scope["scaled"]()
    with torch.no_grad():
        wanted = net.eval()(x, **named).numpy()
    found = execute_network(program, {"x": x.numpy(), **{key: value.numpy() for key, value in named.items()}})
    np.testing.assert_allclose(found["output"], wanted, atol=1e-6)


def test_tiles_of_zeros_are_left_out_if_asked(run, model: Path, tmp_path: Path) -> None:
    counts = {}
    for option in ((), ("--drop-zeros",)):
        target = tmp_path / f"net{len(option)}.program"
        assert run("lower", "--model", f"{model}:halves", "-o", target, *option) == 0
        program = Program.load(target)
        counts[option] = program.tile_count, program.provenance.get("dropped", "")
    assert counts[()] == (2, "")
    assert counts["--drop-zeros",] == (1, "second: 1 of 1 tiles")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "vit-huge", "--random-weights"], "network: found 'vit-huge'; it is one of transformers:google/vit"),
        (["--model", "mixer-s16"], "model 'mixer-s16': found no weights; nothing is fetched"),
        (["--model", "{model}:named"], "named = tuple; the function takes nothing and returns (nn.Module, example inputs) or"),
        (["--model", "absent.py:build"], "model 'absent.py:build': found no file 'absent.py'; it is FILE.py:FUNCTION"),
        (["--model", "{model}:nothing"], "nothing = int; the function takes nothing and returns"),
        (["--model", "{model}:absent"], "absent = NoneType"),
        (["--model", "{model}:build", "--treat", "relu=gone"], "--treat: found 'relu=gone'; it is NAME=free or NAME=vector"),
        (["--model", "{model}:build", "--dump-after", "emit"], "--dump-after: found 'emit'; the passes are network"),
        (["--model", "{model}:build", "--gblr", "1.5"], "fraction: found 1.5; it lies in (0, 1]"),
        ([], "arguments: found no checkpoint; there is a checkpoint or a --model"),
    ],
)  # fmt: skip
def test_mistakes_are_told(
    run, arguments: list[str], message: str, model: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("lower", *(argument.format(model=model) for argument in arguments)) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_checkpoint_of_another_model_is_refused(run, model: Path, tmp_path: Path, capsys) -> None:
    save_checkpoint(nn.Sequential(nn.Linear(6, 10)), tmp_path / "c.safetensors")
    assert run("lower", tmp_path / "c.safetensors", "--model", f"{model}:build") == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "layer '0': found no such layer in the model; it has first, second" in told
    save_file({"first.weight": torch.ones(10, 7)}, tmp_path / "d.safetensors")
    assert run("lower", tmp_path / "d.safetensors", "--model", f"{model}:build") == 2
    assert "tensor 'first.weight': found shape (10, 7); the model's has shape (10, 6)" in " ".join(
        capsys.readouterr().err.split()
    )
