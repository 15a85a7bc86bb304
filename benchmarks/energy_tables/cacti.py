"""CACTI, asked for one macro at a time: the binary that `make energy-tables` builds is called directly."""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

# The package's own settings, but for the flavour of the cells and the temperature.
_SETTINGS = "default_cfg.cfg"
_FLAVOUR, _TEMPERATURE = '"itrs-lstp', "(K) 300"


@dataclass(frozen=True)
class Macro:
    """What CACTI says of a macro: pJ of an access, leakage, area."""

    read_pj: float
    write_pj: float
    leak_uw: float
    area_mm2: float


def macro(
    package: Path, size_kib: int, word_bits: int, node_nm: int, flavour: str = "itrs-lstp", temperature_k: int = 300
) -> Macro:
    """A plain RAM of one bank and one read-write port. package: the unpacked package, with `cacti/cacti` built."""
    settings = (package / _SETTINGS).read_text(encoding="utf-8")
    for old, new in ((_FLAVOUR, f'"{flavour}'), (_TEMPERATURE, f"(K) {temperature_k}")):
        if old not in settings:
            sys.exit(f"error: {package / _SETTINGS} has no {old}: is it the pinned version?")
        settings = settings.replace(old, new)
    own = {
        "-size (bytes)": size_kib * 1024,
        "-read-write port ": 1,
        "-block size (bytes)": word_bits // 8,
        "-technology (u)": node_nm / 1000,
        "-output/input bus width ": word_bits,
        "-UCA bank": 1,
        "-cache type": '"ram"',
        "-tag size (b)": 0,
        "-associativity": 1,
    }
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "macro.cfg"
        given.write_text(settings + "\n" + "".join(f"{key} {value}\n" for key, value in own.items()), encoding="utf-8")
        command = ["./cacti", "-infile", str(given)]
        done = subprocess.run(command, cwd=package / "cacti", capture_output=True, text=True)
        answer = given.with_name(given.name + ".out")
        if done.returncode or not answer.is_file():
            sys.exit(f"error: CACTI failed for {size_kib} KiB of {word_bits} bits at {node_nm} nm:\n{done.stdout}")
        with answer.open(encoding="utf-8", newline="") as file:
            row = {key.strip(): value for key, value in list(csv.DictReader(file))[-1].items() if key is not None}
    return Macro(
        1e3 * float(row["Dynamic read energy (nJ)"]),
        1e3 * float(row["Dynamic write energy (nJ)"]),
        1e3 * float(row["Standby leakage per bank(mW)"]),
        float(row["Area (mm2)"]),
    )
