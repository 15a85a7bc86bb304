"""``gblr-hw codesign``: machines and structures searched together, and what scatter is worth at equal area."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.file_kinds import PICTURES
from gblr_hw.cli.shared.options import (
    CovariancesOption,
    ExcludeOption,
    IncludeOption,
    JsonOption,
    LayerOption,
    LeaveOutOption,
    MachineOption,
    SeedOption,
    TableOption,
    TransposedOption,
    console,
    print_json,
    progress_bar,
    say,
    told_of,
)
from gblr_hw.cli.shared.outputs import Output, check_outputs, machine_file
from simulator.base.errors import InputError
from simulator.base.files import output_folder, replacing
from simulator.machine.machine import Machine

if TYPE_CHECKING:
    from gblr_hw.codesign.loop import Outcome
    from gblr_hw.codesign.networks import Networks
    from gblr_hw.weights.stored import DenseWeights


def codesign_command(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint with dense layers, to be approximated.")],
    covariances: CovariancesOption = None,
    machine: MachineOption = "mid-32",
    tokens: Annotated[int, typer.Option("--tokens", help="Activation rows that enter every layer.", min=1)] = 64,
    max_area: Annotated[
        float | None, typer.Option("--max-area-mm2", help="Largest area; without it area is an objective.")
    ] = None,
    max_energy: Annotated[
        float | None, typer.Option("--max-energy-uj", help="Largest energy; without it energy is an objective.")
    ] = None,
    trials: Annotated[int, typer.Option("--trials", help="Pairs to ask for, half of them with scatter.", min=1)] = 200,
    seed: SeedOption = 0,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    table: TableOption = None,
    layer: LayerOption = None,
    leave_out: LeaveOutOption = None,
    transposed: TransposedOption = None,
    space_file: Annotated[
        Path | None, typer.Option("--space", help="TOML with other values to search (docs/codesign.md).")
    ] = None,
    work: Annotated[
        Path | None, typer.Option("--work", help="Folder for fits and measurements: a later search goes on from there.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON of the front to write.")] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Picture to draw (PNG, SVG or PDF).")] = None,
    machines: Annotated[
        Path | None, typer.Option("--machines", help="Folder for the front's machines, a TOML file each.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search P, banks, memories and structures together; `--machine` gives clock, DRAM and what is not searched."""
    from gblr_hw.codesign.loop import codesign
    from gblr_hw.codesign.measure import Measurements
    from gblr_hw.codesign.problem import Bounds, Problem
    from gblr_hw.codesign.report import document
    from gblr_hw.codesign.search import check_bounds
    from gblr_hw.codesign.space import Space
    from gblr_hw.files.checkpoint import load_checkpoint
    from gblr_hw.weights.dense_layers import dense_layers

    _check_written(checkpoint, covariances, machine, space_file, output, picture, work, machines)
    bounds = Bounds(max_area, None if max_energy is None else max_energy * 1e6)
    space = Space() if space_file is None else Space.load(space_file)
    with progress_bar(as_json) as progress:
        layers = load_checkpoint(checkpoint, **vars(told_of(table, layer, leave_out, transposed)))
        dense = dense_layers(layers, f"checkpoint '{checkpoint}'", include, exclude)
        networks = _networks(dense, covariances, work, lambda what: progress(0, 1, what))
        problem = Problem(space, Machine.load(machine), networks, tokens, bounds)
        check_bounds(problem)
        outcome = codesign(problem, Measurements(work), trials, seed, progress)
    if machines is not None:
        output_folder(machines)
    found = document(outcome, problem, trials, seed)
    if output is not None:
        _write(output, json.dumps(found, indent=2, sort_keys=True) + "\n")
    if machines is not None:
        for pair in outcome.front:
            _write(machines / f"{pair.machine.name}.toml", pair.machine.to_toml())
    if picture is not None:
        _draw(outcome, picture)
    if as_json:
        print_json(found)
        return
    _print(outcome, [str(path) for path in (output, picture, machines) if path is not None])


def _networks(
    dense: Mapping[str, DenseWeights], covariances: Path | None, work: Path | None, fitting: object
) -> Networks:
    """The dense layers that are chosen, ready to be fitted."""
    from types import SimpleNamespace

    from gblr_hw.codesign.networks import Networks
    from gblr_hw.conversion.conversion_input import read_layers
    from gblr_hw.conversion.covariances import load_covariances
    from gblr_hw.conversion.fit.fit_layer import Schedule

    moments = None if covariances is None else load_covariances(covariances)
    if moments is not None:
        moments = {name: moments[name] for name in dense if name in moments}
        if not moments:
            raise InputError(
                f"--covariances '{covariances}'",
                "none of a layer that is searched",
                f"such layers are {', '.join(list(dense)[:8])}{', ...' if len(dense) > 8 else ''}",
                "Collect them for these layers, or leave the option out.",
            )
    # Problems are made for each array that is searched; this one only checks the layers.
    problems, biases = read_layers(dense, SimpleNamespace(rows=8, cols=8), moments, {})
    return Networks(problems, biases, Schedule(), work, fitting)  # type: ignore[arg-type]


def _print(outcome: Outcome, written: list[str]) -> None:
    from gblr_hw.codesign.report import answer, comparison_table, front_table, gains, refusals

    console.print("pairs that none beats", style="bold")
    print(front_table(outcome.front), end="")
    print(f"{len(outcome.front)} of {len(outcome.pairs)} pairs{refusals(outcome)}")
    console.print("\nplain against scatter, at equal area and error", style="bold")
    print(comparison_table(outcome.comparisons), end="")
    print(answer(outcome.comparisons))
    print(gains(outcome))
    for path in written:
        say(f"written to {path}")


def _draw(outcome: Outcome, path: Path) -> None:
    from analysis.pictures.codesign_picture import CodesignPoint, draw_codesign
    from analysis.pictures.style import save_figure

    points = [
        CodesignPoint(pair.latency_s, pair.error, pair.area_mm2, pair.scatter, pair.network.family)
        for pair in outcome.pairs
    ]
    areas = sorted({row.max_area_mm2 for row in outcome.comparisons})
    save_figure(draw_codesign(points, areas), path)


def _check_written(
    checkpoint: Path,
    covariances: Path | None,
    machine: str,
    space: Path | None,
    output: Path | None,
    picture: Path | None,
    work: Path | None,
    machines: Path | None,
) -> None:
    from gblr_hw.codesign.measure import MEASUREMENTS

    measured = None if work is None else work / MEASUREMENTS
    read = {
        "the checkpoint": checkpoint,
        "--covariances": covariances,
        "--machine": machine_file(machine),
        "--space": space,
    }
    check_outputs(
        [Output("--output", output), Output("--picture", picture, PICTURES)],
        inputs={**read, "the measurements in --work": measured},
        folders={"--work": work, "--machines": machines},
    )
    base = read["--machine"]
    if machines is not None and base is not None and base.resolve().parent == machines.resolve():
        # Which names the search gives its machines is not known before it has ended.
        raise InputError(
            f"--machines '{machines}'",
            f"the folder of --machine '{base}'",
            "the machines found are written there, and none replaces what is read",
            "Name another folder.",
        )


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())
