"""Fronts: seeds as one mark with bars, marks side by side, perplexities; one table of colours; legends on the paper."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.transforms import Affine2D

from analysis.page import looks
from analysis.pictures import colours, style
from analysis.pictures.advice_map import Winner, draw_advice
from analysis.pictures.codesign_picture import CodesignPoint, draw_codesign
from analysis.pictures.family_marks import _OWN, MARKS, mark_key, marks
from analysis.pictures.front_picture import draw_front
from analysis.pictures.roofline import draw_roofline
from analysis.pictures.sweep_picture import SweptPoint, draw_sweep
from analysis.pictures.timeline import draw_timeline
from analysis.tables.over_seeds import on_front, over_seeds
from analysis.tables.records import NetworkPoint, load_points, save_points
from benchmarks.smollm.tables import perplexity_picture
from gblr_hw.advice.ways import WAYS
from gblr_hw.weights.family import FAMILIES
from simulator.base.errors import InputError
from simulator.program.operations import Op
from simulator.timing.report import CAUSES, GROUPS
from tests.drawn.fake_reports import fake_network_report, fake_report
from tests.drawn.layouts import check_layout

ROOT = Path(__file__).parents[2]
POINT = NetworkPoint("lattice, 0.6x", "lattice", 0.9, 10, "mid-32", 50_000, 5e-5, 1e6)
PERPLEXED = replace(POINT, accuracy=None, perplexity=40.0)


def seeds(point: NetworkPoint, *accuracies: float) -> list[NetworkPoint]:
    return [replace(point, accuracy=accuracy, seed=seed) for seed, accuracy in enumerate(accuracies)]


def marks_of(figure, axes):
    """Where networks' marks are on the paper, in points, by colour."""
    figure.canvas.draw()
    to_points = Affine2D().scale(72 / figure.dpi)
    return [
        (line.get_markeredgecolor(), (line.get_transform() + to_points).transform(line.get_xydata())[0])
        for line in axes.lines
        if line.get_marker() not in (None, "None", "") and line.get_linestyle() == "None"
    ]


def test_seeds_of_a_network_are_one_mark_with_a_bar():
    figure = draw_front([*seeds(POINT, 0.9, 0.93, 0.96), replace(POINT, family="dense", name="dense", seed=0)])
    axes = figure.axes[0]
    assert len(marks_of(figure, axes)) == 2
    bars = [line for line in axes.lines if line.get_label() == "seeds"]
    assert [tuple(bar.get_ydata()) for bar in bars] == [(90.0, 96.0)]
    assert [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "P"] == [pytest.approx(93.0, abs=1e-9)]
    assert "range of 3 seeds" in {text.get_text() for text in figure.legends[0].get_texts()}
    low, high = axes.get_ylim()
    assert low < 90 and high > 96


def test_seeds_whose_cycles_differ_have_a_bar_across():
    points = [replace(POINT, seed=seed, latency_cycles=cycles) for seed, cycles in enumerate((40_000, 60_000))]
    bars = [line for line in draw_front(points).axes[0].lines if line.get_label() == "seeds"]
    assert [tuple(bar.get_xdata()) for bar in bars] == [(40_000, 60_000)]


def test_what_seeds_are():
    twice = seeds(POINT, 0.9, 0.91)
    assert [len(one.points) for one in over_seeds([*twice, *twice])] == [2]  # a file that is named twice
    other = replace(POINT, latency_cycles=70_000)  # one name for two budgets: no mean of these means anything
    assert [one.cycles[0] for one in over_seeds([POINT, other])] == [50_000, 70_000]
    assert len(over_seeds([POINT, replace(POINT, seed=1, machine="edge-16")])) == 2
    mean = over_seeds(twice)[0].record()
    assert (mean["accuracy"], mean["accuracy_low"], mean["accuracy_high"]) == (
        pytest.approx(0.905, abs=1e-12),
        0.9,
        0.91,
    )
    assert mean["seeds"] == [0, 1] and over_seeds([POINT])[0].record() == POINT.record()


