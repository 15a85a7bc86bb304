"""Programs on disk: exact round trip, equal bytes for equal programs, and damage of any kind refused without a trace."""

from __future__ import annotations

import json
import os
from dataclasses import fields

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from simulator.base.errors import InputError
from simulator.program.isa import Instructions
from simulator.program.program import Program
from simulator.program.schedule import Payload, TileTable
from tests.drawn.strategies import case


@pytest.fixture
def program() -> Program:
    return case(22, layers=2, tokens=9, array={"rows": 4, "cols": 6, "scatter": True})[2]


def assert_equal_programs(one: Program, two: Program) -> None:
    assert str(one) == str(two)
    assert one.machine == two.machine
    for field in fields(Instructions):
        np.testing.assert_array_equal(getattr(one.instructions, field.name), getattr(two.instructions, field.name))
    for a, b in zip(one.layers, two.layers, strict=True):
        for kind, x, y in ((TileTable, a.tiles, b.tiles), (Payload, a.payload, b.payload)):
            for field in fields(kind):
                left, right = getattr(x, field.name), getattr(y, field.name)
                np.testing.assert_array_equal(left, right)
                assert np.asarray(left).dtype == np.asarray(right).dtype


def test_round_trip(tmp_path):
    for seed in range(12):
        _, _, program = case(seed, layers=1 + seed % 3)
        program.save(tmp_path / "p.gblr")
        assert_equal_programs(Program.load(tmp_path / "p.gblr"), program)


def test_equal_programs_give_equal_bytes(tmp_path):
    for seed in range(6):
        for name in ("a", "b"):
            case(seed, layers=2)[2].save(tmp_path / name)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def refused(path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Program.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_foreign_files(tmp_path, program):
    refused(tmp_path / "none", "found no such file; a program is a file that `gblr-hw lower` wrote")
    refused(tmp_path, "found no such file")
    (tmp_path / "text").write_text("hello")
    refused(tmp_path / "text", "found a file that does not read .* a program is a whole safetensors file")
    (tmp_path / "empty").write_bytes(b"")
    refused(tmp_path / "empty", "found a file that does not read")
    save_file({"fc.weight": np.zeros((2, 2), np.float32)}, tmp_path / "checkpoint")
    refused(
        tmp_path / "checkpoint",
        "a safetensors file without our header; .* If it is a checkpoint, run `gblr-hw lower` on it first",
    )


def test_truncation_anywhere(tmp_path, program):
    program.save(tmp_path / "p")
    whole = (tmp_path / "p").read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1]:
        (tmp_path / "cut").write_bytes(whole[:length])
        refused(tmp_path / "cut", "found a file that does not read")


def test_an_edited_byte_anywhere(tmp_path, program):
    program.save(tmp_path / "p")
    whole = (tmp_path / "p").read_bytes()
    rng = np.random.default_rng(0)
    for at in sorted({8, len(whole) - 1, *rng.integers(0, len(whole), 150).tolist()}):
        edited = bytearray(whole)
        edited[at] ^= 1 << int(rng.integers(0, 8))
        (tmp_path / "edited").write_bytes(edited)
        with pytest.raises(InputError, match="program '.*edited'"):
            Program.load(tmp_path / "edited")


def rewritten(tmp_path, program, edit) -> object:
    """A file whose header went through ``edit``."""
    program.save(tmp_path / "p")
    from safetensors import safe_open

    with safe_open(tmp_path / "p", framework="numpy") as file:
        header = json.loads(file.metadata()["program"])
    header = edit(header)
    save_file(
        load_file(tmp_path / "p"),
        tmp_path / "edited",
        metadata={"program": header if isinstance(header, str) else json.dumps(header)},
    )
    return tmp_path / "edited"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda h: {**h, "tokens": 10}, "'sha256': found contents unlike the checksum in the header"),
        (lambda h: {**h, "machine": {**h["machine"], "name": "other"}}, "contents unlike the checksum"),
        (
            lambda h: {**h, "layers": [{**layer, "name": "x" + layer["name"]} for layer in h["layers"]]},
            "contents unlike the checksum",
        ),
        (lambda h: {k: v for k, v in h.items() if k != "sha256"}, "contents unlike the checksum"),
        (
            lambda h: {**h, "version": 1},
            "'version': found gblr-hw-program 1; this release reads gblr-hw-program version 2",
        ),
        (lambda h: {**h, "format": "onnx"}, "found onnx 2"),
        (lambda h: [h], "this release reads gblr-hw-program version 2"),
        (lambda h: "not json", r"found text that is not JSON \(.*\); a program's header must parse as JSON"),
        (lambda h: "[" * 100_000, "found JSON that is nested too deeply; a program's header must parse as JSON"),
        (lambda h: '{"version": ' + "9" * 5000 + "}", "found JSON with a number of too many digits"),
    ],
    ids=["tokens", "machine", "layer", "no checksum", "version", "format", "list", "not json", "deep", "long"],
)
def test_edited_headers(tmp_path, program, edit, message):
    refused(rewritten(tmp_path, program, edit), message)


def test_a_header_with_a_right_checksum_is_still_checked(tmp_path, program):
    """What a careful forger could write: the message names the field, not a Python error."""
    from simulator.program.program_file import _arrays, _checksum

    def signed(**changes: object):
        def edit(header: dict) -> dict:
            header = {**header, **changes}
            return {**header, "sha256": _checksum(header, _arrays(program))}

        return edit

    refused(rewritten(tmp_path, program, signed(tokens=1)), "the program has 1 tokens")
    refused(
        rewritten(tmp_path, program, signed(tokens="many")),
        "header: field 'tokens': found 'many'; Input should be a valid integer",
    )
    refused(
        rewritten(tmp_path, program, signed(layers=None)),
        "header: field 'layers': found None; Input should be a valid list",
    )
    refused(rewritten(tmp_path, program, signed(layers=[])), "it has 0 layers")
    refused(
        rewritten(tmp_path, program, signed(machine={"schema": 1})),
        "machine: field 'name': found nothing; the key 'name' is required",
    )


def test_no_folder(tmp_path, program):
    with pytest.raises(InputError, match="no folder '.*none'; an output is a file in a folder that exists"):
        program.save(tmp_path / "none" / "p")
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_way(tmp_path, program):
    (tmp_path / "p").mkdir()
    with pytest.raises(
        InputError, match="output '.*p': found a folder; an output is a regular file, which it replaces"
    ):
        program.save(tmp_path / "p")
    assert os.listdir(tmp_path) == ["p"]


def test_a_failing_save_leaves_the_old_file_and_nothing_else(tmp_path, program, monkeypatch):
    import simulator.program.program_file as module

    program.save(tmp_path / "p")
    before = (tmp_path / "p").read_bytes()

    def full_disk(arrays, name, metadata):
        with open(name, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full_disk)
    with pytest.raises(
        InputError,
        match="output '.*p': found 'No space left on device' when writing it; .* what was there before is kept",
    ):
        program.save(tmp_path / "p")
    assert os.listdir(tmp_path) == ["p"]
    assert (tmp_path / "p").read_bytes() == before
