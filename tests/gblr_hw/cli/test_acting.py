"""Options that can do nothing are refused, whatever the command; and those that act are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import typer

from gblr_hw.cli.app import _COMMANDS
from gblr_hw.cli.shared.acting import check_acting
from gblr_hw.conversion.covariances import save_covariances
from tests.gblr_hw.cli.conftest import Refusal
from tests.gblr_hw.cli.test_outputs import WRITERS, listed

OWN = ("lower", "--model", "net.py:build")
KNOWN = ("lower", "--model", "mixer-s16", "--random-weights")
GEMM = ("simulate", "--gemm", "4x5x6")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ((*OWN, "--tokens", 999), "--tokens with a model file: found nothing for it to act on; it acts with a checkpoint's"),
        ((*OWN, "--batch", 7), "--batch with a model file: found nothing for it to act on; it acts with a known network. L"),
        ((*OWN, "--past", 3), "--past with a model file: found nothing for it to act on; it acts with a known network"),
        ((*OWN, "--batch", 1), "--batch with a model file"),  # also where it says what is done anyway
        ((*OWN, "--seed", 1), "--seed with a model file: found nothing for it to act on; it acts with a known network or"),
        ((*OWN, "--random-weights"), "--random-weights with a model file: found nothing for it to act on; it acts with a"),
        ((*OWN, "--gaussian"), "--gaussian with a model file: found nothing for it to act on; it acts with a checkpoint"),
        ((*KNOWN, "--no-gaussian"), "--gaussian with a known network: found nothing for it to act on; it acts with a check"),
        (("lower", "--model", "minilm", "--random-weights"), "--random-weights with a known network: found nothing"),
        (("lower", "c.safetensors", "--gblr", 0.5), "--gblr with a checkpoint's layers: found nothing for it to act on"),
        (("lower", "c.safetensors", "--random-weights"), "--random-weights with a checkpoint's layers: found nothing"),
        (("lower", "c.safetensors", "--batch", 2), "--batch with a checkpoint's layers: found nothing for it to act on"),
        (("lower", "c.safetensors", "--past", 2), "--past with a checkpoint's layers: found nothing for it to act on"),
        (("lower", "c.safetensors", "--seed", 2), "--seed with a checkpoint's layers: found nothing for it to act on"),
        (("lower", "c.safetensors", "--treat", "a=free"), "--treat with a checkpoint's layers: found nothing for it to"),
        (("lower", "c.safetensors", "--model", "list"), "argument CHECKPOINT with --model list: found nothing for it to"),
        (("lower", "--model", "list", "-o", "x"), "--output with --model list: found nothing for it to act on"),
        (("lower", "--model", "list", "-m", "mid-32"), "--machine with --model list: found nothing for it to act on"),
        (("show", "p.program", "--map", "x.png"), "--map with a program: found nothing for it to act on; it acts with a c"),
        (("show", "p.program", "--gaussian"), "--gaussian with a program: found nothing for it to act on"),
        (("show", "c.safetensors", "--listing"), "--listing with a checkpoint: found nothing for it to act on; it acts wi"),
        (("show", "c.safetensors", "--layer", "a"), "c.safetensors: layers: found 'a'; a file of ours records what each"),
        (("show", "p.program", "--table", "a"), "--table with a program: found nothing for it to act on; it acts with a ch"),
        (("show", "p.program", "--layer", "a", "--layer", "b"), "--layer: found a and b; one layer of a program is printed"),
        (("convert", "c.safetensors", "-o", "x", "--leave-out", "a"), "c.safetensors: leave_out: found 'a'; a file of ours"),
        (("codesign", "c.safetensors", "--transposed", "a"), "c.safetensors: transposed: found 'a'; a file of ours records"),
        (("show", "p.program", "--listing", "--json"), "--json with a program and --listing: found nothing for it to act"),
        (("show", "p.program", "--layer", "a", "--json"), "--json with a program and --layer: found nothing for it to"),
        (("show", "p.program", "--layer", "a", "--listing"), "--layer: found it with --listing; one of them is printed"),
        (("simulate", "p.program", "--array", "4x4"), "--array with a program: found nothing for it to act on; it acts w"),
        ((*GEMM, "--as", "scalesim-ws", "--energy-table", "cmos-22"), "--energy-table with --as scalesim-ws: found nothing"),
        (("simulate", "p.program", "--as", "scalesim-ws"), "--as with a program: found nothing for it to act on"),
        (("simulate", "p.program", "--json", "--top", 3), "--top with a program and --json: found nothing for it to act"),
        (("simulate", "p.program", "--json", "--order", "cycles"), "--order with a program and --json: found nothing"),
        ((*GEMM, "--top", 1), "--top with one GEMM: found nothing for it to act on; it acts with a table of operators."),
        ((*GEMM, *GEMM[1:], "--bars", "x.png"), "--bars with 2 GEMMs: found nothing for it to act on; it acts with a pr"),
        ((*GEMM, "--as", "scalesim-os", "--report", "x.json"), "--report with --as scalesim-os: found nothing for it to"),
        (("front", "points.json", "--title", "Mine"), "--title with points: found nothing for it to act on; it acts with --output. L"),
        (("convert", "c.safetensors", "-o", "x", "--tokens", 4), "--tokens with a budget in tiles: found nothing for it"),
        (
            ("convert", "c.safetensors", "-o", "x", "--by-error", "--include", "a"),
            "--by-error with a budget in tiles: found nothing for it to act on; it acts with several layers",
        ),
        (
            ("convert", "c.safetensors", "-o", "x", "--exclude", "z*"),
            "exclude pattern 'z*': found no dense layer of that name in checkpoint 'c.safetensors'; dense layers are a, b",
        ),
        (("convert", "c.safetensors", "-o", "x", "--include", "a", "--include", "z"), "include pattern 'z': found no dense"),
        (("codesign", "c.safetensors", "--exclude", "z*"), "exclude pattern 'z*': found no dense layer of that name"),
        (
            ("codesign", "c.safetensors", "--covariances", "v.safetensors"),
            "--covariances 'v.safetensors': found none of a layer that is searched; such layers are a, b",
        ),
        (
            ("train", "-o", "x", "--family", "dense", "--target-latency", "0.5x-dense"),
            "--target-latency with the family 'dense': found nothing for it to act on; it acts with a family that is tr",
        ),
        (("train", "-o", "x", "--family", "dense", "--distil", 0.5), "--distil with the family 'dense': found nothing"),
        (
            ("train", "-o", "x", "--family", "gblr-published", "--distil", 0.5, "--target-latency", "0.5x-dense"),
            "--distil with the family 'gblr_published', which is trained from scratch: found nothing for it to act on",
        ),
        (("sweep", "c.safetensors", "--set", "tokens=1,2", "--batch", 2), "--batch with a checkpoint's layers: found nothing"),
        (("sweep", "c.safetensors", "--set", "tokens=1,2", "--seed", 2), "--seed with a checkpoint's layers: found nothing"),
        (("sweep", "c.safetensors", "--set", "tokens=1,2", "--sampler", "qmc"), "--sampler with a checkpoint's layers: found"),
        (("sweep", "c.safetensors", "--set", "tokens=1,2", "--tokens", 3), "--tokens: found --set tokens too; the points say"),
        (("sweep", "c.safetensors", "--set", "checkpoint=c.safetensors"), "arguments: found both or neither of a checkpoint"),
        (("sweep", "--model", "net.py:build", "--set", "batch=1,2"), "--set batch: found the model 'net.py:build'; a model's sizes"),
        (("sweep", "--set", "model=net.py:build", "--tokens", 2, "--set", "array.rows=4"), "--tokens with a model file: found nothing"),
        (("sweep", "--set", "tokens=1,2"), "arguments: found both or neither of a checkpoint and --model; there is one"),
        (("compare", "p.program"), "programs: found 1; two or more are compared"),
        (("compare", "p.program", "p.program"), "'p.program': found it twice; each program is named once"),
        (("compare", "p.program", "q.program", "--json", "--top", 3), "--top with --json: found nothing for it to act on"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_act_is_an_error(
    command: tuple[object, ...], message: str, folder: Path, refusal: Refusal
) -> None:
    save_covariances({"other": np.eye(16)}, Path("v.safetensors"))
    before = listed(folder)
    said = refusal(*command)
    assert f"error: {message}" in said
    assert listed(folder) == before


def test_a_table_that_lacks_an_option_fails() -> None:
    app = typer.Typer(add_completion=False)

    @app.command()
    def command(context: typer.Context, one: int = 0, two: int = 0) -> None:
        check_acting(context, ["anything"], {"one": ()})

    with pytest.raises(RuntimeError, match="the table and the command differ in two"):
        app([], standalone_mode=False)


# What each command does with its options that name files: read, or written through the gate of all outputs.
READ = {
    ("lower", "checkpoint"), ("show", "file"), ("simulate", "program"), ("simulate", "topology"), ("verify", "program"),
    ("convert", "checkpoint"), ("convert", "covariances"), ("codesign", "checkpoint"), ("codesign", "covariances"),
    ("codesign", "space_file"), ("front", "files"), ("sensitivity", "files"), ("advise", "checkpoint"), ("advise", "covariances"),
    ("sweep", "checkpoint"), ("compare", "programs"), ("report", "results"),
}  # fmt: skip
NAMES = {"--map": "block_map", "--dram-trace": "dram_trace"}
FOLDERS = {
    ("demo", "out"),
    ("convert", "work"),
    ("codesign", "work"),
    ("sweep", "work"),
    ("codesign", "machines"),
    ("verify", "cache"),
}


def functions() -> Iterator[tuple[str, Callable[..., None]]]:
    for name, (place, _) in _COMMANDS.items():
        module, attribute = place.split(":")
        found = getattr(import_module(f"gblr_hw.cli.commands.{module}"), attribute)
        for function in (
            [one.callback for one in found.registered_commands] if isinstance(found, typer.Typer) else [found]
        ):
            yield name, function


def test_every_option_that_names_a_file_is_known_here() -> None:
    """A new one has to be tried with what `test_outputs` tries, or named above."""
    found = set()
    for name, function in functions():
        for parameter, kind in get_type_hints(function).items():
            if any(Path in (part, *get_args(part)) for part in (kind, *get_args(kind))):
                found.add((name, parameter))
    written = {(command[0], NAMES.get(option, option[2:])) for command, option, _ in WRITERS.values()}
    assert found == READ | FOLDERS | written
