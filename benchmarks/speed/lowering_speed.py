"""How long ViT-Base takes to lower, from tensors in memory to a program, and where that time goes.

python -m benchmarks.speed.lowering_speed [--out lowering_speed.json]

Kernels are compiled before. One process, one thread, CPU seconds; each figure is the best of three runs. The profile is
of one more run, under cProfile: CPU seconds in each pass.
About 1 minute.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are loaded

import cProfile
import pstats
import time
from collections.abc import Mapping

import torch

from benchmarks.shared.measurement import cpu_seconds, out_option, write_json
from benchmarks.speed.tables import lowering_table, passes_table
from benchmarks.speed.vit_base import FORMS, TOKENS, vit_base
from gblr_hw import lower
from gblr_hw.weights.stored import LayerWeights
from simulator import Machine

MACHINES = ("mid-32", "cloud-128", "plain-32")
RUNS = 3
# What is reported as a pass: function, its file, its name in the table. None lies inside another.
PASSES = (
    ("evaluate_masks", "evaluate_masks.py", "evaluate masks"),
    ("drop_empty", "drop_empty.py", "drop empty"),
    ("candidate_forms", "choose_form.py", "choose form: candidates"),
    ("outline", "choose_form.py", "choose form: outlines"),
    ("cost", "choose_best.py", "choose form: emit and time candidates"),
    ("numbers", "choose_form.py", "choose form: multiply out"),
    ("block_tokens", "block_tokens.py", "block tokens"),
    ("colour_banks", "colour_banks.py", "colour banks"),
    ("pack_ranks", "pack_ranks.py", "pack ranks"),
    ("group_ranks", "group_ranks.py", "group ranks"),
    ("order_tiles", "order_tiles.py", "order tiles"),
    ("build_schedule", "build_schedule.py", "build schedule"),
    ("quantise_weights", "quantise_weights.py", "quantise weights"),
    ("emit", "emit.py", "emit"),
)


def profile(weights: Mapping[str, LayerWeights], machine: Machine) -> dict[str, float]:
    """Pass -> seconds, the rest and the whole."""
    profiler = cProfile.Profile(time.process_time)
    profiler.enable()
    lower(weights, machine, tokens=TOKENS)
    profiler.disable()
    stats = pstats.Stats(profiler)
    spent = {
        (function, path.rsplit("/", 1)[-1]): values[3]
        for (path, _, function), values in stats.stats.items()  # type: ignore[attr-defined]
        if "lowering" in path
    }
    seconds = {title: spent.get((function, file), 0.0) for function, file, title in PASSES}
    whole = spent["lower", "pipeline.py"]
    return {**seconds, "the rest": whole - sum(seconds.values()), "whole": whole}


def main() -> None:
    options = out_option(__doc__)
    torch.set_num_threads(1)
    rows, profiles = [], {}
    for form in FORMS:
        weights = vit_base(form)
        few = dict(list(weights.items())[:5])
        for name in MACHINES:
            machine = Machine.load(name)
            lower(few, machine, tokens=TOKENS)
            program = lower(weights, machine, tokens=TOKENS)
            runs = [cpu_seconds(lambda w=weights, m=machine: lower(w, m, tokens=TOKENS)) for _ in range(RUNS)]
            rows.append(
                {
                    "form": form,
                    "machine": name,
                    "cpu_s": min(runs),
                    "samples": runs,
                    "tiles": program.tile_count,
                    "instructions": len(program.instructions),
                    "per_tile_us": 1e6 * min(runs) / program.tile_count,
                }
            )
            if (form, name) != ("dense", "plain-32"):  # dense layers are the same to a plain machine
                profiles[f"{form}, {name}"] = profile(weights, machine)
    data = {"lowering": rows, "profiles": profiles}
    print(f"{lowering_table(data)}\n{passes_table(data)}", end="")
    write_json(options.out, **data)


if __name__ == "__main__":
    main()
