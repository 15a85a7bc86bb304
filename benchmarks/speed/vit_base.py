"""ViT-Base as the speed benchmarks see it: 12 encoder layers, patch embedding and head, dense or GBLR, random numbers.

The 48 encoder matrices are those of timm's ``vit_base_patch16``: q, k and v in one (2304 x 768), projection, fc1, fc2.
Every layer gets 197 rows, the head and the patch embedding too. Speed does not depend on what the numbers are.
"""

from __future__ import annotations

import torch

from gblr_hw.weights.stored import DenseWeights, GBLRWeights, LayerWeights

TOKENS, DEPTH, WIDTH, CLASSES = 197, 12, 768, 1000
ENCODER = {
    "attn.qkv": (3 * WIDTH, WIDTH),
    "attn.proj": (WIDTH, WIDTH),
    "mlp.fc1": (4 * WIDTH, WIDTH),
    "mlp.fc2": (WIDTH, 4 * WIDTH),
}
FORMS = ("dense", "gblr")


def vit_base(form: str, share: float = 0.3, seed: int = 0) -> dict[str, LayerWeights]:
    """Name -> weights. form "gblr": encoder matrices have min(m, n) blocks and ``share`` of m n multiplications."""
    generator = torch.Generator().manual_seed(seed)
    layers: dict[str, LayerWeights] = {"patch_embed.proj": random_dense(WIDTH, 3 * 16 * 16, generator)}
    for depth in range(DEPTH):
        for name, (outputs, inputs) in ENCODER.items():
            make = random_dense(outputs, inputs, generator) if form == "dense" else None
            layers[f"blocks.{depth}.{name}"] = make or random_blocks(outputs, inputs, share, generator)
    layers["head"] = random_dense(CLASSES, WIDTH, generator)
    return layers


def random_dense(outputs: int, inputs: int, generator: torch.Generator) -> DenseWeights:
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    return DenseWeights(weight, torch.randn(outputs, generator=generator))


def random_blocks(outputs: int, inputs: int, share: float, generator: torch.Generator) -> GBLRWeights:
    """Rank-one blocks on random cyclic intervals; widths exponential, cut at 1, scaled to ``share`` of m n
    multiplications.
    """
    blocks = min(outputs, inputs)
    wanted = share * outputs * inputs / (blocks * (outputs + inputs))
    raw = torch.empty(2, blocks).exponential_(generator=generator)
    low, high = 0.0, 2.0
    for _ in range(40):
        scale = (low + high) / 2
        mean = float((raw * scale).clamp(max=1).mean())
        low, high = (scale, high) if mean < wanted else (low, scale)
    return GBLRWeights(
        widths=(raw * low).clamp(max=1),
        locations=torch.rand(2, blocks, generator=generator),
        lr_weight1=torch.randn(blocks, 1, inputs, generator=generator) / inputs**0.5,
        lr_weight2=torch.randn(blocks, outputs, 1, generator=generator),
        bias=torch.randn(outputs, generator=generator),
        sigma=1.0,
        gaussian=False,
    )