def test_marks_at_one_place_stand_side_by_side():
    alike = [replace(POINT, family=family, name=family) for family in ("lattice", "block_sparse", "low_rank", "dense")]
    far = replace(POINT, family="blast", name="far", latency_cycles=30_000, accuracy=0.8)
    figure = draw_front([*alike, far])
    places = marks_of(figure, figure.axes[0])
    assert len({round(x) for _, (x, _) in places}) == 5
    together = sorted(x for _, (x, y) in places if abs(y - places[0][1][1]) < 1)
    assert all(b - a > 6 for a, b in itertools.pairwise(together)) and len(together) == 4
    assert figure.legends[0].get_title().get_text() == "marks that would lie on one another stand side by side"
    assert not draw_front([POINT, far]).legends[0].get_title().get_text()


def test_bars_at_one_latency_do_not_lie_on_each_other():
    figure = draw_front([*seeds(POINT, 0.9, 0.96), *seeds(replace(POINT, family="blast"), 0.92, 0.99)])
    (_, first), (_, second) = marks_of(figure, figure.axes[0])
    assert abs(first[0] - second[0]) > 2


def test_less_perplexity_is_better(tmp_path):
    points = [replace(PERPLEXED, name=f"n{i}", latency_cycles=cycles, perplexity=perplexity)
              for i, (cycles, perplexity) in enumerate(((100, 30.0), (80, 35.0), (90, 200.0), (60, 160.0)))]  # fmt: skip
    for ending in ("json", "csv"):
        save_points(points, tmp_path / f"a.{ending}")
        assert load_points(tmp_path / f"a.{ending}") == tuple(points)
        assert "accuracy" not in (tmp_path / f"a.{ending}").read_text()
    assert on_front(over_seeds(points)) == [0, 1, 3]
    axes = draw_front(points).axes[0]
    assert (axes.get_ylabel(), axes.get_yscale()) == ("perplexity", "log")
    filled = [line for line in axes.lines if line.get_marker() == "P" and line.get_markerfacecolor() != "white"]
    assert [line.get_ydata()[0] for line in filled] == [30.0, 35.0, 160.0]
    steps = next(line for line in axes.lines if line.get_drawstyle() == "steps-post")
    assert steps.get_ydata()[0] > axes.get_ylim()[1] and list(steps.get_ydata()[1:]) == [160.0, 35.0, 30.0, 30.0]
    assert draw_front([replace(PERPLEXED, perplexity=None, loss=2.5)]).axes[0].get_ylabel() == "loss"


def test_a_point_has_one_measure_and_a_front_too():
    with pytest.raises(InputError, match="field 'accuracy': found None; accuracy is one of accuracy, perplexity, loss"):
        replace(POINT, accuracy=None)
    with pytest.raises(InputError, match="accuracy and perplexity"):
        replace(POINT, perplexity=3.0)
    with pytest.raises(InputError, match="found accuracy and perplexity; networks of one front are measured alike"):
        draw_front([POINT, PERPLEXED])


def test_colours_stand_in_two_tables():
    """No picture has a colour of its own: these would drift apart, and a family look otherwise here and there."""
    own = {ROOT / "analysis/pictures/colours.py", ROOT / "analysis/pictures/family_marks.py"}
    found = [
        f"{path.relative_to(ROOT)}: {match}"
        for room in ("analysis", "gblr_hw", "benchmarks")
        for path in (ROOT / room).rglob("*.py")
        if path not in own
        for match in re.findall(r"""["']#[0-9A-Fa-f]{6}["']|colou?r=["'](?!white|none)[^"']+["']""", path.read_text())
    ]
    assert found == []


