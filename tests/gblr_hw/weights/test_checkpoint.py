"""Reading and writing checkpoints: the toolkit's own format."""

from __future__ import annotations

import json
import struct
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gblr_hw.files.checkpoint import load_checkpoint, save_checkpoint
from gblr_hw.files.own_format import METADATA_KEY
from gblr_hw.layers.conv import GBLRConv2d
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.weights.from_factors import block_sparse_weights, low_rank_weights, monarch_weights
from gblr_hw.weights.stored import DenseWeights, LayerWeights, named_tensors
from simulator.base.errors import InputError


def every_kind() -> dict[str, LayerWeights]:
    torch.manual_seed(0)
    return {
        "blocks.10.fc": GBLRLinear(8, 12, 3, 2, sigma=7.5).weights(),
        "blocks.2.fc": GBLRLinear(5, 3, bias=False, gaussian=False).weights(),
        "head": DenseWeights(torch.randn(3, 4), torch.randn(3)),
        "low": low_rank_weights(torch.randn(9, 2), torch.randn(2, 7), chunk_in=4, chunk_out=2),
        "sparse": block_sparse_weights(
            torch.randn(9, 7), torch.rand(3, 4) < 0.5, torch.randn(9), chunk_in=2, chunk_out=3
        ),
        "monarch": monarch_weights(torch.randn(2, 6, 4), torch.randn(3, 5, 4)),
        "a.conv": GBLRConv2d(3, 4, 2, arrangement="positions", blocks=2).weights(),
        "b.conv": GBLRConv2d(3, 4, (1, 3), arrangement="unfolded", blocks=2, bias=False, gaussian=False).weights(),
    }


def assert_equal(found: LayerWeights, wanted: LayerWeights) -> None:
    assert type(found) is type(wanted)
    one, two = dict(named_tensors(found)), dict(named_tensors(wanted))
    assert list(one) == list(two)
    for name in one:
        assert torch.equal(one[name], two[name]), name
    for name in found.__dataclass_fields__:
        value = getattr(wanted, name)
        if name != "parts" and not isinstance(value, Tensor):
            assert getattr(found, name) == value, name
    for part, wanted_part in zip(getattr(found, "parts", ()), getattr(wanted, "parts", ()), strict=True):
        assert (part.sigma, part.gaussian) == (wanted_part.sigma, wanted_part.gaussian)


def test_own_format_round_trips_every_kind_in_order(tmp_path: Path) -> None:
    layers = every_kind()
    path = tmp_path / "net.safetensors"
    save_checkpoint(layers, path)
    found = load_checkpoint(path)
    assert list(found) == list(layers)
    for name, weights in layers.items():
        assert_equal(found[name], weights)
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]


