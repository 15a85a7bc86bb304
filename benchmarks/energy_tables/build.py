"""Write the energy tables of the package anew, or check that they are what would be written.

    make energy-tables          # fetches and builds CACTI in build/cacti first, then writes
    make energy-tables-check    # the same, but compares

Grids of memories come from CACTI, all else from `figures.py`. A table of the product needs nothing of this at run time.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tomllib
from functools import cache
from pathlib import Path

from benchmarks.energy_tables import figures
from benchmarks.energy_tables.cacti import Macro, macro
from benchmarks.energy_tables.figures import EXTRAPOLATED, NODES, Figure, rounded
from simulator.base.files import replacing

HERE = Path(__file__).resolve()
SOURCES: dict[str, str] = tomllib.loads(HERE.with_name("sources.toml").read_text(encoding="utf-8"))
FOLDER = HERE.parents[2] / "simulator" / "energy_tables"
SIZES_KIB, WORD_BITS = (4, 8, 16, 32, 64, 128, 256, 512, 1024), (64, 128, 256, 512)
_CACTI_NODE = {45: 45, 22: 22, 7: 22}
_DECIMALS = {"read_pj": 4, "write_pj": 4, "leak_uw": 3, "area_mm2": 6}  # and five digits
_AGREE = 1e-3  # CACTI's figures may differ in their last digits between compilers

_COVERS = (
    "multiply-accumulate", "pipeline registers", "array wires", "SRAM access, area and leakage",
    "permutation network wires", "vector arithmetic", "DRAM transfer, background and refresh", "clock and control",
    "logic leakage",
)  # fmt: skip
_EXCLUDES = (
    "glitching", "multiplexers of the permutation network", "shifters of narrow tiles", "DRAM row activation by itself",
    "DRAM interface on the chip", "pads", "host",
)  # fmt: skip
_HEADS = {
    45: "Figures at 45 nm, of Horowitz 2014 and of tools at that node.",
    22: "Figures at 22 nm: memories, wires, registers of tools at that node; arithmetic between those of 45 and 7 nm.",
    7: "Figures at 7 nm. EXTRAPOLATED: arithmetic is published at this node, memories and wires are scaled from 22 nm.",
}
_STATUS = {
    45: "uncalibrated",
    22: "uncalibrated",
    7: "uncalibrated; memories, wires and registers extrapolated from 22 nm",
}


@cache
def grids(package: Path, node: int, flavour: str = "itrs-lstp") -> list[list[Macro]]:
    """Macros [size][word width] at a node of CACTI's."""
    return [[macro(package, size, bits, node, flavour) for bits in WORD_BITS] for size in SIZES_KIB]


def sram(package: Path, node: int) -> tuple[dict[str, object], dict[str, Figure]]:
    """The table's ``sram``, and the kelvins over which leakage doubles."""
    base = _CACTI_NODE[node]
    own, other = grids(package, base), grids(package, base, "itrs-lop")
    step = node / base
    scale = {
        "read_pj": step**0.5,
        "write_pj": step**0.5,
        "leak_uw": 0.79 * step**0.5 if step < 1 else 1.0,
        "area_mm2": step,
    }
    table: dict[str, object] = {
        "source": "cacti7_scaled" if node == EXTRAPOLATED else "cacti7_lstp",
        **_factors(own, other, node, scale["read_pj"]),
        "size_kib": list(SIZES_KIB),
        "word_bits": list(WORD_BITS),
    }
    for name, decimals in _DECIMALS.items():
        table[name] = [
            [float(f"{round(getattr(one, name) * scale[name], decimals):.5g}") for one in row] for row in own
        ]
    hot = [macro(package, 64, 256, base, temperature_k=kelvin).leak_uw for kelvin in (300, 350, 400)]
    doubling = sorted((50 / math.log2(hot[1] / hot[0]), 50 / math.log2(hot[2] / hot[1])))
    whole = 100 / math.log2(hot[2] / hot[0])
    return table, {"doubling_k": Figure(rounded(whole), rounded(doubling[0]), rounded(doubling[1]), "cacti7_heat")}


def _factors(own: list[list[Macro]], other: list[list[Macro]], node: int, scale: float) -> dict[str, float]:
    """Low: the itrs-lop flavour at its lowest over the grid, once more as low by the root of the node's step at 7 nm.
    High: published at 8 kB and 64 bit, over this table. High of leakage: itrs-lop over this flavour, the middle.
    """
    pairs = [(a, b) for x, y in zip(own, other, strict=True) for a, b in zip(x, y, strict=True)]
    low = min(min(b.read_pj / a.read_pj, b.write_pj / a.write_pj) for a, b in pairs)
    published = 10.0 * (7.5 / 10.0) ** (math.log(45 / node) / math.log(45 / 7))
    high = published / (own[SIZES_KIB.index(8)][WORD_BITS.index(64)].read_pj * scale)
    return {
        "low_factor": _two(low * (scale if node == EXTRAPOLATED else 1.0)),
        "high_factor": _two(high),
        "leak_high_factor": _two(statistics.median(b.leak_uw / a.leak_uw for a, b in pairs)),
    }


