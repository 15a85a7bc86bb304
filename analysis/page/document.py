"""The page itself: one HTML document with its figures, its pictures' library and nothing from elsewhere."""

from __future__ import annotations

import base64
import json
from html import escape
from importlib import import_module
from importlib.resources import files
from typing import Any

from analysis.page import looks
from analysis.page.content import Content
from analysis.page.program_data import run_data, trace_url
from analysis.page.verdicts import verdicts
from simulator.base.errors import InputError

_SPANS = 8000  # of all timelines together
_TRACE_CHARACTERS = 300_000  # of all traces together
_TRACE_SPANS = 20_000


def page(content: Content) -> str:
    """The whole document; the same content gives the same text.

    Raises InputError where vl-convert-python, which brings Vega-Lite along, is not installed.
    """
    library = _library()
    data = json.dumps(_data(content), separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    said = verdicts(content)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',
        f"<title>{escape(content.title)}</title>",
        f"<style>{_asset('page.css')}</style></head><body><main>",
        f'<header><p class="kicker">gblr-hw report</p><h1>{escape(content.title)}</h1>',
        f'<p id="verdict">{escape(said[""])}</p></header>',
        *_sections(content),
        _made(content),
        "</main>",
        f'<script type="application/json" id="data">{data}</script>',
        f'<script type="module">{library}</script>',
        f'<script type="module">{_asset("page.js")}</script>',
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _library() -> str:
    try:
        module = import_module("vl_convert")
    except ImportError as error:
        raise InputError(
            "gblr-hw report", "no package 'vl-convert-python'", "it brings the page's pictures along",
            "pip install 'gblr-hw[page]'.",
        ) from error  # fmt: skip
    return str(module.javascript_bundle()).replace("</script", "<\\/script")


def _asset(name: str) -> str:
    return files("analysis.page").joinpath(name).read_text(encoding="utf-8").strip()


def _data(content: Content) -> dict[str, Any]:
    runs, left = [], _TRACE_CHARACTERS
    for run in content.runs:
        url = trace_url(run, _TRACE_SPANS, left)
        left -= len(url or "")
        runs.append({**run_data(run, max(200, _SPANS // len(content.runs))), "file": run.file, "trace": url})
    return {
        "points": [vars(point) for point in content.points],
        "families": looks.families(point.family for point in content.points),
        "qualities": looks.QUALITIES_SHOWN,
        "verdicts": verdicts(content),
        "swept": [dict(row) for row in content.swept],
        "fields": list(content.fields),
        "runs": runs,
        "causes": looks.CAUSES,
        "operations": looks.OPERATIONS,
        "groups": looks.ROOFLINE_GROUPS,
    }


def _sections(content: Content) -> list[str]:
    made = []
    if content.points:
        made.append(
            '<section id="fronts"><h2>Quality against cost</h2><div class="controls" id="front-controls"></div>'
            '<figure><div class="chart" id="front"></div><figcaption>Each mark is a network, its bar the range over '
            "seeds; the grey line joins those that no other shown beats in both. Marks that coincide are moved apart "
            "sideways, by at most a few per cent. "
            "Near the best: within eight points of the best accuracy, twice the least perplexity, or 0.7 above the "
            "least loss. "
            "Point at a mark for its figures.</figcaption>"
            "</figure></section>"
        )
    if content.swept:
        made.append(
            '<section id="sweep"><h2>The sweep</h2><div class="controls" id="sweep-controls"></div>'
            '<figure><div class="chart" id="swept"></div><figcaption>Each mark is a point; the grey line joins those '
            "that no other beats in both. Point at a mark for its figures.</figcaption></figure></section>"
        )
    if content.points or content.swept:
        made.append(
            "<section><h2>All figures</h2><p>Click a column to sort by it, once more to turn the order.</p>"
            '<div class="wide"><table id="table"></table></div></section>'
        )
    if content.runs:
        made.append(_RUNS)
    if content.maps:
        made.append(_maps(content))
    return made


_RUNS = """<section id="programs"><h2>Inside a program</h2>
<div class="wide"><table id="compared"></table></div>
<div class="controls"><label>Program <select id="program"></select></label></div>
<p id="program-said"></p>
<h3>Cycles by cause</h3><figure><div class="chart" id="causes-total"></div>
<figcaption>The whole program: every cycle of the array has one cause, and they sum to the latency.</figcaption>
</figure>
<h3>Cycles by layer</h3><figure><div class="chart" id="causes"></div></figure>
<h3>Roofline</h3><figure><div class="chart" id="roofline"></div>
<figcaption>A dot is an operator, its area its cycles; the star is the whole program. The slope is the memory's
bandwidth, the flat line what the array could multiply. Rates are over an operator's cycles or its transfers',
whichever are more.</figcaption></figure>
<h3>Timeline</h3><figure><div class="chart" id="timeline"></div>
<figcaption id="timeline-said"></figcaption></figure><p id="trace"></p></section>"""


def _maps(content: Content) -> str:
    pictures = "".join(
        f'<figure><img alt="Map of overlapping blocks of {escape(name)}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}"><figcaption>{escape(name)}</figcaption></figure>'
        for name, png in content.maps
    )
    return (
        "<section><h2>Block maps</h2><p>How many blocks overlap at each entry of a layer\N{RIGHT SINGLE QUOTATION MARK}"
        f"s matrix: the brighter, the more.</p>{pictures}</section>"
    )


def _made(content: Content) -> str:
    rows = "".join(
        f'<tr><td>{escape(one.name)}</td><td class="n">{one.size_bytes:,}</td><td><code>{one.sha256}</code></td></tr>'
        for one in content.sources
    )
    machines = {run.machine_toml: run.report.machine for run in content.runs}
    tables = {run.report.energy_table: run.report.energy_table_sha256 for run in content.runs}
    energy = "".join(
        f"<p>Energy table {escape(name)}, SHA-256 <code>{digest}</code>.</p>" for name, digest in tables.items()
    )
    told = "".join(
        f"<details><summary>Machine {escape(name)}</summary><pre>{escape(toml)}</pre></details>"
        for toml, name in machines.items()
    )
    return (
        f"<section><h2>How this was made</h2><p>gblr-hw {escape(content.version)}: "
        f"<code>{escape(content.command)}</code></p>{energy}{told}"
        '<div class="wide"><table class="files"><thead><tr><th>file read</th><th class="n">bytes</th>'
        f"<th>SHA-256</th></tr></thead><tbody>{rows}</tbody></table></div></section>"
    )
