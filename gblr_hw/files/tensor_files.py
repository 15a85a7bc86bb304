"""Tensors from and to disk: PyTorch files without unpickling anything but tensors, and safetensors written
atomically.
"""

from __future__ import annotations

import json
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from gblr_hw.files.foreign_files import refuse_foreign
from gblr_hw.files.gguf_files import MAGIC, read_gguf
from gblr_hw.weights.bits.grid import Grid
from gblr_hw.weights.checks import not_stored
from simulator.base.errors import InputError
from simulator.base.files import replacing_named
from simulator.base.memory import check_memory
from simulator.base.text import shortened

# What torch's restricted unpickler raises on damaged bytes: anything that a malformed opcode stream can provoke.
_UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    AssertionError, OSError, MemoryError, OverflowError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
# Under which names training code keeps the tensors among its other state; averaged weights come first, as evaluation
# uses them.
_CONTAINERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "params_ema", "params", "model",
    "net",
)  # fmt: skip
_DEEPEST = 4  # dicts around the tensors
_OF_TRAINING = ("optim", "state", "rng")  # how names of dicts begin that hold an optimiser's tensors, not a network's
_INDEX = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WHOLE = ("model.safetensors", "pytorch_model.bin", "model.pt")
_PART = re.compile(r".+-\d{5}-of-(\d{5})\.\w+")
_MOST_QUOTED = 160  # characters of what a library says


@dataclass(frozen=True, eq=False)
class TensorFile:
    """Tensors by name; whether they lay under "state_dict"; whether their order is the writer's; safetensors
    metadata; sentences on how tensors were read; grids of few bits that tensors lie on, by name.
    """

    state: dict[str, Tensor]
    nested: bool
    ordered: bool
    metadata: dict[str, str]
    notes: tuple[str, ...] = ()
    grids: Mapping[str, Grid] = field(default_factory=dict)


def read_tensors(path: Path) -> TensorFile:
    """Read a safetensors, PyTorch or GGUF file, told apart by its first bytes. Raises InputError if it is none, or
    damaged.
    """
    if path.is_dir():
        return read_tensors(_of_folder(path))
    if not path.is_file():
        raise InputError(str(path), "no such file", "the checkpoint must exist", "Check the path.")
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    part = _PART.fullmatch(path.name)
    if part is not None and int(part[1]) > 1:
        raise InputError(
            str(path),
            f"one of {int(part[1])} files",
            "a checkpoint in parts is read whole",
            "Name its folder or the index beside it (GGUF: merge the parts); a part alone is read under another name.",
        )
    return _read_file(path)


def _read_file(path: Path) -> TensorFile:
    size = path.stat().st_size
    if size == 0:
        raise InputError(str(path), "an empty file", "a checkpoint holds tensors", "Write it again.")
    if _begins(path) == MAGIC:
        return _whole(path, _read_gguf(path))
    refuse_foreign(path)
    if _is_safetensors(path):
        found = _read_safetensors(path)
    else:
        entries = _archive(path)
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        size = size if stored else _unpacked_bytes(path, entries)
        # Where the tensors' bytes lie in the file as they are, its pages are mapped.
        found = _read_torch(path, mapped=bool(entries) and stored)
    _whole(path, found)
    return replace(found, state={name: _plain(path, name, tensor, size) for name, tensor in found.state.items()})


def _whole(path: Path, found: TensorFile) -> TensorFile:
    """The tensors, if there are any."""
    if not found.state:
        raise InputError(
            str(path), "no tensors", "a checkpoint holds at least one", "Check that this is the right file."
        )
    return found


