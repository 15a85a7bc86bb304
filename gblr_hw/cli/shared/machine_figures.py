"""What `machine show` says of a machine besides its fields: area, peak, energy a multiply-accumulate, beside published
chips; as comments, so that what is printed stays a machine file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from analysis.tables.table import Column, format_table
from gblr_hw.cli.shared.simulate_gemm import run_gemm
from simulator.base.errors import InputError
from simulator.machine.chip import at_node, by_node, chip_area_mm2, peak_pj_per_mac, peak_tops, pj_per_mac
from simulator.machine.energy import energy_model
from simulator.machine.energy_table import ARITHMETIC, EnergyTable
from simulator.machine.machine import Machine
from simulator.machine.published_chips import CHIPS, PublishedChip
from simulator.machine.ranged import Ranged
from simulator.scalesim.systolic_gemm import Gemm
from simulator.timing.report import Report

TYPICAL = Gemm("197x768x768", 197, 768, 768)


def figure_lines(machine: Machine) -> Iterator[str]:
    """Lines, each a comment of TOML. What cannot be said of a machine is said to be so: its file is printed anyway."""
    for name, said in (("area", _area), ("energy", _energy)):
        try:
            text = said(machine)
        except InputError as error:
            text = f"No {name}: {error}"
        yield from (f"# {line}".rstrip() for line in text.splitlines())


def figures(machine: Machine) -> dict[str, Any]:
    """What ``figure_lines`` says, by name, units in the names; each figure has ``value``, ``low`` and ``high``. What
    cannot be said of a machine is a sentence under ``no_area`` or ``no_energy``.
    """
    found: dict[str, Any] = {}
    for name, measured in (("area", _area_figures), ("energy", _energy_figures)):
        try:
            found |= measured(machine)
        except InputError as error:
            found[f"no_{name}"] = str(error)
    return found


def _area_figures(machine: Machine) -> dict[str, Any]:
    return {"area_mm2": {name: vars(area) for name, area in _areas(machine).items()}}


def _energy_figures(machine: Machine) -> dict[str, Any]:
    table, typical = EnergyTable.load(machine.energy.table), run_gemm(TYPICAL, machine)
    chip, whole = of_report(typical, machine)
    return {
        "energy_table": table.name,
        "energy_table_sha256": table.sha256,
        "node_nm": table.data.node_nm,
        "peak_tops": peak_tops(machine),
        "pj_per_mac": {
            "peak": vars(peak_pj_per_mac(machine)),
            "typical": vars(chip),
            "typical_with_dram": vars(whole),
            "typical_case": TYPICAL.name,
        },
        "arithmetic_pj": {name: table.data.arithmetic[name].pj for name in ARITHMETIC},
        "published_chips": [
            {**vars(theirs), "ours_peak_pj_per_mac": vars(peak), "ours_typical_pj_per_mac": vars(ours)}
            for theirs, peak, ours in at_chips(machine, typical)
        ],
    }


def _areas(machine: Machine) -> dict[str, Ranged]:
    parts, whole = chip_area_mm2(machine), Ranged(0.0, 0.0, 0.0)
    for area in parts.values():
        whole = whole + area
    return {**parts, "total": whole}


def _area(machine: Machine) -> str:
    areas, table = _areas(machine), EnergyTable.load(machine.energy.table)
    columns = [Column("mm2", "part", align="left")]
    columns += [Column(key, key, lambda value: f"{value:.2f}") for key in ("value", "low", "high")]
    rows = [{"part": name.replace("_", " "), **vars(area)} for name, area in areas.items()]
    head = f"Area at {table.data.node_nm} nm (logic synthesised and scaled, memories and floorplan of {table.name})"
    return f"{head}:\n{format_table(columns, rows)}"


def _energy(machine: Machine) -> str:
    table = EnergyTable.load(machine.energy.table)
    typical = run_gemm(TYPICAL, machine)
    chip, whole = of_report(typical, machine)
    prices = ", ".join(f"{name} {table.data.arithmetic[name].pj:g}" for name in ARITHMETIC)
    return (
        f"Peak: {peak_tops(machine):,.3g} TOPS at {machine.clock_ghz:g} GHz.\n"
        f"Energy a multiply-accumulate (table {table.name}, {table.sha256[:12]}; with clock, control and leakage):\n"
        f"  at the peak, chip alone      {_told(peak_pj_per_mac(machine))} pJ\n"
        f"  typical ({TYPICAL.name}), chip {_told(chip)} pJ\n"
        f"  typical, with its DRAM       {_told(whole)} pJ\n"
        f"Other arithmetic at {table.data.node_nm} nm, pJ: {prices}.\n"
        f"{_chips(machine, typical)}"
    )


def of_report(report: Report, machine: Machine) -> tuple[Ranged, Ranged]:
    """Picojoules a multiply-accumulate of the simulated reference layer: the chip, and with its DRAM."""
    return pj_per_mac(energy_model(machine), report.accesses, report.latency_cycles, TYPICAL.macs)


def at_chips(machine: Machine, report: Report) -> list[tuple[PublishedChip, Ranged, Ranged]]:
    """Each published chip, and the machine's peak and typical figure at its node. Cycles and counted events do not
    depend on the table, so one run of the reference layer serves all nodes.
    """
    peaks, typical = {}, {}
    for node, (priced, peak) in by_node(machine).items():
        peaks[node], typical[node] = peak, of_report(report, priced)[0]
    return [(chip, at_node(peaks, chip.node_nm), at_node(typical, chip.node_nm)) for chip in CHIPS]


def _chips(machine: Machine, report: Report) -> str:
    lines = ["Beside published chips, pJ a multiply-accumulate without DRAM (ours by the tables of 45, 22, 7 nm):"]
    for chip, peak, typical in at_chips(machine, report):
        lines += _beside(chip, peak, typical)
    lines.append(
        "Not in ours: glitching, multiplexers of the permutation network, interfaces to host and DRAM, margins of a "
        "real design. So ours are low."
    )
    return "\n".join(lines)


def _beside(chip: PublishedChip, peak: Ranged, typical: Ranged) -> list[str]:
    found = []
    for name, theirs, ours in (("peak", chip.peak_pj_per_mac, peak), ("typical", chip.typical_pj_per_mac, typical)):
        ratio = ours.value / theirs
        word = f"{1 - ratio:.0%} below" if ratio < 1 else f"{ratio - 1:.0%} above"
        inside = "inside" if ours.low <= theirs <= ours.high else "outside"
        found.append(f"  {name:8}{theirs:6.2f}; ours {_told(ours)}: {word}, {inside} our interval")
    size = f"{chip.macs:,} cells, {chip.peak_tops:g} TOPS, {chip.area_mm2:g} mm2"
    head = f"{chip.name}, {chip.node_nm} nm, {chip.operands}, {size}"
    return [head, *found, f"  why it differs: {chip.differs}", f"  source: {chip.source}"]


def _told(figure: Ranged) -> str:
    return f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"
