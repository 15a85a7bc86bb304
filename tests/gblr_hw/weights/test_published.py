"""Reading checkpoints of others: the published layout, Lightning files, plain state dicts, and files to refuse."""

from __future__ import annotations

import warnings
from pathlib import Path
from random import Random
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gblr_hw.files.checkpoint import load_checkpoint, save_checkpoint
from gblr_hw.files.tensor_files import _first_line
from gblr_hw.layers.conv import GBLRConv2d
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.factors import evaluate
from gblr_hw.weights.stored import ConvWeights, DenseWeights, GBLRWeights
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

REFERENCE = Path(__file__).parents[2] / "data" / "reference"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 6)
        self.position = nn.Parameter(torch.zeros(1, 4, 6))
        self.norm = nn.LayerNorm(6)
        self.blocks = nn.ModuleList(GBLRLinear(6, 6, 2, sigma=3.0) for _ in range(2))
        self.conv = GBLRConv2d(3, 4, 3, arrangement="positions", blocks=2)
        self.whole = GBLRConv2d(3, 4, (1, 2), arrangement="unfolded", blocks=2)
        self.plain = nn.Conv2d(2, 3, 2, bias=False)
        self.head = nn.Linear(6, 3)


def saved(value: object, path: Path) -> Path:
    torch.save(value, path)
    return path


@pytest.mark.parametrize("form", ["bare", "lightning", "parallel", "timm", "safetensors"])
def test_a_whole_network_in_every_wrapping(form: str, tmp_path: Path) -> None:
    net = Net()
    state = net.state_dict()
    if form == "safetensors":
        path = tmp_path / "net.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        wrapped: dict[str, Any] = {
            "bare": state,
            "parallel": {f"module.{name}": tensor for name, tensor in state.items()},
            "timm": {"model": state, "epoch": 3},
            "lightning": {
                "epoch": 1,
                "state_dict": {f"model.{k}": v for k, v in state.items()} | {"loss.scale": torch.ones(3)},
                "hyper_parameters": {"lr": 0.1},
            },
        }
        path = saved(wrapped[form], tmp_path / "net.ckpt")
    layers = load_checkpoint(path, gaussian=True, kernels={"whole": (1, 2)})
    names = ["blocks.0", "blocks.1", "conv", "whole", "plain", "head"]
    assert list(layers) == (sorted(names) if form == "safetensors" else names)
    assert isinstance(layers["blocks.1"], GBLRWeights)
    assert layers["blocks.1"].sigma == 3.0
    assert torch.equal(layers["blocks.1"].lr_weight1, net.blocks[1].lr_weight1.detach())
    assert isinstance(layers["conv"], ConvWeights)
    assert layers["conv"].kernel == (3, 3)
    assert torch.equal(layers["conv"].parts[5].widths, net.conv.parts[5].widths.detach())
    assert torch.equal(layers["whole"].bias, net.whole.bias.detach())
    assert isinstance(layers["plain"], DenseWeights)
    assert layers["plain"].in_features == 8
    assert torch.equal(layers["head"].bias, net.head.bias.detach())


@pytest.mark.parametrize("name", ["gaussian_rank2_64x128", "no_gaussian_33x57"])
def test_a_single_layer_without_a_name(name: str) -> None:
    layers = load_checkpoint(REFERENCE / f"{name}.pt", gaussian=name.startswith("gaussian"))
    assert list(layers) == ["layer"]
    with pytest.raises(InputError, match=r"layer 'layer': gaussian: found None.*Pass gaussian=True or gaussian=False"):
        load_checkpoint(REFERENCE / f"{name}.pt")


