"""The one page: its bytes, what it refuses, and what a real browser makes of it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from analysis.pictures.roofline import roofline_points
from analysis.tables.records import NetworkPoint, save_points
from gblr_hw.lowering.pipeline import lower
from gblr_hw.sweeps.files import save_rows
from gblr_hw.sweeps.sweep import sweep
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.timing.simulate import simulate
from tests.gblr_hw.cli.conftest import refusal  # noqa: F401

pytest.importorskip("vl_convert", reason="vl-convert-python, of the extra 'page', is not installed")
from gblr_hw.page.report import report

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
_ALONE = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Points of two families on two machines, a sweep as CSV, and two programs."""
    folder = tmp_path_factory.mktemp("results")
    points = [
        NetworkPoint(f"{family}{seed}"[:-1], family, accuracy - 0.01 * seed, 10, machine, cycles, 1e-6, 5e6, seed=seed)
        for family, accuracy, cycles in (("dense", 0.97, 1000), ("lattice", 0.975, 600), ("</script>", 0.96, 600))
        for machine in ("mid-32", "edge-16")
        for seed in (0, 1)
    ]
    save_points(points, folder / "points.json")
    model = nn.Sequential(nn.Linear(48, 64), nn.GELU(), nn.Linear(64, 48), nn.LayerNorm(48)).eval()
    x = torch.zeros(8, 48)
    rows = sweep(model, "mid-32", {"array.rows,array.cols": [16, 32], "dram.gb_per_s": [6.4]}, example_inputs=x)
    save_rows(rows, folder / "swept.csv", {})
    for machine in ("mid-32", "edge-16"):
        lower(model, Machine.load(machine), example_inputs=x).save(folder / f"net.{machine}.program")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def page(results: list[Path]) -> Path:
    path = results[0].parent.parent / "page.html"
    report(results, path, "A page")
    return path


def test_the_same_results_give_the_same_page(results: list[Path], page: Path) -> None:
    first = page.read_bytes()
    report(results, page, "A page")
    assert page.read_bytes() == first
    text = first.decode()
    assert len(first) < 1_300_000
    assert text.count("</script>") == 3  # the library, the figures and the page's own: no name of a user's ends one
    outside = re.sub(
        r"(<script[^>]*>).*?</script>", r"\1", text, flags=re.DOTALL
    )  # the library's own source has tags in it
    assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)=['\"](?!data:)", outside)
    assert "lattice needs 0.60 of dense" in text
    assert len(re.findall(r"<code>[0-9a-f]{64}</code></td>", text)) == len(results)


def test_networks_measured_by_perplexity_have_a_front_of_their_own(tmp_path: Path) -> None:
    """Of which less is better: the verdict takes the fastest within a tenth of dense's, not the largest."""
    points = [
        NetworkPoint(name, family, None, 10, "mid-32", cycles, 1e-6, 5e6, seed=seed, perplexity=perplexity + seed)
        for name, family, perplexity, cycles in (
            ("dense", "dense", 30, 1000), ("a", "lattice", 31, 700), ("b", "lattice", 60, 500), ("c", "low rank", 33, 800),
        )
        for seed in (0, 1)
    ]  # fmt: skip
    save_points(points, tmp_path / "points.csv")
    save_points([replace(point, accuracy=0.9, perplexity=None) for point in points], tmp_path / "others.json")
    report([tmp_path / "points.csv", tmp_path / "others.json"], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert (
        "On mid-32, a needs 0.70 of dense\u2019s cycles and 1.00 of its energy at 31.5 perplexity (dense: 1,000 "
        in text
    )
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1])  # type: ignore[index]
    assert {(point["group"], point["quality"]) for point in data["points"]} == {("", "accuracy"), ("perplexity",) * 2}
    assert {point["seeds"] for point in data["points"]} == {2}
    assert data["qualities"]["perplexity"]["sign"] == -1


def test_what_no_page_is_made_of(results: list[Path], tmp_path: Path, refusal: Any, monkeypatch: Any) -> None:  # noqa: F811
    other = tmp_path / "notes.txt"
    other.write_text("nothing")
    assert "a file of another kind; a page is made of programs, points" in refusal(
        "report", other, "-o", tmp_path / "a.html"
    )
    assert "a folder without points.json" in refusal("report", tmp_path, "-o", tmp_path / "a.html")
    with pytest.raises(InputError, match="found it twice; each of RESULTS is named once"):
        report([results[0], results[0]], tmp_path / "a.html")
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    said = refusal("report", results[0], "-o", tmp_path / "a.html")
    assert "no package 'vl-convert-python'" in said and "pip install 'gblr-hw[page]'" in said
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_no_operator_above_a_roof() -> None:
    model = nn.Sequential(
        nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 256), nn.LayerNorm(256), nn.Linear(256, 64)
    ).eval()
    machine = Machine.load("mid-32")
    result = simulate(lower(model, machine, example_inputs=torch.zeros(128, 256)), machine)
    for dot in roofline_points(result):
        roof = min(dot.per_byte * result.dram_bytes_per_cycle, result.rows * result.cols)
        assert dot.per_cycle <= roof * (1 + 1e-9), dot


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """A headless Chromium with a profile of its own."""
    if BROWSER is None or DRIVER is None:
        pytest.skip("no chromium and chromedriver on this machine: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (*_ALONE, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.get("about:blank")
    driver.get_log("performance")  # what Chromium's own first page asked for
    yield driver
    driver.quit()


def _settled(browser: Any, pictures: int) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20, poll_frequency=0.1).until(
        lambda b: b.execute_script("return document.querySelectorAll('.chart svg').length") == pictures
    )


def test_in_a_browser(page: Path, browser: Any) -> None:
    def column(index: int) -> list[str]:
        return browser.execute_script(
            f"return [...document.querySelectorAll('#compared tbody tr')].map(r => r.cells[{index}].textContent)"
        )

    for width in (1280, 390):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(page.as_uri())
        _settled(browser, 6)
        shown = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert shown[0] <= shown[1] == width
        small = "return [...document.querySelectorAll('.chart text')].filter(t => parseFloat(getComputedStyle(t).fontSize) < 10).length"
        assert browser.execute_script(small) == 0
    marks = "return document.querySelectorAll('#front path[aria-roledescription=point]').length"
    assert browser.execute_script(marks) == 3
    before = browser.find_element("id", "verdict").text
    browser.find_element("css selector", "button[data-value='edge-16']").click()
    assert before.startswith("On mid-32") and browser.find_element("id", "verdict").text.startswith("On edge-16")
    browser.find_element("css selector", "button[data-value=lattice]").click()
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 10, poll_frequency=0.1).until(lambda b: b.execute_script(marks) == 2)
    cycles = [int(text.replace(",", "")) for text in column(2)]
    for expected in (sorted(cycles), sorted(cycles, reverse=True)):
        browser.execute_script("document.querySelector('#compared th[data-key=cycles]').click()")
        assert [int(text.replace(",", "")) for text in column(2)] == expected
    browser.execute_script("const s = document.getElementById('program'); s.value = 1; s.onchange()")
    assert (
        "edge-16" in browser.find_element("id", "program-said").text
        or "mid-32" in browser.find_element("id", "program-said").text
    )
    assert browser.execute_script("return document.querySelector('#trace a').href").startswith("data:application/gzip")
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert {url.split(":")[0] for url in asked} <= {"file", "data", "about"}, asked
