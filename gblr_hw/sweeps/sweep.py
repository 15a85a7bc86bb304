"""One network over the points of a design space: latency, energy, bytes and area of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gblr_hw.sweeps.axes import Axis, points_of
from gblr_hw.sweeps.executors import results_of
from gblr_hw.sweeps.journal import Journal
from gblr_hw.sweeps.measure import Row, key_of, measure_point
from gblr_hw.sweeps.sources import source_of
from simulator import Machine
from simulator.base.errors import InputError


def sweep(
    source: Any,
    machine: Machine | str | Path,
    axes: Iterable[Axis | str] | Mapping[str, Sequence[Any]],
    *,
    example_inputs: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    tokens: int = 197,
    sample: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    scheduler: str | None = None,
    work: str | Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Row]:
    """Lower a network for every point and simulate it: a row of settings and figures for each, in the order of the
    product, whichever way and however often it was run.

    Parameters
    ----------
    source: a checkpoint's path, or a model in evaluation mode with `example_inputs` or `kwargs`.
    machine: what every point starts from: a machine, a preset's name, or a machine file.
    axes: what varies: {"array.rows,array.cols": [16, 32], "dram.gb_per_s": [6.4, 25.6]}, or a list of texts as
        `Axis.parse` reads them. Any field of a machine file, "machine", and, for a checkpoint, "tokens".
    tokens: activation rows of each layer of a checkpoint.
    sample, seed: measure so many points of the product only, drawn without replacement.
    jobs: processes. scheduler: address of a Dask scheduler, in their place.
    work: folder that keeps finished points: a sweep that was stopped goes on, one that grew measures what is new.
    progress: (done, of, what) after each point.

    Columns are the source, the settings, then `gblr_hw.sweeps.measure.MEASURED`; a point that cannot be built or held
    has its reason under "error" and no figures.

    Raises InputError for an unknown field, a source that cannot be read, or nothing to vary.
    """
    base = machine if isinstance(machine, Machine) else Machine.load(machine)
    given = _axes(axes)
    points = points_of(given, sample, seed)
    network = source_of(source, example_inputs, kwargs)
    if network.network is not None and any("tokens" in axis.fields for axis in given):
        raise InputError(
            "--set tokens", f"the model '{network.name}'", "a model's sizes are those of its example inputs",
            "Sweep each size by itself.",
        )  # fmt: skip
    journal = Journal(work)
    keys = [key_of(network.digest, base, tokens, point) for point in points]
    left = [index for index, key in enumerate(keys) if key not in journal.rows]
    done = len(points) - len(left)
    tasks = [(base, tokens, dict(points[index])) for index in left]
    for place, row in results_of(measure_point, network, tasks, jobs, scheduler):
        journal.add(keys[left[place]], row)
        done += 1
        if progress is not None:
            progress(done, len(points), network.name)
    # The name is the caller's: a file may have moved since.
    return [{**journal.rows[key], "source": network.name} for key in keys]


def _axes(given: Iterable[Axis | str] | Mapping[str, Sequence[Any]]) -> list[Axis]:
    if isinstance(given, Mapping):
        made = [f"{fields}={','.join(_text(value) for value in values)}" for fields, values in given.items()]
    else:
        made = list(given)  # type: ignore[arg-type]
    found = [one if isinstance(one, Axis) else Axis.parse(one) for one in made]
    if not found:
        raise InputError("--set", "nothing", "at least one field varies", "Write --set array.rows,array.cols=16,32.")
    return found


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
