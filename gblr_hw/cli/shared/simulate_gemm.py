"""``gblr-hw simulate --gemm``: dense GEMMs on our machine, or counted as SCALE-Sim counts them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from analysis.tables.table import Column, count, energy_from_pj, format_table, percent
from gblr_hw.cli.shared.telling import print_json
from simulator.base.errors import InputError
from simulator.base.memory import check_memory
from simulator.base.text import printable
from simulator.machine.machine import Machine
from simulator.scalesim.scalesim_topology import read_topology
from simulator.scalesim.systolic_gemm import OPTION_SETS, Gemm, GemmCycles, SystolicArray, gemm_cycles
from simulator.timing.report import Report
from simulator.timing.simulate import simulate

DEFAULT_MACHINE = "mid-32"
_BYTES_A_WEIGHT = 7  # a program's code and exact value, and what lowering takes beside them


def read_gemms(gemms: Sequence[str], topology: Path | None) -> tuple[Gemm, ...]:
    """The GEMMs of the options ``--gemm`` and ``--topology``, of which one is given."""
    if topology is not None:
        return read_topology(topology)
    rule = "a GEMM is three whole numbers MxKxN, tokens x inputs x outputs"
    return tuple(Gemm(text, *_sizes("--gemm", text, 3, rule, "197x768x768")) for text in gemms)


def read_array(text: str) -> tuple[int, int]:
    """Rows and columns of the option ``--array``."""
    rows, cols = _sizes("--array", text, 2, "an array is two whole numbers, rows x columns", "32x32")
    return rows, cols


def choose_machine(machine: str | None, array: str | None) -> Machine:
    """The machine named, with another array if one is given; InputError where its memories are too small for that.

    A GEMM has no ranks: where a machine has a bank of rank memory for each lane, the other array's has as well.
    """
    chosen = Machine.load(machine or DEFAULT_MACHINE)
    if array is None:
        return chosen
    rows, cols = read_array(array)
    banks = max(chosen.rank_memory.banks, rows, cols)
    try:
        return chosen.with_(
            name=f"{chosen.name}-{rows}x{cols}", array={"rows": rows, "cols": cols}, rank_memory={"banks": banks}
        )
    except InputError as error:
        raise InputError(
            f"--array {array} on machine '{chosen.name}'",
            error.value,
            error.rule,
            "Choose another array, or a machine file with other memories (`gblr-hw machine show`).",
        ) from error


def choose_systolic_array(option_set: str, machine: str | None, array: str | None) -> SystolicArray:
    """The option set that ``--as`` names, on the array given or the machine's."""
    if option_set not in OPTION_SETS:
        raise InputError("--as", repr(option_set), f"it is one of {', '.join(OPTION_SETS)}", "Use one of these names.")
    if array is not None and machine is not None:
        raise InputError(
            f"--as {option_set}",
            f"both --array {array} and --machine {machine}",
            "nothing but the machine's array would be used",
            "Leave one of them out.",
        )
    if array is not None:
        return SystolicArray(OPTION_SETS[option_set], *read_array(array))
    chosen = Machine.load(machine or DEFAULT_MACHINE)
    return SystolicArray(OPTION_SETS[option_set], chosen.rows, chosen.cols)


def print_counted(gemms: Sequence[Gemm], array: SystolicArray, option_set: str, as_json: bool) -> None:
    """Closed-form cycles, a row a layer and their sum."""
    counted = [gemm_cycles(gemm, array) for gemm in gemms]
    total = _total(gemms, counted, array)
    if as_json:
        layers = [
            {**asdict(gemm), "macs": gemm.macs, "folds": cycles.folds, **asdict(cycles)}
            for gemm, cycles in zip(gemms, counted, strict=True)
        ]
        described = {
            "as": option_set,
            "dataflow": array.dataflow,
            "array": {"rows": array.rows, "cols": array.cols},
            "formula": array.formula,
            "expression": array.expression,
        }
        print_json({**described, **total, "layers": layers})
        return
    rows = [
        {**asdict(gemm), **asdict(cycles), "folds": cycles.folds} for gemm, cycles in zip(gemms, counted, strict=True)
    ]
    columns = (
        *_size_columns(),
        Column("folds", "folds", count),
        Column("load", "stationary_load_cycles", count),
        Column("stream", "stream_cycles", count),
        Column("fill and drain", "fill_and_drain_cycles", count),
        Column("compute cycles", "compute_cycles", count),
        Column("utilisation", "utilisation", percent),
    )
    print(format_table(columns, [*rows, {"name": "total", **total}] if len(rows) > 1 else rows), end="")
    print(f"{array.formula}, {array.rows} x {array.cols}: {array.expression}")


