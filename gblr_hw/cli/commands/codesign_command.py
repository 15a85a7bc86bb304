"""``gblr-hw codesign``: machines and structures searched together, and what scatter is worth at equal area."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gblr_hw.cli.shared.options import JsonOption, MachineOption, check_output, console, print_json, progress_bar
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

if TYPE_CHECKING:
    from gblr_hw.codesign.loop import Outcome
    from gblr_hw.codesign.networks import Networks


def codesign_command(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint with dense layers, to be approximated.")],
    covariances: Annotated[
        Path | None,
        typer.Option("--covariances", help="Safetensors with input second moments (n, n) under the layers' names."),
    ] = None,
    machine: MachineOption = "mid-32",
    tokens: Annotated[int, typer.Option("--tokens", help="Activation rows that enter every layer.", min=1)] = 64,
    max_area: Annotated[
        float | None, typer.Option("--max-area-mm2", help="Largest area; without it area is an objective.")
    ] = None,
    max_energy: Annotated[
        float | None, typer.Option("--max-energy-uj", help="Largest energy; without it energy is an objective.")
    ] = None,
    trials: Annotated[int, typer.Option("--trials", help="Pairs to ask for, half of them with scatter.", min=1)] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Of the sampler.", min=0)] = 0,
    include: Annotated[
        list[str] | None, typer.Option("--include", help="Shell pattern of layers; may be repeated.", metavar="PATTERN")
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", help="Shell pattern of layers to leave out; may be repeated.", metavar="PATTERN"),
    ] = None,
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

    for path in (output, picture):
        if path is not None:
            check_output(path)
    for folder in (work, machines):
        if folder is not None:
            _folder(folder)
    bounds = Bounds(max_area, None if max_energy is None else max_energy * 1e6)
    space = Space() if space_file is None else Space.load(space_file)
    with progress_bar(as_json) as progress:
        networks = _networks(checkpoint, covariances, include, exclude, work, lambda what: progress(0, 1, what))
        problem = Problem(space, Machine.load(machine), networks, tokens, bounds)
        check_bounds(problem)
        outcome = codesign(problem, Measurements(work), trials, seed, progress)
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
    checkpoint: Path,
    covariances: Path | None,
    include: list[str] | None,
    exclude: list[str] | None,
    work: Path | None,
    fitting: object,
) -> Networks:
    """The checkpoint's dense layers that are chosen, ready to be fitted."""
    from types import SimpleNamespace

    from gblr_hw.codesign.networks import Networks
    from gblr_hw.conversion.conversion_input import read_layers
    from gblr_hw.conversion.covariances import load_covariances
    from gblr_hw.conversion.fit.fit_layer import Schedule
    from gblr_hw.files.checkpoint import load_checkpoint
    from gblr_hw.weights.dense_layers import dense_layers

    dense = dense_layers(load_checkpoint(checkpoint), f"checkpoint '{checkpoint}'", include, exclude)
    moments = None if covariances is None else load_covariances(covariances)
    if moments is not None:
        moments = {name: moments[name] for name in dense if name in moments}
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
        console.print(f"written to {path}", highlight=False, soft_wrap=True)


def _draw(outcome: Outcome, path: Path) -> None:
    from analysis.pictures.codesign_picture import CodesignPoint, draw_codesign
    from analysis.pictures.style import save_figure

    points = [
        CodesignPoint(pair.latency_s, pair.error, pair.area_mm2, pair.scatter, pair.network.family)
        for pair in outcome.pairs
    ]
    areas = sorted({row.max_area_mm2 for row in outcome.comparisons})
    save_figure(draw_codesign(points, areas), path)


def _folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"folder '{path}'", "a file", "it is a folder, made if it is missing", "Name another.")
    path.mkdir(parents=True, exist_ok=True)


def _write(path: Path, text: str) -> None:
    from simulator.base.files import replacing

    with replacing(path) as file:
        file.write(text.encode())
