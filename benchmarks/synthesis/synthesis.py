"""Synthesis of the array and of what rank permutation and MIX tiles add to it: writes docs/synthesis.json and prints
the tables of docs/synthesis.md, which `make docs` writes there.

python -m benchmarks.synthesis.synthesis [--sides 8 16 32] [--what area luts clock] [--parts TEXT] [--liberty FILE]

What is measured replaces what the file says of it, the rest stays. ``--table`` measures nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from amaranth.hdl import UnusedElaboratable

from benchmarks.synthesis.parts import MIX_UNITS, PRESETS, SHORT_CYCLES, parts_of, requantisers_left_out
from benchmarks.synthesis.tables import mix_table, networks_table, parts_table, prices_table
from benchmarks.synthesis.tools import (
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
from simulator.base.files import replacing

RESULTS = Path("docs/synthesis.json")
LIBERTY = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
KINDS = {"gates": ("AND", "OR", "NAND", "NOR", "ANDNOT", "ORNOT", "NOT"), "xor": ("XOR", "XNOR"), "mux": ("MUX",)}


def wants_luts(name: str) -> bool:
    """Of Benes networks, of those that carry sums and of what MIX adds the standard-cell area is enough."""
    return "benes" not in name and "sums" not in name and not name.startswith(tuple(MIX_UNITS))


def is_timed(name: str, side: int) -> bool:
    """Whether nextpnr is asked: cell, requantiser, networks; the whole array and the control around networks at 8."""
    if name == "array, flat" or name == f"control, {min(PRESETS)} banks":
        return True
    if "crossbar" in name and wants_luts(name) and f"{side * 5 // 4} banks" not in name:
        return side < max(PRESETS) or name.startswith("gather")
    if "omega" in name and wants_luts(name):
        return side < max(PRESETS) and f"{SHORT_CYCLES} cycles" in name
    return name in ("cell", "requantiser")


def measure(
    what: str, name: str, make: Callable[[], Part], liberty: Path, folder: Path, limit_s: float
) -> dict[str, Any]:
    """ "area" (with cells by kind), "luts" or "clock" of one part; what did not work says why in its place."""
    begin = time.perf_counter()
    with requantisers_left_out(registers=what == "clock") if "control" in name else nullcontext():
        if what == "clock":
            row = attempt("mhz", lambda: {"mhz": clock_mhz(make(), folder, limit_s)})
        elif what == "luts":
            row = attempt("luts", lambda: luts_of(export(make(), folder), limit_s))
        else:
            row = attempt("area_um2", lambda: area_of(export(make(), folder), liberty, limit_s))
    return {**row, f"{what}_wall_s": round(time.perf_counter() - begin, 1)}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", choices=sorted(PRESETS), default=sorted(PRESETS))
    parser.add_argument("--what", nargs="+", choices=("area", "luts", "clock"), default=["area", "luts", "clock"])
    parser.add_argument("--parts", default="", help="only parts whose name contains this")
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
    print("\n".join(table(results) for table in (parts_table, networks_table, prices_table, mix_table)), end="")


def measure_all(results: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Areas of all sizes first, clocks last, since they take longest; the file is written after every part."""
    wanted = {"area": lambda name, side: True, "luts": lambda name, side: wants_luts(name), "clock": is_timed}
    for what in (what for what in wanted if what in arguments.what):
        for side in arguments.sides:
            rows = {row["part"]: row for row in results["sides"].get(str(side), [])}
            makers = parts_of(side)
            for name, make in makers.items():
                if arguments.parts not in name or not wanted[what](name, side):
                    continue
                folder = (arguments.build / str(side) / re.sub(r"\W+", "-", name)).resolve()
                found = measure(what, name, make, arguments.liberty.resolve(), folder, arguments.limit_s)
                print(side, name, found, file=sys.stderr, flush=True)
                rows[name] = {"part": name, **rows.get(name, {}), **found}
                results["sides"][str(side)] = [rows[known] for known in makers if known in rows]
                write(results)


def write(results: dict[str, Any]) -> None:
    results["sides"] = dict(sorted(results["sides"].items(), key=lambda item: int(item[0])))
    with replacing(RESULTS) as file:
        file.write((json.dumps(results, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
