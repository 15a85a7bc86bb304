"""Convert a trained network: each layer on the inputs that the ones before it leave. Then train on for a moment.

python examples/convert_a_pretrained_network.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from gblr_hw import convert
from simulator import Machine

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
print(f"dense: {(model(x[1297:]).argmax(1) == y[1297:]).float().mean():.1%}")
for tiles in (0.6, 0.3):
    found = convert(model, machine, batches=batches, tiles=tiles, exclude="4", example_inputs=x[:64])
    print(found)  # each layer's tiles and error, cycles, energy, the output's error
    print(f"{(found.model(x[1297:]).argmax(1) == y[1297:]).float().mean():.1%} as converted")

smaller = found.model.train()  # what was dropped stays so
optimizer = torch.optim.AdamW(smaller.parameters(), lr=1e-3)
for _ in range(50):
    optimizer.zero_grad()
    nn.functional.cross_entropy(smaller(x[:1297]), y[:1297]).backward()
    optimizer.step()
print(f"{(smaller.eval()(x[1297:]).argmax(1) == y[1297:]).float().mean():.1%} after fine-tuning")
