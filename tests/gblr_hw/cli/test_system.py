"""What the system refuses: full disks, rights, closed pipes, interruptions, memory; each is one paragraph, and nothing is
left behind.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gblr_hw.cli import app as cli_app
from gblr_hw.cli import main as cli
from tests.gblr_hw.cli.conftest import Refusal
from tests.gblr_hw.cli.test_outputs import WRITERS, listed

ROOT = Path(__file__).parents[3]


@contextmanager
def small_disk() -> Iterator[None]:
    """No file may have more than a few bytes: what a full disk looks like, without one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FAST = ("lower", "lower a model", "report", "trace", "timeline", "bars", "roofline", "map", "front", "convert")


@pytest.mark.parametrize("writer", FAST)
def test_a_full_disk_leaves_what_was_there(writer: str, folder: Path, refusal: Refusal) -> None:
    command, option, name = WRITERS[writer]
    if writer == "map":
        pytest.skip("its checkpoint has no blocks")
    if writer == "convert":
        command = (*command, "-m", "edge-16", "--tiles", "1")
    Path(name).write_text("old")
    before = listed(folder)
    with small_disk():
        said = refusal(*command, option, name)
    assert f"output '{name}': found '" in said
    assert "File too large" in said
    assert (
        "' when writing it; the system must let it be written whole; what was there before is kept. Free some" in said
    )
    assert listed(folder) == before


def test_a_full_disk_in_a_work_folder(folder: Path, refusal: Refusal) -> None:
    with small_disk():
        said = refusal(
            "convert", "c.safetensors", "-o", "x.safetensors", "-m", "edge-16", "--tiles", 1, "--work", "kept"
        )
    assert "output 'kept/" in said
    assert "File too large" in said
    assert [path for path in Path("kept").rglob("*") if path.is_file()] == []


def test_a_full_disk_behind_standard_output(folder: Path) -> None:
    for command in (("machine", "list"), ("simulate", "p.program", "--json"), ("simulate", "p.program")):
        with open("/dev/full", "w") as full:
            done = started(*command, stdout=full)
        said = done.communicate()[1]
        assert done.returncode == 2
        assert said.startswith("error: the system: found 'No space left on device'; the system must let the command")
        assert said.count("\n") == 1


