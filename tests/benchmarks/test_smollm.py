"""SmolLM2's benchmark on a tiny random Llama: the file's layout undone, perplexity and interval written out, cycles."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.smollm.measure import Program, _Prefill, interval, perplexity, text_losses
from benchmarks.smollm.network import configuration, from_llama_cpp, matrices
from benchmarks.smollm.prune import prune, refitted, removal
from benchmarks.smollm.round import rounded_dense, rounded_lattice
from benchmarks.smollm.students import Lessons, layers_of, targets, weights_of_layers, with_layers
from benchmarks.smollm.tables import perplexity_picture, perplexity_table, rivals_table
from gblr_hw.conversion.conversion import convert
from gblr_hw.conversion.fit.fit_layer import QUICK
from gblr_hw.conversion.in_order.distil import Distillation, lesson_of, teach
from gblr_hw.conversion.in_order.one_by_one import convert_by_loss
from gblr_hw.conversion.in_order.share_by_loss import Sensitivity
from gblr_hw.lowering.lower_model import lower_model
from gblr_hw.weights.stored import DenseWeights
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
        one["latency_cycles"] for one in (program.cost({}), program.cost(found), program.cost({}, ["model.layers.1"]))
    )
    texts = torch.randint(0, 64, (2, 8))
    changed = with_layers(
        model, {name: DenseWeights(model.get_submodule(name).weight) for name in matrices(model)} | found
    )
    assert text_losses(changed, texts) != text_losses(model, texts)
    ids = torch.zeros(1, 120, dtype=torch.int64)
    machine = program.machine
    assert sparse == simulate(lower_model(_Prefill(changed).eval(), machine, (ids,)), machine).latency_cycles
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
    assert cells[2] == ["dense", "1.000", "1.000", "", "20.0", "1", "", ""]
    assert cells[3] == ["layers dropped", "0.900", "", "", "50.0", "2.10-2.90", "", ""]
    assert cells[4] == ["low rank, by loss, in order", "0.750", "0.800", "", "30.0", "1.40-1.60", "", "10"]
    (axes,) = perplexity_picture(rows).axes
    assert axes.get_yscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["dense", "low rank, by loss, in order"]


def test_rivals_meet_the_lattice_of_their_cycles_and_training() -> None:
    def row(method: str, steps: int, cycles: int, losses: list[float]) -> dict[str, object]:
        return {"method": method, "share": 0.5, "steps": steps, "latency_cycles": cycles, "losses": losses,
                "perplexity": math.exp(sum(losses) / len(losses))}  # fmt: skip

    rows = [
        row("dense", 0, 1000, [1.0, 2.0, 3.0]),
        row("lattice-by-loss", 0, 600, [2.0, 3.0, 4.0]),
        row("lattice-distilled", 60, 600, [1.1, 2.1, 3.1]),
        row("low-rank-by-loss", 0, 610, [2.5, 3.4, 4.6]),
        row("pruned-by-loss", 0, 500, [5.0, 5.0, 5.0]),
        row("low-rank-distilled", 60, 590, [1.0, 2.0, 3.05]),
        row("low-rank-distilled", 120, 590, [1.0, 2.0, 3.0]),
        row("layers-dropped-distilled", 60, 620, [1.0, 2.3, 3.1]),
    ]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in rivals_table(rows).splitlines()[2:]]
    assert [[line[0], line[1], line[2], line[5]] for line in lines] == [
        ["low rank, by loss", "0.610", "0.600", "lattice"],
        ["layers dropped, distilled", "0.620", "0.600", "level"],
        ["low rank, by loss, distilled", "0.590", "0.600", "rival"],
    ]
    assert float(lines[0][3]) == pytest.approx(math.exp(-0.5), abs=1e-3)
    other = rivals_table(rows, {"": "low-rank-by-loss"}, "low rank").splitlines()
    assert "the low rank's" in other[0] and " rival " in next(line for line in other if "lattice, by loss " in line)


def _moments(model: LlamaForCausalLM, names: list[str]) -> Sensitivity:
    rng = np.random.default_rng(0)

    def positive(size: int) -> np.ndarray:
        one = rng.normal(size=(size, 2 * size)) * rng.uniform(0.1, 1, 2 * size)
        return np.asarray(one @ one.T / size)

    shapes = {name: model.get_submodule(name).weight.shape for name in names}
    return Sensitivity({name: positive(m) for name, (m, _) in shapes.items()},
                       {name: positive(n) for name, (_, n) in shapes.items()})  # fmt: skip


def test_removal_costs_what_least_squares_on_the_rest_leave() -> None:
    rng = np.random.default_rng(1)
    matrix, root, back = rng.normal(size=(5, 12)), rng.normal(size=(12, 40)), rng.normal(size=(5, 20))
    inputs, outputs = root @ root.T, back @ back.T
    floored = outputs + 0.01 * np.trace(outputs) / 5 * np.eye(5)
    for group, at_once, step in ((1, 1, 2), (3, 1, 1)):
        found = removal(matrix, inputs, outputs, group, at_once, step)
        assert sorted(found.order.ravel()) == sorted(set(found.order.ravel()))
        for steps, loss in enumerate(found.losses):
            kept = np.setdiff1d(np.arange(12), found.order[:steps].ravel())
            error = matrix.copy()
            error[:, kept] -= refitted(matrix, inputs, kept)
            assert 0.5 * np.trace(floored @ error @ inputs @ error.T) == pytest.approx(loss, rel=1e-6, abs=1e-9)
    # The first to go is the cheapest of all.
    alone = []
    for unit in range(12):
        kept, error = np.delete(np.arange(12), unit), matrix.copy()
        error[:, kept] -= refitted(matrix, inputs, kept)
        alone.append(np.trace(floored @ error @ inputs @ error.T))
    assert removal(matrix, inputs, outputs, 1, 1, 1).order[0] == [int(np.argmin(alone))]


def test_pruned_networks_run_and_cost_less_and_whole_ones_stay(model: LlamaForCausalLM) -> None:
    names, blocks = matrices(model), ["model.layers.0", "model.layers.1"]
    wide = LlamaForCausalLM(configuration(FIELDS | {"llama.attention.head_count": 6, "llama.attention.head_count_kv": 2,
                                                    "llama.embedding_length": 96})).eval()  # fmt: skip
    known = _moments(wide, names)
    dense = {name: wide.get_submodule(name).weight.detach().numpy().astype(np.float64) for name in names}
    whole = prune(dense, known, blocks, 16, 1.0, 16).matrices
    all_of_it = {name: DenseWeights(torch.from_numpy(one)) for name, one in whole.items()}
    ids = torch.randint(0, 64, (2, 8))
    assert text_losses(with_layers(wide, all_of_it), ids) == pytest.approx(text_losses(wide, ids), rel=1e-4, abs=1e-5)
    pruned = prune(dense, known, blocks, 16, 0.6, 16)
    narrow = {name: DenseWeights(torch.from_numpy(one)) for name, one in pruned.matrices.items()}
    held = sum(one.weight.numel() for one in narrow.values()) / sum(one.size for one in dense.values())
    assert 0.45 < held <= 0.6
    student = with_layers(wide, narrow)
    assert text_losses(student, ids) != text_losses(wide, ids)
    assert Program(student, tokens=64).cost({})["latency_cycles"] < Program(wide, tokens=64).cost({})["latency_cycles"]
    for name, one in pruned.matrices.items():
        assert (len(pruned.known.outputs[name]), len(pruned.known.inputs[name])) == one.shape
    lattice = convert_by_loss(dict(pruned.matrices), Machine.load("edge-16"), pruned.known, 0.9)
    found = text_losses(with_layers(wide, lattice), ids)
    assert found == pytest.approx(text_losses(student, ids), abs=0.5) and found != text_losses(student, ids)


def test_students_learn_from_the_states_that_are_kept(model: LlamaForCausalLM, tmp_path: Path) -> None:
    found = {name: DenseWeights(model.get_submodule(name).weight.detach().clone()) for name in matrices(model)}
    short = {name: one for name, one in found.items() if ".layers.1." in name}
    ids = torch.randint(0, 64, (2, 8))
    lessons = Lessons(model, tmp_path)
    batch = {"input_ids": ids, "logits_to_keep": torch.tensor([1, 5])}
    made, again = lessons(batch, [0, 1]), lessons(batch, [0, 1])
    assert lessons.saved_s >= 0 and len(list(tmp_path.iterdir())) == 2
    with torch.no_grad():
        wanted = lesson_of(model, batch, ["model.layers.0", "model.layers.1"])
    assert torch.allclose(made[0].logits, wanted[0].logits, atol=1e-5)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(made[1], wanted[1], strict=True))
    assert torch.equal(again[0].logits, made[0].logits)
    student = with_layers(model, short)
    assert len(student.model.layers) == 1 and len(model.model.layers) == 2
    layers = layers_of(student, short)
    assert layers["model.layers.1.mlp.up_proj"] is student.model.layers[0].mlp.up_proj
    assert targets([0, 1, 4], 6) == [0, 3, 5]
    losses = teach(student, list(layers.values()), [batch], Distillation(40, 1e-2), partial(lessons, blocks=[1]),
                   ["model.layers.0"])  # fmt: skip
    assert losses[-1] < 0.7 * losses[0]
    learnt = weights_of_layers(layers)
    assert text_losses(with_layers(model, learnt), ids) == pytest.approx(text_losses(student, ids), rel=1e-4, abs=1e-5)


def test_four_bits_lose_little_and_take_half_the_bytes(model: LlamaForCausalLM) -> None:
    names = matrices(model)
    dense = {name: model.get_submodule(name).weight.detach().numpy() for name in names}
    inputs = _moments(model, names).inputs
    found = rounded_dense(dense, inputs, lambda *_: None)
    lattice = convert(dense, Machine.load("mid-32"), 0.6, inputs, family="lattice", schedule=QUICK)
    less = rounded_lattice(lattice, inputs, lambda *_: None)
    for name, matrix in dense.items():
        assert np.linalg.norm(found[name].matrix().numpy() - matrix) < 0.15 * np.linalg.norm(matrix)
        held = lattice[name].matrix()
        assert (less[name].matrix() - held).norm() < 0.3 * held.norm()
    program = Program(model, tokens=64)
    costs = [program.cost({}), program.cost(found, bits=4), program.cost(less, bits=4)]
    assert costs[0]["dram_bytes"] > costs[1]["dram_bytes"] > costs[2]["dram_bytes"]
