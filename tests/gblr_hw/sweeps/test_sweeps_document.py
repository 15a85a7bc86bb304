"""docs/sweeps.md: its example runs, and its columns, axes and schema are those that rows have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from gblr_hw import sweep
from gblr_hw.sweeps.axes import RUN_FIELDS
from gblr_hw.sweeps.files import save_rows
from gblr_hw.sweeps.measure import MEASURED
from simulator import Machine

TEXT = (Path(__file__).parents[3] / "docs/sweeps.md").read_text(encoding="utf-8")


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    found: dict[str, object] = {}
    exec(example, found)
    assert capsys.readouterr().out.split()[0] == "32"
    assert len(found["rows"]) == 4  # type: ignore[arg-type]


def test_every_column_and_every_axis_is_described() -> None:
    settings, columns = (_first_cells(header) for header in ("| `--set` |", "| column |"))
    assert [name for row in columns for name in re.findall(r"`(\w+)`", row)] == list(MEASURED)
    assert {name for row in settings for name in re.findall(r"`(\w+)`", row)} == set(RUN_FIELDS)


def test_a_file_is_as_its_schema_says(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    (text,) = re.findall(r"^```json\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    schema = json.loads(text)
    point = schema["properties"]["points"]["items"]
    assert set(point["properties"]) == {"source", *RUN_FIELDS, *MEASURED} and point["required"] == ["source", *MEASURED]
    axes = {"family": ["dense", "block-sparse"], "budget": [0.5], "array.rows": [16, -1]}
    torch.manual_seed(0)
    rows = sweep(nn.Sequential(nn.Linear(16, 32)).eval(), "edge-16", axes, example_inputs=torch.randn(2, 16))
    machine = Machine.load("edge-16").to_record()
    save_rows(rows, tmp_path / "a.json", {"source": "net", "machine": machine, "set": ["a"], "tokens": 197})
    jsonschema.validate(json.loads((tmp_path / "a.json").read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"format": "gblr-hw sweep", "version": 1, "about": {}, "points": []}, schema)


def _first_cells(header: str) -> list[str]:
    """Of the rows of the table with that header."""
    lines = TEXT[TEXT.index(header) :].split("\n\n")[0].splitlines()
    return [line.split(" | ")[0] for line in lines[2:]]
