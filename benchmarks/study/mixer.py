"""A small MLP-Mixer for grey images; its heavy layers are plain nn.Linear modules (Tolstikhin et al., NeurIPS 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw.models.mlp_mixer import MixerBlock
from simulator.base.errors import InputError


@dataclass(frozen=True)
class GreyMixerShape:
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


class GreyMixer(nn.Module):
    """Images (B, side, side) -> logits (B, classes)."""

    def __init__(self, shape: GreyMixerShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Linear(shape.patch**2, shape.width)
        sizes = shape.tokens, shape.width, shape.token_hidden, shape.channel_hidden
        self.blocks = nn.ModuleList(MixerBlock(*sizes) for _ in range(shape.depth))
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