def test_families_operations_groups_and_causes_look_alike_everywhere():
    assert {name: look["colour"] for name, look in looks.families(_OWN).items()} == {
        k: m.colour for k, m in _OWN.items()
    }
    families = {way.name: way.colour for way in WAYS.values() if way.make == "family"}
    assert families == {name: MARKS[mark_key(FAMILIES[name].label)].colour for name in families}
    assert WAYS["dense_int8"].colour == MARKS["dense"].colour
    taken = {mark.colour for mark in MARKS.values()}
    assert not {way.colour for way in WAYS.values() if way.make == "dense_and_ranks"} & taken
    assert colours.NARROW not in taken
    assert set(looks.CAUSES) == set(CAUSES) and looks.CAUSES == colours.CAUSE_COLOURS
    report = fake_report(["fc"])
    figure = draw_timeline(report)
    drawn = {patch.get_label(): patch.get_facecolor() for patch in figure.legends[0].get_patches()}
    assert len(drawn) == len(set(drawn.values())) > 4
    assert {op.name: style.operation_colour(op) for op in Op} | {"mixed": colours.LIGHT_GREY} == looks.OPERATIONS
    roofline = draw_roofline(fake_network_report(12))
    shown = {line.get_label(): line.get_color() for line in roofline.legends[0].get_lines()}
    assert {group: shown[group] for group in GROUPS if group in shown} == {
        group: looks.ROOFLINE_GROUPS[group] for group in GROUPS if group in shown
    }


def test_perplexities_of_a_language_model_are_in_families_colours():
    rows = [
        {"method": method, "share": 1.0, "perplexity": 30.0, "against_dense": [1.0, 1.0], "latency_cycles": 10}
        for method in ("dense", "lattice-by-loss", "lattice-distilled", "low-rank-by-loss")
    ]
    lines = {c.get_label(): c.lines[0] for c in perplexity_picture(rows).axes[0].containers}
    assert (
        lines["lattice, by loss"].get_color()
        == MARKS["lattice"].colour
        == lines["lattice, by loss, distilled"].get_color()
    )
    assert lines["dense"].get_color() == MARKS["dense"].colour


def test_machines_with_scatter_have_filled_marks_of_their_family():
    points = [
        CodesignPoint(1e-5 * (2 - s), 0.1, 10, s, family) for s in (False, True) for family in ("lattice", "low_rank")
    ]
    axes = draw_codesign(points, [64]).axes[0]
    faces = {
        (line.get_markeredgecolor(), line.get_markerfacecolor()) for line in axes.lines if line.get_marker() != "None"
    }
    known = marks(["lattice", "low_rank"])
    assert faces == {(mark.colour, face) for mark in known.values() for face in (mark.colour, "white")}


NARROW = {
    "codesign, one area, all families": lambda: draw_codesign(
        [CodesignPoint(1e-5 * (i + 1), 0.1 * i, 10, bool(i % 2), family) for i, family in enumerate(_OWN)], [64]
    ),
    "advice, one regime": lambda: draw_advice(
        [Winner(1, 25.6, "dense, 4 bits", colours.NARROW, 0.5)], 1e12, "a machine with a name: all layers one way", "energy"
    ),
    "advice, all ways": lambda: draw_advice(
        [Winner(2**i, 25.6, way.label, way.colour, 0.5) for i, way in enumerate(WAYS.values())], 1e12, "m", "latency"
    ),
    "sweep, long settings": lambda: draw_sweep(
        [SweptPoint(100 * i + 1, 10 - i, f"/home/someone/machines/number-{i}-of-all.toml", "s" * 50) for i in range(8)],
        "a checkpoint with a long name, and that twice: a checkpoint with a long name, 8 points", "machine",
    ),
    "front, many families, a long title": lambda: draw_front(
        [replace(POINT, family=family, name=family, latency_cycles=1000 * (i + 3)) for i, family in enumerate(_OWN)],
        "accuracy and latency of everything that was measured " * 4,
    ),
    "bars, a long name": lambda: style_named("n" * 200),
}  # fmt: skip


def style_named(name):
    return draw_timeline(replace(fake_report(["fc1", "fc2"]), program=name))


@pytest.mark.parametrize("name", NARROW)
def test_legends_and_titles_stay_on_the_paper(name, monkeypatch):
    figure = NARROW[name]()
    check_layout(figure, monkeypatch)
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0
        assert all(not box.overlaps(axes.get_window_extent()) for axes in figure.axes)
