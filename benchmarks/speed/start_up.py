"""How long ``gblr-hw simulate`` takes from the start of its process to its end, with kernels compiled and without.

python -m benchmarks.speed.start_up [--out docs/data/start_up.json]

Every program as the command takes it, and with Numba imported first, so that kernels are compiled whatever the
program's size; in turns, and with them an empty Python and one that imports NumPy, pydantic, rich and typer. Medians;
ratios are medians of ratios taken side by side. "cold" is one run with an empty Numba cache. Nothing else should run.
About a minute.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import torch

from benchmarks.shared.measurement import out_option, write_json
from benchmarks.speed.tables import start_table
from benchmarks.speed.vit_base import FORMS, TOKENS, vit_base
from gblr_hw import lower
from gblr_hw.demo.demo_networks import TOKENS as DEMO_TOKENS
from gblr_hw.demo.single import DEMO_SHAPE
from gblr_hw.models.vit import ViT
from gblr_hw.weights.collect import weights_of
from gblr_hw.weights.stored import DenseWeights
from simulator import Machine, Program

ROUNDS = 5
ROOT = Path(__file__).resolve().parents[2]
COMMAND = "from gblr_hw.cli.main import main\nmain()"
COMPILED = f"import numba\n{COMMAND}"
LIBRARIES = "import numpy, pydantic, rich.console, rich.table, typer"


def programs() -> dict[str, Program]:
    """By what the table calls them."""
    machine = Machine.load("mid-32")
    torch.manual_seed(0)
    found = {
        "the demo's ViT": lower(weights_of(ViT(DEMO_SHAPE)), machine, tokens=DEMO_TOKENS),
        "one linear, 768 x 768": lower({"layer": DenseWeights(torch.randn(768, 768))}, machine, tokens=TOKENS),
    }
    return found | {f"ViT-Base, {form}": lower(vit_base(form), machine, tokens=TOKENS) for form in FORMS}


def run(script: str, *arguments: str, cache: Path | None = None) -> tuple[float, float]:
    """Wall and CPU seconds of a process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # whoever installs this has compiled modules
    environment |= {} if cache is None else {"NUMBA_CACHE_DIR": str(cache)}
    used, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", script, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment, cwd=ROOT
    )
    wall, now = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def measured(named: Mapping[str, Program], folder: Path) -> list[dict[str, object]]:
    """A row a program and way to start."""
    runs: dict[tuple[str, str], tuple[str, ...]] = {("", "Python"): ("pass",), ("", "libraries"): (LIBRARIES,)}
    for number, (name, program) in enumerate(named.items()):
        path = folder / f"{number}.program"
        program.save(path)
        asked = ("simulate", str(path), "--json")
        runs |= {(name, "as it is"): (COMMAND, *asked), (name, "compiled"): (COMPILED, *asked)}
    samples: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in runs}
    for _ in range(ROUNDS + 1):
        for key, command in runs.items():
            samples[key].append(run(*command))
    rows = []
    for (name, way), pairs in samples.items():
        kept = pairs[1:]  # the first one fills caches
        compiled = samples.get((name, "compiled"), pairs)[1:]
        rows.append(
            {
                "program": name,
                "way": way,
                "instructions": len(named[name].instructions) if name else None,
                "wall_s": median(wall for wall, _ in kept),
                "cpu_s": median(cpu for _, cpu in kept),
                "of_compiled": median(a[1] / b[1] for a, b in zip(kept, compiled, strict=True)),
                "samples": kept,
            }
        )
    first = next(iter(named))
    wall, cpu = run(*runs[first, "compiled"], cache=folder / "cache")
    rows.append(
        {"program": first, "way": "compiled, cold", "instructions": len(named[first].instructions)}
        | {"wall_s": wall, "cpu_s": cpu, "of_compiled": None, "samples": [(wall, cpu)]}
    )
    return rows


def main() -> None:
    options = out_option(__doc__)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(programs(), Path(folder))
    print(start_table(rows), end="")
    write_json(options.out, rows=rows)


if __name__ == "__main__":
    main()
