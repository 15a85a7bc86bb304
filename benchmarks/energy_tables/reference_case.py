"""The reference case by component: 197 x 768 x 768 on mid-32 at 45 nm, beside an independent estimate; mid-32 beside
published chips.

python -m benchmarks.energy_tables.reference_case [--out docs/data/energy_reference.json]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.tables.table import Column, format_table
from benchmarks.shared.measurement import out_option, write_json
from gblr_hw.cli.shared.machine_figures import TYPICAL, at_chips
from gblr_hw.cli.shared.simulate_gemm import run_gemm
from simulator import Machine

ONE_MACRO = "scratchpad, were it one macro"  # the machine has four, which take less
# pJ a multiply-accumulate, by hand: 45 nm, 32 x 32 weight-stationary cells, one scratchpad of 512 KiB, LPDDR4.
ESTIMATE: Mapping[str, float] = {
    "multiply_add": 0.30,
    "registers": 0.37,
    "wires": 0.19,
    ONE_MACRO: 0.17,
    "accumulator": 0.37,
    "dram": 0.49,
}


def rows() -> list[dict[str, Any]]:
    """A row a component, those of the work first, then what stands."""
    report = run_gemm(TYPICAL, Machine.load("mid-32"))
    found = []
    for values, ranges, standing in (
        (report.energy_by_component, report.energy_ranges_pj, False),
        (report.standing_pj, report.standing_ranges_pj, True),
    ):
        for name, value in sorted(values.items(), key=lambda item: -item[1]):
            low, high = ranges[name]
            ends = {"value": value, "low": low, "high": high}
            per_mac = {key: round(end / TYPICAL.macs, 4) for key, end in ends.items()}
            found.append({"component": name, "standing": standing, **per_mac, "estimate": ESTIMATE.get(name)})
            if name == "scratchpad":
                found.append(_one_macro())
    return found


def _one_macro() -> dict[str, Any]:
    report = run_gemm(TYPICAL, Machine.load("mid-32").with_(scratchpad={"banks": 1}))
    ends = (report.energy_by_component["scratchpad"], *report.energy_ranges_pj["scratchpad"])
    told = {key: round(end / TYPICAL.macs, 4) for key, end in zip(("value", "low", "high"), ends, strict=True)}
    return {"component": ONE_MACRO, "standing": False, **told, "estimate": ESTIMATE[ONE_MACRO]}


def chip_rows() -> list[dict[str, Any]]:
    """mid-32's peak and typical figure at the node of each published chip, beside the chip's own."""
    machine = Machine.load("mid-32")
    found = []
    for chip, peak, typical in at_chips(machine, run_gemm(TYPICAL, machine)):
        pairs = (("peak", chip.peak_pj_per_mac, peak), ("typical", chip.typical_pj_per_mac, typical))
        for name, theirs, ours in pairs:
            told = {key: round(end, 4) for key, end in vars(ours).items()}
            found.append({"chip": chip.name, "node_nm": chip.node_nm, "rate": name, "theirs": round(theirs, 4), **told})
    return found


def chips_table(found: list[dict[str, Any]]) -> str:
    """pJ a multiply-accumulate: a chip's, ours at its node, their ratio, and whether theirs is inside our interval."""
    shown = [
        {
            **row,
            "ratio": row["value"] / row["theirs"],
            "inside": "yes" if row["low"] <= row["theirs"] <= row["high"] else "**no**",
        }
        for row in found
    ]
    columns = [
        Column("chip", "chip", align="left"),
        Column("nm", "node_nm"),
        Column("at its rate", "rate", align="left"),
    ]
    columns += [Column(heading, key, _pj) for heading, key in (("theirs", "theirs"), ("ours", "value"))]
    columns += [Column(key, key, _pj) for key in ("low", "high")]
    ratio = Column("ours over theirs", "ratio", lambda value: f"{value:.2f}")
    return format_table([*columns, ratio, Column("inside", "inside")], shown, markdown=True)


def reference_table(found: list[dict[str, Any]]) -> str:
    """pJ a multiply-accumulate by component, its interval, the estimate, and whether that lies inside."""
    shown = [{**row, "component": row["component"].replace("_", " ")} for row in found]
    for row, source in zip(shown, found, strict=True):
        if source["standing"]:
            row["component"] = f"standing: {row['component']}"
        estimate = source["estimate"]
        row["inside"] = "-" if estimate is None else "yes" if row["low"] <= estimate <= row["high"] else "**no**"
    for name, standing in (("work", (False,)), ("work and standing power", (False, True))):
        parts = [row for row in found if row["standing"] in standing and row["component"] != ONE_MACRO]
        sums = {key: sum(row[key] for row in parts) for key in ("value", "low", "high")}
        whole = sum(ESTIMATE.values()) if standing == (False,) else None
        inside = "-" if whole is None else "yes" if sums["low"] <= whole <= sums["high"] else "**no**"
        shown.append({"component": f"all {name}", **sums, "estimate": whole, "inside": inside})
    columns = [Column("pJ a multiply-accumulate", "component", align="left")]
    columns += [Column(key, key, _pj) for key in ("value", "low", "high", "estimate")]
    return format_table([*columns, Column("inside", "inside")], shown, markdown=True)


def _pj(value: object) -> str:
    return "-" if value is None else f"{value:.3f}"


def main() -> None:
    options = out_option(__doc__)
    found, chips = rows(), chip_rows()
    print(reference_table(found), chips_table(chips), sep="\n", end="")
    write_json(options.out, rows=found, chips=chips)


if __name__ == "__main__":
    main()
