"""Networks over the points of a design space: latency, energy, bytes and area of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gblr_hw.sweeps.axes import Axis
from gblr_hw.sweeps.bench import Bench
from gblr_hw.sweeps.measure import Row
from gblr_hw.sweeps.networks import networks_of
from gblr_hw.sweeps.samplers import Sample, sampled
from gblr_hw.sweeps.space import Space
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
    sampler: str = "random",
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
    source: a checkpoint's path; a model in evaluation mode with `example_inputs` or `kwargs`; None where "checkpoint"
        varies; or a function that returns one of the first two for a point's settings of "checkpoint", "model", "batch"
        and "tokens": a path, (model, inputs) or (model, inputs, keyword arguments).
    machine: what every point starts from: a machine, a preset's name, or a machine file.
    axes: what varies: {"array.rows,array.cols": [16, 32], "dram.gb_per_s": [6.4, 25.6]}, or a list of texts as
        `Axis.parse` reads them. Any field of a machine file, "machine", "family" and "budget" (dense layers are
        converted to that family at that fraction of their tiles on the point's array, as `convert` does for matrices;
        "dense" stays as it is, once and without a budget), for a checkpoint "tokens", and what `source` tells apart.
    tokens: activation rows of each layer of a checkpoint.
    sample, sampler, seed: measure so many points of the product only: "random" or "qmc" ones (evenly spread), or those
        that a search for few cycles and little energy asks for, "tpe" or "nsga2".
    jobs: processes. scheduler: address of a Dask scheduler, in their place.
    work: folder that keeps finished points and conversions: a sweep that was stopped goes on, one that grew measures
        what is new.
    progress: (done, of, what) after each point.

    Columns are the source, the settings, then `gblr_hw.sweeps.measure.MEASURED`; a point that cannot be built,
    converted or held has its reason under "error" and no figures.

    Raises InputError for an unknown field, a source that cannot be read, or nothing to vary.
    """
    base = machine if isinstance(machine, Machine) else Machine.load(machine)
    space = Space.of(axes_of(axes))
    networks = networks_of(source, example_inputs, kwargs)
    networks.check(space.fields)
    asked = None if sample is None else Sample(sample, sampler, seed)
    total = space.count if sample is None else sample
    with Bench(
        networks, base, tokens, jobs=jobs, scheduler=scheduler, work=work, total=total, progress=progress
    ) as bench:
        return sampled(space, asked, bench.rows)


def axes_of(given: Iterable[Axis | str] | Mapping[str, Sequence[Any]]) -> list[Axis]:
    """Axes in any of the forms that `sweep` takes. InputError for none."""
    if isinstance(given, Mapping):
        found = [Axis.of(names, [_text(one) for one in values], f"axis '{names}'") for names, values in given.items()]
    else:
        found = [one if isinstance(one, Axis) else Axis.parse(one) for one in given]
    if not found:
        raise InputError("--set", "nothing", "at least one field varies", "Write --set array.rows,array.cols=16,32.")
    return found


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
