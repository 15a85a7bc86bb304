"""A small vision transformer whose heavy layers are plain nn.Linear modules, so that any of them can be replaced."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class ViTShape:
    """Sizes: square images of `image` pixels a side in patches of `patch`, `depth` blocks of `width` channels."""

    image: int = 8
    patch: int = 2
    width: int = 96
    depth: int = 2
    heads: int = 4
    mlp_ratio: int = 2
    classes: int = 10

    @property
    def tokens(self) -> int:
        """Tokens per image (there is no class token: the head reads the mean)."""
        return (self.image // self.patch) ** 2


class Attention(nn.Module):
    """Multi-head self-attention with one fused qkv projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, width))


class MLP(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), MLP(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Images (B, side, side) -> logits (B, classes)."""

    def __init__(self, shape: ViTShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Linear(shape.patch**2, shape.width)
        # As large as the patch embedding: with the usual 0.02 the network stays blind to places for many epochs.
        self.position = nn.Parameter(torch.empty(shape.tokens, shape.width).normal_(0, 0.5))
        blocks = (Block(shape.width, shape.heads, shape.width * shape.mlp_ratio) for _ in range(shape.depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.classes)

    def forward(self, images: Tensor) -> Tensor:
        side, patch = self.shape.image // self.shape.patch, self.shape.patch
        patches = images.view(-1, side, patch, side, patch).transpose(2, 3).reshape(-1, side * side, patch * patch)
        x = self.embed(patches) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))
