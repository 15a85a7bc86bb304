"""The command line as its users meet it: outputs, JSON, exit codes, one paragraph for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.tables.records import NetworkPoint, save_points
from gblr_hw.cli import main as cli
from gblr_hw.conversion.covariances import save_covariances
from gblr_hw.files.checkpoint import load_checkpoint, save_checkpoint
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.weights.stored import DenseWeights, LatticeWeights
from simulator.machine.machine import Machine

TRAIN = ("train", "-o", "x.safetensors", "--target-latency", "0.5x-dense")
REFERENCE = Path(__file__).parents[2] / "data" / "reference" / "no_gaussian_33x57.pt"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["gblr-hw", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = torch.nn.Sequential(GBLRLinear(40, 64, 20, gaussian=False), torch.nn.Linear(64, 96))
    save_checkpoint(model, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_from_checkpoint_to_report(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program, trace = checkpoint.with_name("net.program"), checkpoint.with_name("trace.json")
    assert run(monkeypatch, "lower", checkpoint, "--machine", "edge-16", "--tokens", 20, "-o", program) == 0
    assert "tile bound" in capsys.readouterr().out
    assert run(monkeypatch, "simulate", program, "--trace", trace, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["machine"] == "edge-16"
    assert report["latency_cycles"] == sum(layer["latency_cycles"] for layer in report["layers"])
    assert json.loads(trace.read_text())["traceEvents"]
    assert json.loads(trace.read_text())["otherData"]["program"] == "net"
    assert run(monkeypatch, "simulate", program) == 0
    assert "\nnet: " in capsys.readouterr().out
    assert run(monkeypatch, "show", program, "--listing") == 0
    assert capsys.readouterr().out.startswith("program tokens=20\nmachine {")
    assert run(monkeypatch, "show", checkpoint, "--json", "--map", checkpoint.with_name("map.png")) == 0
    assert [layer["family"] for layer in json.loads(capsys.readouterr().out)["layers"]] == ["gblr", "dense"]


def test_weights_of_narrow_bits(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine, program = tmp_path / "both.toml", tmp_path / "net.program"
    both = Machine.load("edge-16").with_(name="both", datatypes={"narrow_bits": 4})
    machine.write_text(both.to_toml(), encoding="utf-8")
    arguments = ("lower", checkpoint, "--tokens", 4, "--weight-bits", 4, "-o", program)
    assert run(monkeypatch, *arguments, "--machine", machine) == 0
    capsys.readouterr()
    assert run(monkeypatch, "simulate", program, "--json") == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert [layer["narrow_tiles"] for layer in layers] == [layer["tiles"] for layer in layers] != [0, 0]
    assert run(monkeypatch, "show", program, "--listing") == 0
    assert " narrow=" in capsys.readouterr().out
    assert run(monkeypatch, *arguments, "--machine", "edge-16") == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "weight_bits: found 4; machine 'edge-16' has tiles of 8 bits" in message


def test_published_layout_and_dumps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("lower", REFERENCE, "-o", tmp_path / "p", "--no-gaussian", "--dump-after", "choose_form")
    assert run(monkeypatch, *arguments) == 0
    assert capsys.readouterr().out.startswith("-- after choose_form\n")


def test_convert_meets_its_budget(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = checkpoint.with_name("lattice.safetensors")
    assert run(monkeypatch, "convert", checkpoint, "-o", out, "-m", "edge-16", "--tiles", 0.6, "--json") == 0
    (layer,) = json.loads(capsys.readouterr().out)["layers"]
    assert layer["tiles"] == int(0.6 * layer["dense_tiles"])
    assert 0 < layer["relative_error"] < 1
    assert (
        run(
            monkeypatch,
            "convert",
            checkpoint,
            "-o",
            out,
            "-m",
            "edge-16",
            "--tiles",
            0.6,
            "--family",
            "rank-groups",
            "--json",
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)["layers"][0]["tiles"] == layer["tiles"]


@pytest.mark.night
def test_convert_to_four_bits(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, machine, program = tmp_path / "out.safetensors", tmp_path / "both.toml", tmp_path / "a.program"
    both = Machine.load("edge-16").with_(name="both", datatypes={"narrow_bits": 4})
    machine.write_text(both.to_toml(), encoding="utf-8")
    arguments = ("convert", checkpoint, "-o", out, "-m", machine)
    assert run(monkeypatch, *arguments, "--weight-bits", 4, "--tiles", 1) == 0
    assert "their bits" in capsys.readouterr().out
    layer = load_checkpoint(out)["1"]
    assert isinstance(layer, LatticeWeights) and layer.grid is not None and layer.grid.bits == 4
    # Lowered without a word about bits, it runs in narrow tiles.
    assert run(monkeypatch, "lower", out, "--tokens", 4, "-o", program, "-m", machine) == 0
    capsys.readouterr()
    assert run(monkeypatch, "simulate", program, "--json") == 0
    one = json.loads(capsys.readouterr().out)["layers"][1]
    assert one["narrow_tiles"] == one["tiles"] > 0
    assert run(monkeypatch, *arguments, "--weight-bits", "choose", "--bytes", "0.7x-dense", "--json") == 0
    assert json.loads(capsys.readouterr().out)["layers"][0]["dense_bits"] == 4
    for bits, message in (
        ("1", "weight_bits: found 1; machine 'both' has tiles of 8 and 4 bits"),
        ("four", "--weight-bits: found 'four'; it is a number of bits, or choose"),
        ("choose", "bits: found 'choose' with a budget in tiles"),
    ):
        assert run(monkeypatch, *arguments, "--weight-bits", bits) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_convert_tells_its_family_by_one_name(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = checkpoint.with_name("out.safetensors")
    asked = [
        ("plain-32", (), "rank_groups", "rank groups"),
        ("mid-32", ("--family", "low-rank"), "low_rank", "low rank"),
    ]
    # The word of earlier releases is accepted.
    asked.append(("mid-32", ("--family", "block_low_rank"), "rank_groups", "rank groups"))
    for machine, options, family, label in asked:
        arguments = ("convert", checkpoint, "-o", out, "-m", machine, "--tiles", 0.9, *options)
        assert run(monkeypatch, *arguments) == 0
        assert f"{label}, written to {out}\n" in capsys.readouterr().out
        assert load_checkpoint(out)["1"].family == family
    assert run(monkeypatch, "show", out, "--json") == 0
    assert [layer["family"] for layer in json.loads(capsys.readouterr().out)["layers"]] == ["gblr", "rank_groups"]


def test_convert_with_moments_hidden_channels_and_a_work_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = torch.nn.ModuleDict(
        {
            name: torch.nn.Linear(*size)
            for name, size in {"b0_up": (32, 64), "b0_down": (64, 32), "head": (32, 8)}.items()
        }
    )
    source, out, moments = (tmp_path / f"{name}.safetensors" for name in ("net", "out", "moments"))
    save_checkpoint(model, source)
    save_covariances({"b0_up": np.diag(np.arange(1.0, 33.0))}, moments)
    arguments = (
        "convert", source, "-o", out, "-m", "edge-16", "--tiles", 0.5, "--exclude", "head", "--covariances", moments,
        "--hidden", "*_up=*_down", "--by-error", "--work", tmp_path / "work",
    )  # fmt: skip
    assert run(monkeypatch, *arguments) == 0
    assert "8 of 16 tiles (0.5000)" in capsys.readouterr().out
    first = out.read_bytes()
    assert run(monkeypatch, *arguments) == 0
    assert out.read_bytes() == first
    assert {name: weights.family for name, weights in load_checkpoint(out).items()} == {
        "b0_down": "lattice",
        "b0_up": "lattice",
        "head": "dense",
    }
    assert run(monkeypatch, *arguments[:-5], "--hidden", "*_up") == 2
    assert "PRODUCER=CONSUMER" in capsys.readouterr().err
    assert run(monkeypatch, "convert", source, "-o", out, "--hidden", "x=y") == 2
    assert "'x' must match a layer" in capsys.readouterr().err
    latency = ("--latency", "0.8x-dense", "--tokens", 64, "--exclude", "head", "-m", "edge-16", "--json")
    assert run(monkeypatch, "convert", source, "-o", out, *latency) == 0
    assert json.loads(capsys.readouterr().out)["machine"] == "edge-16"


def test_machines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(monkeypatch, "machine", "list", "--json") == 0
    names = [machine["name"] for machine in json.loads(capsys.readouterr().out)]
    assert names == ["cloud-128", "edge-16", "mid-32", "plain-32"]
    assert run(monkeypatch, "machine", "show", "mid-32") == 0
    (tmp_path / "mine.toml").write_text(capsys.readouterr().out)
    assert run(monkeypatch, "machine", "show", tmp_path / "mine.toml", "--json") == 0
    assert json.loads(capsys.readouterr().out)["array"]["rows"] == 32


def test_front(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    points = [
        NetworkPoint(name, "dense", accuracy, 10, "mid-32", cycles, cycles * 1e-9, 1.0)
        for name, accuracy, cycles in (("a", 0.9, 100), ("b", 0.8, 120), ("c", 0.7, 50))
    ]
    save_points(points, tmp_path / "points.json")
    assert run(monkeypatch, "front", tmp_path / "points.json", "-o", tmp_path / "f.png", "--json") == 0
    front = json.loads(capsys.readouterr().out)["mid-32"]
    assert [point["name"] for point in front] == ["c", "a"]


def test_names_of_others_do_not_act_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, monkey = "a\x1b[2J[red]b\x07", monkeypatch
    monkey.chdir(tmp_path)
    save_checkpoint({name: DenseWeights(torch.ones(16, 16)), "c": DenseWeights(torch.ones(8, 8))}, "c.safetensors")
    out = "p[red]x[bold].program"
    for command in (
        ("show", "c.safetensors"),
        ("lower", "c.safetensors", "-m", "edge-16", "-o", out),
        ("lower", "c.safetensors", "-m", "edge-16", "-o", out, "--dump-after", "choose_form"),
        ("show", out),
        ("show", out, "--listing"),
        ("simulate", out),
        ("simulate", out, "--json"),
        ("simulate", out, "--bars", "b.svg", "--timeline", "t.png", "--trace", "t.json"),
        ("convert", "c.safetensors", "-o", "x.safetensors", "-m", "edge-16", "--tiles", 1),
    ):
        assert run(monkey, *command) == 0
        said = "".join(capsys.readouterr())
        assert "[2J" in said, command
        assert not set("\x1b\x07") & set(said)
        if command[0] == "lower" and "--dump-after" not in command:
            assert f"written to {out}\n" in said
    assert run(monkey, "show", out, "--layer", "\x1b[31m") == 2
    assert "layer '\\x1b[31m': found no such layer; the program has the layers a\\x1b[2J" in capsys.readouterr().err


@pytest.mark.night
def test_training_towards_an_energy_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("train", "-o", tmp_path / "n.safetensors", "--family", "block_sparse", "--machine", "edge-16",
                 "--images", 1, "--epochs", 1, "--target-energy", "0.8x-dense", "--distil", 0.5, "--json",
                 "--whole-network", "--checkpoint", tmp_path / "run.pt")  # fmt: skip
    assert run(monkeypatch, *arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["energy_pj"] <= summary["target_pj"] == pytest.approx(0.8 * summary["dense_energy_pj"], abs=1)
    assert (summary["kind"], summary["measured"]) == ("block_sparse", "whole network")
    assert load_checkpoint(tmp_path / "n.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {"n.safetensors", "run.pt", "run.pt.dense"}
    assert run(monkeypatch, *arguments) == 0
    assert json.loads(capsys.readouterr().out) == summary


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would train")
def test_a_gpu_that_is_not_there_is_told_before_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *TRAIN, "--device", "cuda") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --device: found 'cuda' (")
    assert "; it is a device that torch has here: cpu, or cuda with an NVIDIA GPU" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lower", "none.pt"), "error: none.pt: found no such file"),
        (("lower", REFERENCE), "gaussian: found None; the published layout does not say"),
        (("lower", REFERENCE, "--no-gaussian", "-m", "big"), "error: machine 'big': found no such preset or file"),
        (("lower", REFERENCE, "--no-gaussian", "--dump-after", "x"), "error: --dump-after: found 'x'; the passes are"),
        (("lower", REFERENCE, "-o", "/none/p"), "error: output '/none/p': found no folder '/none'"),
        (("simulate", REFERENCE), "found a file that does not read"),
        (("convert", REFERENCE, "-o", "x.safetensors"), "gaussian: found None"),
        (("train", "-o", "x.safetensors"), "error: --target-latency: found nothing; the family 'hardware'"),
        (
            ("train", "-o", "x.safetensors", "--family", "odd"),
            "error: --family: found 'odd'; it must be one of dense, low",
        ),
        (("train", "-o", "x.safetensors", "--family", "rank-groups"), "nothing; the family 'rank_groups'"),
        (("train", "-o", "x.safetensors", "--family", "block_low_rank"), "nothing; the family 'rank_groups'"),
        (("train", "-o", "x.safetensors", "--data", "mnist"), "error: data set: found 'mnist'; it is one of digits"),
        (("train", "-o", "x.safetensors", "--target-latency", "fast"), "error: target latency: found 'fast'"),
        (("train", "-o", "x.safetensors", "--target-energy", "9"), "error: target energy: found '9'"),
        (
            ("train", "-o", "x.safetensors", "--target-latency", "0.5"),
            "error: target latency: found '0.5'; a number without a unit is of cycles, and no network runs in less than "
            "one. Write 0.5x-dense for that fraction of the dense network's latency.",
        ),
        (("train", "-o", "x.safetensors", "--target-latency", "0.5cycles"), "error: target latency: found '0.5cycles'"),
        ((*TRAIN, "--device", "zz"), "error: --device: found 'zz' (Expected one of cpu, cuda"),
        ((*TRAIN, "--device", "cpu:7"), "error: --device: found 'cpu:7' (there is one CPU device)"),
        (
            ("train", "-o", "x.safetensors", "--target-latency", "1cycles"),
            "error: target latency: found 1cycles (1 cycles); with nothing left in any linear layer the network still",
        ),
        (
            ("train", "-o", "x.safetensors", "--target-energy", "1e-300uJ", "--whole-network"),
            "error: target energy: found 1e-306J (1e-294 pJ); with nothing left in any linear layer the network still",
        ),
        ((*TRAIN, "--device", "meta"), "error: --device: found 'meta' ("),
        ((*TRAIN, "--device", "cpu:x"), "error: --device: found 'cpu:x' ("),
        ((*TRAIN, "--images", 65537), "error: images: found 65537; the machine works on 1 to 65536 at a time. Ask for"),
        ((*TRAIN, "--seed", -1), "error: Invalid value for '--seed'"),
        ((*TRAIN, "--seed", 2**32), "error: Invalid value for '--seed'"),
        ((*TRAIN, "--distil", "nan"), "error: Invalid value for '--distil'"),
        (("demo", "--seed", -1), "error: Invalid value for '--seed'"),
        (("lower", REFERENCE, "--tokens", 10**30), "error: Invalid value for '--tokens'"),
        (("lower", "--model", "mixer-s16", "--batch", 10**30), "error: Invalid value for '--batch'"),
        (("lower", "--model", "mixer-s16", "--random-weights", "--gblr", 0), "error: fraction: found 0.0; it lies in"),
        (("lower", REFERENCE, "--nope"), "error: No such option: --nope"),
        (
            ("train", "-o", "x.safetensors", "--target-energy", "9uJ", "--target-latency", "0.5x-dense"),
            "error: --target-energy: found '9uJ'; a run has one target",
        ),
    ],
)
def test_mistakes_are_one_paragraph_and_exit_code_2(
    arguments: tuple[object, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "code"), [(("lower",), 0), (("show",), 0), (("convert", "-m", "edge-16"), 0), (("codesign", "-m", "none"), 2)]
)  # fmt: skip
def test_what_a_refusal_of_a_checkpoint_advises_works_with_every_command_that_reads_one(
    command: tuple[str, ...],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"lut.weight": torch.ones(1000, 8), "w3": torch.ones(2, 8, 8), "fc.weight": torch.randn(32, 32)}, "c.pt")
    ways = ("--table", "lut", "--leave-out", "w3", "--transposed", "fc")
    out = () if command[0] in ("show", "codesign") else ("-o", "x.out")
    for given, said in ((0, "Say which: --table lut"), (2, "leave them out by name: --leave-out PATTERN")):
        assert run(monkeypatch, command[0], "c.pt", *ways[:given], *out, *command[1:]) == 2
        assert said in capsys.readouterr().err
    assert run(monkeypatch, command[0], "c.pt", *ways, *out, *command[1:]) == code
    told = capsys.readouterr()
    if code:
        assert "machine 'none'" in told.err
    else:
        assert "left out, looked up, not multiplied: lut.weight" in told.out
        assert "left out, as asked for: w3" in told.out


@pytest.mark.parametrize("name", ["run.pt", "run.pt.dense"])
def test_a_checkpoint_that_holds_no_run_is_told_before_anything_is_trained(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("trained")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gblr_hw.demo.single.train_network", never)
    torch.save({"fc.weight": torch.ones(2, 2)}, name)
    assert run(monkeypatch, *TRAIN, "--checkpoint", "run.pt") == 2
    assert f"checkpoint '{name}': found KeyError; it holds no training run. Delete it to" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("option", ["--max-area-mm2", "--max-energy-uj"])
@pytest.mark.parametrize("value", ["inf", "nan", "0"])
def test_bounds_of_a_search_are_positive_and_finite(
    option: str, value: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "codesign", checkpoint, option, value) == 2
    assert "; a bound is positive and finite. Give a positive number" in capsys.readouterr().err
