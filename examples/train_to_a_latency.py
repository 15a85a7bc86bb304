"""Bring a trained network to half of its cycles, and run what comes out in int8 as the hardware would.

python examples/train_to_a_latency.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gblr_hw import fit_to_latency, lower
from simulator import Machine, execute_network

images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
torch.manual_seed(0)
loader = DataLoader(TensorDataset(x[:1297], y[:1297]), 64, shuffle=True, generator=torch.Generator().manual_seed(0))
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
for _ in range(10):
    for inputs, wanted in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), wanted).backward()
        optimizer.step()

machine = Machine.load("edge-16")
fitted = fit_to_latency(model, machine, "0.5x-dense", loader, epochs=6)


def accuracy(outputs: torch.Tensor) -> float:
    """Share of the held-out images that are told rightly."""
    return (outputs.argmax(dim=1) == y[1297:]).float().mean().item()


print(f"dense:  {fitted.dense_cycles:,.0f} cycles, {accuracy(model(x[1297:])):.1%}")
print(f"fitted: {fitted.latency_cycles:,.0f} cycles, {accuracy(fitted.model(x[1297:])):.1%}")
program = lower(fitted.model, machine, example_inputs=x[1297:], calibration=[x[:500]])
(codes,) = execute_network(program, {program.network.inputs[0].name: x[1297:].numpy()}, mode="int8").values()
print(f"fitted, in int8 as the hardware computes it: {accuracy(torch.from_numpy(codes)):.1%}")
