"""``gblr-hw advise``: which structure or how many bits, by tokens and bandwidth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.file_kinds import PICTURES
from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.options import (
    CovariancesOption,
    ExcludeOption,
    IncludeOption,
    JsonOption,
    LayerOption,
    LeaveOutOption,
    MachineOption,
    TableOption,
    TransposedOption,
    console,
    print_json,
    progress_bar,
    say,
)
from gblr_hw.cli.shared.outputs import Output, check_outputs, machine_file
from gblr_hw.cli.sources.advise_source import TOKENS, chosen, numbers, of_checkpoint, of_model
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
         "covariances", "include", "exclude", "simulated", "leave_out", "output", "picture", "as_json"),
        ALWAYS,
    ),
}  # fmt: skip


def advise_command(
    context: typer.Context,
    checkpoint: Annotated[Path | None, typer.Argument(help="A checkpoint with dense layers; or give --model.")] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="A model, as `gblr-hw lower` takes it; a checkpoint fills it.", metavar="NAME"),
    ] = None,
    machine: MachineOption = "mid-32",
    tokens: Annotated[
        str | None, typer.Option("--tokens", help=f"Tokens of a sequence, of each regime [default: {TOKENS}].")
    ] = None,
    bandwidth: Annotated[
        str | None, typer.Option("--bandwidth", help="DRAM GB/s of each regime [default: the machine's].")
    ] = None,
    error: Annotated[
        float | None,
        typer.Option("--error", help="Relative error that all ways are held to [default: that of dense 4 bits]."),
    ] = None,
    tiles: Annotated[
        float | None, typer.Option("--tiles", help="Instead: structures get this share of the dense tiles.")
    ] = None,
    by: Annotated[str, typer.Option("--by", help="What is least in the best: latency, energy or bytes.")] = "latency",
    narrow_bits: Annotated[
        int, typer.Option("--narrow-bits", help="Of the machine's narrow tiles, where it has none; 0: no such ways.")
    ] = 4,
    way: Annotated[
        list[str] | None, typer.Option("--way", help="Compare only these; may be repeated.", metavar="NAME")
    ] = None,
    covariances: CovariancesOption = None,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Of a model without weights; only with --tiles.")
    ] = False,
    simulated: Annotated[
        bool, typer.Option("--simulate/--no-simulate", help="Run the ways that look best cycle by cycle as well.")
    ] = True,
    table: TableOption = None,
    layer: LayerOption = None,
    leave_out: LeaveOutOption = None,
    transposed: TransposedOption = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON of everything to write.")] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Map of winners to draw, tokens by bandwidth (PNG, SVG or PDF).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What to do with each layer: dense int8, int4, a structure, or both, at one error, by tokens and bandwidth."""
    from gblr_hw.advice.advise import Regime, advise
    from gblr_hw.advice.confirm import confirm, layer_by_layer, whole_network
    from gblr_hw.advice.report import MEASURES, document
    from gblr_hw.conversion.covariances import load_covariances

    check_outputs(
        [Output("--output", output), Output("--picture", picture, PICTURES)],
        inputs={
            "the checkpoint": checkpoint, "--machine": machine_file(machine), "--covariances": covariances,
            "--model": model_file(model),
        },
    )  # fmt: skip
    check_acting(context, ["--model"] if model is not None else ["a checkpoint"], _ACTS_WITH)
    if by not in MEASURES:
        raise InputError("--by", repr(by), f"it is one of {', '.join(MEASURES)}", "Choose one.")
    if random_weights and tiles is None:
        rule = "errors of random weights mean nothing, but costs at a share of the tiles do"
        raise InputError("--random-weights", "no --tiles", rule, "Add --tiles 0.5, say.")
    held, said = _machine(machine, narrow_bits)
    moments = None if covariances is None else load_covariances(covariances)
    with progress_bar(as_json) as progress:
        progress(0, 1, "reading")
        if model is not None:
            counts, exported, rows = of_model(model, checkpoint, tokens, random_weights, tuple(leave_out or ()))
            layers = chosen(exported(counts[0]), include, exclude, model)
        else:
            counts, exported, rows = numbers("--tokens", tokens or TOKENS), None, None
            layers = of_checkpoint(checkpoint, include, exclude, table, layer, leave_out, transposed)
        regimes = [Regime(count, value) for value in _bandwidths(bandwidth, held) for count in counts]
        found = advise(
            layers, held, error=error, tiles=tiles, covariances=_fitting(moments, layers), rows=rows, ways=way,
            on_chip=exported is not None, progress=progress,
        )  # fmt: skip
        run: Simulate = layer_by_layer(found) if exported is None else whole_network(found, exported)
        confirmed = confirm(found, regimes, MEASURES[by], run, progress) if simulated else []
        if picture is not None:
            progress(0, 1, "drawing")
            _draw(found, MEASURES[by], by, picture, scales=rows is None or any(one for _, one in rows.values()))
    told = document(found, regimes, MEASURES[by], confirmed)
    if output is not None:
        with replacing(output) as file:
            file.write((json.dumps(told, indent=2, sort_keys=True) + "\n").encode())
    if as_json:
        print_json(told)
        return
    if said:
        say(said)
    _print(found, regimes, MEASURES[by], confirmed, whole=exported is not None)
    for path in (output, picture):
        if path is not None:
            say(f"written to {path}")


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


def _print(
    advice: Advice, regimes: list[Regime], measure: Measure, confirmed: Sequence[Confirmed], *, whole: bool
) -> None:
    from gblr_hw.advice import report

    console.print("what each way needs", style="bold")
    print(report.layers_table(advice), end="")
    for regime in regimes:
        console.print(f"\n{advice.called(regime)}: all layers", style="bold")
        print(report.regime_table(advice, regime, measure), end="")
    if confirmed:
        console.print("\nclosed forms beside the simulator", style="bold")
        print(report.confirmed_table(advice, confirmed, measure, whole), end="")
    console.print("\nadvice", style="bold")
    for regime in regimes:
        print(report.sentence(advice, regime, measure))
    for line in report.disagreements(advice, confirmed, measure):
        print(f"Where the two disagree: {line}")