def _begins(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(len(MAGIC))


def _read_gguf(path: Path) -> TensorFile:
    state, grids, notes = read_gguf(path)
    return TensorFile(state, nested=False, ordered=False, metadata={}, notes=notes, grids=grids)


def _plain(path: Path, name: str, tensor: Tensor, size: int) -> Tensor:
    """The tensor, if its numbers are stored in full in a file of ``size`` bytes, and then as they read."""
    found = not_stored(tensor)
    # A view with stride 0 declares any size over a few bytes.
    if not found and tensor.numel() * tensor.element_size() > size:
        found = f"shape {tuple(tensor.shape)} in a file of {size} bytes"
    if not found:
        return tensor.resolve_neg().resolve_conj()
    raise InputError(
        f"{path}: tensor '{name}'",
        found,
        "a tensor is dense and stored in full",
        "The file is damaged, or save the tensor with .to_dense().contiguous().",
    )


def _of_folder(folder: Path) -> Path:
    """The checkpoint of a Hugging Face folder: its index if it is sharded, or its one file."""
    for name in (*_INDEX, *_WHOLE):
        if (folder / name).is_file():
            return folder / name
    found = sorted(p.name for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".pt", ".pth", ".ckpt"))
    if len(found) == 1:
        return folder / found[0]
    raise InputError(
        str(folder),
        f"a folder with {', '.join(found[:4]) or 'no checkpoint'}",
        f"a folder holds {', '.join((*_INDEX, *_WHOLE))} or a single checkpoint",
        "Name the file inside it.",
    )


def _read_shards(index: Path) -> TensorFile:
    """All files that an index names, together; every tensor of the index must be there."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        places = content["weight_map"]
        if not (isinstance(places, dict) and all(isinstance(v, str) for v in places.values())):
            raise TypeError("'weight_map' maps tensors to files")
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise InputError(
            str(index), f"no index ({_first_line(error)})", "an index has a 'weight_map'", "Copy it again."
        ) from None
    state: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name:
            raise InputError(str(index), repr(name[:80]), "shards lie beside their index", "Copy the folder again.")
        if not (index.parent / name).is_file():
            raise InputError(
                str(index), f"no file '{name}'", "every shard of the index is there", "Copy the missing shard."
            )
        state.update(_read_file(index.parent / name).state)
    absent = [name for name in places if name not in state]
    if absent:
        raise InputError(
            str(index),
            f"no tensor '{absent[0]}' in '{places[absent[0]]}' ({len(absent)} missing)",
            "every tensor of the index is in its shard",
            "Copy the shards again.",
        )
    return TensorFile(state, nested=False, ordered=False, metadata={})


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(9)
    return path.suffix == ".safetensors" or (len(head) == 9 and head[8:] == b"{")


def _read_safetensors(path: Path) -> TensorFile:
    try:
        with safetensors.safe_open(path, framework="pt") as reader:
            metadata = dict(reader.metadata() or {})
            state = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 - it is no mapping
    except (safetensors.SafetensorError, OSError, ValueError, MemoryError, RuntimeError) as error:
        raise InputError(
            str(path),
            f"an unreadable safetensors file ({_first_line(error)})",
            "its header must describe the bytes that follow it",
            "It is truncated or damaged: copy or write it again.",
        ) from None
    return TensorFile(state, nested=False, ordered=False, metadata=metadata)


def _archive(path: Path) -> list[zipfile.ZipInfo]:
    """What a PyTorch file of today's format holds; nothing for the old format and for files that are damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except _UNREADABLE:
        return []


def _unpacked_bytes(path: Path, entries: Sequence[zipfile.ZipInfo]) -> int:
    """Bytes that a compressed file's tensors take. Raises InputError for more than there is memory: a few bytes may
    stand for any number.
    """
    unpacked = sum(entry.file_size for entry in entries)
    check_memory(str(path), "a compressed file", unpacked, "Check that it is your file.")
    return unpacked