def test_equal_content_gives_equal_bytes_and_packs_masks(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_checkpoint(every_kind(), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    wide = low_rank_weights(torch.ones(64, 1), torch.ones(1, 4096), chunk_in=1, chunk_out=1)
    save_checkpoint({"wide": wide}, tmp_path / "wide")
    # A layer without tiles does not store its (zero) matrix, and flags take a bit each.
    assert (tmp_path / "wide").stat().st_size < 4 * (4096 + 64) + 64 * 4096 / 8 + 4096 / 8 + 2000


def test_a_model_is_saved_layer_by_layer(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), GBLRLinear(5, 3), nn.Conv2d(2, 2, 1))
    save_checkpoint(model, tmp_path / "m.safetensors")
    found = load_checkpoint(tmp_path / "m.safetensors")
    assert list(found) == ["0", "2", "3"]
    assert torch.equal(found["0"].weight, model[0].weight.detach())
    layer = GBLRLinear.from_weights(found["2"]).eval()
    inputs = torch.randn(2, 5)
    assert torch.equal(layer(inputs), model[2].eval()(inputs))


def test_an_existing_file_survives_a_failed_write(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_checkpoint({"fc": DenseWeights(torch.ones(2, 2))}, path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="it is taken by another layer"):
        save_checkpoint({"a": every_kind()["a.conv"], "a.parts.0": every_kind()["blocks.2.fc"]}, path)
    with pytest.raises(InputError, match="a checkpoint holds layer weights"):
        save_checkpoint({"fc": nn.Linear(2, 2)}, path)  # type: ignore[dict-item]
    with pytest.raises(InputError, match="it must hold at least one"):
        save_checkpoint({}, path)
    with pytest.raises(InputError, match="found a folder; an output is a regular file"):
        save_checkpoint({"fc": DenseWeights(torch.ones(2, 2))}, tmp_path)
    with pytest.raises(InputError, match="found no folder '.*absent'; an output is a file in a folder that exists"):
        save_checkpoint({"fc": DenseWeights(torch.ones(2, 2))}, tmp_path / "absent" / "net.safetensors")
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_write_that_fails_at_the_end_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("simulator.base.files.os.replace", full)
    with pytest.raises(
        InputError, match=r"net.safetensors': found 'No space left on device' when writing it; .*Free some space"
    ):
        save_checkpoint({"fc": DenseWeights(torch.ones(2, 2))}, tmp_path / "net.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_gaussian_is_recorded_and_may_only_agree(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_checkpoint({"fc": GBLRLinear(4, 4, gaussian=True).weights()}, path)
    assert load_checkpoint(path, gaussian=True)["fc"].gaussian
    with pytest.raises(InputError, match="the file records gaussian=True"):
        load_checkpoint(path, gaussian=False)
    with pytest.raises(InputError, match="the file records its convolutions' kernels"):
        load_checkpoint(path, kernels={"fc": (1, 1)})


def rewritten(path: Path, change: object, tensors: dict[str, Tensor] | None = None) -> Path:
    """A file of one dense and one lattice layer whose header went through `change`."""
    weights = OrderedDict(fc=DenseWeights(torch.ones(2, 2)), low=low_rank_weights(torch.ones(3, 1), torch.ones(1, 3)))
    save_checkpoint(weights, path)
    with safe_open(path, framework="pt") as reader:
        header = json.loads(reader.metadata()[METADATA_KEY])
        state = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118
    text = change(header) if callable(change) else change
    text = text if isinstance(text, str) else json.dumps(text)
    save_file(state | (tensors or {}), path, metadata={METADATA_KEY: text})
    return path


def with_layer(index: int, **fields: object) -> object:
    def change(header: dict) -> dict:
        header["layers"][index] |= fields
        return header

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "it is JSON with a version and layers"),
        ("[]", "it is JSON with a version and layers"),
        (lambda header: header | {"version": 2}, "found version 2; this release reads version 1.*Update the toolkit"),
        (lambda header: header | {"layers": []}, "a checkpoint has at least one"),
        (lambda header: header | {"layers": [3]}, "names are text and differ"),
        (lambda header: header | {"layers": header["layers"][:1] * 2}, "names are text and differ"),
        (lambda header: header | {"layers": header["layers"][:1]}, "no layer that owns it"),
        (with_layer(0, kind="sparse"), "layer 'fc': kind: found 'sparse'"),
        (with_layer(0, kind="gblr"), "layer 'fc': a malformed record|layer 'fc': found a malformed record"),
        (with_layer(1, chunk_in=0), "layer 'low': chunk_in and chunk_out"),
        (with_layer(1, chunk_in=1), "layer 'low': tensor 'v': found 1.0"),
        (with_layer(1, chunk_out="x"), "layer 'low': chunk_in and chunk_out"),
        (with_layer(1, family="odd"), "layer 'low': family: found 'odd'"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, change: object, message: str) -> None:
    path = rewritten(tmp_path / "net.safetensors", change)
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(str(path))


def test_sizes_that_no_layer_has_are_refused_before_anything_is_built(tmp_path: Path) -> None:
    empty = {"low.u": torch.zeros(2**20, 0), "low.v": torch.zeros(0, 2**40)}
    path = rewritten(tmp_path / "net.safetensors", lambda header: header, empty)
    with pytest.raises(InputError, match="its matrix may have at most"):
        load_checkpoint(path)


def test_packed_masks_of_the_wrong_size_are_refused(tmp_path: Path) -> None:
    packed = {"low.reads": torch.ones(3, dtype=torch.uint8)}
    path = rewritten(tmp_path / "net.safetensors", lambda header: header, packed)
    with pytest.raises(InputError, match=r"layer 'low': tensor 'reads'.*it packs 1 x 1 flags"):
        load_checkpoint(path)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    header = {"version": 1, "layers": [{"name": "fc", "kind": "dense"}]}
    save_file({"other": torch.ones(1)}, path, metadata={METADATA_KEY: json.dumps(header)})
    with pytest.raises(InputError, match="layer 'fc': tensor 'weight': found nothing"):
        load_checkpoint(path)


@pytest.mark.parametrize("keep", [0, 5, 40, -8])
def test_truncated_files_are_refused(tmp_path: Path, keep: int) -> None:
    for name in ("net.safetensors", "net.pt"):
        path = tmp_path / name
        if name.endswith(".pt"):
            torch.save({"fc.weight": torch.ones(50, 50)}, path)
        else:
            save_checkpoint({"fc": DenseWeights(torch.ones(50, 50))}, path)
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(InputError, match=r"an empty file|an unreadable") as caught:
            load_checkpoint(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_header_that_declares_absurd_sizes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    header = json.dumps({"fc.weight": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 16]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)
    with pytest.raises(InputError, match="its header must describe the bytes that follow it"):
        load_checkpoint(path)
    path.write_bytes(struct.pack("<Q", 2**62) + b"{")
    with pytest.raises(InputError, match="an unreadable safetensors file"):
        load_checkpoint(path)
