"""Input moments: what the hooks collect is the sum written out, padding aside, and files come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gblr_hw.conversion.covariances import collect_covariances, load_covariances, save_covariances
from gblr_hw.files.tensor_files import write_safetensors
from simulator.base.errors import InputError


def test_moments_are_those_of_the_unmasked_rows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 3))
    batches = [torch.randn(2, 7, 5), torch.randn(3, 7, 5)]
    masks = {id(batch): torch.rand(len(batch), 7) < 0.6 for batch in batches}
    found = collect_covariances(model, batches, ["0", "3"], lambda batch: masks[id(batch)])
    assert model.training
    rows = torch.cat([batch[masks[id(batch)]] for batch in batches]).double()
    np.testing.assert_allclose(found["0"], (rows.T @ rows / len(rows)).numpy(), rtol=1e-12, atol=1e-12)
    inner = torch.relu(model[0](rows.float())).detach().double()
    np.testing.assert_allclose(found["3"], (inner.T @ inner / len(inner)).numpy(), rtol=1e-5, atol=1e-7)
    save_covariances(found, tmp_path / "c.safetensors")
    loaded = load_covariances(tmp_path / "c.safetensors")
    assert set(loaded) == {"0", "3"}
    np.testing.assert_allclose(loaded["3"], found["3"], rtol=1e-6)


def test_labels_among_keyword_arguments_are_left_out() -> None:
    model, x = nn.Sequential(nn.Linear(5, 4)), torch.randn(6, 5)
    found = collect_covariances(model, ({"input": one, "labels": torch.ones(3)} for one in (x[:3], x[3:])))
    np.testing.assert_allclose(found["0"], (x.double().T @ x.double() / 6).numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.randn(2, 5).half(), "batch 1, layer '0': found RuntimeError: mat1 and mat2 must have the same dtype"),
        (torch.randn(2, 6), "batch 1, layer '0': found RuntimeError: "),
        ({"labels": torch.ones(2)}, r"batch 1: found TypeError: .*missing 1 required positional argument"),
        (torch.full((2, 5), torch.nan), "layer '0': found NaN or infinity in its inputs; moments are of finite"),
    ],
)
def test_a_batch_that_the_model_does_not_take_is_told(batch: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        collect_covariances(nn.Sequential(nn.Linear(5, 4)), [torch.randn(2, 5), batch])


def test_what_cannot_be_collected_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU())
    with pytest.raises(InputError, match="layer '1': found ReLU"):
        collect_covariances(model, [], ["1"])
    with pytest.raises(InputError, match="batches: found none; the model is called with one at least"):
        collect_covariances(model, [], ["0"])
    with pytest.raises(InputError, match="layer '2': found no such module; it is a linear layer of the model"):
        collect_covariances(model, [], ["2"])
    with pytest.raises(InputError, match="batch: found str; it is a tensor, a dict of keyword arguments, or a list"):
        collect_covariances(model, ["x"], ["0"])
    with pytest.raises(InputError, match="layer '0': found NaN or infinity in its inputs"):
        collect_covariances(model, [torch.full((2, 5), torch.inf)], ["0"])
    with pytest.raises(InputError, match="the mask has shape"):
        collect_covariances(model, [torch.ones(2, 5)], ["0"], lambda batch: torch.ones(3))
    write_safetensors(tmp_path / "c.safetensors", {"a": torch.ones(2, 3)}, {})
    with pytest.raises(InputError, match="a covariance is square"):
        load_covariances(tmp_path / "c.safetensors")
    for dtype in (torch.complex64, torch.int64, torch.bool):
        write_safetensors(tmp_path / "c.safetensors", {"a": torch.ones(2, 2, dtype=dtype)}, {})
        with pytest.raises(InputError, match=f"'a': found dtype {dtype}; moments are real numbers. Collect it again"):
            load_covariances(tmp_path / "c.safetensors")


class ByKeyword(nn.Module):
    """A layer that is called by keyword, one that never runs, and one that stores its matrix inputs first."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.idle = nn.Linear(5, 4)
        self.last = Conv1D()

    def forward(self, hidden: Tensor, scale: float = 1.0) -> Tensor:
        return self.last(x=self.first(input=hidden * scale))


class Conv1D(nn.Module):
    """As in transformers: matrix (inputs, outputs)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))
        self.bias = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def test_batches_are_what_loaders_give() -> None:
    torch.manual_seed(0)
    model, x = ByKeyword(), torch.randn(12, 5)
    wanted = collect_covariances(model, [x])
    assert set(wanted) == {"first", "last"}
    np.testing.assert_allclose(wanted["first"], (x.double().T @ x.double() / 12).numpy(), rtol=1e-12, atol=1e-12)
    loader = DataLoader(TensorDataset(x, torch.zeros(12)), 5)
    for batches in (loader, (batch for batch in loader), [{"hidden": x[:7]}, {"hidden": x[7:], "scale": 1.0}], [(x,)]):
        found = collect_covariances(model, batches)
        assert set(found) == set(wanted)
        for name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6)


def test_half_precision_does_not_overflow() -> None:
    model = nn.Sequential(nn.Linear(5, 4)).half()
    x = torch.full((3, 5), 60000.0, dtype=torch.float16)
    np.testing.assert_allclose(collect_covariances(model, [x], ["0"])["0"], x.double().numpy()[0, 0] ** 2)
