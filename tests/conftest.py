"""Options and fixtures that all tests share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from pathlib import Path

import pytest
import torch._export.utils
from hypothesis import settings

import simulator
from simulator import Machine, Program, Report
from tests.oracles.bounds import assert_bounds

# Every simulation that a test runs is held against the physical bounds. This file is read before any test module, so
# that they, and the packages they import, all see this ``simulate``.
_module = import_module("simulator.timing.simulate")
_simulate = _module.simulate


@wraps(_simulate)
def _simulate_within_bounds(program: Program, machine: Machine, name: str = "") -> Report:
    report = _simulate(program, machine, name)
    assert_bounds(report, program, machine)
    return report


_module.simulate = simulator.simulate = _simulate_within_bounds

# The framework looks all of its operations up for every export: they stay the same.
torch._export.utils._materialize_cpp_cia_ops = cache(torch._export.utils._materialize_cpp_cia_ops)

GOLDENS = Path(__file__).parent / "data" / "goldens"

settings.register_profile("suite", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-goldens", action="store_true", help="write the small text goldens under tests/data/goldens anew"
    )
    parser.addoption(
        "--corpus-scale",
        type=int,
        default=1,
        help="size of the seeded corpora, in multiples of 2,000 programs (`make verify`: 10)",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of the night are skipped by day."""
    if config.getoption("--corpus-scale") == 1:
        for item in items:
            if item.get_closest_marker("night"):
                item.add_marker(pytest.mark.skip(reason="`make verify` runs it"))


@pytest.fixture(scope="session")
def rtl_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled RTL is kept from run to run (without a cache, for this run), named by a hash of its sources."""
    cache = getattr(request.config, "cache", None)
    return Path(cache.mkdir("rtl")) if cache is not None else tmp_path_factory.mktemp("rtl")


@pytest.fixture(scope="session")
def corpus_scale(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--corpus-scale"))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)``: text must equal the stored golden; a missing golden is a failure, never written silently."""

    def check(name: str, text: str) -> None:
        path = GOLDENS / name
        if request.config.getoption("--update-goldens"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"no golden {name}: run pytest --update-goldens and read what it wrote"
        assert text == path.read_text(encoding="utf-8")

    return check