def check_gemms(gemms: Sequence[Gemm]) -> None:
    """Raise InputError for the first one that `run_gemm` cannot take, before any of them is run."""
    from gblr_hw.lowering.pipeline import check_tokens
    from gblr_hw.weights.checks import check_matrix_size

    for gemm in gemms:
        check_matrix_size(gemm.n, gemm.k)
        check_tokens(gemm.m)
        check_memory(
            f"GEMM '{gemm.name}'",
            f"a matrix of {gemm.n} x {gemm.k}",
            _BYTES_A_WEIGHT * gemm.n * gemm.k,
            "Give a smaller one: parts of its outputs, one after another, take the same cycles.",
        )


def run_gemm(gemm: Gemm, machine: Machine) -> Report:
    """Simulate a dense layer of k inputs and n outputs for m tokens on our machine."""
    import torch

    from gblr_hw.lowering.pipeline import lower
    from gblr_hw.weights.stored import DenseWeights

    # Timing does not depend on values, but a tile of zeros would be left out. One stored number stands for all.
    weights = DenseWeights(torch.ones(1, 1).expand(gemm.n, gemm.k))
    return simulate(lower({gemm.name: weights}, machine, tokens=gemm.m), machine, gemm.name)


def print_runs(gemms: Sequence[Gemm], machine: Machine, as_json: bool) -> None:
    """Simulate GEMMs each on its own, from a machine at rest; a row a layer and their sum."""
    reports = [run_gemm(gemm, machine) for gemm in gemms]
    rows: list[dict[str, Any]] = [
        {
            **asdict(gemm),
            "macs": gemm.macs,
            "latency_cycles": report.latency_cycles,
            "utilisation": report.utilisation,
            "roofline_cycles": report.roofline_cycles,
            "bound": report.bound,
            "dram_bytes": report.dram_bytes,
            "energy_pj": report.energy_pj,
        }
        for gemm, report in zip(gemms, reports, strict=True)
    ]
    total: dict[str, Any] = {
        key: sum(row[key] for row in rows) for key in ("macs", "latency_cycles", "dram_bytes", "energy_pj")
    }
    total["utilisation"] = total["macs"] / (total["latency_cycles"] * machine.rows * machine.cols)
    if as_json:
        priced = {"energy_table": reports[0].energy_table, "energy_table_sha256": reports[0].energy_table_sha256}
        print_json({"machine": machine.name, **priced, **total, "layers": rows})
        return
    columns = (
        *_size_columns(),
        Column("cycles", "latency_cycles", count),
        Column("utilisation", "utilisation", percent),
        Column("roof", "roofline_cycles", count),
        Column("bound", "bound", align="left"),
        Column("DRAM bytes", "dram_bytes", count),
        Column("energy", "energy_pj", energy_from_pj),
    )
    print(format_table(columns, [*rows, {"name": "total", **total}]), end="")
    table = f"table {printable(reports[0].energy_table)}, {reports[0].energy_table_sha256[:12]}"
    print(f"on {machine.name} ({machine.rows} x {machine.cols}), each layer on its own; {table}")


def _size_columns() -> tuple[Column, ...]:
    return (
        Column("layer", "name", align="left"),
        Column("M", "m", count),
        Column("K", "k", count),
        Column("N", "n", count),
    )


def _total(gemms: Sequence[Gemm], counted: Sequence[GemmCycles], array: SystolicArray) -> dict[str, Any]:
    cycles = sum(part.compute_cycles for part in counted)
    macs = sum(gemm.macs for gemm in gemms)
    return {
        "compute_cycles": cycles,
        "folds": sum(part.folds for part in counted),
        "macs": macs,
        "utilisation": macs / (cycles * array.rows * array.cols) if cycles else None,
    }


def _sizes(option: str, text: str, parts: int, rule: str, example: str) -> list[int]:
    # Ten digits hold every size allowed; Gemm and SystolicArray say which those are.
    if not re.fullmatch(r"[0-9]{1,10}" + r"[xX][0-9]{1,10}" * (parts - 1), text):
        raise InputError(option, repr(text), rule, f"Write it like {example}.")
    return [int(size) for size in re.split("[xX]", text)]