def test_plain_safetensors_are_sorted_naturally(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({f"blocks.{i}.weight": torch.ones(2, 2) for i in (10, 2, 1)}, path)
    assert list(load_checkpoint(path)) == ["blocks.1", "blocks.2", "blocks.10"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_are_read(dtype: torch.dtype, tmp_path: Path) -> None:
    weights = torch.randn(3, 2).to(dtype)
    layer = load_checkpoint(saved({"fc.weight": weights}, tmp_path / "net.pth"))["fc"]
    assert torch.equal(layer.weight, weights)  # as the file has it, so that a mapped file is not copied
    dense = evaluate(layer).dense
    assert dense is not None and dense.dtype == np.float32
    assert np.array_equal(dense, weights.float().numpy())


def test_the_old_file_format_and_attention_projections(tmp_path: Path) -> None:
    attention = nn.MultiheadAttention(4, 2)
    torch.save({f"attn.{k}": v for k, v in attention.state_dict().items()}, tmp_path / "old.bin",
               _use_new_zipfile_serialization=False)  # fmt: skip
    layers = load_checkpoint(tmp_path / "old.bin")
    assert list(layers) == ["attn.in_proj", "attn.out_proj"]
    assert layers["attn.in_proj"].out_features == 12


def test_an_unfolded_convolution_of_unknown_kernel_is_a_linear_layer(tmp_path: Path) -> None:
    net = GBLRConv2d(3, 4, (1, 2), arrangement="unfolded", blocks=2)
    path = saved({f"conv.{k}": v for k, v in net.state_dict().items()}, tmp_path / "net.pt")
    layer = load_checkpoint(path, gaussian=True)["conv"]
    assert isinstance(layer, GBLRWeights)
    assert layer.in_features == 6
    assert torch.equal(layer.bias, net.bias.detach())
    with pytest.raises(InputError, match="a 2 x 2 kernel needs a multiple of 4"):
        load_checkpoint(path, gaussian=True, kernels={"conv": (2, 2)})
    with pytest.raises(InputError, match="kernels: found 'other'; the layers are conv"):
        load_checkpoint(path, gaussian=True, kernels={"other": (1, 2)})


def test_kernel_positions_that_are_not_square_must_be_told(tmp_path: Path) -> None:
    net = GBLRConv2d(3, 4, (1, 3), arrangement="positions", blocks=2)
    path = saved({f"conv.{k}": v for k, v in net.state_dict().items()}, tmp_path / "net.pt")
    with pytest.raises(InputError, match="3 kernel positions"):
        load_checkpoint(path, gaussian=True)
    assert load_checkpoint(path, gaussian=True, kernels={"conv": (1, 3)})["conv"].kernel == (1, 3)
    state = {f"conv.{k}": v for k, v in net.state_dict().items() if not k.startswith("gaudi_modules.0")}
    with pytest.raises(InputError, match=r"no conv.gaudi_modules.0; kernel positions count from 0"):
        load_checkpoint(saved(state, path), gaussian=True)


class Foreign:
    """A class of ours inside a pickle."""


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_a_foreign_class_is_refused(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({"fc.weight": torch.ones(2, 2), "config": Foreign()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"net.pt: found a pickle with the foreign class \S*Foreign;.*run any code"):
        load_checkpoint(path)


def gblr_state(**change: Tensor | None) -> dict[str, Tensor]:
    state = {f"fc.{name}": tensor for name, tensor in GBLRLinear(6, 4, 2).state_dict().items()}
    for name, tensor in change.items():
        if tensor is None:
            del state[f"fc.{name}"]
        else:
            state[f"fc.{name}"] = tensor
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"fc.weight": torch.tensor([[1.0, float("nan")]])}, r"layer 'fc': tensor 'weight': found nan at.*0, 1"),
        ({"fc.weight": torch.tensor([[float("-inf")]])}, "layer 'fc': tensor 'weight': found -inf"),
        ({"fc.weight": torch.ones(2, 2), "fc.bias": torch.ones(3)}, "layer 'fc': tensor 'bias': found shape"),
        (gblr_state(widths=torch.ones(2, 5)), r"layer 'fc': tensor 'widths': found shape \(2, 5\).*must be \(2, 2\)"),
        (gblr_state(locations=torch.ones(2)), "layer 'fc': tensor 'locations'"),
        (gblr_state(lr_weight1=torch.ones(2, 6)), r"tensor 'lr_weight1'.*\(blocks, rank, in_features\)"),
        (gblr_state(lr_weight2=torch.ones(2, 4, 3)), "tensor 'lr_weight2'.*2 blocks of rank 1"),
        (gblr_state(freq_out=torch.ones(9)), "tensor 'freq_out'"),
        (gblr_state(locations=None), "layer 'fc': GBLR layer: found no locations"),
        (gblr_state(sigma=None), "a mask with the Gaussian needs its sigma"),
        (gblr_state(sigma=torch.ones(2)), "sigma is one number"),
        ({"fc.weight": torch.ones(2, 2, dtype=torch.int8)}, "layer 'fc': tensor 'weight': found dtype torch.int8"),
        ({"fc.weight": torch.ones(2, 2) * 1j}, "layer 'fc': tensor 'weight': found dtype torch.complex64"),
        ({"fc.weight": torch.ones(2, 2).double() * 1e39}, r"tensor 'weight': found 1e\+39 at index .*finite float32"),
        (gblr_state(widths=torch.full((2, 2), 3.0)), r"layer 'fc': tensor 'widths': found 3 at.*lie in \[-1, 2\]"),
        ({"norm.weight": torch.ones(3)}, "1 tensors and no layer"),
        ({}, "no tensors"),
        ([torch.ones(2)], "a list; a checkpoint is a state dict"),
        (torch.ones(2), "a Tensor; a checkpoint is a state dict"),
        ({"epoch": 3}, "the first entry 'epoch' is a int"),
        ({"state_dict": {}}, "no tensors"),
        ({"fc.weight": torch.ones(1).expand(10**6, 10**6)}, r"shape \(1000000, 1000000\).*stored in full"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(state: object, message: str, tmp_path: Path) -> None:
    path = saved(state, tmp_path / "net.pt")
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(path, gaussian=True)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: torch.eye(3).to_sparse(),
            r"shape \(3, 3\), layout torch.sparse_coo; a tensor is dense and stored in full",
        ),
        (lambda: torch.eye(3).to_sparse_csr(), r"shape \(3, 3\), layout torch.sparse_csr; a tensor is dense"),
        (lambda: torch.ones(3, 3, device="meta"), r"shape \(3, 3\) on the device 'meta', which holds no numbers"),
        (
            lambda: torch.quantize_per_tensor(torch.ones(3, 3), 0.1, 0, torch.qint8),
            "torch.strided, quantised; a tensor",
        ),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "a nested tensor; a tensor is dense"),
    ],
)
def test_tensors_that_are_not_stored_in_full_are_named(make: Any, message: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are "a prototype"
        path = saved({"fc.weight": make()}, tmp_path / "net.pt")
    with pytest.raises(InputError, match=r"net.pt: tensor 'fc.weight': found .*" + message):
        load_checkpoint(path)


def test_negative_bit_views_are_read_as_their_numbers(tmp_path: Path) -> None:
    view = torch.complex(torch.ones(2, 3), torch.arange(6.0).reshape(2, 3)).conj().imag
    assert view.is_neg()
    layer = load_checkpoint(saved({"fc.weight": view}, tmp_path / "net.pt"))["fc"]
    assert torch.equal(layer.weight, -torch.arange(6.0).reshape(2, 3))
    assert layer.weight.numpy().sum() == -15


def test_a_compressed_file_is_read_as_torch_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"fc.weight": torch.zeros(100, 200), "fc.bias": torch.ones(100)}
    torch.save(state, tmp_path / "net.pt")
    with ZipFile(tmp_path / "net.pt") as plain, ZipFile(tmp_path / "small.pt", "w", ZIP_DEFLATED) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    assert (tmp_path / "small.pt").stat().st_size < 4000
    layer = load_checkpoint(tmp_path / "small.pt")["fc"]
    assert torch.equal(layer.weight, state["fc.weight"])
    monkeypatch.setattr("simulator.base.memory.available_bytes", lambda: 80_000)
    with pytest.raises(InputError, match=r"small.pt: found a compressed file, which takes some .* GiB of memory; this"):
        load_checkpoint(tmp_path / "small.pt")


