"""What int8 costs published formats beside low rank: relative error of a random GPT-2 c_fc, int8 against float.

python -m benchmarks.structures.int8_formats [--out docs/data/int8_formats.json]

Weights and inputs are normal; steps follow the white-input rule. Low rank and Monarch have BLAST's rank.
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.shared.measurement import out_option, write_json
from benchmarks.structures.formats import CASES, Case, formats
from benchmarks.structures.tables import int8_formats_table
from gblr_hw import lower
from gblr_hw.weights.stored import LayerWeights
from simulator import Machine, execute

MACHINES, FORMATS, ROWS = ("edge-16", "mid-32"), ("low rank", "Monarch", "BLAST"), 64


def int8_error(weights: LayerWeights, machine: Machine, case: Case) -> float:
    """Norm of what int8 changes, over the outputs' own."""
    program = lower({"layer": weights}, machine, tokens=case.tokens)
    x = np.random.default_rng(0).normal(size=(ROWS, case.inputs))
    exact, coarse = (execute(program, {"layer": x}, *mode)["layer"] for mode in ((), ("int8",)))
    return float(np.linalg.norm(coarse - exact) / np.linalg.norm(exact))


def main() -> None:
    options = out_option(__doc__)
    case = CASES[1]
    rows = []
    for name in MACHINES:
        machine = Machine.load(name)
        row: dict[str, object] = {"machine": name}
        for kind in FORMATS:
            torch.manual_seed(0)
            row[kind] = round(int8_error(formats(case, machine)[kind](), machine, case), 5)
        rows.append(row)
    print(int8_formats_table(rows), end="")
    write_json(options.out, rows=rows)


if __name__ == "__main__":
    main()
