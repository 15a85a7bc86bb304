"""Every option of every command that writes a file: what it may not write is refused before the work, and nothing is
lost.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from pathlib import Path

import pytest

from gblr_hw.cli import main as cli
from gblr_hw.files.checkpoint import load_checkpoint
from simulator.program.program import Program
from tests.gblr_hw.cli.conftest import Refusal

TRAIN = ("train", "--target-latency", "0.5x-dense")
# The command without its output, its option, a name that it takes.
WRITERS = {
    "lower": (("lower", "c.safetensors"), "--output", "x.program"),
    "lower a model": (("lower", "--model", "net.py:build"), "--output", "x.program"),
    "report": (("simulate", "p.program"), "--report", "x.json"),
    "trace": (("simulate", "p.program"), "--trace", "x.json"),
    "dram trace": (("simulate", "p.program", "--dram", "ddr4-3200"), "--dram-trace", "x.rw"),
    "timeline": (("simulate", "p.program"), "--timeline", "x.png"),
    "bars": (("simulate", "p.program"), "--bars", "x.png"),
    "roofline": (("simulate", "p.program"), "--roofline", "x.png"),
    "map": (("show", "c.safetensors"), "--map", "x.png"),
    "page": (("report", "points.json"), "--output", "x.html"),
    "front": (("front", "points.json"), "--output", "x.png"),
    "sensitivity": (("sensitivity", "points.json"), "--output", "x.png"),
    "convert": (("convert", "c.safetensors"), "--output", "x.safetensors"),
    "advise": (("advise", "c.safetensors"), "--output", "x.json"),
    "advise picture": (("advise", "c.safetensors"), "--picture", "x.png"),
    "sweep": (("sweep", "c.safetensors", "--set", "tokens=1,2"), "--output", "x.json"),
    "sweep picture": (("sweep", "c.safetensors", "--set", "tokens=1,2"), "--picture", "x.png"),
    "codesign": (("codesign", "c.safetensors"), "--output", "x.json"),
    "codesign picture": (("codesign", "c.safetensors"), "--picture", "x.png"),
    "train": (TRAIN, "--output", "x.safetensors"),
    "train checkpoint": ((*TRAIN, "--output", "y.safetensors"), "--checkpoint", "x.pt"),
    "verilog": (("machine", "verilog", "m.toml"), "--output", "x.v"),
}
PICTURES = (
    "timeline",
    "bars",
    "roofline",
    "map",
    "front",
    "codesign picture",
    "advise picture",
    "sweep picture",
    "sensitivity",
)
every = pytest.mark.parametrize("writer", list(WRITERS))


def listed(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@every
def test_no_device_pipe_socket_or_folder_is_replaced(writer: str, folder: Path, refusal: Refusal) -> None:
    command, option, name = WRITERS[writer]
    place = Path(f"place-{name}")
    place.mkdir()
    assert f"output '{place}': found a folder; an output is a regular file" in refusal(*command, option, place)
    place.rmdir()
    os.mkfifo(place)
    assert f"output '{place}': found a pipe; an output is a regular file" in refusal(*command, option, place)
    assert stat.S_ISFIFO(place.stat().st_mode)
    place.unlink()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(place))
        assert f"output '{place}': found a socket; an output is a regular" in refusal(*command, option, place)
    place.unlink()
    place.symlink_to("/dev/null")
    before = os.stat("/dev/null")
    assert f"output '{place}': found a device; an output is a regular file" in refusal(*command, option, place)
    assert "output '/dev/null': found a device" in refusal(*command, option, "/dev/null")
    assert os.stat("/dev/null") == before


@every
def test_a_folder_that_is_not_there_and_a_name_that_is_too_long(writer: str, folder: Path, refusal: Refusal) -> None:
    command, option, name = WRITERS[writer]
    before = listed(folder)
    assert "found no folder '" in refusal(*command, option, f"none/{name}")
    assert "found 'File name too long'; an output is" in refusal(*command, option, "n" * 300 + name)
    assert "found 'Not a directory'; an output is" in refusal(*command, option, f"m.toml/{name}")
    Path("loop").symlink_to("loop")
    assert "found 'Too many levels of symbolic links'" in refusal(*command, option, "loop")
    Path("loop").unlink()
    assert listed(folder) == before


@every
def test_an_input_is_never_replaced(writer: str, folder: Path, refusal: Refusal) -> None:
    command, option, _ = WRITERS[writer]
    source = next(
        part for part in ("c.safetensors", "p.program", "points.json", "net.py", "") if part in " ".join(command)
    )
    if not source:
        (source,) = ("m.toml",)
        command = command if "m.toml" in command else (*command, "--machine", "m.toml")
    ending = WRITERS[writer][2].rpartition(".")[2]
    if writer not in (
        "train",
        "train checkpoint",
        "lower",
        "lower a model",
        "convert",
        "verilog",
        "codesign",
        "report",
    ):
        # Pictures and traces have endings of their own: the input is given under such a name.
        renamed = f"{source}.{ending}" if source != "points.json" else source
        if writer in ("front", "sensitivity", "page"):
            assert re.search(r"found the ending '.json'; (pictures|pages) are \.", refusal(*command, option, source))
            return
        Path(source).rename(renamed)
        command = tuple(renamed if part == source else part for part in command)
        source = renamed
    before = listed(folder)
    for name in (source, f"./{source}", str(folder / source), "link", "hard"):
        if name == "link":
            name = f"link.{ending}"
            Path(name).symlink_to(source)
        if name == "hard":
            name = f"hard.{ending}"
            os.link(source, name)
        said = refusal(*command, option, name)
        assert "found the file of " in said
        assert "; an output never replaces what the same command reads. Give another name." in said
        Path(name).unlink() if name.startswith(("link", "hard")) else None
    assert listed(folder) == before


@pytest.mark.parametrize("writer", PICTURES)
def test_a_picture_of_another_ending_is_refused_before_the_work(writer: str, folder: Path, refusal: Refusal) -> None:
    command, option, _ = WRITERS[writer]
    said = refusal(*command, option, "x.gif")
    assert "x.gif: found the ending '.gif'; pictures are .png, .svg or .pdf files. Choose one of these endings." in said


def test_a_trace_has_its_endings(folder: Path, refusal: Refusal) -> None:
    said = refusal("simulate", "p.program", "--trace", "x.txt")
    assert "x.txt: found the ending '.txt'; traces are .json or .json.gz files" in said


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ("simulate", "p.program", "--report", "x.json", "--trace", "./x.json"),
            "--report and --trace: found one name, 'x.json'; each has a name of its own",
        ),
        (("simulate", "p.program", "--bars", "x.png", "--roofline", "x.png"), "--bars and --roofline: found one name"),
        (("codesign", "c.safetensors", "-o", "x.png", "--picture", "x.png"), "--output and --picture: found one name"),
        (("codesign", "c.safetensors", "-o", "w", "--work", "w"), "--output and --work: found one name, 'w'"),
        (("codesign", "c.safetensors", "--work", "w", "--machines", "w"), "--work and --machines: found one name, 'w'"),
        (("convert", "c.safetensors", "-o", "w", "--work", "w"), "--output and --work: found one name, 'w'"),
        ((*TRAIN, "-o", "x", "--checkpoint", "x"), "--output and --checkpoint: found one name, 'x'"),
        ((*TRAIN, "-o", "x.dense", "--checkpoint", "x"), "--output and --checkpoint's dense start: found one name"),
    ],
)
def test_one_name_for_two_outputs(command: tuple[str, ...], message: str, folder: Path, refusal: Refusal) -> None:
    before = listed(folder)
    assert message in refusal(*command)
    assert listed(folder) == before


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            (*("simulate", "p.program", "--energy-table", "e.toml"), "--report", "e.toml"),
            "--report 'e.toml': found the file of --energy-table;",
        ),
        (("simulate", "--topology", "t.csv", "--report", "t.csv"), "--report 't.csv': found the file of --topology;"),
        (
            ("simulate", "p.program", "-m", "m.toml", "--report", "m.toml"),
            "--report 'm.toml': found the file of --machine; an output never replaces what the same command reads",
        ),
        (
            ("convert", "c.safetensors", "--covariances", "v.safetensors", "-o", "v.safetensors"),
            "--output 'v.safetensors': found the file of --covariances;",
        ),
        (("codesign", "c.safetensors", "--space", "s.toml", "-o", "s.toml"), "found the file of --space;"),
        (
            ("codesign", "c.safetensors", "--work", ".", "-o", "measurements.json"),
            "--output 'measurements.json': found the file of the measurements in --work;",
        ),
        (
            ("codesign", "c.safetensors", "--machine", "m.toml", "--machines", "."),
            "--machines '.': found the folder of --machine 'm.toml'; the machines found are written there",
        ),
        (("lower", "c.program"), "--output 'c.program': found the file of the checkpoint"),
    ],
)
def test_other_inputs_are_kept_too(command: tuple[str, ...], message: str, folder: Path, refusal: Refusal) -> None:
    for name in ("v.safetensors", "s.toml", "c.program"):
        Path(name).write_text("mine")
    before = listed(folder)
    assert message in refusal(*command)
    assert listed(folder) == before


def test_links_are_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("real").mkdir()
    for name, target in (("to-old", "real/old"), ("to-new", "real/new")):
        Path(name).symlink_to(target)
    Path("real/old").write_text("old")
    for name in ("to-old", "to-new"):
        monkeypatch.setattr("sys.argv", ["gblr-hw", "lower", "c.safetensors", "-m", "edge-16", "-o", name])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 0
        assert Path(name).is_symlink()
        assert Program.load(Path("real") / name[3:]).tokens == 197
    assert len(load_checkpoint("c.safetensors")) == 2


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("demo",), "--out"),
        (("convert", "c.safetensors", "-o", "x.safetensors"), "--work"),
        (("codesign", "c.safetensors"), "--work"),
        (("codesign", "c.safetensors"), "--machines"),
        (("verify", "p.program"), "--cache"),
    ],
)
def test_folders_are_looked_at_before_the_work(
    command: tuple[str, ...], option: str, folder: Path, refusal: Refusal
) -> None:
    before = listed(folder)
    assert "folder 'm.toml': found a file; it is a folder that exists or can be made" in refusal(
        *command, option, "m.toml"
    )
    assert "folder 'm.toml/in': found a file 'm.toml'; it is a folder" in refusal(*command, option, "m.toml/in")
    assert "found 'File name too long'; it is a folder" in refusal(*command, option, "n" * 300)
    Path("dangling").symlink_to("nowhere")
    assert "folder 'dangling': found a file" in refusal(*command, option, "dangling")
    Path("dangling").unlink()
    assert listed(folder) == before
