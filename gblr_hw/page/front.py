"""Which of many points no other beats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.tables.pareto import pareto_front
from analysis.tables.qualities import one_quality
from analysis.tables.records import NetworkPoint, load_points
from gblr_hw.sweeps.files import is_sweep, load_rows
from gblr_hw.sweeps.measure import MEASURED, settings_told
from simulator.base.errors import InputError
from simulator.base.shown import Table, Tabled, data_frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Point = NetworkPoint | Mapping[str, Any]


@dataclass(frozen=True, repr=False)
class Front(Tabled):
    """What ``front`` found. points: those that no other beats, machine by machine, the best in the first objective
    first. others: those that some point beats. least, most: the objectives.
    """

    points: tuple[Point, ...]
    others: tuple[Point, ...]
    least: tuple[str, ...]
    most: tuple[str, ...]

    def table(self) -> Table:
        """A row for each point of the front: its name or its settings, then the objectives."""
        objectives = [*self.least, *self.most]
        settings = _settings(self.points, objectives)
        rows = [tuple(_fields(point).get(name) for name in (*settings, *objectives)) for point in self.points]
        many = len(self.points) + len(self.others)
        caption = f"front of {many:,} points: least {', '.join(self.least)}"
        caption += f"; most {', '.join(self.most)}" if self.most else ""
        return Table(caption, [*settings, *objectives], rows)

    def to_dataframe(self) -> Any:
        """A pandas.DataFrame with every field of the front's points. Raises InputError without pandas."""
        return data_frame([_fields(point) for point in self.points])

    def plot(self, title: str = "") -> Figure:
        """All points as a matplotlib figure, those of the front marked: of networks what they are measured by over
        cycles, of a sweep's rows energy over cycles.
        """
        points = [*self.points, *self.others]
        networks = [point for point in points if isinstance(point, NetworkPoint)]
        if len(networks) == len(points):
            from analysis.pictures.front_picture import draw_front

            return draw_front(networks, title=title)
        from analysis.pictures.sweep_picture import SweptPoint, draw_sweep

        settings = _settings(points, [])
        fields = [_fields(point) for point in points]
        drawn = [
            SweptPoint(
                row["latency_cycles"], 1e-6 * row["energy_pj"], str(row.get(settings[0], "")) if settings else "",
                settings_told(row, settings),
            )
            for row in fields
        ]  # fmt: skip
        return draw_sweep(drawn, title, settings[0] if settings else "point")


def front(
    points: str | Path | Iterable[str | Path | Point], *, least: Sequence[str] = (), most: Sequence[str] = ()
) -> Front:
    """The points that no other beats, machine by machine.

    Parameters
    ----------
    points: networks as `NetworkPoint`, the files that `gblr-hw demo` writes of them, rows of `sweep`, or the files that
        `gblr-hw sweep` writes of those; rows without figures (with an error) are left out.
    least, most: fields that had better be small, and large. If none is named: of networks, latency_cycles and
        what they are measured by (accuracy, perplexity or loss); of a sweep's rows, latency_cycles and energy_pj.

    Networks are compared on the same machine only; a sweep's rows all with each other.

    Raises
    ------
    InputError: for no point, points of both kinds, and a field that a point does not have as a number.
    """
    given = [points] if isinstance(points, (str, Path)) else list(points)
    read: list[Point] = []
    for one in given:
        read.extend(_of_file(Path(one)) if isinstance(one, (str, Path)) else [one])
    read = [one for one in read if _fields(one).get("error") is None]
    networks = sum(isinstance(one, NetworkPoint) for one in read)
    if not read or 0 < networks < len(read):
        found = "none" if not read else "networks and a sweep's rows"
        raise InputError("points", found, "points of one kind are compared", "Give networks, or a sweep's rows.")
    if not least and not most:
        least, most = _objectives([one for one in read if isinstance(one, NetworkPoint)])
    senses = ["min"] * len(least) + ["max"] * len(most)
    values = [[_number(point, field) for field in (*least, *most)] for point in read]
    machines = [_fields(point)["machine"] if networks else "" for point in read]
    kept: list[int] = []
    for machine in dict.fromkeys(machines):
        here = [index for index, name in enumerate(machines) if name == machine]
        best = [here[int(i)] for i in pareto_front([values[index] for index in here], senses)]
        kept.extend(sorted(best, key=lambda index: (values[index][0] * (1 if least else -1), index)))
    others = tuple(point for index, point in enumerate(read) if index not in set(kept))
    return Front(tuple(read[index] for index in kept), others, tuple(least), tuple(most))


def _of_file(path: Path) -> Sequence[Point]:
    return load_rows(path) if is_sweep(path) else load_points(path)


def _objectives(networks: Sequence[NetworkPoint]) -> tuple[Sequence[str], Sequence[str]]:
    """What is compared where nothing is named. Raises InputError for networks with several measures."""
    if not networks:
        return ("latency_cycles", "energy_pj"), ()
    quality = one_quality("points", {point.quality for point in networks})
    return (("latency_cycles",), (quality.name,)) if quality.sense == "max" else (("latency_cycles", quality.name), ())


def _fields(point: Point) -> dict[str, Any]:
    return point.record() if isinstance(point, NetworkPoint) else dict(point)


def _number(point: Point, field: str) -> float:
    value = _fields(point).get(field)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        rule = "an objective is a field with a number"
        raise InputError(f"points: field '{field}'", repr(value), rule, f"Fields are {', '.join(_fields(point))}.")
    return value


def _settings(points: Sequence[Point], objectives: Sequence[str]) -> list[str]:
    """What tells points apart: of networks name, family and machine, of a sweep's rows what was set."""
    if all(isinstance(point, NetworkPoint) for point in points):
        return ["name", "family", "machine"]
    names = dict.fromkeys(name for point in points for name in _fields(point))
    return [name for name in names if name not in (*MEASURED, *objectives, "source")]
