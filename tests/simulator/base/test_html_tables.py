"""What a notebook shows of machines, programs and reports: escaped, whole numbers as they are, many rows cut."""

from __future__ import annotations

import builtins
import re
from typing import Any

import pandas
import pytest
import torch
from torch import nn

from gblr_hw import lower
from simulator import Machine, simulate
from simulator.base.errors import InputError
from simulator.base.shown import Table

EDGE = Machine.load("edge-16")


def cells(html: str) -> list[list[str]]:
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", html)][1:]


def test_tables_are_escaped_and_cut() -> None:
    html = Table("a <b>", ["n&m", "x"], [(i, 1234.5678) for i in range(40)]).html()
    assert "a &lt;b&gt;" in html and "<th>n&amp;m</th>" in html and "and 10 more" in html
    assert cells(html)[29] == ["29", "1,235"] and len(cells(html)) == 30


def test_a_report_a_program_and_a_machine_have_tables() -> None:
    torch.manual_seed(0)
    program = lower(nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 300)), EDGE, tokens=9)
    report = simulate(program, EDGE)
    rows = cells(report._repr_html_())
    assert [row[0] for row in rows] == ["1", "0"]  # most cycles first
    assert [int(row[2].replace(",", "")) for row in rows] == [
        report.layers[1].latency_cycles,
        report.layers[0].latency_cycles,
    ]
    assert [row[2:4] for row in cells(program._repr_html_())] == [["24", "40"], ["40", "300"]]
    assert ["array.rows", "16"] in cells(EDGE._repr_html_())


def test_a_data_frame_has_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    program = lower(nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 30)), EDGE, tokens=9)
    report = simulate(program, EDGE)
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return real(name, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "__import__", without)
        with pytest.raises(InputError, match="no package 'pandas'; it makes the table"):
            report.to_dataframe()
    frame = report.to_dataframe()
    assert isinstance(frame, pandas.DataFrame) and list(frame["name"]) == ["0", "1"]
    causes = [column for column in frame if column.startswith("cycles_")]
    assert (frame[causes].sum(axis=1) == frame["latency_cycles"]).all()
