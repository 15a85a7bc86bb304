"""Every tensor of a file is accounted for: read, left out for a reason that is told, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gblr_hw import load_checkpoint
from gblr_hw.files.accounting import Told
from gblr_hw.files.checkpoint import read_checkpoint
from gblr_hw.files.names import matched, renamed
from gblr_hw.weights.factors import evaluate
from gblr_hw.weights.stored import DenseWeights
from simulator import InputError


def saved(folder: Path, state: dict[str, Tensor], name: str = "net.safetensors") -> Path:
    path = folder / name
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def matrix(weights: object) -> np.ndarray:
    return evaluate(weights).matrix()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name, shape",
    [("experts.w1", (4, 8, 8)), ("conv.weight", (4, 4, 3)), ("volume.weight", (4, 2, 3, 3, 3)), ("lstm.weight_ih_l0", (16, 4)),
     ("block.B", (2, 8, 3)), ("mha.q_proj_weight", (8, 8))],
)  # fmt: skip
def test_what_no_reader_knows_is_named_with_its_share(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    path = saved(tmp_path, {"head.weight": torch.ones(3, 8), "head.bias": torch.zeros(3), name: torch.ones(shape)})
    lost, whole = int(np.prod(shape)), int(np.prod(shape)) + 27
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    text = str(caught.value)
    assert f"1 tensors that no layer accounts for, {100 * lost / whole:.1f} % of the weights: {name} {shape}" in text
    assert "--leave-out PATTERN" in text and len(text) < 1000
    contents = read_checkpoint(path, told=Told.of(leave_out=[name]))
    assert list(contents.layers) == ["head"]
    assert contents.account.notes() == [
        f"left out, as asked for: {name} ({100 * lost / whole:.1f} % of the file's weights)"
    ]


@pytest.mark.parametrize(
    "name",
    ["embeddings.word_embeddings", "tok_embeddings", "gpt_neox.embed_in", "shared", "wte", "relative_attention_bias"],
)
def test_tables_are_known_by_their_names_and_told(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, {f"{name}.weight": torch.ones(2000, 8), "fc.weight": torch.ones(4, 8)})
    contents = read_checkpoint(path)
    assert list(contents.layers) == ["fc"]
    assert contents.account.notes()[0].startswith(f"left out, looked up, not multiplied: {name}.weight (99.8 %")
    assert set(load_checkpoint(path, layers=[name])) == {name, "fc"}


def test_a_matrix_with_a_bias_is_no_table_whatever_its_name(tmp_path: Path) -> None:
    state = {"time_embed.weight": torch.ones(2000, 8), "time_embed.bias": torch.ones(2000)}
    assert set(load_checkpoint(saved(tmp_path, state))) == {"time_embed"}


def test_what_could_be_either_is_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path, {"units.weight": torch.ones(4000, 8), "fc.weight": torch.ones(4, 8)})
    with pytest.raises(
        InputError, match=r"layer 'units': found a 4000 x 8 matrix without a bias; .* Say which: --table units"
    ):
        load_checkpoint(path)
    assert set(load_checkpoint(path, tables=["units"])) == {"fc"}
    assert set(load_checkpoint(path, layers=["units"])) == {"units", "fc"}
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 4000, "hidden": True}))
    assert set(load_checkpoint(path)) == {"fc"}


def test_added_parameters_and_vectors_are_no_layers(tmp_path: Path) -> None:
    state = {
        "cls_token": torch.ones(1, 1, 8), "pos_embed": torch.ones(1, 5, 8), "positional_embedding": torch.ones(5, 8),
        "norm.weight": torch.ones(8), "norm.running_var": torch.ones(8), "ids": torch.arange(6).reshape(2, 3),
        "fc.weight": torch.ones(4, 8),
    }  # fmt: skip
    contents = read_checkpoint(saved(tmp_path, state))
    assert list(contents.layers) == ["fc"] and contents.account.notes() == []
    assert set(contents.account.added) == set(state) - {"fc.weight"}


@pytest.mark.parametrize("option", ["tables", "layers", "leave_out", "transposed"])
def test_a_pattern_that_matches_nothing_is_an_error(tmp_path: Path, option: str) -> None:
    path = saved(tmp_path, {"fc.weight": torch.ones(4, 8)})
    with pytest.raises(InputError, match=f"{option} 'nowhere': found no tensor or layer of that name"):
        load_checkpoint(path, **{option: ["nowhere"]})  # type: ignore[arg-type]


def test_conv1d_is_turned_where_a_bias_tells(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    qkv, square = torch.randn(6, 18, generator=generator), torch.randn(6, 6, generator=generator)
    state = {"h.0.attn.c_attn.weight": qkv, "h.0.attn.c_attn.bias": torch.zeros(18), "h.0.attn.c_proj.weight": square,
             "h.0.attn.c_proj.bias": torch.zeros(6)}  # fmt: skip
    layers = load_checkpoint(saved(tmp_path, state))
    np.testing.assert_array_equal(matrix(layers["h.0.attn.c_attn"]), qkv.T.numpy())
    np.testing.assert_array_equal(matrix(layers["h.0.attn.c_proj"]), square.T.numpy())
    bare = saved(tmp_path, {"c_fc.weight": qkv}, "bare.safetensors")
    np.testing.assert_array_equal(matrix(load_checkpoint(bare)["c_fc"]), qkv.numpy())
    np.testing.assert_array_equal(matrix(load_checkpoint(bare, transposed=["c_fc"])["c_fc"]), qkv.T.numpy())


def test_the_authors_low_rank_layer_and_a_pruned_one(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    v, u = torch.randn(3, 8, generator=generator), torch.randn(5, 3, generator=generator)
    weight, mask = torch.randn(5, 8, generator=generator), (torch.rand(5, 8, generator=generator) < 0.5).float()
    state = {"low.lr_weight1": v, "low.lr_weight2": u, "low.bias": torch.ones(5), "pruned.weight_orig": weight,
             "pruned.weight_mask": mask}  # fmt: skip
    layers = load_checkpoint(saved(tmp_path, state))
    np.testing.assert_allclose(matrix(layers["low"]), (u @ v).numpy(), atol=1e-6)
    np.testing.assert_array_equal(matrix(layers["pruned"]), (weight * mask).numpy())


def test_shards_and_folders(tmp_path: Path) -> None:
    saved(tmp_path, {"a.weight": torch.ones(4, 8)}, "model-1.safetensors")
    saved(tmp_path, {"b.weight": torch.ones(4, 8)}, "model-2.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    places = {"a.weight": "model-1.safetensors", "b.weight": "model-2.safetensors"}
    index.write_text(json.dumps({"weight_map": places}))
    assert set(load_checkpoint(tmp_path)) == set(load_checkpoint(index)) == {"a", "b"}
    index.write_text(json.dumps({"weight_map": places | {"c.weight": "model-2.safetensors"}}))
    with pytest.raises(InputError, match="no tensor 'c.weight' in 'model-2.safetensors'"):
        load_checkpoint(index)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(InputError, match="no file 'model-2.safetensors'"):
        load_checkpoint(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a.weight": "../other.safetensors"}}))
    with pytest.raises(InputError, match="shards lie beside their index"):
        load_checkpoint(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="a folder with no checkpoint"):
        load_checkpoint(empty)


def test_one_part_of_several_is_not_read_for_the_whole(tmp_path: Path) -> None:
    part = saved(tmp_path, {"a.weight": torch.ones(4, 8)}, "model-00001-of-00002.safetensors")
    saved(tmp_path, {"b.weight": torch.ones(4, 8)}, "model-00002-of-00002.safetensors")
    with pytest.raises(InputError, match=r"found one of 2 files; a checkpoint in parts is read whole. Name its folder"):
        load_checkpoint(part)
    places = {f"{name}.weight": f"model-0000{place}-of-00002.safetensors" for name, place in (("a", 1), ("b", 2))}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert set(load_checkpoint(tmp_path)) == set(load_checkpoint(index)) == {"a", "b"}
    assert set(load_checkpoint(part.rename(tmp_path / "part.safetensors"))) == {"a"}
    assert set(load_checkpoint(saved(tmp_path, {"a.weight": torch.ones(4, 8)}, "m-00001-of-00001.safetensors"))) == {
        "a"
    }


@pytest.mark.parametrize("container", ["state_dict", "model_state_dict", "state_dict_ema", "params", "model", "net"])
def test_containers_of_training_code(tmp_path: Path, container: str) -> None:
    path = tmp_path / "run.pt"
    torch.save({"epoch": 3, container: {"module.fc.weight": torch.ones(4, 8)}}, path)
    layers = load_checkpoint(path)
    assert isinstance(layers["fc"], DenseWeights)


def test_names_are_matched_by_the_least_change_that_finds_most() -> None:
    model = nn.Sequential()
    model.add_module("encoder", nn.Linear(2, 2))
    wanted = ["encoder.weight", "encoder.bias"]
    for before in ("", "module.", "model.net.", "bert."):
        names = [f"{before}encoder.weight", f"{before}encoder.bias", f"{before}other.weight"]
        found = matched(names, wanted)
        assert [found[name] for name in names] == ["encoder.weight", "encoder.bias", "other.weight"]
    assert matched(["weight", "bias"], wanted) == {"weight": "encoder.weight", "bias": "encoder.bias"}
    assert matched(["encoder._orig_mod.weight"], wanted) == {"encoder._orig_mod.weight": "encoder.weight"}


def test_renaming_is_refused_where_it_does_nothing_or_too_much() -> None:
    assert renamed(["a.x", "b.y"], {"a.": "c."}) == {"a.x": "c.x", "b.y": "b.y"}
    with pytest.raises(InputError, match="renaming 'z.': found no tensor of that name"):
        renamed(["a.x"], {"z.": "c."})
    with pytest.raises(InputError, match="two tensors of one name"):
        renamed(["a.x", "b.x"], {"a.": "b."})


FC = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.ones(2)}


@pytest.mark.parametrize(
    "content",
    [
        {"network": FC, "epoch": 3, "optimizer": {"state": {"fc.weight": {"exp_avg": torch.ones(2, 3)}}}},
        {"weights": {"module": {"generator": FC}}, "rng_state": {"cpu": torch.ones(2)}},
        {"model": {"state_dict": FC}, "loss": torch.ones(2)},
        {**FC, "optimizer": {"state": {"fc.weight": {"exp_avg": torch.ones(2, 3)}}}},
    ],
)
def test_one_network_is_found_however_deep_it_lies(tmp_path: Path, content: dict[str, object]) -> None:
    torch.save(content, tmp_path / "net.pt")
    assert list(load_checkpoint(tmp_path / "net.pt")) == ["fc"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"generator": FC, "discriminator": FC}, "found several dicts of tensors: generator, discriminator; a checkpoint"),
        ({"backbone": {"body": FC}, "head": FC}, "found several dicts of tensors: backbone, head"),
        ({**FC, "head": FC}, "'head': found 2 entries in a dict of their own, beside tensors such as 'fc.weight'"),
        ({"model": {**FC, "head": FC}}, "'model.head': found 2 entries in a dict of their own"),
    ],
)  # fmt: skip
def test_no_dict_of_tensors_goes_unsaid(tmp_path: Path, content: dict[str, object], message: str) -> None:
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(InputError, match=message):
        load_checkpoint(tmp_path / "net.pt")


def test_numbers_of_four_and_eight_bits(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    eight = torch.ones(2, 4).to(torch.float8_e4m3fn)
    torch.save({"fc.weight": eight}, path)
    assert torch.equal(load_checkpoint(path)["fc"].weight, torch.ones(2, 4))
    torch.save({"fc.weight": eight, "fc.weight_scale": torch.tensor(3.0)}, path)
    with pytest.raises(
        InputError, match=r"layer 'fc': tensor 'weight': found dtype torch.float8_e4m3fn with 'weight_scale'"
    ):
        load_checkpoint(path)
    if hasattr(torch, "float4_e2m1fn_x2"):
        torch.save({"fc.weight": torch.ones(2, 4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}, path)
        with pytest.raises(
            InputError, match=r"layer 'fc': tensor 'weight': found dtype torch.float4_e2m1fn_x2; .* torch can"
        ):
            load_checkpoint(path)