def _read_torch(path: Path, mapped: bool) -> TensorFile:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kinds of tensors that are refused below
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped or None)
    except _UNREADABLE as error:
        foreign = re.search(r"GLOBAL (\S+)|Unsupported (?:global|class) (\S+)", str(error))
        if foreign:
            raise InputError(
                str(path),
                f"a pickle with the foreign class {next(filter(None, foreign.groups()))}",
                "only tensors and plain containers are ever unpickled, since a pickle can run any code",
                "Where you trust the file, save its state dict alone: torch.save(model.state_dict(), path).",
            ) from None
        if "Unsupported operand" in str(error):
            raise InputError(
                str(path),
                "a pickle that torch reads only by running what stands in it",
                "only tensors and plain containers are ever unpickled, since a pickle can run any code",
                "Write the tensors with torch.save(state, path), without a pickle_protocol of your own.",
            ) from None
        raise InputError(
            str(path),
            f"an unreadable file ({_first_line(error)})",
            "a checkpoint is a safetensors file or one written by torch.save",
            "It is truncated, damaged or of another format: copy or write it again.",
        ) from None
    return _state_dict(path, loaded)


def _state_dict(path: Path, loaded: Any) -> TensorFile:
    """The tensors by name, however deep training code has put them."""
    where, nested = "", False
    for _ in range(_DEEPEST):
        inner = _container(path, loaded)
        if inner is None:
            break
        loaded, where, nested = loaded[inner], f"{where}{inner}.", inner.startswith("state_dict")
    if not isinstance(loaded, Mapping):
        raise InputError(
            str(path), f"a {type(loaded).__name__}", "a checkpoint is a state dict", "Save it with model.state_dict()."
        )
    state = {name: value for name, value in loaded.items() if isinstance(name, str) and isinstance(value, Tensor)}
    apart = [name for name, value in loaded.items() if _holds_tensors({name: value}) and name not in state]
    if state and apart:
        raise InputError(
            f"{path}: '{where}{apart[0]}'",
            f"{len(loaded[apart[0]])} entries in a dict of their own, beside tensors such as '{next(iter(state))}'",
            "a state dict maps names to tensors",
            "Save one dict of all tensors by name.",
        )
    if not state and loaded:
        key, value = next(iter(loaded.items()))
        raise InputError(
            str(path),
            f"no tensors (the first entry {key!r} is a {type(value).__name__})",
            "a state dict maps names to tensors",
            "Save it with torch.save(model.state_dict(), path).",
        )
    return TensorFile(state, nested=nested, ordered=True, metadata={})


def _container(path: Path, loaded: Any) -> str | None:
    """Under which name the tensors of a loaded object lie; None if they lie in it. Of names that are not known there
    may be but one. Raises InputError where there are several.
    """
    if not isinstance(loaded, Mapping):
        return None
    known = next((name for name in _CONTAINERS if isinstance(loaded.get(name), Mapping)), None)
    if known is not None or any(isinstance(value, Tensor) for value in loaded.values()):
        return known
    holding = [name for name, value in loaded.items() if _holds_tensors({name: value})]
    if len(holding) > 1:
        raise InputError(
            str(path),
            f"several dicts of tensors: {', '.join(holding[:6])}",
            "a checkpoint holds one network's",
            "Save the one that is meant: torch.save(torch.load(path)[NAME], path).",
        )
    return holding[0] if holding else None


def _holds_tensors(value: Any, depth: int = 0) -> bool:
    """Whether a value is a mapping of names to tensors, or to such mappings."""
    if not isinstance(value, Mapping) or depth > _DEEPEST:
        return False
    return any(
        (isinstance(one, Tensor) and one.is_floating_point()) or _holds_tensors(one, depth + 1)
        for name, one in value.items()
        if isinstance(name, str) and not name.startswith(_OF_TRAINING)
    )


def _first_line(error: BaseException) -> str:
    """The first line of what a library says, or its first sentences where it is long."""
    text = str(error).strip().splitlines()
    line = text[0] if text else type(error).__name__
    sentences = line[:_MOST_QUOTED].rpartition(". ")[0]
    return line if len(line) <= _MOST_QUOTED else sentences or shortened(line, _MOST_QUOTED)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata to `path`, whole or not at all.

    The bytes depend on the content alone if metadata has one key. Raises InputError if the file cannot be written.
    """
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing_named(path) as scratch:
        save_file(stored, scratch, metadata=dict(metadata))


def sorted_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal content gives equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
