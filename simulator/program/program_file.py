"""A program on disk: one safetensors file with columns, weights, provenance and a checksum; written atomically,
verified on load.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.network.network_file import network_arrays, network_of, network_record
from simulator.program.isa import Instructions
from simulator.program.program import Program
from simulator.program.schedule import LayerSchedule, Payload, TileTable

FORMAT = "gblr-hw-program"
VERSION = 2
_LAYER_SCALARS = ("name", "form", "in_features", "out_features", "ranks", "block_tokens", "multiplications")
_NETWORK = "network."  # what the names of a network's arrays begin with
_PAYLOAD_ARRAYS = ("codes", "values", "row_step", "rank_divisor", "bias")


def save_program(program: Program, path: Path) -> None:
    """Write ``program`` to ``path``: to a temporary name beside it first, then renamed."""
    arrays = _arrays(program)
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "machine": program.machine.to_dict(),
        "tokens": program.tokens,
        "provenance": dict(program.provenance),
        "layers": [
            {
                **{key: getattr(layer, key) for key in _LAYER_SCALARS},
                "input_step": layer.payload.input_step,
                "output_step": layer.payload.output_step,
            }
            for layer in program.layers
        ],
        "network": None if program.network is None else network_record(program.network),
    }
    header["sha256"] = _checksum(header, arrays)
    if not path.parent.is_dir():
        raise InputError(
            f"output '{path}'",
            f"no folder '{path.parent}'",
            "the folder of an output file must exist",
            "Create it, or name another.",
        )
    try:
        _write(path, arrays, {"program": json.dumps(header, sort_keys=True)})
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"output '{path}'",
            getattr(error, "strerror", None) or str(error),
            "an output file must be writable",
            "Free the name or the space, or name another file.",
        ) from error


def _write(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        # One metadata key: the library writes several in no fixed order, and equal programs must give equal bytes.
        save_file(arrays, temporary, metadata=metadata)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def load_program(path: Path) -> Program:
    """Read and verify a program file. InputError names the file and what is wrong with it."""
    if not path.is_file():
        raise InputError(
            f"program '{path}'", "no such file", "a program is a file that `gblr-hw lower` wrote", "Check the path."
        )
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if "program" not in metadata:
                raise InputError(
                    f"program '{path}'",
                    "a safetensors file without our header",
                    "a program is a file that `gblr-hw lower` wrote",
                    "If it is a checkpoint, run `gblr-hw lower` on it first.",
                )
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
            header = json.loads(metadata["program"])
    except (SafetensorError, json.JSONDecodeError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"program '{path}'",
            f"a file that does not read ({error})",
            "a program is a whole safetensors file",
            "It is truncated or of another kind: lower the checkpoint again.",
        ) from error
    _check_header(path, header, arrays)
    try:
        return _assemble(header, arrays)
    except InputError as error:
        raise InputError(f"program '{path}': {error.where}", error.value, error.rule, error.remedy) from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"program '{path}'",
            f"a header or column that is missing or of the wrong kind ({error})",
            f"format {FORMAT} version {VERSION} has it",
            "Lower the checkpoint again.",
        ) from error


def _check_header(path: Path, header: Any, arrays: Mapping[str, np.ndarray]) -> None:
    header = header if isinstance(header, dict) else {}
    if header.get("format") != FORMAT or header.get("version") != VERSION:
        raise InputError(
            f"program '{path}': 'version'",
            f"{header.get('format')} {header.get('version')}",
            f"this release reads {FORMAT} version {VERSION}",
            "Lower the checkpoint again with this release.",
        )
    if header.get("sha256") != _checksum(header, arrays):
        raise InputError(
            f"program '{path}': 'sha256'",
            "contents unlike the checksum in the header",
            "a program file is not edited or damaged",
            "Lower the checkpoint again.",
        )


def _arrays(program: Program) -> dict[str, np.ndarray]:
    """Every array of a program by its name in the file; integers as int32 where they fit."""
    arrays = {f"instructions.{f.name}": _narrow(getattr(program.instructions, f.name)) for f in fields(Instructions)}
    for index, layer in enumerate(program.layers):
        prefix = f"layers.{index:05d}"
        for f in fields(TileTable):
            arrays[f"{prefix}.tiles.{f.name}"] = _narrow(getattr(layer.tiles, f.name))
        arrays[f"{prefix}.rank_bank"] = _narrow(layer.rank_bank)
        arrays[f"{prefix}.rank_slot"] = _narrow(layer.rank_slot)
        for name in _PAYLOAD_ARRAYS:
            arrays[f"{prefix}.payload.{name}"] = np.ascontiguousarray(getattr(layer.payload, name))
    if program.network is not None:
        arrays.update({f"{_NETWORK}{key}": values for key, values in network_arrays(program.network).items()})
    return arrays


def _narrow(column: np.ndarray) -> np.ndarray:
    fits = column.size == 0 or (column.min() >= -(2**31) and column.max() < 2**31)
    return np.ascontiguousarray(column, dtype=np.int32 if fits else np.int64)


def _checksum(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the header without its own checksum, and of every array with its name, type and shape."""
    rest = {key: value for key, value in header.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _assemble(header: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Program:
    layers = []
    for index, entry in enumerate(header["layers"]):
        prefix = f"layers.{index:05d}"
        tiles = TileTable(**{f.name: arrays[f"{prefix}.tiles.{f.name}"] for f in fields(TileTable)})
        numbers = {name: arrays[f"{prefix}.payload.{name}"] for name in _PAYLOAD_ARRAYS}
        payload = Payload(input_step=float(entry["input_step"]), output_step=float(entry["output_step"]), **numbers)
        layers.append(
            LayerSchedule(
                tiles=tiles,
                rank_bank=arrays[f"{prefix}.rank_bank"],
                rank_slot=arrays[f"{prefix}.rank_slot"],
                payload=payload,
                **{key: entry[key] for key in _LAYER_SCALARS},
            )
        )
    instructions = Instructions(**{f.name: arrays[f"instructions.{f.name}"] for f in fields(Instructions)})
    return Program(
        machine=Machine.from_dict(header["machine"], "machine"),
        tokens=int(header["tokens"]),
        layers=tuple(layers),
        instructions=instructions,
        provenance=header["provenance"],
        network=None if header["network"] is None else network_of(header["network"], _network_part(arrays)),
    )


def _network_part(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key.removeprefix(_NETWORK): values for key, values in arrays.items() if key.startswith(_NETWORK)}


def is_program(path: Path) -> bool:
    """Whether a file has our program header. A file that is missing or of another kind is simply not one."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="numpy") as file:
            return "program" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False
