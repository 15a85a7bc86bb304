"""Pictures: labels with units, no text upon text or outside the paper, the same bytes twice, honest thinning."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text

from analysis.pictures import colours, family_marks, style
from analysis.pictures.axes import limits, log_ticks, short_number
from analysis.pictures.block_map import coverage, draw_block_maps
from analysis.pictures.family_marks import marks
from analysis.pictures.front_picture import draw_front
from analysis.pictures.layer_bars import draw_layer_bars
from analysis.pictures.roofline import draw_roofline, roofline_points
from analysis.pictures.timeline import busy_fraction, draw_timeline
from analysis.tables.records import NetworkPoint
from benchmarks.study.picture import draw_study
from benchmarks.study.settings import gather
from benchmarks.study.waterfall_picture import Step, draw_waterfall, factors, shares
from simulator.base.errors import InputError
from simulator.timing.report import CAUSES
from tests.drawn.fake_reports import UNITS, fake_network_report, fake_report
from tests.drawn.layouts import check_layout, drawn_texts

FAMILIES = (
    "low_rank",
    "rank groups",
    "block-sparse",
    "gblr_width_penalty",
    "gblr_hardware_penalty",
    "lattice",
    "odd one",
)
VIT = [f"blocks.{i}.{k}" for i in range(4) for k in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]
DEEP = [f"encoder.backbone.layer.{i // 6}.attention.self.very_long_module_name.projection_{i % 6}" for i in range(80)]


def points(machines=("mid-32",), count=21, dense_seeds=2):
    rng = np.random.default_rng(5)
    found = []
    for machine in machines:
        for seed in range(dense_seeds):
            found.append(
                NetworkPoint(f"dense {seed}", "dense", 0.964 + 0.002 * seed, 10**7, machine, 100_000, 1e-4, 1e6)
            )
        for i in range(count):
            cycles = int(10 ** rng.uniform(3.8, 4.95))
            accuracy = 0.9 + 0.07 * rng.random()
            family = FAMILIES[i % len(FAMILIES)]
            found.append(NetworkPoint(f"n{i}", family, accuracy, 10**6, machine, cycles, cycles * 1e-9, 1e5, "", i))
    return found


def some_maps(shapes, ranks=20):
    rng = np.random.default_rng(1)
    return {
        name: coverage(rng.random((ranks, m)) < 0.3, rng.random((ranks, n)) < 0.3) for name, (m, n) in shapes.items()
    }


PICTURES = {
    "front": lambda: draw_front(points()),
    "front, two machines": lambda: draw_front(points(("mid-32", "plain-32")), "digits"),
    "front, four machines": lambda: draw_front(
        points(("edge-16", "mid-32", "plain-32", "a machine with a long, long name"))
    ),
    "front, one point": lambda: draw_front(points(count=0, dense_seeds=1)),
    "front, all equal, no dense": lambda: draw_front(
        [replace(p, latency_cycles=7, accuracy=0.5) for p in points()[2:]]
    ),
    "front, zeros": lambda: draw_front([replace(points()[0], latency_cycles=1, accuracy=0.0)]),
    "front, huge range": lambda: draw_front(
        [replace(p, latency_cycles=10 ** (i % 12)) for i, p in enumerate(points())]
    ),
    "bars": lambda: draw_layer_bars(fake_report(VIT)),
    "bars, one": lambda: draw_layer_bars(fake_report(["fc"])),
    "bars, deep": lambda: draw_layer_bars(fake_report(DEEP, scale=10_000)),
    "bars, no cycles": lambda: draw_layer_bars(fake_report(["a", "b"], tiles=0)),
    "maps": lambda: draw_block_maps(some_maps({"fc1": (192, 64)}), (32, 32)),
    "maps, eight": lambda: draw_block_maps(
        some_maps({n: (64, 256) if "fc2" in n else (256, 64) for n in VIT[:8]}), (8, 16), "t"
    ),
    "maps, odd sizes": lambda: draw_block_maps(
        some_maps({"one": (1, 1), "wide": (1, 97), "tall": (1031, 3)}), (32, 32)
    ),
    "maps, empty": lambda: draw_block_maps({"nothing": np.zeros((5, 7), np.int32)}),
    "maps, deep": lambda: draw_block_maps(some_maps({n: (24, 24) for n in DEEP[:30]}, 4)),
    "timeline": lambda: draw_timeline(fake_report(["fc1", "fc2", "head"])),
    "timeline, layers": lambda: draw_timeline(fake_report(VIT, tiles=50)),
    "timeline, deep": lambda: draw_timeline(fake_report(DEEP, tiles=20)),
    "timeline, window": lambda: draw_timeline(fake_report(VIT), (1000, 1500)),
    "timeline, one cycle": lambda: draw_timeline(fake_report(VIT), (1000, 1001)),
    "timeline, network": lambda: draw_timeline(fake_network_report(12)),
    "roofline": lambda: draw_roofline(fake_network_report(12)),
    "roofline, one": lambda: draw_roofline(fake_report(["fc"])),
    "roofline, deep": lambda: draw_roofline(fake_report(DEEP, scale=10_000), "eighty layers in one place"),
    "roofline, far apart": lambda: draw_roofline(fake_network_report(40, spread=6.0)),
}
UNITS_OF = {
    "front": ("latency (cycles)", "accuracy (%)"),
    "bars": ("latency (cycles)",),
    "maps": ("count)", "input channel", "output channel"),
    "timeline": ("time (cycles)",),
    "roofline": ("useful multiplications in a cycle", "for a byte of DRAM traffic", "cycles, the largest"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_labels_have_units_and_do_not_overlap(name, monkeypatch):
    shown = check_layout(PICTURES[name](), monkeypatch)
    for unit in UNITS_OF[name.split(",")[0]]:
        assert any(unit in text for text in shown), f"no label with {unit!r}"


def test_overlaps_are_seen(monkeypatch):
    figure = PICTURES["front, one point"]()
    figure.text(0.5, 0.5, "first")
    figure.text(0.51, 0.5, "second")
    with pytest.raises(AssertionError, match="'first' lies on 'second'"):
        check_layout(figure, monkeypatch)


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("front", "png"),
        ("front", "svg"),
        ("bars", "pdf"),
        ("maps", "png"),
        ("maps", "svg"),
        ("timeline", "svg"),
        ("roofline", "svg"),
    ],
)
def test_same_picture_same_bytes(name, ending, tmp_path):
    paths = [tmp_path / f"{i}.{ending}" for i in range(2)]
    for path in paths:
        style.save_figure(PICTURES[name](), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert b"Date" not in paths[0].read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_settings_of_the_user_neither_matter_nor_change(tmp_path):
    style.save_figure(draw_layer_bars(fake_report(["fc"])), tmp_path / "a.png")
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "savefig.dpi": 40}):
        before = dict(matplotlib.rcParams)
        style.save_figure(draw_layer_bars(fake_report(["fc"])), tmp_path / "b.png")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_front_line_goes_through_the_front():
    dense = points()[0]
    figure = draw_front([dense, replace(dense, family="lattice", latency_cycles=40_000)])
    line = next(line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post")
    assert line.get_xdata()[1] == 40_000
    above = figure.axes[1].get_xlim()
    assert above == pytest.approx([x / 100_000 for x in figure.axes[0].get_xlim()])


def test_families_differ_in_mark_and_colour():
    looks = marks([*family_marks._OWN, "u", "v", "w", "x", "y", "z"])
    assert len({look.marker for look in looks.values()}) == len(looks)
    assert len({look.colour for look in looks.values()}) == len(looks)
    assert marks(["rank groups"])["rank groups"] == marks(["rank-groups"])["rank-groups"] == looks["rank_groups"]
    assert set(colours.CAUSE_COLOURS) == set(CAUSES)
    assert len({style.series_colour(i) for i in range(24)}) == 24
    with pytest.raises(InputError, match="7 unknown families"):
        marks("abcdefg")


def test_bars_add_up_to_the_layers_cycles():
    report = fake_report(VIT)
    axes = draw_layer_bars(report).axes[0]
    widths = np.zeros(len(VIT))
    for bars in axes.containers:
        assert [bar.get_x() for bar in bars] == widths.tolist()
        widths += [bar.get_width() for bar in bars]
    assert widths.tolist() == [layer.latency_cycles for layer in report.layers]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 5), st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**31))
def test_coverage_counts_ranks(ranks, m, n, seed):
    rng = np.random.default_rng(seed)
    writes, reads = rng.random((ranks, m)) < 0.5, rng.random((ranks, n)) < 0.5
    expected = np.zeros((m, n), int)
    for k in range(ranks):
        expected += np.outer(writes[k], reads[k])
    assert coverage(writes, reads).tolist() == expected.tolist()


def test_coverage_in_slabs():
    rng = np.random.default_rng(0)
    writes, reads = rng.random((2053, 1031)) < 0.1, rng.random((2053, 5)) < 0.5
    assert np.array_equal(coverage(writes, reads), writes.T.astype(int) @ reads.astype(int))
    with pytest.raises(InputError, match="boolean matrix"):
        coverage(writes.astype(int), reads)
    with pytest.raises(InputError, match="2053 and 2052 ranks"):
        coverage(writes, reads[1:])


def test_large_maps_show_means():
    array = np.random.default_rng(0).integers(0, 9, (1024, 2053)).astype(np.int32)
    shown = np.asarray(draw_block_maps({"large": array}).axes[0].images[0].get_array())
    assert shown.shape == (512, 512)
    assert shown[0, 0] == pytest.approx(array[:2, :4].mean())
    assert shown[-1, -1] == pytest.approx(array[-2:, -5:].mean())


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12),
    st.integers(0, 40),
    st.integers(1, 60),
    st.data(),
)
def test_busy_fraction_is_the_mean_over_cycles(gaps, low, length, data):
    bins = data.draw(st.sampled_from([d for d in range(1, length + 1) if length % d == 0]))
    busy, spans, now = np.zeros(low + length + 300), [], 0
    for gap, cycles in gaps:
        spans.append((now + gap, now + gap + cycles))
        now += gap + cycles
        busy[spans[-1][0] : now] = 1
    starts, ends = np.array(spans, np.int64).reshape(-1, 2).T
    shares = busy_fraction(starts, ends, np.linspace(low, low + length, bins + 1))
    expected = busy[low : low + length].reshape(bins, -1).mean(axis=1)
    assert shares == pytest.approx(expected, abs=1e-12)


def test_thinning_says_so_and_keeps_all_busy_cycles(monkeypatch):
    report = fake_report(VIT, tiles=50)
    shown = drawn_texts(draw_timeline(report), monkeypatch)
    assert any("fraction of its" in text for text, _ in shown)
    assert any("every cycle drawn" in text for text, _ in drawn_texts(draw_timeline(report, (0, 900)), monkeypatch))
    for unit in range(len(UNITS)):
        mine = report.trace.unit == unit
        start, end = report.trace.start[mine], report.trace.end[mine]
        edges = np.linspace(0, report.latency_cycles, 1201)
        assert busy_fraction(start, end, edges) @ np.diff(edges) == pytest.approx((end - start).sum(), rel=1e-9)


def test_names_of_others_are_drawn_on_a_line_of_some_length(tmp_path, monkeypatch):
    """An escape code, a character that the font lacks, a text of megabytes; warnings are errors here."""
    points = [
        NetworkPoint("n", family, 0.9, 10, "mid-32", 100, 1e-7, 1.0) for family in ("\x1b[2J", "\u4e2d", "f" * 10**6)
    ]
    figure = draw_front(points, title="t" * 10**6)
    style.save_figure(figure, tmp_path / "x.png")
    words = [words.get_text() for words in figure.findobj(Text)]
    assert "\\x1b[2j" in words
    assert max(len(line) for text in words for line in text.splitlines()) < 80
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        check_layout(figure, monkeypatch)


def test_names_stay_apart():
    assert style.shortened_names(["a.b", "a.c"], 5) == ["a.b", "a.c"]
    assert style.shortened_names(["root.long_shared.0.x", "root.long_shared.1.x"], 10) == ["root…0.x", "root…1.x"]
    assert style.shortened_names(["model.head", "model.layers.0.fc"], 12) == ["…head", "…layers.0.fc"]
    assert style.shortened_names(["a" * 40 + "1" + "b" * 40, "a" * 40 + "2" + "b" * 40], 12) == [
        "1: aa…bbbbbb",
        "2: aa…bbbbbb",
    ]
    assert len(set(style.shortened_names(DEEP, 30))) == len(DEEP)
    assert max(map(len, style.shortened_names(DEEP, 14))) <= 14


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (999.99, "1k"), (12_000, "12k"), (1.5e6, "1.5M"), (2e9, "2G")]
)
def test_short_numbers(value, text):
    assert short_number(value) == text


@settings(deadline=None)
@given(st.floats(1e-3, 1e9), st.floats(1.0, 1e9))
def test_axes_hold_their_data_and_have_ticks(smallest, ratio):
    low, high, logarithmic = limits(smallest, smallest * ratio)
    assert low <= smallest <= smallest * ratio <= high
    if logarithmic:
        assert 2 <= len(log_ticks(low, high)) <= 8


def test_roofline_dots_are_the_operators_that_multiply():
    report = fake_network_report(3)
    points = roofline_points(report)
    assert [point.name for point in points] == [layer.name for layer in report.layers if layer.multiplications]
    first, layer = points[0], next(layer for layer in report.layers if layer.multiplications)
    assert first.per_byte == layer.multiplications * layer.tokens / layer.dram_bytes
    assert first.per_cycle == layer.multiplications * layer.tokens / layer.latency_cycles
    figure = draw_roofline(report)
    dots = [dot for dot in figure.axes[0].collections if len(dot.get_offsets()) == 1]
    assert len(dots) == len(points)
    areas = {tuple(dot.get_offsets()[0]): dot.get_sizes()[0] for dot in dots}
    largest = max(points, key=lambda point: point.cycles)
    assert areas[largest.per_byte, largest.per_cycle] == max(areas.values()) == 900
    star = next(line for line in figure.axes[0].lines if line.get_marker() == "*")
    total = sum(layer.multiplications * layer.tokens for layer in report.layers)
    assert star.get_xydata().tolist() == [[total / report.dram_bytes, total / report.latency_cycles]]


def test_roofline_says_what_it_does_not_draw(monkeypatch):
    report = fake_network_report(3)
    texts = [text for text, _ in drawn_texts(draw_roofline(report), monkeypatch)]
    none = [layer for layer in report.layers if not layer.multiplications]
    share = sum(layer.latency_cycles for layer in none) / report.latency_cycles
    assert any(f"not drawn: {len(none)} that multiply or move nothing ({share:.1%} of the cycles)" in t for t in texts)
    with pytest.raises(InputError, match="no operator that multiplies"):
        draw_roofline(replace(report, layers=tuple(none)))


def test_bad_input(tmp_path):
    report = fake_report(["fc"])
    with pytest.raises(InputError, match="at least one network"):
        draw_front([])
    with pytest.raises(InputError, match="at least one"):
        draw_layer_bars(replace(report, layers=()))
    with pytest.raises(InputError, match="no instruction"):
        draw_timeline(fake_report(["fc"], tiles=0))
    with pytest.raises(InputError, match=r"found \(5, 5\); it must lie in 0 to"):
        draw_timeline(report, (5, 5))
    with pytest.raises(InputError, match="layer 'x': found float64"):
        draw_block_maps({"x": np.zeros((2, 2))})
    with pytest.raises(InputError, match="chunks must be 1 or more"):
        draw_block_maps({"x": np.zeros((2, 2), np.int32)}, (0, 4))
    with pytest.raises(InputError, match="no layer"):
        draw_block_maps({})
    with pytest.raises(InputError, match=r"\.png, \.svg or \.pdf"):
        style.save_figure(draw_layer_bars(report), tmp_path / "bars.gif")
    assert list(tmp_path.iterdir()) == []


def study_rows(families, parts=("digits",), seeds=(0, 1, 2)):
    rng = np.random.default_rng(4)
    machines = ("edge-16", "mid-32", "cloud-128", "plain-32")
    found = []
    for part, family, seed in itertools.product(parts, families, seeds):
        for budget in (1.0,) if family == "dense" else (0.3, 0.5, 0.8):
            values = {machine: 1e4 * budget * (1 + 0.1 * rng.random()) for machine in machines}
            found.append(
                {
                    **dict(part=part, machine="edge-16", family=family, budget=budget, seed=seed),
                    **dict(accuracy=0.9 + 0.07 * rng.random(), latency_cycles=values, energy_pj=values),
                }
            )
    return gather(found), machines


def test_study_fronts_are_laid_out_and_always_the_same(tmp_path, monkeypatch):
    families = ("narrower", "low rank", "GBLR, width shrinkage", "automatic choice")
    study, machines = study_rows(("dense", *families))
    figure = draw_study(study, "digits", machines, families)
    check_layout(figure, monkeypatch)
    texts = [text for text, _ in drawn_texts(figure, monkeypatch)]
    assert {"digits, edge-16", "latency / latency of dense", "test accuracy (%)", "automatic choice"} <= set(texts)
    for name in ("a.png", "b.png"):
        style.save_figure(draw_study(study, "digits", machines, families), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_collapsed_network_does_not_press_the_others_together():
    study, machines = study_rows(("dense", "ranks"))
    broken = {**vars(study.of("digits", "ranks")[0]), "family": "low rank"}
    broken["runs"] = {seed: replace(run, accuracy=0.1) for seed, run in broken["runs"].items()}
    study = replace(study, settings=(*study.settings, type(study.settings[0])(**broken)))
    figure = draw_study(study, "digits", machines, ("ranks", "low rank"))
    assert figure.axes[0].get_ylim()[0] > 75


STEPS = (
    Step("dense, plain array", "network", 116_815),
    Step("machine-blind GBLR, ranks in index order", "network", 225_191.4),
    Step("best form of each layer, dense included", "compiler", 116_815),
    Step("not measured", "training", None),
    Step("scatter: ranks packed by chunk, best form", "machine", 48_255),
    Step("automatic choice", "training", 31_000, at_most=True),
)


def test_waterfalls_are_laid_out_and_say_what_each_step_does(tmp_path, monkeypatch):
    figure = draw_waterfall([("random intervals, 768 x 768, mid-32", STEPS), ("digits", STEPS[:1])])
    check_layout(figure, monkeypatch)
    texts = [text for text, _ in drawn_texts(figure, monkeypatch)]
    assert "225,191  x 1.93" in texts
    assert "at most 31,000  x 0.64" in texts
    assert "not measured" not in texts
    style.save_figure(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_factors_pass_over_missing_steps_and_shares_multiply_to_the_whole():
    assert factors(STEPS)[3:5] == [None, pytest.approx(48_255 / 116_815)]
    assert shares(STEPS)["network"] == pytest.approx(225_191.4 / 116_815)
    assert np.prod(list(shares(STEPS).values())) == pytest.approx(31_000 / 116_815)
    assert factors(STEPS[3:]) == [None, None, pytest.approx(31_000 / 48_255)]


def test_waterfalls_refuse_what_they_cannot_draw():
    with pytest.raises(InputError, match="waterfall step 'a': found 'magic'; owed_to is one of network, compiler"):
        Step("a", "magic", 1.0)
    with pytest.raises(InputError, match=r"waterfall step 'a': found 0\.0; cycles are above 0"):
        Step("a", "network", 0.0)
    with pytest.raises(InputError, match="draw_waterfall: panels: found none"):
        draw_waterfall([])
    with pytest.raises(InputError, match="waterfall 'b': found no measured step"):
        draw_waterfall([("b", STEPS[3:4])])
