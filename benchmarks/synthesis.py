"""Synthesis of the array and of what rank permutation adds to it: writes docs/synthesis.json and prints the tables of
docs/synthesis.md.

python -m benchmarks.synthesis [--sides 8 16 32] [--liberty FILE] [--limit-s 300] [--table]

Sizes that are measured replace those in the file, others stay. ``--table`` measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from amaranth.hdl import UnusedElaboratable

from analysis.table import Column, count, format_table, percent
from benchmarks import synthesis_parts as parts
from benchmarks.synthesis_tools import (
    DEVICE_LUTS,
    Design,
    Part,
    ToolError,
    TooLongError,
    clock_mhz,
    export,
    lookup_tables,
    standard_cells,
)
from simulator import Machine

RESULTS = Path("docs/synthesis.json")
LIBERTY = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
PRESETS = {8: "edge-16", 16: "edge-16", 32: "mid-32"}
SHORT_CYCLES = 2  # register stages of the networks when nothing but the array's clock asks for them
KINDS = {"gates": ("AND", "OR", "NAND", "NOR", "ANDNOT", "ORNOT", "NOT"), "xor": ("XOR", "XNOR"), "mux": ("MUX",)}


def machine_of(side: int, *, banks: int, scatter: bool = True) -> Machine:
    """The preset of this size, square; 8 x 8 is edge-16 made smaller."""
    array = {"rows": side, "cols": side, "scatter": scatter}
    return Machine.load(PRESETS[side]).with_(name=f"{side}x{side}", array=array, rank_memory={"banks": banks})


def parts_of(side: int) -> dict[str, Callable[[], Part]]:
    """Name -> maker of everything that is measured at this size."""
    built, few = machine_of(side, banks=2 * side), machine_of(side, banks=side)
    plain = machine_of(side, banks=2 * side, scatter=False)
    cycles, bits = built.rank_memory.network_cycles, built.datatypes.activation_bits
    wide = built.datatypes.accumulator_bits + parts.SCALE_BITS
    found: dict[str, Callable[[], Part]] = {
        "cell": lambda: parts.cell(built),
        "array": lambda: parts.array(built),
        "requantiser": lambda: parts.requantiser(built),
        "control, plain": lambda: parts.rank_control(plain),
        f"control, {side} banks": lambda: parts.rank_control(few),
        f"control, {2 * side} banks": lambda: parts.rank_control(built),
    }
    if side == min(PRESETS):
        found["array, flat"] = lambda: parts.array(built, flat=True)
    for machine in (built, few):
        banks = machine.rank_memory.banks
        for kind in parts.SCATTER if machine is built else ("crossbar",):
            for stages in (cycles, SHORT_CYCLES):
                name = f"{kind}, {banks} banks, {stages} cycles"
                found[f"scatter {name}"] = lambda m=machine, k=kind, c=stages: Part.of(parts.scatter(m, k, c))
                found[f"gather {name}"] = lambda m=machine, k=kind, c=stages: Part.of(parts.gather(m, k, bits, c))
            name = f"gather of sums {kind}, {banks} banks, {SHORT_CYCLES} cycles"
            found[name] = lambda m=machine, k=kind: Part.of(parts.gather(m, k, wide, SHORT_CYCLES))
    return found


def wants_luts(name: str) -> bool:
    """ECP5 LUTs are counted of what the RTL has; of other networks the standard-cell area is enough."""
    return "benes" not in name and "sums" not in name


def is_timed(name: str, side: int) -> bool:
    """Whether nextpnr is asked: cell, requantiser, crossbars; the whole array and the control around networks at 8."""
    if name == "array, flat" or name == f"control, {min(PRESETS)} banks":
        return True
    if "crossbar" in name and wants_luts(name):
        return side < max(PRESETS) or name.startswith("gather")
    return name in ("cell", "requantiser")


def measure(name: str, make: Callable[[], Part], liberty: Path, folder: Path, limit_s: float) -> dict[str, Any]:
    """Cells, area and LUTs of one part; what did not work says why in its place."""
    begin = time.perf_counter()
    with parts.requantisers_left_out(registers=False) if "control" in name else nullcontext():
        design = export(make(), folder)
    row: dict[str, Any] = {"part": name}
    row |= attempt("area_um2", lambda: area_of(design, liberty, limit_s))
    if wants_luts(name):
        row |= attempt("luts", lambda: luts_of(design, limit_s))
    row["wall_s"] = round(time.perf_counter() - begin, 1)
    return row


def measure_clock(name: str, make: Callable[[], Part], folder: Path, limit_s: float) -> dict[str, Any]:
    with parts.requantisers_left_out(registers=True) if "control" in name else nullcontext():
        return attempt("mhz", lambda: {"mhz": clock_mhz(make(), folder, limit_s)})


def attempt(key: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``run`` gives, or why it gave nothing under ``key``."""
    try:
        return run()
    except (TooLongError, ToolError) as error:
        return {key: f"not done: {error}"}


def luts_of(design: Design, limit_s: float) -> dict[str, Any]:
    luts, flip_flops = lookup_tables(design, limit_s)[design.top]
    return {"luts": luts, "ecp5_flip_flops": flip_flops, "fits": luts <= DEVICE_LUTS}


def area_of(design: Design, liberty: Path, limit_s: float) -> dict[str, Any]:
    """Generic cells by kind, macros, and um2, of a whole design."""
    found = standard_cells(design, liberty, limit_s)[design.top]
    kinds = {kind: sum(found.cells.get(f"$_{gate}_", 0) for gate in gates) for kind, gates in KINDS.items()}
    flip_flops = sum(number for gate, number in found.cells.items() if "DFF" in gate)
    macros = sum(number for gate, number in found.cells.items() if gate.startswith("macro_"))
    areas = {"area_um2": found.area_um2, "flip_flop_um2": found.flip_flop_um2}
    return {**kinds, "flip_flops": flip_flops, "macros": macros, **areas}