def test_what_torch_says_is_quoted_in_whole_sentences(tmp_path: Path) -> None:
    first = "a sentence that is short. "
    assert _first_line(RuntimeError(first + "and then one that has no end " * 20)) == "a sentence that is short"
    assert _first_line(RuntimeError("word " * 100)).count("…") == 1
    assert _first_line(RuntimeError("one\ntwo")) == "one"
    assert _first_line(RuntimeError()) == "RuntimeError"


@pytest.mark.parametrize("name", ["zip.pt", "old.pt", "own.safetensors"])
def test_flipped_bytes_give_layers_or_one_paragraph(name: str, tmp_path: Path) -> None:
    random, path, model = Random(0), tmp_path / name, nn.Sequential(GBLRLinear(4, 3, 2), nn.Linear(3, 2))
    if name.endswith(".pt"):
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=name == "zip.pt")
    else:
        save_checkpoint(model, path)
    whole = path.read_bytes()
    refused = 0
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(random.choice([1, 3, 10])):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        path.write_bytes(damaged)
        try:
            load_checkpoint(path, gaussian=True)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 10


def test_missing_files_folders_and_rubbish_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the checkpoint must exist"):
        load_checkpoint(tmp_path / "absent.pt")
    with pytest.raises(InputError, match="found a folder"):
        load_checkpoint(tmp_path)
    for text, message in (
        (
            b"hello, this is no checkpoint",
            "found a file that begins with b'hello, this is no checkp'; a checkpoint is a saf",
        ),
        (b"\x80\x02garbage", "found a pickle that torch reads only by running what stands in it; only tensors"),
        (b"PK\x03\x04 not a zip", "an unreadable file"),
        (bytes(range(256)), "found a file that begins with b"),
    ):
        (tmp_path / "rubbish.pt").write_bytes(text)
        with pytest.raises(InputError, match=message):
            load_checkpoint(tmp_path / "rubbish.pt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("net.py", b"import torch\n", "found Python code; a checkpoint is a .* --model FILE.py:FUNCTION"),
        ("net.onnx", b"\x08\x08", "found an ONNX model; .* Lower it as a model"),
        ("net.safetensors", b"version https://git-lfs.github.com/spec/v1\noid", "found a pointer of git-lfs; .*git lfs pull"),
        ("net.bin", b"<!DOCTYPE html><html>404", "found a page of HTML or XML; .* fetch the file itself"),
        ("net.h5", b"\x89HDF\r\n\x1a\n", "found an HDF5 file"),
        ("net.npy", b"\x93NUMPY\x01", "found an array of numpy's"),
        ("net.npz", b"PK\x03\x04", "found arrays of numpy's"),
        ("net.pt.gz", b"\x1f\x8b\x08", "found a file packed by gzip; .* Unpack it"),
        ("config.json", b'{"vocab_size": 3}', "found JSON; .* Name the weights' file beside it"),
    ],
)  # fmt: skip
def test_files_of_other_kinds_are_told_by_what_they_are(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_checkpoint(tmp_path / name)


def test_a_program_is_no_checkpoint(tmp_path: Path) -> None:
    lower({"fc": DenseWeights(torch.ones(2, 2))}, Machine.load("edge-16"), tokens=2).save(tmp_path / "net.program")
    with pytest.raises(
        InputError, match=r"net.program: found a program; a checkpoint holds layers. Run it: gblr-hw sim"
    ):
        load_checkpoint(tmp_path / "net.program")


@pytest.mark.parametrize("protocol", [1, 4, 5])
def test_a_pickle_protocol_that_torch_reads_only_by_running_it(tmp_path: Path, protocol: int) -> None:
    torch.save({"fc.weight": torch.ones(2, 2)}, tmp_path / "net.pt", pickle_protocol=protocol)
    with pytest.raises(InputError, match=r"found a pickle that torch reads only by running.*without a pickle_protocol"):
        load_checkpoint(tmp_path / "net.pt")
