"""Convert a trained network without training it further: each layer on the inputs that the ones before it leave.

python examples/convert_a_pretrained_network.py
"""

import copy

import torch
from sklearn.datasets import load_digits
from torch import nn

from gblr_hw import convert_in_order, lower
from gblr_hw.frontend.put_weights import put_layers
from simulator import Machine, simulate

images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
for _ in range(200):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x[:1297]), y[:1297]).backward()
    optimizer.step()
model.eval()

machine, batches = Machine.load("edge-16"), list(x[:1024].split(256))
dense = simulate(lower(model, machine, example_inputs=x[:64]), machine).latency_cycles
print(f"dense: {dense:,} cycles, {(model(x[1297:]).argmax(1) == y[1297:]).float().mean():.1%}")
for tiles in (0.7, 0.4):
    smaller = copy.deepcopy(model)
    layers = convert_in_order(model, machine, batches, ["0", "2"], tiles=tiles)
    put_layers(smaller, layers, "converted")
    cycles = simulate(lower(smaller.eval(), machine, example_inputs=x[:64]), machine).latency_cycles
    right = (smaller(x[1297:]).argmax(1) == y[1297:]).float().mean()
    print(f"{tiles:g} of the tiles: {cycles:,} cycles, {right:.1%}")
