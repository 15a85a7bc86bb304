"""MLP-Mixer: layers that mix tokens and layers that mix channels (Tolstikhin et al., arXiv 2105.01601)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from gblr_hw.models.vit import MLP


@dataclass(frozen=True)
class MixerShape:
    """Sizes of a Mixer on square images; the defaults are S/16 of the paper's table 1."""

    image: int = 224
    patch: int = 16
    width: int = 512
    depth: int = 8
    token_hidden: int = 256
    channel_hidden: int = 2048
    classes: int = 1000

    @property
    def tokens(self) -> int:
        """Patches of an image."""
        return (self.image // self.patch) ** 2


class MixerBlock(nn.Module):
    """An MLP over the tokens of each channel, then one over the channels of each token, both pre-norm and residual."""

    def __init__(self, tokens: int, width: int, token_hidden: int, channel_hidden: int) -> None:
        super().__init__()
        self.norm1, self.token_mlp = nn.LayerNorm(width), MLP(tokens, token_hidden)
        self.norm2, self.channel_mlp = nn.LayerNorm(width), MLP(width, channel_hidden)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, tokens, width), same shape out."""
        x = x + self.token_mlp(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel_mlp(self.norm2(x))


class MlpMixer(nn.Module):
    """Images (B, 3, side, side) -> logits (B, classes)."""

    def __init__(self, shape: MixerShape) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, shape.width, shape.patch, shape.patch)
        sizes = shape.tokens, shape.width, shape.token_hidden, shape.channel_hidden
        self.layers = nn.ModuleList(MixerBlock(*sizes) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, side, side) -> logits (B, classes)."""
        x = self.stem(images).flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x).mean(dim=1))
