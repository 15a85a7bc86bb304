"""Files that are replaced whole: what they may be, what rights they have, and that nothing is lost."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from simulator.base.errors import InputError
from simulator.base.files import FileKind, output_folder, read_text, replacing, replacing_named


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_has_the_rights_of_any_new_file_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    usual = mode_of(tmp_path / "plain")
    for path in (tmp_path / "direct", tmp_path / "by name"):
        written(path)
        assert mode_of(path) == usual
        path.chmod(0o751)
        written(path)
        assert mode_of(path) == 0o751
    assert len(list(tmp_path.iterdir())) == 3


def written(path: Path) -> None:
    if path.name == "direct":
        with replacing(path) as file:
            file.write(b"new")
    else:
        with replacing_named(path) as scratch:
            scratch.unlink()
            scratch.write_bytes(b"new")
            scratch.chmod(0o600)  # as the safetensors library leaves it
    assert path.read_bytes() == b"new"


def test_the_file_that_standard_output_goes_to_is_not_replaced(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w") as log:
        old = os.dup(1)
        os.dup2(log.fileno(), 1)
        try:
            for name in (tmp_path / "log", Path("/dev/stdout"), Path("/proc/self/fd/1")):
                told = "found the file that standard output or standard error goes to"
                with pytest.raises(InputError, match=told), replacing(name):
                    raise AssertionError("opened")
        finally:
            os.dup2(old, 1)
            os.close(old)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_an_error_of_the_block_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "out"):
        (tmp_path / "absent").read_bytes()
    told = "output '.*out': found 'No space left on device' when writing it"
    with pytest.raises(InputError, match=told), replacing(tmp_path / "out"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_writes_within_a_write_do_not_disturb_each_other(tmp_path: Path) -> None:
    with replacing(tmp_path / "one") as first, replacing(tmp_path / "two") as second:
        first.write(b"1")
        second.write(b"2")
    assert (tmp_path / "one").read_bytes() + (tmp_path / "two").read_bytes() == b"12"


def test_kinds_of_files_are_told_by_their_endings(tmp_path: Path) -> None:
    kind = FileKind("traces", (".json", ".json.gz"))
    assert kind.ending("A.JSON") == ".json"
    assert kind.ending(tmp_path / "a.json.gz") == ".json.gz"
    for name in ("a", "json", "a.gz", "a.json.bz2"):
        with pytest.raises(InputError, match=r"traces are .json or .json.gz files. Choose one of these endings."):
            kind.ending(name)


def test_folders_are_made_or_only_looked_at(tmp_path: Path) -> None:
    wanted = tmp_path / "a" / "b"
    assert output_folder(wanted, make=False) == wanted
    assert list(tmp_path.iterdir()) == []
    assert output_folder(wanted) == wanted
    assert wanted.is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(
        InputError, match="folder '.*file/in': found a file '.*file'; it is a folder that exists or can"
    ):
        output_folder(tmp_path / "file" / "in")


def test_texts_are_utf8(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"a\xffb")
    with pytest.raises(
        InputError, match="t: found byte 0xff at position 1; a list must be UTF-8 text. Save it as UTF-8"
    ):
        read_text(tmp_path / "t", "a list")
    (tmp_path / "t").write_bytes(b"\xef\xbb\xbfab")
    assert read_text(tmp_path / "t") == "ab"


def test_texts_are_regular_files_of_some_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device or a pipe may never end, and is waited for."""
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path, "folder"), (tmp_path / "pipe", "pipe"), (Path("/dev/zero"), "device")):
        with pytest.raises(InputError, match=f"{path}: found a {kind}; a list must be a regular file. Save it as one."):
            read_text(path, "a list")
    (tmp_path / "t").write_bytes(b"abc")
    monkeypatch.setattr("simulator.base.files._MOST_TEXT", 2)
    with pytest.raises(InputError, match=r"t: found 3 bytes; a list has at most 2\. Check that it is the right file"):
        read_text(tmp_path / "t", "a list")
