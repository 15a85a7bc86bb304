"""The phrases whose figures rest on docs/data, and how each figure follows: `make docs` writes them like the tables."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.docs.blocks import (
    CLAIMS,
    NETWORKS,
    README,
    REFERENCES,
    RESULTS,
    SPEED,
    SYNTHESIS,
    VERIFICATION,
)
from benchmarks.docs.quotes import Figures, Quote, numbers, percent
from benchmarks.networks.tables import by_case
from benchmarks.study.runs import MEASURED_ON
from benchmarks.study.summary import at_budgets, goal_at_equal_accuracy, least_cost
from benchmarks.study.tables import ANY_WIDTH, LEARNED
from benchmarks.study.trained_out import TIMES
from benchmarks.synthesis.tables import complete_sides, mix_rows, price_rows


def _model(figures: Figures, network: str, fraction: float = 1.0, machine: str = "mid-32") -> dict[str, Any]:
    return by_case(figures["models"], machine)[network, fraction]


def _demo_points(figures: Figures) -> dict[str, float]:
    """Mean accuracy of every network of the demo, in points."""
    return {row["network"]: 100 * statistics.fmean(row["accuracies"]) for row in figures["demo"]["rows"]}


def _demo_spread(figures: Figures) -> list[str]:
    """How far the means lie apart, and how far the worst lies below dense."""
    means = _demo_points(figures)
    values = [round(mean, 1) for mean in means.values()]
    return [f"{max(values) - min(values):.1f}", f"{round(means['dense'], 1) - min(values):.1f}"]


def _engine(figures: Figures, form: str = "dense", machine: str = "mid-32") -> dict[str, Any]:
    return next(row for row in figures["engine"]["speed"] if (row["form"], row["machine"]) == (form, machine))


def _starts(figures: Figures) -> list[str]:
    """Seconds of the first program as it is, and its CPU time over what it takes compiled."""
    rows = {(row["program"], row["way"]): row for row in figures["start-up"]["rows"]}
    (name,) = list(dict.fromkeys(program for program, way in rows if way == "as it is"))[:1]
    mine = rows[name, "as it is"]
    return [f"{mine['wall_s']:.2f}", f"{mine['of_compiled']:.2f}"]


def _cost_prices(figures: Figures) -> list[str]:
    """Least and most of what the hardware cost adds to a step, in percent, by how often it is evaluated."""
    rows = figures["cost price"]["rows"]
    ends = [[100 * end(row[f"every_{every}"] for row in rows) for end in (min, max)] for every in (1, 4, 16)]
    return [f"{value:.1f}" for value in (*ends[0], *ends[1], ends[2][1])]


def _onnxim_rate(figures: Figures) -> float:
    """ONNXim's cycles a CPU second."""
    return next(row["cycles_per_cpu_s"] for row in figures["peers"]["speed"] if row["tool"].startswith("ONNXim"))


def _peer(figures: Figures, gemm: str, tool: str) -> dict[str, Any]:
    return next(row for row in figures["peers"]["speed"] if (row["gemm"], row["tool"]) == (gemm, tool))


def _minilm(figures: Figures, method: str, family: str, tiles: float) -> list[dict[str, Any]]:
    """Rows of a setting by seed."""
    key = (method, family, tiles)
    return [row for row in figures["MiniLM study"] if (row["method"], row["family"], row["tiles"]) == key]


def _minilm_mean(figures: Figures, what: str, method: str, family: str, tiles: float) -> str:
    return f"{statistics.fmean(row[what] for row in _minilm(figures, method, family, tiles)):.3f}"


def _minilm_share(figures: Figures, family: str, tiles: float, machine: str) -> str:
    """Cycles of a converted network, of dense."""
    (dense,), own = _minilm(figures, "dense", "dense", 1.0), _minilm(figures, "converted", family, tiles)
    return f"{own[0]['latency_cycles'][machine] / dense['latency_cycles'][machine]:.2f}"


