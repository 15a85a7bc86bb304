"""What does my own module cost on hardware, and where do the cycles go?

python examples/price_my_module.py
"""

import torch
from torch import Tensor, nn

from gblr_hw import lower, replace_linear
from simulator import Machine, simulate


class Block(nn.Module):
    """A gated feed-forward block with a norm, as in many language models."""

    def __init__(self, width: int = 128, hidden: int = 512) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate, self.up = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (tokens, width) -> (tokens, width)."""
        y = self.norm(x)
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))


torch.manual_seed(0)
machine, x = Machine.load("mid-32"), torch.randn(64, 128)
for kind in ("dense", "blast"):
    model = Block().eval()
    if kind == "blast":
        replace_linear(model, kind="blast", blocks=4, rank=16)
    report = simulate(lower(model, machine, example_inputs=x), machine)
    print(f"{kind}: {report.latency_cycles:,} cycles, {report.energy_pj / 1e6:.1f} uJ, bound by {report.bound}")
    for layer in sorted(report.layers, key=lambda one: -one.latency_cycles)[:3]:
        print(f"  {layer.name}: {layer.latency_cycles:,} cycles, bound by {layer.bound}")
