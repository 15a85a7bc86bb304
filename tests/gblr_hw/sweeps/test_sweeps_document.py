"""docs/sweeps.md: its example runs, and its columns are those that rows have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gblr_hw.sweeps.measure import MEASURED

TEXT = (Path(__file__).parents[3] / "docs/sweeps.md").read_text(encoding="utf-8")


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    found: dict[str, object] = {}
    exec(example, found)
    assert capsys.readouterr().out.split()[0] == "32"
    assert len(found["rows"]) == 4  # type: ignore[arg-type]


def test_every_column_is_described() -> None:
    rows = re.findall(r"^\| (`.*?) \|", TEXT, re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == list(MEASURED)
