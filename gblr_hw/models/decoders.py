"""Pieces of causal language models as modules of arrays alone: with a cache as inputs, or one block by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class WithCache(nn.Module):
    """A causal language model of transformers that reads ``past`` tokens' keys and values as inputs.

    forward(tokens (B, T), keys and values of each layer (B, heads, past, width) in turn) -> logits (B, T, vocabulary).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, *past: Tensor) -> Tensor:
        """Logits of the tokens that follow the past ones."""
        return self.model(input_ids=tokens, past_key_values=cache_of(past), use_cache=True).logits


class LlamaBlock(nn.Module):
    """One decoder layer with its rotary positions: hidden states (B, T, hidden) and, where there are past tokens, their
    keys and values (B, kv heads, past, width) -> hidden states.
    """

    def __init__(self, layer: nn.Module, rotary: nn.Module) -> None:
        super().__init__()
        self.layer, self.rotary = layer, rotary

    def forward(self, hidden: Tensor, *past: Tensor) -> Tensor:
        """Hidden states after the layer."""
        before = past[0].shape[2] if past else 0
        positions = torch.arange(before, before + hidden.shape[1])[None]
        cache = cache_of(past) if past else None
        result = self.layer(
            hidden, position_embeddings=self.rotary(hidden, positions), past_key_values=cache, use_cache=bool(past)
        )
        return result[0] if isinstance(result, tuple) else result


def cache_of(past: tuple[Tensor, ...]) -> Any:
    """transformers' cache of keys and values given in turn, layer by layer."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer in range(len(past) // 2):
        cache.update(past[2 * layer], past[2 * layer + 1], layer)
    return cache
