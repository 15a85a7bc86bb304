"""Small networks of kinds that transformers' model types leave out: convolutions, recurrent ones, recommendation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

Built = tuple[nn.Module, tuple[Tensor, ...]]


class Inverted(nn.Module):
    """MobileNet-V2's block, with EfficientNet's gate."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = inputs * 4
        self.grow = nn.Sequential(nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6())
        depthwise = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.spread = nn.Sequential(depthwise, nn.BatchNorm2d(inner), nn.ReLU6())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inner, inputs, 1), nn.SiLU(),
                                  nn.Conv2d(inputs, inner, 1), nn.Sigmoid())  # fmt: skip
        self.shrink = nn.Sequential(nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.spread(self.grow(x))
        y = self.shrink(y * self.gate(y))
        return x + y if self.same else y


class Dense(nn.Module):
    """DenseNet's block: every layer reads all before it."""

    def __init__(self, inputs: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(inputs + n * growth), nn.ReLU(), nn.Conv2d(inputs + n * growth, growth, 3, 1, 1)
            )
            for n in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class UNet(nn.Module):
    """Down, up by transposed convolution, with group norms and what was before beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = self._block(3, 16), self._block(16, 32)
        self.up, self.last, self.head = nn.ConvTranspose2d(32, 16, 2, 2), self._block(32, 16), nn.Conv2d(16, 4, 1)

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 1, 1), nn.GroupNorm(4, outputs), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        down = self.down(functional.max_pool2d(first, 2))
        return self.head(self.last(torch.cat([first, self.up(down)], 1)))


class Shuffled(nn.Module):
    """ShuffleNet's unit: grouped products and channels in another order."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, channels, 1, groups=groups), nn.BatchNorm2d(channels), nn.ReLU())
        self.middle = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels)
        self.last, self.groups = nn.Conv2d(channels, channels, 1, groups=groups), groups

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.last(self.middle(functional.channel_shuffle(self.first(x), self.groups))))


class TextReader(nn.Module):
    """CRNN: columns of an image as a sequence for a bidirectional LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, (2, 1), 1), nn.ReLU())
        self.rnn, self.head = nn.LSTM(16 * 4, 12, bidirectional=True, batch_first=True), nn.Linear(24, 11)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.stem(x).permute(0, 3, 1, 2).flatten(2)
        return self.head(self.rnn(columns)[0]).log_softmax(-1)


class Recommender(nn.Module):
    """DLRM: products of all pairs of embedded features, then layers."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(50, 8, mode="sum") for _ in range(3))
        self.bottom, self.top = nn.Linear(6, 8), nn.Sequential(nn.Linear(8 + 6, 16), nn.ReLU(), nn.Linear(16, 1))
        self.register_buffer("pairs", torch.tril_indices(4, 4, -1), persistent=False)

    def forward(self, dense: Tensor, *bags: Tensor) -> Tensor:
        low = torch.relu(self.bottom(dense))
        parts = torch.stack([low, *(table(bag) for table, bag in zip(self.tables, bags, strict=True))], 1)
        products = parts @ parts.transpose(1, 2)
        return torch.sigmoid(self.top(torch.cat([low, products[:, self.pairs[0], self.pairs[1]]], 1)))


