"""Checkpoints into models: strict, by whatever names wrappers wrote, and every open end is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gblr_hw import GBLRLinear
from gblr_hw.files.checkpoint import save_checkpoint
from gblr_hw.frontend.put_weights import put_weights
from simulator import InputError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).mean(dim=(2, 3)))


def made(seed: int) -> Net:
    torch.manual_seed(seed)
    net = Net()
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return net.eval()


def same(one: nn.Module, other: nn.Module) -> bool:
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return torch.equal(one(x), other(x))


@pytest.mark.parametrize("before", ["", "module.", "_orig_mod.", "model.", "net.", "bert.", "model.module."])
@pytest.mark.parametrize("container", [None, "model", "model_state_dict", "state_dict_ema"])
def test_all_of_a_network_is_filled_whatever_wrapped_it(tmp_path: Path, before: str, container: str | None) -> None:
    source, target, path = made(1), made(2), tmp_path / "net.pt"
    state = {before + name: tensor for name, tensor in source.state_dict().items()}
    torch.save(state if container is None else {"epoch": 1, container: state}, path)
    assert not same(source, target)
    filled = put_weights(target, path)
    assert (filled.missing, filled.unused) == ((), ())
    assert same(source, target)


def test_a_bare_file_into_a_wrapped_model(tmp_path: Path) -> None:
    source, path = made(1), tmp_path / "net.safetensors"
    save_file(dict(source.state_dict()), path)
    wrapped = nn.Sequential()
    wrapped.add_module("inner", made(2))
    assert put_weights(wrapped, path).missing == ()
    assert same(source, wrapped)


def test_open_ends_are_told(tmp_path: Path) -> None:
    source, path = made(1), tmp_path / "net.safetensors"
    state = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith("norm.")}
    save_file(state | {"extra.weight": torch.ones(10, 13)}, path)
    filled = put_weights(made(2), path)
    assert filled.missing == ("norm.bias", "norm.running_mean", "norm.running_var", "norm.weight")
    assert filled.unused == ("extra.weight",)
    assert filled.unused_share == pytest.approx(130 / (130 + sum(t.numel() for t in state.values())))


def test_a_wrong_shape_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file(dict(made(1).state_dict()) | {"norm.running_mean": torch.ones(7)}, path)
    with pytest.raises(
        InputError, match=r"tensor 'norm.running_mean': found shape \(7,\); the model's has shape \(4,\)"
    ):
        put_weights(made(2), path)


def test_renamed_layers_and_gblr_in_their_place(tmp_path: Path) -> None:
    source, target, path = made(1), made(2), tmp_path / "net.pt"
    source.head = GBLRLinear(4, 5, gaussian=False).eval()  # type: ignore[assignment]
    state = {name.replace("head.", "classifier."): tensor for name, tensor in source.state_dict().items()}
    torch.save(state, path)
    filled = put_weights(target, path, gaussian=False, rename={"classifier.": "head."})
    assert (filled.missing, filled.unused) == ((), ())
    assert isinstance(target.head, GBLRLinear) and same(source, target)


def test_tied_weights_are_filled_by_either_name(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(7, 4)
            self.head = nn.Linear(4, 7, bias=False)
            self.head.weight = self.table.weight

    path = tmp_path / "tied.safetensors"
    save_file({"head.weight": torch.full((7, 4), 3.0)}, path)
    model = Tied()
    assert put_weights(model, path).missing == ()
    assert bool((model.table.weight == 3).all())


def test_conv1d_of_gpt2(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=11, n_positions=6)
    source, target = (transformers.GPT2LMHeadModel(config).eval() for _ in range(2))
    path = tmp_path / "gpt2.pt"
    torch.save(source.state_dict(), path)
    assert put_weights(target, path).missing == ()
    ids = torch.arange(5)[None]
    assert torch.equal(source(ids).logits, target(ids).logits)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_numbers_of_another_kind_are_no_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    state = made(1).state_dict() | {"head.weight": torch.ones(5, 4, dtype=dtype)}
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(
        InputError, match=rf"tensor 'head.weight': found dtype {dtype}; the model's has dtype torch.float32"
    ):
        put_weights(made(2), tmp_path / "net.pt")


def test_biases_that_only_one_side_has(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_checkpoint(nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 5)), path)
    filled = put_weights(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5, bias=False)), path)
    assert (filled.missing, filled.unused) == (("0.bias",), ("1.bias",))
    assert filled.unused_share == pytest.approx(5 / (12 + 20 + 5))
