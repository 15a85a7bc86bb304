"""Whole transformers with four-bit weights: lowered, simulated and executed, attention's activations in eight bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from gblr_hw.lowering.pipeline import lower
from simulator.machine.machine import Machine
from simulator.numbers.execute_network import execute_network
from simulator.timing.simulate import simulate

MACHINE = Machine.load("edge-16").with_(datatypes={"narrow_bits": 4})
_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.2,
}


def bert():
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=16, **_SMALL)
    return transformers.BertModel(config), lambda: (torch.randint(0, 50, (1, 12)),)


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=2, use_cache=False, initializer_range=0.2
    )
    return transformers.GPT2LMHeadModel(config), lambda: (torch.randint(0, 50, (1, 12)),)


def llama():
    config = transformers.LlamaConfig(vocab_size=50, num_key_value_heads=1, use_cache=False, **_SMALL)
    return transformers.LlamaForCausalLM(config), lambda: (torch.randint(0, 50, (1, 12)),)


def vit():
    config = transformers.ViTConfig(image_size=16, patch_size=4, **_SMALL)
    return transformers.ViTForImageClassification(config), lambda: (torch.randn(1, 3, 16, 16),)


@pytest.mark.parametrize("build", [llama, vit, *(pytest.param(one, marks=pytest.mark.night) for one in (bert, gpt2))])
def test_transformers_with_four_bit_weights(build):
    torch.manual_seed(0)
    model, inputs = build()
    model.eval()
    batches = [inputs() for _ in range(4)]
    programs = {
        bits: lower(model, MACHINE, example_inputs=batches[0], calibration=batches, weight_bits=bits) for bits in (8, 4)
    }
    for layer in programs[4].layers:
        assert set(layer.tiles.narrow) <= ({1} if layer.form != "activations" else {0})
    reports = {bits: simulate(program, MACHINE) for bits, program in programs.items()}
    assert reports[4].dram_bytes < 0.8 * reports[8].dram_bytes
    with torch.no_grad():
        wanted = model(*batches[1])[0].numpy().ravel()
    off = {}
    for bits, program in programs.items():
        given = {port.name: array.numpy() for port, array in zip(program.network.inputs, batches[1], strict=True)}
        found = next(iter(execute_network(program, given, mode="int8").values()))
        off[bits] = np.linalg.norm(np.ravel(found) - wanted) / np.linalg.norm(wanted)
    assert off[8] < 0.15
    assert off[8] < off[4] < 0.8
