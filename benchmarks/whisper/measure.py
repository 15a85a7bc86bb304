"""How well a Whisper writes down what is said: the words' loss, words that are wrong, and the cycles that it takes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, EncoderDecoderCache, WhisperForConditionalGeneration
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from benchmarks.whisper.network import suppressed, tokenizer
from benchmarks.whisper.speech import Utterance, features, tokens
from gblr_hw import lower
from gblr_hw.conversion.fit.fit_weights import Converted
from gblr_hw.frontend.put_weights import put_layers
from gblr_hw.weights.stored import DenseWeights
from simulator import Machine, simulate

GIVEN, MOST = 2, 120  # tokens that every transcript begins with, and that one may have
TOKENS = 64  # that the decoder reads where cycles are counted


@dataclass(frozen=True)
class Written:
    """Of an utterance: loss in nats of its tokens together, how many these are, words that are wrong, left out or too
    many, and how many were said.
    """

    loss: float
    tokens: int
    errors: int
    words: int


@torch.no_grad()
def written(
    model: WhisperForConditionalGeneration, said: Sequence[Utterance], *, silence: bool = False, decode: bool = True
) -> list[Written]:
    """What a network makes of utterances. silence: it hears nothing, but reads the words as before. decode: whether it
    writes; else all words count as left out.
    """
    found, normal = [], EnglishTextNormalizer({})
    for one in said:
        heard = features([one])
        heard = features([Utterance("", np.zeros_like(one.sound), "")]) if silence else heard
        states = model.model.encoder(heard).last_hidden_state
        ids = tokens(one.text)
        loss = functional.cross_entropy(_logits(model, ids[None, :-1], states)[GIVEN - 1 :], ids[GIVEN:])
        words = normal(one.text).split()
        wrote = tokenizer().decode(greedy(model, states)) if decode else ""
        wrong = word_errors(words, normal(wrote).split())
        count = len(ids) - GIVEN
        found.append(Written(float(loss) * count, count, wrong, len(words)))
    return found


def _logits(model: WhisperForConditionalGeneration, ids: Tensor, states: Tensor) -> Tensor:
    return model.proj_out(model.model.decoder(input_ids=ids, encoder_hidden_states=states).last_hidden_state)[0]


@torch.no_grad()
def greedy(model: WhisperForConditionalGeneration, states: Tensor) -> list[int]:
    """The likeliest token each time, until the text's end; tokens that the package suppresses are never chosen."""
    never, never_first = suppressed()
    start = tokens("").tolist()
    end, cache, given = start[-1], EncoderDecoderCache(DynamicCache(), DynamicCache()), torch.tensor([start[:GIVEN]])
    found: list[int] = []
    while len(found) < MOST:
        made = model.model.decoder(input_ids=given, encoder_hidden_states=states, past_key_values=cache, use_cache=True)
        logits = model.proj_out(made.last_hidden_state[0, -1])
        logits[never if found else never + never_first] = -torch.inf
        token = int(logits.argmax())
        if token == end:
            break
        found.append(token)
        given = torch.tensor([[token]])
    return found


def word_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """The fewest words that are changed, left out or put in to make one of the other."""
    row = list(range(len(heard) + 1))
    for at, word in enumerate(said, start=1):
        last, row[0] = row[0], at
        for place, other in enumerate(heard, start=1):
            last, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, last + (word != other))
    return row[-1]


def filled(
    model: WhisperForConditionalGeneration, layers: Mapping[str, Converted | DenseWeights]
) -> WhisperForConditionalGeneration:
    """A copy with the matrices that converted layers stand for: as they compute, and quicker a token at a time."""
    student = copy.deepcopy(model)
    with torch.no_grad():
        for name, weights in layers.items():
            layer = student.get_submodule(name)
            layer.weight.copy_(weights.weight if isinstance(weights, DenseWeights) else weights.matrix())
            if layer.bias is not None:
                layer.bias.copy_(weights.bias)
    return student


def cycles(
    model: WhisperForConditionalGeneration, layers: Mapping[str, Converted | DenseWeights], machine: Machine
) -> dict[str, int]:
    """Cycles and DRAM bytes of one program of the whole network, 30 s heard and 64 tokens read, and the cycles of its
    encoder's part.
    """
    student = copy.deepcopy(model)
    put_layers(student, layers, "converted layers")
    heard = torch.zeros(1, model.config.num_mel_bins, 2 * model.config.max_source_positions)
    inputs = {"input_features": heard, "decoder_input_ids": torch.zeros(1, TOKENS, dtype=torch.int64)}
    report = simulate(lower(student, machine, example_inputs=inputs), machine)
    encoder = [one.latency_cycles for one in report.layers if one.name.startswith("model.encoder.")]
    return {
        "latency_cycles": int(report.latency_cycles),
        "encoder_cycles": int(sum(encoder)),
        "dram_bytes": int(report.dram_bytes),
    }
