"""Tables of docs/speed.md, and that of training steps, from the figures in docs/data."""

from __future__ import annotations

from typing import Any

from analysis.tables.table import Column, count, format_table, percent

Data = dict[str, Any]
TRAINING_STEPS = ("plain", "compiled")


def engine_table(data: Data) -> str:
    """How long ViT-Base takes to simulate, beside PyTorch's linears."""
    columns = (
        Column("ViT-Base", "form", align="left"),
        Column("machine", "machine", align="left"),
        Column("instructions", "instructions", count),
        Column("tile passes", "passes", count),
        Column("cycles", "cycles", count),
        Column("simulate, warm (ms)", "warm_s", milliseconds),
        Column("fresh (ms)", "fresh_s", milliseconds),
        Column("the engine in it (ms)", "engine_s", milliseconds),
        Column("M cycles/s", "cycles_per_s", lambda value: f"{number(value) / 1e6:,.0f}"),
        Column("PyTorch's linears (ms)", "pytorch_s", milliseconds),
        Column("simulate / PyTorch", "of_pytorch", percent),
    )
    return format_table(columns, data["speed"], markdown=True)


def start_table(rows: list[Data]) -> str:
    """How long the command line takes from start to end."""
    columns = (
        Column("process", "process", align="left"),
        Column("instructions", "instructions", count),
        Column("kernels", "way", align="left"),
        Column("wall (s)", "wall_s", hundredths),
        Column("CPU (s)", "cpu_s", hundredths),
        Column("of compiled", "of_compiled", lambda value: f"{number(value):.2f}"),
    )
    shown = [
        {**row, "process": f"simulate, {row['program']}"}
        if row["program"]
        else {**row, "process": {"Python": "empty", "libraries": "its libraries"}[row["way"]], "way": None}
        | {"of_compiled": None}
        for row in rows
    ]
    return format_table(columns, shown, markdown=True)


def lowering_table(data: Data) -> str:
    """How long ViT-Base takes to lower."""
    columns = (
        Column("ViT-Base", "form", align="left"),
        Column("machine", "machine", align="left"),
        Column("CPU (s)", "cpu_s", hundredths),
        Column("tiles", "tiles", count),
        Column("instructions", "instructions", count),
        Column("CPU a tile (µs)", "per_tile_us", lambda value: f"{number(value):.0f}"),
    )
    return format_table(columns, data["lowering"], markdown=True)


def passes_table(data: Data) -> str:
    """Where that time goes, by pass."""
    profiles = data["profiles"]
    rows = [
        {"pass": title, **{key: seconds[title] for key, seconds in profiles.items()}}
        for title in next(iter(profiles.values()))
    ]
    columns = (
        Column("pass (s, under the profiler)", "pass", align="left"),
        *(Column(key, key, hundredths) for key in profiles),
    )
    return format_table(columns, rows, markdown=True)


def growth_table(data: Data) -> str:
    """Time and memory by the size of the program."""
    columns = (
        Column("tiles", "tiles", count),
        Column("instructions", "instructions", count),
        Column("tables (ns a tile)", "tables_ns", count),
        Column("emit (ns a tile)", "emit_ns", count),
        Column("check (ns a tile)", "check_ns", count),
        Column("simulate (ns a tile)", "simulate_ns", count),
        Column("system (ns a tile)", "system_ns", count),
        Column("table (B a tile)", "table_bytes", count),
        Column("instructions (B a tile)", "instruction_bytes", count),
        Column("peak (B a tile)", "peak_bytes", count),
        Column("peak (GiB)", "peak_gib", hundredths),
    )
    return format_table(columns, data["growth"], markdown=True)


def packed_table(data: Data) -> str:
    """What packed layers take on a CPU, beside nn.Linear."""
    columns = (
        Column("family", "family", align="left"),
        Column("layer", "layer", align="left"),
        Column("multiplications", "share", hundredths),
        Column("bound", "bound", hundredths),
        Column("packed", "packed", hundredths),
        Column("within", "within", align="left"),
        Column("as it is", "plain", hundredths),
    )
    rows = [{**row, "within": "yes" if row["packed"] <= row["bound"] else "no"} for row in data["rows"]]
    return format_table(columns, rows, markdown=True)


COST_PRICE = (
    Column("machine", "machine", align="left"),
    Column("Gaussian of the masks", "gaussian", align="left"),
    Column("every call", "every_1", percent),
    Column("every=4", "every_4", percent),
    Column("every=16", "every_16", percent),
)


def cost_price_table(rows: list[Data]) -> str:
    """What the hardware cost adds to a step of ViT-Base's size."""
    return format_table(COST_PRICE, rows, markdown=True)


def training_step_table(data: Data) -> str:
    """A training step of each kind, of dense and of GBLR with masks, run as it is and compiled."""
    rows = [
        {"step": name}
        | {f"{way} {key}": data[way][name][key] for way in TRAINING_STEPS for key in ("of_dense", "of_gblr")}
        for name in data[TRAINING_STEPS[0]]
    ]
    columns = [Column("step", "step", align="left")]
    for way, said in zip(TRAINING_STEPS, ("", ", compiled"), strict=True):
        columns += [
            Column(f"of dense{said}", f"{way} of_dense", hundredths),
            Column(f"of GBLR with masks{said}", f"{way} of_gblr", lambda value: f"{number(value):.3f}"),
        ]
    return format_table(columns, rows, markdown=True)


def milliseconds(value: object) -> str:
    return f"{1e3 * number(value):.1f}"


def hundredths(value: object) -> str:
    return f"{number(value):.2f}"


def number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)