def price_rows(side: int, rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What rank permutation adds to a plain machine, by design: control, networks and requantisers, over the array."""
    requantiser, array = rows["requantiser"]["area_um2"], rows["array"]["area_um2"]
    plain = rows["control, plain"]["area_um2"] + side * requantiser
    cycles = machine_of(side, banks=2 * side).rank_memory.network_cycles
    built, few = f"{2 * side} banks", f"{side} banks"

    def network(kind: str, banks: str, stages: int, gather: str = "gather") -> float:
        pair = (f"{way} {kind}, {banks}, {stages} cycles" for way in ("scatter", gather))
        return sum(rows[name]["area_um2"] for name in pair)

    def price(
        label: str, banks: str, kind: str, stages: int, requantisers: int, gather: str = "gather"
    ) -> dict[str, Any]:
        control = rows[f"control, {banks}"]["area_um2"] - network("crossbar", banks, cycles)
        networks = network(kind, banks, stages, gather)
        added = control + networks + requantisers * requantiser - plain
        return {"side": side, "design": label, "networks": networks / array, "price": added / array}

    lanes = "gather of sums"
    return [
        price(f"crossbars, {built}, {cycles} cycles, a requantiser a bank", built, "crossbar", cycles, 2 * side),
        price(f"the same in {SHORT_CYCLES} cycles", built, "crossbar", SHORT_CYCLES, 2 * side),
        price("the same, a requantiser a lane", built, "crossbar", SHORT_CYCLES, side, lanes),
        price("omega networks, a requantiser a bank", built, "omega", SHORT_CYCLES, 2 * side),
        price("omega networks, a requantiser a lane", built, "omega", SHORT_CYCLES, side, lanes),
        price("Benes networks, a requantiser a bank", built, "benes", SHORT_CYCLES, 2 * side),
        price("Benes networks, a requantiser a lane", built, "benes", SHORT_CYCLES, side, lanes),
        price(f"crossbars, {few}, a requantiser a bank", few, "crossbar", SHORT_CYCLES, side),
    ]


def mm2(value: object) -> str:
    return f"{float(str(value)) / 1e6:.3f}" if isinstance(value, float) else "-"


def whole(value: object) -> str:
    return count(value) if isinstance(value, int) else "> limit"


def mhz(value: object) -> str:
    return f"{value:.0f}" if isinstance(value, float) else "> limit"


PART_COLUMNS = (
    Column("P = Q", "side"),
    Column("part", "part", align="left"),
    Column("gates", "gates", count),
    Column("xor", "xor", count),
    Column("mux", "mux", count),
    Column("flip-flops", "flip_flops", count),
    Column("mm2", "area_um2", mm2),
    Column("of it flip-flops", "flip_flop_um2", mm2),
    Column("of the array", "share", percent),
    Column("ECP5 LUTs", "luts", whole),
    Column("MHz", "mhz", mhz),
)
PRICE_COLUMNS = (
    Column("P = Q", "side"),
    Column("design", "design", align="left"),
    Column("networks alone", "networks", percent),
    Column("price", "price", percent),
)


def print_tables(results: dict[str, Any]) -> None:
    listed, prices = [], []
    for side, found in results["sides"].items():
        rows = {row["part"]: row for row in found}
        array = rows["array"]["area_um2"]
        for row in found:
            share = row["area_um2"] / array if isinstance(row.get("area_um2"), float) else None
            listed.append({**row, "side": side, "share": share})
        prices += price_rows(int(side), rows)
    print(format_table(PART_COLUMNS, listed, markdown=True))
    print(format_table(PRICE_COLUMNS, prices, markdown=True), end="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", choices=sorted(PRESETS), default=sorted(PRESETS))
    parser.add_argument("--liberty", type=Path, default=LIBERTY, help="Debian package qflow-tech-osu018")
    parser.add_argument("--limit-s", type=float, default=300.0, help="time limit of every run of a tool")
    parser.add_argument("--build", type=Path, default=Path("build/synthesis"))
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"sides": {}}
    if not arguments.table:
        if not arguments.liberty.is_file():
            parser.error(f"--liberty {arguments.liberty}: no such file; apt-get install qflow-tech-osu018 brings it")
        warnings.filterwarnings("ignore", category=UnusedElaboratable)
        measure_all(results, arguments)
    print_tables(results)


def measure_all(results: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Areas of all sizes first, then clocks, which take longest; the file is written after every size."""
    liberty, limit_s = arguments.liberty.resolve(), arguments.limit_s

    def folder(side: int, name: str) -> Path:
        return (arguments.build / str(side) / re.sub(r"\W+", "-", name)).resolve()

    for side in arguments.sides:
        rows = []
        for name, make in parts_of(side).items():
            rows.append(measure(name, make, liberty, folder(side, name), limit_s))
            print(side, rows[-1], file=sys.stderr, flush=True)
        results["sides"][str(side)] = rows
        write(results)
    for side in arguments.sides:
        makers = parts_of(side)
        for row in results["sides"][str(side)]:
            if is_timed(row["part"], side):
                row |= measure_clock(row["part"], makers[row["part"]], folder(side, row["part"]), limit_s)
                print(side, row, file=sys.stderr, flush=True)
        write(results)


def write(results: dict[str, Any]) -> None:
    results["sides"] = dict(sorted(results["sides"].items(), key=lambda item: int(item[0])))
    temporary = RESULTS.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, RESULTS)


if __name__ == "__main__":
    main()
