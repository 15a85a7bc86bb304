"""``gblr-hw advise``: which structure or how many bits, by tokens and bandwidth."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from analysis.file_kinds import PICTURES
from gblr_hw.cli.options.advise_options import TOKENS, AdviseOptions
from gblr_hw.cli.options.taking import takes
from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.outputs import Output, check_outputs, machine_file
from gblr_hw.cli.shared.telling import heading, print_json, progress_bar, say
from gblr_hw.cli.sources.advise_source import chosen, numbers, of_checkpoint, of_model
from gblr_hw.cli.sources.lower_source import model_file
from simulator.base.errors import InputError
from simulator.base.files import replacing
from simulator.machine.machine import Machine

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gblr_hw.advice.advise import Advice, Measure, Regime
    from gblr_hw.advice.confirm import Confirmed, Simulate
    from gblr_hw.weights.stored import DenseWeights

_MAP_TOKENS, _MAP_OCTAVES = tuple(1 << power for power in range(11)), range(-3, 4)
# parameter -> what it acts with
_ACTS_WITH = {
    "random_weights": ("--model",),
    "table": ("a checkpoint",),
    "layer": ("a checkpoint",),
    "transposed": ("a checkpoint",),
    **dict.fromkeys(
        ("checkpoint", "model", "machine", "tokens", "bandwidth", "error", "tiles", "by", "narrow_bits", "way",
         "covariances", "include", "exclude", "simulated", "leave_out", "jobs", "scheduler", "output", "picture",
         "as_json"),
        ALWAYS,
    ),
}  # fmt: skip


@takes(AdviseOptions)
def advise_command(context: typer.Context, options: AdviseOptions) -> None:
    """What to do with each layer: dense int8, int4, a structure, or both, at one error, by tokens and bandwidth."""
    from gblr_hw.advice.report import MEASURES, document

    _check(context, options)
    measure = MEASURES[options.by]
    machine, said = _machine(options.machine, options.narrow_bits)
    with progress_bar(options.as_json) as progress:
        found = _advised(options, machine, progress)
        if options.picture is not None:
            progress(0, 1, "drawing")
            _draw(found.advice, measure, options.by, options.picture, scales=found.scales)
    told = document(found.advice, found.regimes, measure, found.confirmed)
    if options.output is not None:
        with replacing(options.output) as file:
            file.write((json.dumps(told, indent=2, sort_keys=True) + "\n").encode())
    if options.as_json:
        print_json(told)
        return
    if said:
        say(said)
    _print(found, measure)
    for path in (options.output, options.picture):
        if path is not None:
            say(f"written to {path}")


def _check(context: typer.Context, options: AdviseOptions) -> None:
    """Raise InputError for outputs that may not be written, and for options that cannot act."""
    from gblr_hw.advice.report import MEASURES

    check_outputs(
        [Output("--output", options.output), Output("--picture", options.picture, PICTURES)],
        inputs={
            "the checkpoint": options.checkpoint, "--machine": machine_file(options.machine),
            "--covariances": options.covariances, "--model": model_file(options.model),
        },
    )  # fmt: skip
    options.place.check()
    check_acting(context, ["--model"] if options.model is not None else ["a checkpoint"], _ACTS_WITH)
    if options.by not in MEASURES:
        raise InputError("--by", repr(options.by), f"it is one of {', '.join(MEASURES)}", "Choose one.")
    if options.random_weights and options.tiles is None:
        rule = "errors of random weights mean nothing, but costs at a share of the tiles do"
        raise InputError("--random-weights", "no --tiles", rule, "Add --tiles 0.5, say.")


@dataclass(frozen=True, eq=False)
class _Advised:
    """Advice, its regimes, what the simulator says of the best of them; whole: of a network, not of layers alone;
    scales: rows grow with tokens.
    """

    advice: Advice
    regimes: list[Regime]
    confirmed: Sequence[Confirmed]
    whole: bool
    scales: bool


def _advised(options: AdviseOptions, machine: Machine, progress: Callable[[int, int, str], None]) -> _Advised:
    from gblr_hw.advice.advise import Regime, advise
    from gblr_hw.advice.confirm import confirm, layer_by_layer, whole_network
    from gblr_hw.advice.report import MEASURES
    from gblr_hw.conversion.covariances import load_covariances
    from gblr_hw.jobs.executors import Workers

    moments = None if options.covariances is None else load_covariances(options.covariances)
    progress(0, 1, "reading")
    if options.model is not None:
        counts, exported, rows = of_model(
            options.model, options.checkpoint, options.tokens, options.random_weights,
            tuple(options.tensors.leave_out or ()),
        )  # fmt: skip
        layers = chosen(exported(counts[0]), options.include, options.exclude, options.model)
    else:
        counts, exported, rows = numbers("--tokens", options.tokens or TOKENS), None, None
        layers = of_checkpoint(options.checkpoint, options.include, options.exclude, options.tensors)
    regimes = [Regime(count, value) for value in _bandwidths(options.bandwidth, machine) for count in counts]
    with Workers(**vars(options.place)) as workers:
        found = advise(
            layers, machine, error=options.error, tiles=options.tiles, covariances=_fitting(moments, layers), rows=rows,
            ways=options.way, on_chip=exported is not None, progress=progress, workers=workers,
        )  # fmt: skip
        run: Simulate = layer_by_layer(found, workers) if exported is None else whole_network(found, exported, workers)
        confirmed = confirm(found, regimes, MEASURES[options.by], run, progress) if options.simulated else []
    scales = rows is None or any(one for _, one in rows.values())
    return _Advised(found, regimes, confirmed, exported is not None, scales)


def _machine(name: str, narrow_bits: int) -> tuple[Machine, str]:
    """The machine, with narrow tiles if it has none of its own, and a sentence if so."""
    machine = Machine.load(name)
    if machine.datatypes.narrow_bits or not narrow_bits:
        return machine, ""
    said = f"machine '{machine.name}' has no narrow tiles: here with datatypes.narrow_bits = {narrow_bits}"
    return machine.with_(datatypes={"narrow_bits": narrow_bits}), said


def _fitting(
    moments: dict[str, npt.NDArray[np.float64]] | None, layers: dict[str, DenseWeights]
) -> dict[str, npt.NDArray[np.float64]] | None:
    """Second moments of the layers that are compared. Raises InputError if there are none."""
    if moments is None:
        return None
    mine = {name: moments[name] for name in layers if name in moments}
    if not mine:
        rule = f"such layers are {', '.join(list(layers)[:8])}{', ...' if len(layers) > 8 else ''}"
        raise InputError("--covariances", "none of a layer that is compared", rule, "Collect them for these layers.")
    return mine


def _bandwidths(text: str | None, machine: Machine) -> list[float]:
    if text is None:
        return [machine.dram.gb_per_s]
    found = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = 0.0
        if not 0 < value < 1e6:
            rule = "it is GB/s above 0, with commas between"
            raise InputError("--bandwidth", repr(text), rule, "Write 6.4,25.6, say.")
        machine.with_(dram={"gb_per_s": value})  # refused here, if at all
        found.append(value)
    return list(dict.fromkeys(found))


def _draw(advice: Advice, measure: Measure, by: str, path: Path, *, scales: bool) -> None:
    from analysis.pictures.advice_map import Winner, draw_advice
    from analysis.pictures.style import save_figure
    from gblr_hw.advice.advise import FALLBACK, Regime
    from gblr_hw.advice.report import colours

    machine, looks, cells = advice.machine, colours(), []
    for octave in _MAP_OCTAVES:
        for tokens in _MAP_TOKENS if scales else (1,):
            regime = Regime(tokens, machine.dram.gb_per_s * 2.0**octave)
            best = advice.best(regime, measure)
            share = advice.total(best, regime, measure) / advice.total(FALLBACK, regime, measure)
            cells.append(Winner(tokens, regime.gb_per_s, *looks[best], share))
    peak = machine.rows * machine.cols * machine.clock_ghz * 1e9
    held = f"{advice.tiles:g} of the tiles" if advice.errors is None else "one error"
    save_figure(draw_advice(cells, peak, f"{machine.name}: all layers one way, at {held}", by), path)


def _print(found: _Advised, measure: Measure) -> None:
    from gblr_hw.advice import report

    advice = found.advice
    heading("what each way needs")
    print(report.layers_table(advice), end="")
    for regime in found.regimes:
        print()
        heading(f"{advice.called(regime)}: all layers")
        print(report.regime_table(advice, regime, measure), end="")
    if found.confirmed:
        print()
        heading("closed forms beside the simulator")
        print(report.confirmed_table(advice, found.confirmed, measure, found.whole), end="")
    print()
    heading("advice")
    for regime in found.regimes:
        print(report.sentence(advice, regime, measure))
    for line in report.disagreements(advice, found.confirmed, measure):
        print(f"Where the two disagree: {line}")
