"""Whisper tiny.en and some speech as `gblr-hw convert` takes them: FILE.py:FUNCTION, of --model and of --calibrate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from benchmarks.whisper.network import load_network
from benchmarks.whisper.speech import batches, news


def build() -> tuple[nn.Module, tuple[()], dict[str, Any]]:
    """The network, and the first batch as what cycles are counted for."""
    return load_network(), (), batches(news()[0][:1])[0]


def speech() -> Iterator[dict[str, Tensor]]:
    """Utterances that calibrate, one a batch."""
    yield from batches(news()[0])
