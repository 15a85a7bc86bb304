"""Network points: what is refused, and that files give back what was written."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.tables.records import NetworkPoint, load_points, save_points
from simulator.base.errors import InputError
from simulator.base.files import replacing

POINT = NetworkPoint("dense, seed 0", "dense", 0.966, 10**7, "mid-32", 100_000, 1e-4, 1.5e6, "0.4x-dense", 3, 12, None)
# Control characters are left out: csv has no way to write a NUL that every reader gives back.
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=12).filter(str.strip)
REAL = st.floats(0, 1e300)
COUNT = st.integers(0, 10**18)
POINTS = st.builds(
    NetworkPoint,
    TEXT,
    TEXT,
    st.floats(0, 1),
    COUNT,
    TEXT,
    st.integers(1, 10**18),
    REAL,
    REAL,
    st.just("") | TEXT,
    COUNT,
    st.none() | COUNT,
    st.none() | COUNT,
)


@pytest.mark.parametrize("ending", ["json", "csv"])
@settings(deadline=None, max_examples=30)
@given(points=st.lists(POINTS, max_size=4))
def test_files_give_back_what_was_written(tmp_path_factory, ending, points):
    path = tmp_path_factory.mktemp("points") / f"points.{ending}"
    save_points(points, path)
    first = path.read_bytes()
    assert load_points(path) == tuple(points)
    save_points(points, path)
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("accuracy", 96.6, "between 0 and 1"),
        ("accuracy", float("nan"), "finite"),
        ("latency_s", float("inf"), "finite"),
        ("energy_pj", -1.0, "0 or more"),
        ("latency_cycles", 1.5, "whole number"),
        ("latency_cycles", True, "whole number"),
        ("latency_cycles", 0, "1 or more and below 2"),
        ("multiplications", 2**63, "0 or more and below 2"),
        ("multiplications", -1, "0 or more"),
        ("seed", None, "whole number"),
        ("name", " ", "not empty"),
        ("machine", 32, "must be a text"),
    ],
)
def test_impossible_values_are_refused(field, value, rule):
    with pytest.raises(InputError, match=rule) as caught:
        replace(POINT, **{field: value})
    assert f"field '{field}'" in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("field", ["accuracy", "latency_s", "energy_pj"])
def test_integers_beyond_all_floats_are_refused(field):
    with pytest.raises(InputError, match=f"field '{field}': found 1000.*0; {field} must be a finite number, 0 or more"):
        replace(POINT, **{field: 10**400})


def json_file(tmp_path, **changes):
    path = tmp_path / "points.json"
    save_points([POINT], path)
    document = json.loads(path.read_text())
    document["points"][0].update(changes)
    path.write_text(json.dumps(document))
    return path, document


def test_json_errors_name_file_point_and_field(tmp_path):
    path, _ = json_file(tmp_path, colour="red")
    with pytest.raises(InputError, match=r"points\.json: point 1: found unknown field 'colour'; the fields are name,"):
        load_points(path)
    path, _ = json_file(tmp_path, accuracy=2)
    with pytest.raises(InputError, match=r"points\.json: point 1: network point .*field 'accuracy': found 2; "):
        load_points(path)
    path, document = json_file(tmp_path)
    del document["points"][0]["machine"]
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="no field 'machine'"):
        load_points(path)
    path.write_text(json.dumps({**document, "version": 2}))
    with pytest.raises(InputError, match=r"'version': 2.*must have format"):
        load_points(path)
    path.write_text(json.dumps({**document, "points": [3]}))
    with pytest.raises(InputError, match="must be a list of objects"):
        load_points(path)
    path.write_text('{"format":')
    with pytest.raises(InputError, match="found text that is not JSON .*; a file of network points must parse as JSON"):
        load_points(path)


def test_csv_errors_name_file_point_and_cell(tmp_path):
    path = tmp_path / "points.csv"
    save_points([POINT, POINT], path)
    good = path.read_text()
    path.write_text(good.replace(",100000,", ",fast,", 1))
    with pytest.raises(InputError, match=r"point 1, field 'latency_cycles': found 'fast'; it must be a whole number"):
        load_points(path)
    path.write_text(good.rstrip("\n") + ",9\n")
    with pytest.raises(InputError, match="point 2: found 14 cells; every row must have the header's 13 cells"):
        load_points(path)
    path.write_text(good + "short,row\n")
    with pytest.raises(InputError, match="point 3: found 2 cells"):
        load_points(path)
    path.write_text("")
    with pytest.raises(InputError, match="empty file"):
        load_points(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="byte 0xff at position 0"):
        load_points(path)


def test_places_that_cannot_be(tmp_path):
    with pytest.raises(InputError, match=r"the ending '\.txt'.*\.json or \.csv"):
        save_points([POINT], tmp_path / "points.txt")
    with pytest.raises(InputError, match="found no folder .*; an output is a file in a folder that exists"):
        save_points([POINT], tmp_path / "missing" / "points.json")
    with pytest.raises(InputError, match="the file must exist"):
        load_points(tmp_path / "points.json")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="found a folder; an output is a regular file, which it replaces"):
        save_points([POINT], tmp_path / "folder.csv")


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "points.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
