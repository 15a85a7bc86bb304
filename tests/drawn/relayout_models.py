"""Small models whose values do not lie as their readers need them: windows, other sequences, products of inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Apply(nn.Module):
    def __init__(self, function: Callable[..., Any], **modules: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def linears(**sizes: tuple[int, int]) -> dict[str, nn.Module]:
    return {name: nn.Linear(*size) for name, size in sizes.items()}


def x() -> Tensor:
    return torch.randn(2, 5, 12)


def heads(value: Tensor, count: int = 3) -> Tensor:
    return value.unflatten(-1, (count, -1)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2).flatten(2)


def shifted_windows(s: Any, a: Tensor) -> Tensor:
    """Swin's: rolled, cut into windows that are sequences, attended to, put together, rolled back."""
    rolled = torch.roll(s.n(a), (-1, -1), (1, 2))
    tiles = rolled.view(2, 2, 2, 2, 2, 12).permute(0, 1, 3, 2, 4, 5).reshape(8, 4, 12)
    seen = attend(heads(s.q(tiles)), heads(s.k(tiles)), heads(tiles))
    back = seen.view(2, 2, 2, 2, 2, 12).permute(0, 1, 3, 2, 4, 5).reshape(2, 4, 4, 12)
    return a + torch.roll(back, (1, 1), (1, 2))


def space_and_time(s: Any, a: Tensor) -> Tensor:
    """TimeSformer's: the same rows as sequences of frames, then as sequences of places."""
    frames = a.view(2, 3, 4, 12).transpose(1, 2).reshape(8, 3, 12)
    first = attend(*(heads(s.q(frames)),) * 3).view(2, 4, 3, 12).transpose(1, 2).reshape(6, 4, 12)
    return attend(*(heads(s.k(first)),) * 3).reshape(2, 12, 12)


class IndexArithmetic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.table(ids[:, 1:] + 1)


CASES: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    "computed_index": lambda: (IndexArithmetic(), (torch.randint(0, 8, (2, 5)),)),
    "every_other_token": lambda: (Apply(lambda s, a: s.l(s.l(a)[:, ::2]), **linears(l=(12, 12))), (x(),)),
    "part_as_output": lambda: (Apply(lambda s, a: s.l(a)[:, ::2], **linears(l=(12, 12))), (x(),)),
    "product_of_products": lambda: (Apply(lambda s, a: s.l(a) @ (s.l(a).transpose(1, 2) @ a), **linears(l=(12, 12))), (x(),)),
    "keys_shared_in_turn": lambda: (
        Apply(lambda s, a: attend(heads(s.q(a), 4), *(heads(s.k(a), 2).repeat(1, 2, 1, 1),) * 2),
              **linears(q=(12, 12), k=(12, 6))), (x(),)),
    "product_of_inputs": lambda: (Apply(lambda s, a, b: a @ b), (torch.randn(4, 6), torch.randn(6, 3))),
    "batched_product_of_inputs": lambda: (Apply(lambda s, a, b: a @ b), (torch.randn(2, 3, 4, 6), torch.randn(2, 3, 6, 5))),
    "product_of_linears": lambda: (Apply(lambda s, a: s.l(a) @ s.k(a).transpose(0, 1)[:12], **linears(l=(12, 5), k=(12, 5))),
                                   (torch.randn(5, 12),)),
    "square_product": lambda: (Apply(lambda s, a: s.l(a) @ s.k(a), **linears(l=(12, 5), k=(12, 5))), (x(),)),
    "attention_of_inputs": lambda: (
        Apply(lambda s, q, k, v: functional.scaled_dot_product_attention(q, k, v)), tuple(torch.randn(2, 3, 5, 4) for _ in "qkv")),
    "causal_attention_of_inputs": lambda: (
        Apply(lambda s, q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True)),
        tuple(torch.randn(2, 5, 4) for _ in "qkv")),
    "shifted_windows": lambda: (Apply(shifted_windows, n=nn.LayerNorm(12), **linears(q=(12, 12), k=(12, 12))),
                                (torch.randn(2, 4, 4, 12),)),
    "space_and_time": lambda: (Apply(space_and_time, **linears(q=(12, 12), k=(12, 12))), (torch.randn(2, 12, 12),)),
    "bidirectional_lstm": lambda: (nn.LSTM(4, 3, batch_first=True, bidirectional=True), (torch.randn(2, 4, 4),)),
    "flipped_tokens": lambda: (Apply(lambda s, a: s.l(a).flip(1) + s.l(a).flip(1, 2), **linears(l=(12, 12))), (x(),)),
    "images_beside_images": lambda: (
        Apply(lambda s, a: torch.cat([s.c(a), s.c(a)], 3), c=nn.Conv2d(3, 4, 3)), (torch.randn(2, 3, 6, 5),)),
    "padded_along_the_width": lambda: (
        Apply(lambda s, a: functional.pad(s.c(a), (1, 2, 2, 1)), c=nn.Conv2d(3, 4, 3)), (torch.randn(2, 3, 6, 5),)),
    "sum_over_sequences": lambda: (Apply(lambda s, a: s.l(a).sum(0), **linears(l=(12, 12))), (x(),)),
    "softmax_over_two_axes": lambda: (
        Apply(lambda s, a: torch.softmax(s.l(a).transpose(0, 1).flatten(1), -1), **linears(l=(12, 12))), (x(),)),
    "reshaped_across_rows": lambda: (Apply(lambda s, a: s.o(s.l(a).reshape(2, 12, 5)), **linears(l=(12, 12), o=(5, 3))), (x(),)),
    "picked_tokens": lambda: (Apply(lambda s, a: s.l(a)[:, [3, 0, 4, 4]], **linears(l=(12, 12))), (x(),)),
    "sequences_meet_channels": lambda: (Apply(lambda s, a: s.l(a) + s.l(a).mean(1)[:, :2].t()[:, None, :1],
                                              **linears(l=(12, 12))), (x(),)),
    "one_sequence_for_all": lambda: (
        Apply(lambda s, a, b: s.l(a) * s.k(b).unflatten(-1, (2, 6)).flatten(1), **linears(l=(12, 12), k=(12, 12))),
        (torch.randn(4, 5, 12), torch.randn(5, 12))),
    "one_column_for_all": lambda: (
        Apply(lambda s, a: s.l(a) * s.l(a)[:1].square().mean(-1, keepdim=True), **linears(l=(12, 12))), (torch.randn(3, 5, 12),)),
    "joined_sequences": lambda: (Apply(lambda s, a: s.o(torch.cat([s.l(a), a], 0)), **linears(l=(12, 12), o=(12, 3))), (x(),)),
}  # fmt: skip
