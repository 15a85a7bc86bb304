"""``gblr-hw codesign``: machines and structures searched together, and what scatter is worth at equal area."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from analysis.file_kinds import PICTURES
from gblr_hw.cli.options.codesign_options import CodesignOptions
from gblr_hw.cli.options.taking import takes
from gblr_hw.cli.shared.outputs import Output, check_outputs, machine_file
from gblr_hw.cli.shared.telling import heading, print_json, progress_bar, say
from simulator.base.errors import InputError
from simulator.base.files import output_folder, replacing
from simulator.machine.machine import Machine

if TYPE_CHECKING:
    from gblr_hw.codesign.loop import Outcome
    from gblr_hw.codesign.networks import Networks
    from gblr_hw.weights.stored import DenseWeights


@takes(CodesignOptions)
def codesign_command(_: typer.Context, options: CodesignOptions) -> None:
    """Search P, banks, memories and structures together; `--machine` gives clock, DRAM and what is not searched."""
    from gblr_hw.codesign.loop import codesign
    from gblr_hw.codesign.measure import Measurements
    from gblr_hw.codesign.problem import Bounds, Problem
    from gblr_hw.codesign.report import document
    from gblr_hw.codesign.search import check_bounds
    from gblr_hw.codesign.space import Space
    from gblr_hw.files.checkpoint import load_checkpoint
    from gblr_hw.weights.dense_layers import dense_layers

    options.place.check()
    _check_written(options)
    checkpoint, work, energy_uj = options.checkpoint, options.work, options.max_energy
    bounds = Bounds(options.max_area, None if energy_uj is None else energy_uj * 1e6)
    space = Space() if options.space_file is None else Space.load(options.space_file)
    with progress_bar(options.as_json) as progress:
        layers = load_checkpoint(checkpoint, **vars(options.tensors.told()))
        dense = dense_layers(layers, f"checkpoint '{checkpoint}'", options.include, options.exclude)
        networks = _networks(dense, options.covariances, work, lambda what: progress(0, 1, what))
        problem = Problem(space, Machine.load(options.machine), networks, options.tokens, bounds)
        check_bounds(problem)
        known = Measurements(work)
        outcome = codesign(problem, known, options.trials, options.seed, progress, **vars(options.place))
    found = document(outcome, problem, options.trials, options.seed)
    _write_found(outcome, found, options)
    if options.as_json:
        print_json(found)
        return
    _print(outcome, [str(path) for path in (options.output, options.picture, options.machines) if path is not None])


def _write_found(outcome: Outcome, found: dict[str, object], options: CodesignOptions) -> None:
    if options.machines is not None:
        output_folder(options.machines)
    if options.output is not None:
        _write(options.output, json.dumps(found, indent=2, sort_keys=True) + "\n")
    if options.machines is not None:
        for pair in outcome.front:
            _write(options.machines / f"{pair.machine.name}.toml", pair.machine.to_toml())
    if options.picture is not None:
        _draw(outcome, options.picture)


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

    heading("pairs that none beats")
    print(front_table(outcome.front), end="")
    print(f"{len(outcome.front)} of {len(outcome.pairs)} pairs{refusals(outcome)}")
    print()
    heading("plain against scatter, at equal area and error")
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


def _check_written(options: CodesignOptions) -> None:
    from gblr_hw.codesign.measure import MEASUREMENTS

    work, machines, base = options.work, options.machines, machine_file(options.machine)
    check_outputs(
        [Output("--output", options.output), Output("--picture", options.picture, PICTURES)],
        inputs={
            "the checkpoint": options.checkpoint,
            "--covariances": options.covariances,
            "--machine": base,
            "--space": options.space_file,
            "the measurements in --work": None if work is None else work / MEASUREMENTS,
        },
        folders={"--work": work, "--machines": machines},
    )
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