def started(*arguments: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gblr_hw.cli.main", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, **options)  # type: ignore[call-overload, no-any-return]


def test_a_closed_pipe_is_no_error_of_ours(folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = started("machine", "list", stdout=write)
    os.close(write)
    assert done.communicate()[1] == ""
    assert done.returncode == 1


def test_files_that_may_not_be_read_or_written(folder: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for others than root, who may do anything."""
    with monkeypatch.context() as patched:
        patched.setattr(
            "simulator.base.files.os.access", lambda path, mode: mode == os.R_OK or Path(path).name != "p.program"
        )
        said = refusal("lower", "c.safetensors", "-o", "p.program")
        assert "output 'p.program': found a file that may not be written; an output is a file in a folder that" in said
        patched.setattr("simulator.base.files.os.access", lambda path, mode: mode == os.R_OK or Path(path) != folder)
        said = refusal("lower", "c.safetensors", "-o", "x.program")
        assert f"found the folder '{folder}', which may not be written" in said
        patched.setattr("simulator.base.files.os.access", lambda path, mode: mode == os.R_OK)
        said = refusal("convert", "c.safetensors", "-o", "x.safetensors", "--work", "new/work")
        assert "which may not be written; an output is" in said
        assert not Path("new").exists()
        patched.setattr("simulator.base.files.os.access", lambda path, mode: False)
        said = refusal("lower", "c.safetensors")
        assert "'c.safetensors' is not readable. Try `gblr-hw lower --help`." in said
    read = Path.read_text

    def refused(path: Path, *arguments: object, **options: object) -> str:
        if path.name == "m.toml":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.read_text", refused)
        said = refusal("machine", "show", "m.toml")
    assert "m.toml: found 'Permission denied' when opening it; a machine file must exist and be readable" in said


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError(5, "Input/output error", "x.bin"), 2, "error: 'x.bin': found 'Input/output error'; the system must let"),
        (OSError(36, "File name too long"), 2, "error: the system: found 'File name too long'; the system must let"),
        (MemoryError("Unable to allocate 16. GiB"), 2, "error: memory: found Unable to allocate 16. GiB; the work must"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you\ntried"), 2, "error: memory: found DefaultCPUA"),
    ],
)  # fmt: skip
def test_what_reaches_the_top_is_one_paragraph(
    error: Exception, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**options: object) -> None:
        raise error

    monkeypatch.setattr(cli_app, "app", fail)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == code
    said = capsys.readouterr().err
    assert said.startswith(message)
    assert said.count("\n") == 1


def test_other_errors_of_ours_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli_app, "app", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main()


# ---- interruption
# ---------------------------------------------------------------------------------------------------------------------


def interrupted(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def interrupted_in_a_kernel(*arguments: object, **options: object) -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as stop:
        raise SystemError("CPUDispatcher returned a result with an exception set") from stop


@pytest.mark.parametrize("how", [interrupted, interrupted_in_a_kernel])
def test_ctrl_c_in_a_command_says_so(
    how: Callable[..., None], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gblr_hw.lowering.pipeline.lower", how)
    monkeypatch.setattr("sys.argv", ["gblr-hw", "lower", "c.safetensors", "-o", "x.program"])
    before = listed(folder)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 130
    assert capsys.readouterr().err == "interrupted; files that were complete are kept\n"
    assert listed(folder) == before


WAITING = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == %r:
            print("here", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
sys.argv = ["gblr-hw", "machine", "list"]
from gblr_hw.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("module", "sent", "word", "code"),
    [
        ("simulator.base.errors", signal.SIGINT, "interrupted", 130),
        ("pydantic", signal.SIGINT, "interrupted", 130),
        ("gblr_hw.cli.commands.machine_command", signal.SIGINT, "interrupted", 130),
        ("gblr_hw.cli.commands.machine_command", signal.SIGTERM, "terminated", 143),
    ],
)
def test_a_signal_during_start_up_ends_with_a_word(module: str, sent: signal.Signals, word: str, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING % module], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert said == f"{word}; files that were complete are kept\n"


HALF_WRITTEN = """
import sys, time
import gblr_hw.cli.app as app
from simulator.base.files import replacing
def run():
    with replacing(sys.argv[1]) as file:
        file.write(b"half")
        file.flush()
        print("here", flush=True)
        time.sleep(60)
app.run = run
from gblr_hw.cli.main import main
main()
"""


def test_a_terminated_command_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HALF_WRITTEN, str(tmp_path / "one")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (143, "terminated; files that were complete are kept\n")
    assert not list(tmp_path.iterdir())


WRITING = """
import sys, time
from simulator.base.files import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("here", flush=True)
    time.sleep(60)
"""


def writer_of(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITING, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return process


def test_what_a_killed_run_left_goes_with_the_next_write_and_a_living_one_keeps_its_own(tmp_path: Path) -> None:
    from simulator.base.files import replacing

    living, dead = writer_of(tmp_path / "one"), writer_of(tmp_path / "two")
    dead.kill()
    dead.communicate()
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 2
    assert all(name.startswith(".gblr-hw-") and name.endswith(".tmp") for name in left)
    with replacing(tmp_path / "three") as file:
        file.write(b"whole")
    names = {path.name for path in tmp_path.iterdir()}
    assert "three" in names
    assert len(names) == 2  # and the living writer's
    living.send_signal(signal.SIGINT)
    living.communicate()
    assert [path.name for path in tmp_path.iterdir()] == ["three"]


def test_a_folder_without_locks_keeps_what_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from simulator.base import files

    def none(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    (tmp_path / ".gblr-hw-abc.tmp").mkdir()
    monkeypatch.setattr(files.fcntl, "flock", none)
    with files.replacing(tmp_path / "one") as file:
        file.write(b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"one", ".gblr-hw-abc.tmp"}