def _two(value: float) -> float:
    """Three digits, but no more than two behind the point."""
    return round(float(f"{value:.3g}"), 2)


# ---- text
# ----------------------------------------------------------------------------------------------------------------------


def _entry(name: str, figure: Figure, key: str = "value") -> str:
    lines = (
        f"{key} = {figure.value!r}",
        f"low = {figure.low!r}",
        f"high = {figure.high!r}",
        f'source = "{figure.source}"',
    )
    return "\n".join((f"[{name}]", *lines))


def _inline(figure: Figure) -> str:
    return f'{{ value = {figure.value!r}, low = {figure.low!r}, high = {figure.high!r}, source = "{figure.source}" }}'


def _listed(name: str, rows: object) -> str:
    if isinstance(rows, list) and isinstance(rows[0], list):
        return f"{name} = [\n" + "".join(f"  {row},\n" for row in rows) + "]"
    return f"{name} = {json.dumps(rows)}"


def table_text(node: int, memories: dict[str, object], doubling: dict[str, Figure]) -> str:
    """The whole file of a node's table."""
    op, more = figures.operations(node), figures.arithmetic(node)
    sections = [_entry(f"op.{name}", figure, "pj") for name, figure in op.items()]
    sections += [_entry(f"arithmetic.{name}", figure, "pj") for name, figure in more.items()]
    sections += [_entry(f"geometry.{name}", figure) for name, figure in figures.geometry(node).items()]
    sections += [_entry(f"clock.{name}", figure) for name, figure in figures.clock(node).items()]
    leakage = {"logic_uw_per_mm2": figures.logic_leakage(node), **doubling}
    sections += [_entry(f"leakage.{name}", figure) for name, figure in leakage.items()]
    for kind, (bit, background, refresh) in figures.dram().items():
        text = _entry(f"dram.{kind}", bit, "pj_per_bit")
        text += f"\nbackground_mw_per_gb_s = {_inline(background)}\nrefresh_mw_per_gb_s = {_inline(refresh)}"
        sections.append(text)
    sections.append("\n".join(("[sram]", *(_listed(name, value) for name, value in memories.items()))))
    body = "\n\n".join(sections) + "\n"
    used = {name: text for name, text in SOURCES.items() if f'"{name}"' in body}
    head = (
        f"# {_HEADS[node]} Every entry has a value, a low and a high, and its source. Literature and tools\n"
        "# differ by 2 to 10 times per entry: read energies as a sum with a range, not as a measurement.\n"
        "# Written by `make energy-tables` (benchmarks/energy_tables); grids [size][word width] are interpolated\n"
        "# bilinearly in the logarithms of size, width and figure, and nothing outside them.\n"
        f'schema = 1\nname = "cmos-{node}"\nnode_nm = {node}\ntemperature_k = 300\nstatus = "{_STATUS[node]}"\n'
        f"covers = {json.dumps(_COVERS)}\nexcludes = {json.dumps(_EXCLUDES)}\n"
    )
    cited = "\n".join(f"{name} = {json.dumps(text)}" for name, text in used.items())
    return f"{head}\n[sources]\n{cited}\n\n{body}"


def differences(ours: object, anew: object, where: str = "") -> list[str]:
    """Where two tables differ by more than the last digits of a figure."""
    if isinstance(ours, dict) and isinstance(anew, dict):
        keys = sorted(set(ours) | set(anew))
        return [d for key in keys for d in differences(ours.get(key), anew.get(key), f"{where}.{key}".lstrip("."))]
    if isinstance(ours, list) and isinstance(anew, list) and len(ours) == len(anew):
        return [d for i, (a, b) in enumerate(zip(ours, anew, strict=True)) for d in differences(a, b, f"{where}[{i}]")]
    if isinstance(ours, float) and isinstance(anew, float) and math.isclose(ours, anew, rel_tol=_AGREE, abs_tol=1e-3):
        return []
    return [] if ours == anew else [f"{where}: committed {ours!r}, made anew {anew!r}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cacti", type=Path, required=True, help="the unpacked package, its CACTI built")
    parser.add_argument("--check", action="store_true", help="compare with the tables that are there")
    options = parser.parse_args()
    found = []
    for node in NODES:
        path, text = FOLDER / f"cmos-{node}.toml", table_text(node, *sram(options.cacti, node))
        if not options.check:
            with replacing(path) as file:
                file.write(text.encode())
            print(f"{path.name} written", flush=True)
            continue
        wrong = differences(tomllib.loads(path.read_text(encoding="utf-8")), tomllib.loads(text))
        found += [f"{path.name}: {one}" for one in wrong]
        print(f"{path.name}: {'equal' if not wrong else f'{len(wrong)} differences'}", flush=True)
    if found:
        sys.exit("\n".join(["error: `make energy-tables` would write other tables:", *found]))


if __name__ == "__main__":
    main()
