"""Files of other kinds that are handed over as checkpoints: told by their first bytes, with what to do instead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simulator.base.errors import InputError
from simulator.program.program_file import is_program

_RULE = "a checkpoint is a safetensors or GGUF file, or one written by torch.save"
_SHOWN = 24  # bytes
# What torch.save begins with: an archive, a pickle, or (older still) the pickled magic number.
_OF_TORCH = (b"PK", b"\x80")


@dataclass(frozen=True)
class _Kind:
    """A kind of file: how it begins, or how its name ends; what it is called; what its owner can do."""

    begins: bytes
    ending: str
    name: str
    remedy: str


_STATE = "Load it with its own library, and save a dict of torch tensors by name with torch.save."
_KINDS = (
    _Kind(b"", ".py", "Python code", "Lower the model that a function of it returns: --model FILE.py:FUNCTION."),
    _Kind(b"", ".onnx", "an ONNX model", "Lower it as a model: gblr-hw lower FILE.onnx."),
    _Kind(b"version https://git-lfs", "", "a pointer of git-lfs", "Fetch the file that it stands for: git lfs pull."),
    _Kind(b"<", "", "a page of HTML or XML", "The download failed: fetch the file itself."),
    _Kind(b"\x89HDF", "", "an HDF5 file", _STATE),
    _Kind(b"\x93NUMPY", "", "an array of numpy's", _STATE),
    _Kind(b"", ".npz", "arrays of numpy's", _STATE),
    _Kind(b"\x1f\x8b", "", "a file packed by gzip", "Unpack it."),
    _Kind(b"{", "", "JSON", "Name the weights' file beside it."),
)


def refuse_foreign(path: Path) -> None:
    """Raise InputError for a file that is neither of torch's nor safetensors, saying what it is and what to do."""
    if is_program(path):
        raise InputError(
            str(path),
            "a program",
            "a checkpoint holds layers",
            "Run it: gblr-hw simulate, or look at it: gblr-hw show.",
        )
    with path.open("rb") as stream:
        head = stream.read(_SHOWN)
    for kind in _KINDS:
        if (kind.begins and head.startswith(kind.begins)) or (kind.ending and path.suffix.lower() == kind.ending):
            raise InputError(str(path), kind.name, _RULE, kind.remedy)
    if path.suffix != ".safetensors" and not head.startswith(_OF_TORCH) and head[8:9] != b"{":
        raise InputError(
            str(path),
            f"a file that begins with {head!r}",
            _RULE,
            "It is damaged or of another kind: copy or write it again.",
        )