def _matrix_gains(figures: Figures, norm: str) -> list[str]:
    """The least and the most by which scatter lowers the error of rank groups."""
    gains = [row["groups"] - row["lattice"] for row in figures["MiniLM quality"]["rows"] if row["norm"] == norm]
    return [f"{min(gains):.3f}", f"{max(gains):.3f}"]


def _prices(figures: Figures, place: int) -> list[str]:
    """The price of one design (its place among the rows of a size) at 8, 16 and 32, in per cent."""
    return [percent(price_rows(*side)[place]["price"]) for side in complete_sides(figures["synthesis"])]


def _mix_prices(figures: Figures) -> list[str]:
    """What MIX tiles add to logic at 8, 16 and 32, in per cent of the array."""
    return [f"{100 * row['share']:.1f}" for row in mix_rows(figures["synthesis"]) if row["unit"] == "both"]


def _built_shares(figures: Figures) -> list[str]:
    """Networks, requantisers and control of the design as built at 32, in per cent of the array."""
    (row,) = [price_rows(*side)[0] for side in complete_sides(figures["synthesis"]) if side[0] == 32]
    return [percent(row[key]) for key in ("networks", "requantisers", "control")]


def _more_cycles(figures: Figures, layer: str, banks: int) -> list[str]:
    """The least and the most that ``banks`` eighths of a bank a lane cost over two, in per cent of the cycles."""
    rows = {(r["side"], r["banks"]): r["cycles"] for r in figures["permutation price"]["rows"] if r["layer"] == layer}
    shares = [rows[side, side * banks // 8] / rows[side, 2 * side] - 1 for side in sorted({side for side, _ in rows})]
    return [percent(min(shares)), percent(max(shares))]


def _gemm_overhead(figures: Figures) -> list[str]:
    """Cycles of the flooded machine beside streaming, where M >= P: least and most."""
    rows = [row for row in figures["GEMM cycles"]["rows"] if not row["gemm"].startswith("1x")]
    beside = [row["flooded"] - row["stream"] for row in rows]
    return [str(min(beside)), str(max(beside))]


def _gemm(figures: Figures, name: str) -> dict[str, Any]:
    return next(row for row in figures["GEMM cycles"]["rows"] if row["gemm"] == name)


def _not_linear(figures: Figures, fraction: float) -> list[str]:
    """Share of the cycles that is no linear's: on mid-32 least and most, then on cloud-128."""
    shares = {
        machine: [
            1 - row["linear_share"]
            for (_, share), row in by_case(figures["models"], machine).items()
            if share == fraction
        ]
        for machine in ("mid-32", "cloud-128")
    }
    return [percent(extreme(shares[machine])) for machine in shares for extreme in (min, max)]


def _bert_cycles(figures: Figures) -> list[str]:
    """Cycles of a text of 1 to 32 tokens, in millions: least and most."""
    short = [p["latency_cycles"] for p in figures["sweeps"] if p["what"] == "tokens" and p["rows"] <= 32]
    return [f"{min(short) / 1e6:.1f}", f"{max(short) / 1e6:.1f}"]


def _accuracy(figures: Figures, network: str, numbers: str) -> dict[str, Any]:
    return next(r for r in figures["accuracy"]["rows"] if (r["network"], r["numbers"]) == (network, numbers))


def _scales_cost(figures: Figures, network: str) -> str:
    """What the scales' extra passes cost, in per cent."""
    fitted, plain = (
        _accuracy(figures, network, numbers)["latency_cycles"] for numbers in ("int8", "int8, largest magnitudes")
    )
    return f"{100 * (fitted / plain - 1):.1f}"


def _projection_losses(figures: Figures, kind: str, share: float) -> str:
    rows = [r["loss"] for r in figures["projection kinds"] if (r["kind"], r["tiles"]) == (kind, share)]
    return f"{statistics.fmean(rows):.3f}"


def _growth_steps(figures: Figures) -> list[str]:
    """Microseconds a tile of all four steps: least and most."""
    keys = ("tables_ns", "emit_ns", "check_ns", "simulate_ns")
    sums = [sum(row[key] for key in keys) / 1e3 for row in figures["growth"]["growth"]]
    return [f"{min(sums):.1f}", f"{max(sums):.1f}"]


def _engine_per_instruction(figures: Figures) -> list[str]:
    spent = [1e9 * row["engine_s"] / row["instructions"] for row in figures["engine"]["speed"]]
    return [f"{min(spent):.0f}", f"{max(spent):.0f}"]


def _least_pairs(figures: Figures) -> list[str]:
    """Pairs of part and machine on which automatic choice of any width is cheapest of structures; of all; and clear."""
    return numbers(least_cost(figures["study"], ANY_WIDTH, MEASURED_ON, "latency_cycles"))[:3]


def _goal(figures: Figures, family: str) -> list[str]:
    """Settings that meet the goal, of all, then median, least and most of the ratio."""
    return numbers(goal_at_equal_accuracy(figures["study"], family))[:5]


def _wins(figures: Figures, family: str) -> list[str]:
    return numbers(at_budgets(figures["study"], family, "structure"))


def _goal_range(figures: Figures, family: str) -> list[str]:
    median, low, high = _goal(figures, family)[2:]
    return [low, high, median]


def _longest_rows(figures: Figures, part: str, family: str, budget: float) -> list[dict[str, Any]]:
    rows = [row for row in figures["trained out"] if row["times"] == max(TIMES) and "accuracy" in row]
    return [row for row in rows if (row["part"], row["family"], row["budget"]) == (part, family, budget)]


def _longest(figures: Figures, family: str, budget: float, part: str = "digits") -> str:
    """Accuracy after the longest training, mean over the seeds that are there, in per cent."""
    return f"{100 * statistics.fmean(row['accuracy'] for row in _longest_rows(figures, part, family, budget)):.1f}"


def _longest_share(figures: Figures, family: str, budget: float, part: str = "digits") -> str:
    """Cycles of dense after the longest training, mean over the seeds that are there."""
    return f"{statistics.fmean(row['share'] for row in _longest_rows(figures, part, family, budget)):.3f}"


def _noticed(figures: Figures) -> list[str]:
    found = [bool(one["killed_by"]) for one in figures["mutants"]["mutants"]]
    return [str(len(found)), str(sum(found))]


_LONGER = ("GBLR, width shrinkage", "GBLR, published recipe", "block sparse", "automatic choice", "narrower")
VIT, GPT = "ViT-B/16", "GPT-2, decode 1 after 1024"

QUOTES: tuple[Quote, ...] = (
    Quote(README, "Over three seeds all means lie within {} points, at most {} below dense", _demo_spread),
    Quote(README, "`make study` ({} networks", lambda f: numbers(f"{f['study'].size}")),
    Quote(
        README,
        "GBLR with width shrinkage has {} %, by its published recipe {} %, block sparse {} %, automatic choice {} %, a "
        "narrower dense network {} %, and dense {} %; no interval",
        lambda f: [*(_longest(f, family, 0.4) for family in _LONGER), _longest(f, "dense", 1.0)],
    ),
    Quote(
        README,
        "runs in {} % of the dense cycles on `mid-32`",
        lambda f: [percent(r["share"]) for r in f["random layer"]["rows"] if r["machine"] == "mid-32"],
    ),
    Quote(
        README,
        "MiniLM as one int8 program keeps a cosine of {}",
        lambda f: [f"{_accuracy(f, 'MiniLM', 'int8')['cosine']:.4f}"],
    ),
    Quote(
        README,
        "ViT-Base's linears take {} ms to simulate, {} % of the time",
        lambda f: [f"{1e3 * _engine(f)['warm_s']:.0f}", f"{100 * _engine(f)['of_pytorch']:.1f}"],
    ),
    Quote(
        RESULTS,
        "Dense takes {} cycles and {} uJ on both machines",
        lambda f: [
            f"{f['demo']['rows'][0]['machines']['mid-32']['latency_cycles']:,}",
            f"{f['demo']['rows'][0]['machines']['mid-32']['energy_pj'] / 1e6:.1f}",
        ],
    ),
    Quote(
        RESULTS,
        "All means lie within {} points of each other, and seeds differ by as much: at most {} of dense are lost",
        _demo_spread,
    ),
    Quote(
        RESULTS,
        "({} against {} at 0.6x)",
        lambda f: [
            f"{_demo_points(f)[name]:.1f}" for name in ("lattice projection, 0.6x", "GBLR, hardware cost, 0.6x")
        ],
    ),
    Quote(
        RESULTS,
        "scatter lowers the error by {} to {} in the plain norm and by {} to {} in the weighted one",
        lambda f: [*_matrix_gains(f, "plain"), *_matrix_gains(f, "weighted")],
    ),
    Quote(
        RESULTS,
        "as shares of dense ({} on both machines)",
        lambda f: [f"{_minilm(f, 'dense', 'dense', 1.0)[0]['latency_cycles']['mid-32']:,}"],
    ),
    Quote(
        RESULTS,
        "three seeds of distillation have {}, {}, {} (lattice) and {}, {}, {} (rank groups)",
        lambda f: [
            f"{row['accuracy']:.3f}"
            for family in ("lattice", "rank groups")
            for row in _minilm(f, "distilled", family, 0.2)
        ],
    ),
    Quote(
        RESULTS,
        "before and after distillation ({} against {} in every seed to 0.001)",
        lambda f: [_minilm_mean(f, "cosine", "distilled", family, 0.2) for family in ("lattice", "rank groups")],
    ),
    Quote(
        RESULTS,
        "where the lattice takes {} of dense instead of {} (at 0.3: {} instead of {})",
        lambda f: [
            _minilm_share(f, "lattice", tiles, machine) for tiles in (0.2, 0.3) for machine in ("plain-32", "mid-32")
        ],
    ),
    Quote(
        RESULTS,
        "the lattice's cosine rises from {} to {} and its accuracy from {} to {}, that of the dense network, without "
        "any training; at 0.2 from {} to {} and from {} to {}.",
        lambda f: [
            _minilm_mean(f, what, method, "lattice", tiles)
            for tiles in (0.3, 0.2)
            for what in ("cosine", "accuracy")
            for method in ("converted", "in order")
        ],
    ),
    Quote(
        RESULTS,
        "(low rank at 0.3: {} to {})",
        lambda f: [_minilm_mean(f, "accuracy", method, "low rank", 0.3) for method in ("converted", "in order")],
    ),
    Quote(
        RESULTS,
        "(mean loss {} against {} and {} against {})",
        lambda f: [
            _projection_losses(f, kind, share) for share in (0.05, 0.1) for kind in ("ranks", "ranks by entries")
        ],
    ),
    Quote(
        RESULTS,
        "adds {} % (compiled: {} %)",
        lambda f: [
            f"{100 * (f['training step'][way]['GBLR, masks and hardware cost']['of_gblr'] - 1):.1f}"
            for way in ("plain", "compiled")
        ],
    ),
    Quote(
        RESULTS,
        "are the difference in cycles, {} % of the dense MiniLM and {} % of the converted one",
        lambda f: [_scales_cost(f, name) for name in ("MiniLM", "MiniLM, 0.5 of the tiles")],
    ),
    Quote(
        NETWORKS,
        "What is not a linear is {} to {} % of a dense network on `mid-32` (up to {} % on `cloud-128`) and {} to {} % "
        "of one at 15 % ({} to {} %)",
        lambda f: [figure for at, figure in enumerate(_not_linear(f, 1.0) + _not_linear(f, 0.15)) if at != 2],
    ),
    Quote(
        NETWORKS,
        "by the authors' counting (below): {} cycles on `mid-32` against {} dense, {} with {} of the multiplications",
        lambda f: [
            *(f"{_model(f, VIT, fraction)['latency_cycles']:,}" for fraction in (0.314, 1.0)),
            *(
                f"{_model(f, VIT, 0.314)[key] / _model(f, VIT)[key]:.2f}"
                for key in ("latency_cycles", "multiplications")
            ),
        ],
    ),
    Quote(
        NETWORKS,
        "is bound by that: {} % of the channel's bandwidth on `mid-32`",
        lambda f: [percent(_model(f, GPT)["roofline_fraction"])],
    ),
    Quote(NETWORKS, "costs BERT-base the same {} to {} M cycles", _bert_cycles),
    Quote(
        NETWORKS,
        "At one sequence {} cycles stand against {} for the bytes alone",
        lambda f: [f"{f['sweeps'][0][key]:,}" for key in ("latency_cycles", "memory_roof_cycles")],
    ),
    Quote(NETWORKS, "ViT-Base has {} G:", lambda f: [f"{_model(f, VIT)['multiplications'] / 1e9:.3f}"]),
    Quote(
        NETWORKS,
        "ViT-Base at full size: {} instructions",
        lambda f: [f"{_model(f, VIT)['instructions']:,}"],
    ),
    Quote(
        NETWORKS,
        "MiniLM's embeddings have a cosine of {} to float",
        lambda f: [f"{_accuracy(f, 'MiniLM', 'int8')['cosine']:.4f}"],
    ),
    Quote(SPEED, "five dependences, {} to {} ns an instruction here", _engine_per_instruction),
    Quote(
        "docs/training.md",
        "call that is {} to {} % of the rest of the step, with `every=4` {} to {} %, with `every=16` at most {}",
        _cost_prices,
    ),
    Quote(
        SPEED,
        "The demo's program then takes {} s from start to end, {} of the CPU time that it takes compiled",
        _starts,
    ),
    Quote(SPEED, "Time in the program is flat: {} to {} µs a tile", _growth_steps),
    Quote(
        SPEED,
        "up to {} µs a tile on this virtual machine",
        lambda f: [f"{max(row['system_ns'] for row in f['growth']['growth']) / 1e3:.1f}"],
    ),
    Quote(
        SPEED,
        "Ten million tiles take {} GiB, PyTorch and the interpreter included ({} GiB)",
        lambda f: [
            f"{f['growth']['growth'][-1]['peak_gib']:.1f}",
            f"{f['growth']['growth'][0]['peak_gib']:.2f}",
        ],
    ),
    Quote(
        CLAIMS,
        "not told from dense at either budget, in {} and {} of the cycles",
        lambda f: [_longest_share(f, "GBLR, width shrinkage", budget) for budget in (0.4, 0.32)],
    ),
    Quote(
        CLAIMS,
        "has {} and {} where dense has {}, in {} and {} of the cycles",
        lambda f: [
            *(_longest(f, "GBLR, width shrinkage", budget, "fashion-vit") for budget in (0.65, 0.4)),
            _longest(f, "dense", 1.0, "fashion-vit"),
            *(_longest_share(f, "GBLR, width shrinkage", budget, "fashion-vit") for budget in (0.65, 0.4)),
        ],
    ),
    Quote(CLAIMS, "In words, for the {} networks above", lambda f: [str(f["study"].size)]),
    Quote(
        CLAIMS,
        "at {} budgets {} wins, {} ties, {} loss by intervals",
        lambda f: [str(sum(map(int, _wins(f, ANY_WIDTH)))), *_wins(f, ANY_WIDTH)],
    ),
    Quote(
        CLAIMS,
        "within half a point of dense on {} of {} pairs of part and machine, on {} of them clear",
        _least_pairs,
    ),
    Quote(CLAIMS, "fixed it has {} ties and {} losses", lambda f: _wins(f, LEARNED)[1:]),
    Quote(
        CLAIMS,
        "At equal accuracy: {} to {} of the cycles with free width (median {}",
        lambda f: _goal_range(f, ANY_WIDTH),
    ),
    Quote(CLAIMS, "{} to {} with fixed width (median {})", lambda f: _goal_range(f, LEARNED)),
    Quote(CLAIMS, "The goal of 0.5 is met by {} of {} settings", lambda f: _goal(f, ANY_WIDTH)[:2]),
    Quote(
        SYNTHESIS,
        "scatter costs {} % of the array's area at 32** ({} % at 16, {} % at 8)",
        lambda f: _prices(f, 0)[::-1],
    ),
    Quote(SYNTHESIS, "crossbars are {} points of it. {} are requantisers", lambda f: _built_shares(f)[:2]),
    Quote(SYNTHESIS, "cells. {} are twice the adders", lambda f: _built_shares(f)[2:]),
    Quote(SYNTHESIS, "brings the price to **{} %** ({} % at 16, {} % at 8)", lambda f: _prices(f, 7)[::-1]),
    Quote(SYNTHESIS, "**One bank a lane costs {} %** of the array", lambda f: _prices(f, 8)[2:]),
    Quote(
        SYNTHESIS,
        "**MIX tiles cost {} % of the array at 32** ({} % at 16, {} % at 8)",
        lambda f: _mix_prices(f)[::-1],
    ),
    Quote(
        SYNTHESIS,
        "and {} to {} % more cycles on an interval structure, but {} to {} % more",
        lambda f: [*_more_cycles(f, "intervals", 8), *_more_cycles(f, "lattice", 8)],
    ),
    Quote(
        SYNTHESIS,
        "with omega networks the price is {} % at 32",
        lambda f: _prices(f, 6)[2:],
    ),
    Quote(
        SYNTHESIS,
        "cannot do better than the dense layer, {} cycles; with scatter it is {}.",
        lambda f: [
            f"{r['cycles']:,}" for n in ("plain-32", "mid-32") for r in f["random layer"]["rows"] if r["machine"] == n
        ],
    ),
    Quote(REFERENCES, "but for {} to {} cycles once a layer", _gemm_overhead),
    Quote(
        REFERENCES,
        "C - 2) of SCALE-Sim's cycles: {} at 197 tokens, {} at 1024",
        lambda f: [
            f"{_gemm(f, name)['flooded'] / _gemm(f, name)['scalesim_ws']:.2f}"
            for name in ("197x768x768", "1024x768x768")
        ],
    ),
    Quote(
        REFERENCES,
        "for 197x768x768 it is {} cycles of weight loading and {} of fill and drain",
        lambda f: [f"{_gemm(f, '197x768x768')[key]:,}" for key in ("load", "fill_and_drain")],
    ),
    Quote(
        REFERENCES,
        "(64x64x64: {} times SCALE-Sim, {} times ONNXim's rate)",
        lambda f: [
            f"{_peer(f, '64x64x64', 'SCALE-Sim 3.0 ws')['time']:.0f}",
            f"{_peer(f, '64x64x64', 'ONNXim, not run here')['rate']:.1f}",
        ],
    ),
    Quote(
        REFERENCES,
        "A whole ViT-Base runs at {} M cycles a CPU second, {} times ONNXim's rate",
        lambda f: [
            f"{_engine(f)['cycles_per_s'] / 1e6:.0f}",
            f"{round(_engine(f)['cycles_per_s'] / _onnxim_rate(f), -1):.0f}",
        ],
    ),
    Quote(VERIFICATION, "{} mutants, {} noticed", _noticed),
)
