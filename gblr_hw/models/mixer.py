"""A small MLP-Mixer whose heavy layers are plain nn.Linear modules (Tolstikhin et al., NeurIPS 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw.models.vit import MLP
from simulator.base.errors import InputError


@dataclass(frozen=True)
class MixerShape:
    """Sizes: square images of `image` pixels a side with `pad` zeros around, in patches of `patch`.

    depth: blocks of `width` channels; token_hidden, channel_hidden: hidden sizes of the two MLPs. A cost that counts
    one number of rows for all layers is right when tokens equal `width`, as in the defaults: a token-mixing layer sees
    width rows an image, a channel-mixing one `tokens`.
    """

    image: int = 28
    pad: int = 2
    patch: int = 4
    width: int = 64
    depth: int = 3
    token_hidden: int = 64
    channel_hidden: int = 128
    classes: int = 10

    def __post_init__(self) -> None:
        if (self.image + 2 * self.pad) % self.patch:
            raise InputError(
                "mixer shape",
                f"{self.image} + 2 * {self.pad} pixels in patches of {self.patch}",
                "patches tile the padded image",
                "Choose another padding.",
            )

    @property
    def side(self) -> int:
        """Patches along a side."""
        return (self.image + 2 * self.pad) // self.patch

    @property
    def tokens(self) -> int:
        """Patches per image."""
        return self.side**2


class MixerBlock(nn.Module):
    """An MLP over the tokens of each channel, then one over the channels of each token, both pre-norm and residual."""

    def __init__(self, shape: MixerShape) -> None:
        super().__init__()
        self.norm1, self.token_mlp = nn.LayerNorm(shape.width), MLP(shape.tokens, shape.token_hidden)
        self.norm2, self.channel_mlp = nn.LayerNorm(shape.width), MLP(shape.width, shape.channel_hidden)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, tokens, width), and so is the result."""
        x = x + self.token_mlp(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel_mlp(self.norm2(x))


class Mixer(nn.Module):
    """Images (B, side, side) -> logits (B, classes)."""

    def __init__(self, shape: MixerShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Linear(shape.patch**2, shape.width)
        self.blocks = nn.ModuleList(MixerBlock(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.classes)

    def forward(self, images: Tensor) -> Tensor:
        side, patch, pad = self.shape.side, self.shape.patch, self.shape.pad
        if pad:
            images = functional.pad(images, (pad, pad, pad, pad))
        patches = images.view(-1, side, patch, side, patch).transpose(2, 3).reshape(-1, side * side, patch * patch)
        x: Tensor = self.embed(patches)
        for block in self.blocks:
            x = block(x)
        return torch.as_tensor(self.head(self.norm(x).mean(dim=1)))
