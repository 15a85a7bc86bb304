"""SmolLM2's benchmark on a tiny random Llama: the file's layout undone, perplexity and interval written out, cycles."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.smollm.measure import Program, _Prefill, interval, perplexity, text_losses
from benchmarks.smollm.network import configuration, from_llama_cpp, matrices
from benchmarks.smollm.study import Study
from benchmarks.smollm.tables import perplexity_picture, perplexity_table
from gblr_hw.conversion.conversion import convert
from gblr_hw.conversion.fit.fit_layer import QUICK
from gblr_hw.frontend.put_weights import put_layers
from gblr_hw.lowering.lower_model import lower_model
from simulator import Machine, simulate

FIELDS = {
    "llama.vocab_size": 64, "llama.embedding_length": 48, "llama.feed_forward_length": 64, "llama.block_count": 2,
    "llama.attention.head_count": 3, "llama.attention.head_count_kv": 1, "llama.context_length": 128,
    "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 1e4,
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(configuration(FIELDS)).eval()


def test_rotary_halves_come_back_in_their_order(model: LlamaForCausalLM) -> None:
    assert isinstance(model.config, LlamaConfig)
    names = {
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("model.layers."):
            _, _, block, rest = name.split(".", 3)
            kind = names[rest.removesuffix(".weight")]
            if kind in ("attn_q", "attn_k"):
                # Row i of a head's first half, then row i of its second, as the file has them.
                heads = 3 if kind == "attn_q" else 1
                rows = [h * 16 + half * 8 + i for h in range(heads) for i in range(8) for half in (0, 1)]
                tensor = tensor[rows]
            tensors[f"blk.{block}.{kind}.weight"] = tensor
    tensors |= {"token_embd.weight": model.model.embed_tokens.weight, "output_norm.weight": model.model.norm.weight}
    state = from_llama_cpp(tensors, heads=3, kv_heads=1)
    own = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    assert state.keys() == own.keys()
    assert all(torch.equal(state[name], own[name]) for name in own)
    assert len(matrices(model)) == 14


def test_perplexity_and_its_interval_written_out(model: LlamaForCausalLM) -> None:
    torch.manual_seed(1)
    ids = torch.randint(0, 64, (5, 12))
    losses = text_losses(model, ids, size=2)
    for text, loss in zip(ids, losses, strict=True):
        with torch.no_grad():
            assert loss == pytest.approx(float(model(input_ids=text[None], labels=text[None]).loss), rel=1e-4, abs=1e-5)
    assert perplexity(losses) == pytest.approx(math.exp(sum(losses) / 5), rel=1e-9)
    rng = np.random.default_rng(0)
    one = rng.normal(size=200)
    low, high = interval(one + rng.normal(0.5, 0.1, 200), one)
    # Texts' own differences are no part of it: the standard error is that of 200 differences.
    assert math.log(low) == pytest.approx(0.5 - 1.96 * 0.1 / 200**0.5, abs=0.012)
    assert math.log(high) == pytest.approx(0.5 + 1.96 * 0.1 / 200**0.5, abs=0.012)


def test_cycles_are_those_of_the_model_with_its_layers_replaced(model: LlamaForCausalLM) -> None:
    dense_weights = {
        name: model.get_submodule(name).weight.detach().numpy() for name in matrices(model) if "layers.1.mlp" in name
    }
    found = convert(dense_weights, Machine.load("mid-32"), 0.5, family="block-sparse", schedule=QUICK)
    program = Program(model, tokens=120)
    dense, sparse, short = (
        program.cycles({}), program.cycles(found), program.cycles({}, ["model.layers.1"])
    )  # fmt: skip
    study = SimpleNamespace(model=model, test=torch.randint(0, 64, (2, 8)))
    before = text_losses(model, study.test)
    changed = Study.losses(study, found)  # type: ignore[arg-type]
    assert changed != before == text_losses(model, study.test)
    put_layers(model, found, "test")
    ids = torch.zeros(1, 120, dtype=torch.int64)
    machine = program.machine
    assert sparse == simulate(lower_model(_Prefill(model).eval(), machine, (ids,)), machine).latency_cycles
    assert text_losses(model, study.test) == pytest.approx(changed, rel=1e-4, abs=1e-5)
    assert short < sparse < dense


def test_table_and_picture_say_what_the_rows_do() -> None:
    rows = [
        {"method": "dense", "share": 1.0, "perplexity": 20.0, "against_dense": [1.0, 1.0], "latency_cycles": 1000},
        {"method": "layers-dropped", "share": 0.9, "tiles": 0.9, "perplexity": 50.0, "against_dense": [2.1, 2.9]},
        {"method": "low-rank-in-order", "share": 0.76, "tiles": 0.75, "perplexity": 30.0,
         "against_dense": [1.4, 1.6], "latency_cycles": 800, "cpu_s": 600},
    ]  # fmt: skip
    lines = perplexity_table(rows).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[2] == ["dense", "1.000", "1.000", "20.0", "1", ""]
    assert cells[3] == ["layers dropped", "0.900", "", "50.0", "2.10-2.90", ""]
    assert cells[4] == ["low rank, by loss, in order", "0.750", "0.800", "30.0", "1.40-1.60", "10"]
    (axes,) = perplexity_picture(rows).axes
    assert axes.get_yscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["dense", "low rank, by loss, in order"]
