"""``gblr-hw simulate --gemm`` and ``--topology``: on our machine, as SCALE-Sim counts, and every wrong combination."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gblr_hw.cli import main as cli
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.stored import DenseWeights
from simulator.machine.machine import Machine
from simulator.timing.simulate import simulate

TOPOLOGY = "Layer,M,N,K,\nfirst,20,70,40,\nsecond,5,8,33,\n"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["gblr-hw", "simulate", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    (tmp_path / "net.csv").write_text(TOPOLOGY, encoding="utf-8")
    return tmp_path / "net.csv"


@pytest.mark.parametrize(("name", "compute_cycles"), [("ws", 167_615), ("os", 139_439)])
def test_as_scalesim(
    name: str, compute_cycles: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--gemm", "197x768x768", "--array", "32x32", "--as", f"scalesim-{name}", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["compute_cycles"] == told["layers"][0]["compute_cycles"] == compute_cycles
    assert told["dataflow"] == name
    assert told["array"] == {"rows": 32, "cols": 32}
    assert told["formula"] == f"SCALE-Sim 3.0, {'weight' if name == 'ws' else 'output'} stationary"
    assert told["folds"] == (24 * 24 if name == "ws" else 7 * 24)
    assert told["utilisation"] == pytest.approx(197 * 768 * 768 / (compute_cycles * 1024))


def test_as_scalesim_takes_the_machines_array_and_sums_layers(
    topology: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--topology", topology, "--machine", "edge-16", "--as", "scalesim-ws", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [(layer["name"], layer["m"], layer["k"], layer["n"]) for layer in told["layers"]] == [
        ("first", 20, 40, 70),
        ("second", 5, 33, 8),
    ]
    # 3 x 5 folds of 48 + 20 - 2, and 3 x 1 of 48 + 5 - 2, each less 1.
    assert told["compute_cycles"] == 15 * 66 - 1 + 3 * 51 - 1
    assert run(monkeypatch, "--topology", topology, "-m", "edge-16", "--as", "scalesim-ws") == 0
    table = capsys.readouterr().out
    assert table.splitlines()[4].split()[:2] == ["total", "-"]
    assert "1,141" in table
    assert table.endswith("SCALE-Sim 3.0, weight stationary, 16 x 16: ceil(K/R) ceil(N/C) (2R + C + M - 2) - 1\n")


def test_as_scalesim_waits_for_neither_torch_nor_matplotlib() -> None:
    program = (
        "import sys; from gblr_hw.cli.shared.simulate_gemm import *; "
        "print_counted(read_gemms(['4x5x6'], None), choose_systolic_array('scalesim-os', None, '2x3'), 'x', False); "
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[3], capture_output=True)


def test_one_gemm_on_our_machine_is_the_ordinary_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.json"
    assert run(monkeypatch, "--gemm", "20x40x70", "--machine", "edge-16", "--json", "--trace", trace) == 0
    machine = Machine.load("edge-16")
    torch.manual_seed(0)
    program = lower({"20x40x70": DenseWeights(torch.randn(70, 40))}, machine, tokens=20)
    assert capsys.readouterr().out == simulate(program, machine).to_json()
    assert json.loads(trace.read_text())["traceEvents"]


def test_another_array_for_the_machine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--gemm", "20x40x70", "--array", "16x8", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["machine"], report["rows"], report["cols"], report["tiles"]) == ("mid-32-16x8", 16, 8, 3 * 9)


def test_an_array_with_more_lanes_than_the_machine_has_banks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--gemm", "20x140x70", "--array", "128x100", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["cols"], report["tiles"]) == (128, 100, 2)


def test_several_gemms_run_each_on_their_own(
    topology: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = []
    for text in ("20x40x70", "5x33x8"):
        assert run(monkeypatch, "--gemm", text, "--json") == 0
        alone.append(json.loads(capsys.readouterr().out)["latency_cycles"])
    assert run(monkeypatch, "--gemm", "20x40x70", "--gemm", "5x33x8", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [layer["latency_cycles"] for layer in told["layers"]] == alone
    assert told["latency_cycles"] == sum(alone)
    assert told["utilisation"] == pytest.approx((20 * 40 * 70 + 5 * 33 * 8) / (sum(alone) * 1024))
    assert run(monkeypatch, "--topology", topology) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table[2:5]] == ["first", "second", "total"]
    assert f"{sum(alone):,}" in table[4]
    assert table[-1].startswith("on mid-32 (32 x 32), each layer on its own; table cmos-45, ")


def test_a_head_with_more_outputs_than_parameters_fit_runs_in_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--gemm", "3x16x17000", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [layer["name"] for layer in report["layers"]] == ["3x16x17000[0:8512]", "3x16x17000[8512:17000]"]
    assert report["tiles"] == 17000 // 32 + 1
    assert sum(layer["multiplications"] for layer in report["layers"]) == 16 * 17000


def test_memory_is_worked_out_before_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], topology: Path
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("lowered")

    monkeypatch.setattr("gblr_hw.lowering.pipeline.lower", never)
    monkeypatch.setattr("simulator.base.memory.available_bytes", lambda: 2**34)
    assert run(monkeypatch, "--gemm", "1x65536x65536") == 2
    said = capsys.readouterr().err
    assert (
        "GEMM '1x65536x65536': found a matrix of 65536 x 65536, which takes some 28.0 GiB of memory; this com" in said
    )
    assert "has 16.0 GiB to give" in said
    monkeypatch.setattr("simulator.base.memory.available_bytes", lambda: 7 * 40 * 70 - 1)
    assert run(monkeypatch, "--topology", topology) == 2
    assert "GEMM 'first': found a matrix of 70 x 40" in capsys.readouterr().err


GEMM = ("--gemm", "4x5x6")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "error: simulate: found nothing to simulate; it takes one of a program, --gemm and --topology."),
        (("p", *GEMM), "error: simulate: found a program and --gemm; it takes one of"),
        ((*GEMM, "--topology", "t"), "error: simulate: found --gemm and --topology; it takes one of"),
        (
            ("p", "--array", "4x4"),
            "error: --array with a program: found nothing for it to act on; it acts with GEMMs. Leave it out.",
        ),
        (
            ("p", "--as", "scalesim-ws"),
            "error: --as with a program: found nothing for it to act on; it acts with GEMMs.",
        ),
        (("--as", "scalesim-ws"), "error: simulate: found nothing to simulate"),
        (("--gemm", "4x5"), "error: --gemm: found '4x5'; a GEMM is three whole numbers MxKxN"),
        (("--gemm", "4x5x6x7"), "error: --gemm: found '4x5x6x7'; a GEMM is three"),
        (("--gemm", "4x-5x6"), "error: --gemm: found '4x-5x6'; a GEMM is three"),
        (("--gemm", "4x5x99999999999"), "error: --gemm: found '4x5x99999999999'; a GEMM is three"),
        (("--gemm", "4x0x6", "--as", "scalesim-ws"), "error: GEMM '4x0x6': found K = 0; a size lies between 1 and"),
        (("--gemm", "4x0x6"), "error: GEMM '4x0x6': found K = 0; a size lies between 1 and"),
        (("--gemm", "4x200000x200000"), "error: layer: found 200000 outputs and 200000 inputs; its matrix may have"),
        (("--gemm", "2000000x5x6"), "error: tokens: found 2000000; it lies between 1 and"),
        ((*GEMM, "--array", "32"), "error: --array: found '32'; an array is two whole numbers"),
        ((*GEMM, "--array", "4x4x4"), "error: --array: found '4x4x4'; an array is two whole numbers"),
        ((*GEMM, "--array", "0x4", "--as", "scalesim-ws"), "error: array 0x4: found rows = 0; a size lies between"),
        ((*GEMM, "--array", "0x4"), "error: --array 0x4 on machine 'mid-32': found 0; Input should be greater than"),
        ((*GEMM, "--array", "256x256"), "error: --array 256x256 on machine 'mid-32': found values that do not fit"),
        ((*GEMM, "--as", "scalesim"), "error: --as: found 'scalesim'; it is one of scalesim-ws, scalesim-os,"),
        (
            (*GEMM, "--as", "scalesim-ws", "--array", "4x4", "-m", "mid-32"),
            "error: --as scalesim-ws: found both --array 4x4 and --machine mid-32; nothing but",
        ),
        (
            (*GEMM, "--as", "scalesim-ws", "--trace", "t.json", "--bars", "b.png"),
            "error: --trace with --as scalesim-ws: found nothing for it to act on; it acts with a program or one GEMM.",
        ),
        (
            (*GEMM, *GEMM, "--report", "r.json"),
            "error: --report with 2 GEMMs: found nothing for it to act on; it acts with a program or one GEMM.",
        ),
        (
            ("--topology", "none.csv"),
            "error: none.csv: found 'No such file or directory' when opening it; a topology must",
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