class Windows(nn.Module):
    """Swin's block: attention in windows that are shifted by half of one."""

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.side = heads, side
        self.bias = nn.Parameter(torch.randn(heads, side * side, side * side))

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        side, heads = self.side, self.heads
        rolled = torch.roll(self.norm(x), (-side // 2, -side // 2), (1, 2))
        tiles = rolled.view(batch, height // side, side, width // side, side, channels).transpose(2, 3)
        rows = tiles.reshape(-1, side * side, channels)
        q, k, v = self.qkv(rows).view(len(rows), side * side, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
        back = self.out(seen.transpose(1, 2).reshape(len(rows), side * side, channels))
        back = back.view(batch, height // side, width // side, side, side, channels).transpose(2, 3)
        return x + torch.roll(back.reshape(x.shape), (side // 2, side // 2), (1, 2))


class Experts(nn.Module):
    """A layer of experts of which each token takes two; all run on all tokens."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, count)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
                                     for _ in range(count))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        scores, chosen = self.gate(x).softmax(-1).topk(2, -1)
        weights = torch.zeros_like(self.gate(x)).scatter(-1, chosen, scores)
        parts = [weights[..., n : n + 1] * one(x) for n, one in enumerate(self.experts)]
        return torch.stack(parts).sum(0)


class Attended(nn.Module):
    """PyTorch's own attention, with words that nobody looks at."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor, padded: Tensor) -> tuple[Tensor, Tensor]:
        return self.attention(x, x, x, key_padding_mask=padded)


class Chosen(Experts):
    """The same layer as most write it: each expert runs on the tokens that chose it."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)
        scores, chosen = self.gate(rows).softmax(-1).topk(2, -1)
        found = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            token, place = torch.where(chosen == number)
            found.index_add_(0, token, expert(rows[token]) * scores[token, place, None])
        return found.view_as(x)


class Scan(nn.Module):
    """A selective state space, token by token."""

    def __init__(self, width: int, state: int) -> None:
        super().__init__()
        self.step, self.into, self.out = nn.Linear(width, width), nn.Linear(width, state), nn.Linear(width, state)
        self.decay = nn.Parameter(torch.rand(width, state))

    def forward(self, x: Tensor) -> Tensor:
        step, into, out = functional.softplus(self.step(x)), self.into(x), self.out(x)
        state, found = torch.zeros(x.shape[0], x.shape[2], into.shape[2]), []
        for token in range(x.shape[1]):
            fade = torch.exp(-step[:, token, :, None] * self.decay)
            state = fade * state + (step[:, token] * x[:, token])[..., None] * into[:, token, None]
            found.append((state * out[:, token, None]).sum(-1))
        return torch.stack(found, 1)


def _images(side: int = 32, channels: int = 3) -> tuple[Tensor, ...]:
    return (torch.randn(1, channels, side, side),)


NETWORKS: Mapping[str, Callable[[], Built]] = {
    "convolutions, inverted and gated": lambda: (
        nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), Inverted(16, 16, 1), Inverted(16, 24, 2), nn.AdaptiveAvgPool2d(1),
                      nn.Flatten(), nn.Linear(24, 10)), _images()),
    "convolutions, densely joined": lambda: (nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), Dense(8, 6, 3)), _images()),
    "convolutions in groups, shuffled": lambda: (nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), Shuffled(24, 3)), _images()),
    "U-Net": lambda: (UNet(), _images()),
    "super-resolution": lambda: (
        nn.Sequential(nn.Conv2d(3, 16, 5, 1, 2), nn.PReLU(), nn.Conv2d(16, 12, 3, 1, 1), nn.PixelShuffle(2)),
        _images(16)),
    "feature pyramid, up-sampled": lambda: (
        nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Upsample(scale_factor=2, mode="bilinear"),
                      nn.Conv2d(16, 4, 1)), _images(16)),
    "text reader (CRNN)": lambda: (TextReader(), (torch.randn(1, 1, 16, 24),)),
    "recommender (DLRM)": lambda: (
        Recommender(), (torch.randn(4, 6), *(torch.randint(0, 50, (4, 3)) for _ in range(3)))),
    "windows of attention, shifted": lambda: (Windows(24, 3, 4), (torch.randn(1, 8, 8, 24),)),
    "experts, two of four": lambda: (Experts(16, 4), (torch.randn(1, 6, 16),)),
    "experts, as many loops": lambda: (Chosen(16, 4), (torch.randn(1, 6, 16),)),
    "attention with a mask of words": lambda: (
        Attended(16, 4), (torch.randn(2, 5, 16), torch.tensor([[0, 0, 0, 0, 1], [0, 0, 1, 1, 1]], dtype=torch.bool))),
    "LSTM, both ways": lambda: (nn.LSTM(12, 8, bidirectional=True, batch_first=True), (torch.randn(2, 5, 12),)),
    "transposed convolution, group norm": lambda: (
        nn.Sequential(nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=2), nn.GroupNorm(4, 8), nn.SiLU(),
                      nn.AdaptiveAvgPool2d((3, 2))), (torch.randn(1, 8, 6, 6),)),
    "state space, token by token": lambda: (Scan(12, 4), (torch.randn(1, 6, 12),)),
    "volumes": lambda: (
        nn.Sequential(nn.Conv3d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv3d(8, 8, (1, 2, 2), (1, 2, 2)), nn.Flatten(),
                      nn.Linear(512, 5)), (torch.randn(1, 1, 8, 16, 16),)),
    "GRU": lambda: (nn.GRU(12, 8, 2, batch_first=True), (torch.randn(2, 5, 12),)),
    "transformer with a decoder": lambda: (
        nn.Transformer(16, 2, 1, 1, 32, batch_first=True), (torch.randn(2, 5, 16), torch.randn(2, 4, 16))),
}  # fmt: skip
