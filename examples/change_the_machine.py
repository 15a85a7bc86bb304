"""Which array and which memory does a network deserve? A sweep, and the two programs that it is about.

python examples/change_the_machine.py
"""

import torch
from torch import nn

from analysis.tables.comparison import compare_reports
from gblr_hw import lower, sweep
from simulator import Machine, simulate

torch.manual_seed(0)
model, x = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 256)).eval(), torch.randn(64, 256)
rows = sweep(model, "mid-32", {"array.rows,array.cols": [16, 32], "dram.gb_per_s": [6.4, 25.6]}, example_inputs=x)
for row in rows:
    print(
        f"{row['array.rows']} x {row['array.cols']}, {row['dram.gb_per_s']} GB/s: {row['latency_cycles']:,} cycles, "
        f"{row['energy_pj'] / 1e6:.1f} uJ, {row['area_mm2']:.0f} mm2, bound by {row['bound']}"
    )

slow = Machine.load("mid-32").with_(name="slow-dram", dram={"gb_per_s": 6.4})
reports = [simulate(lower(model, one, example_inputs=x), one) for one in (Machine.load("mid-32"), slow)]
for line in compare_reports(reports):
    cause = max(line.causes, key=lambda name: line.causes[name][1] - line.causes[name][0])
    print(f"{line.name}: {line.values[0]:,.0f} -> {line.values[1]:,.0f} cycles, mostly {cause}")
