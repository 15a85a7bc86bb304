"""Speech with what is said: BBC News spoken by espeak-ng, and the recordings of Debian's pocketsphinx-testdata."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.io import wavfile
from scipy.signal import resample_poly
from torch import Tensor
from transformers import WhisperFeatureExtractor

from benchmarks.minilm.conversion import texts
from benchmarks.whisper.network import tokenizer

RATE = 16_000
CALIBRATION, CHOICE, TEST = 16, 8, 24  # utterances of texts that are spoken
VOICES = ("en-us+f3", "en-gb+m3", "en-gb-scotland+m1", "en-us+m7", "en-gb-x-rp+f2", "en-029+m5")
SPEEDS = (130, 150, 170)  # words a minute
WORDS = (12, 30, 50)  # an utterance has at least as many, in turn
RECORDINGS = Path("/usr/share/pocketsphinx/test/data")
_SENTENCE = re.compile(r"[A-Z][A-Za-z',\- ]+\.")


@dataclass(frozen=True, eq=False)
class Utterance:
    """sound: samples at 16 kHz, float32 within -1 and 1. text: as Whisper would write it. voice: who speaks."""

    text: str
    sound: npt.NDArray[np.float32]
    voice: str


def passage(text: str, words: int) -> str | None:
    """The first sentences of a news text, one after another, that have so many words together; none where a sentence
    before is not of words, commas, hyphens and apostrophes alone, so that all voices say it as it is written. The
    headline is left out.
    """
    body = " ".join(text.split("\n")[1:])
    found: list[str] = []
    for sentence in re.split(r"(?<=[.!?\"])\s+", body.strip()):
        if not _SENTENCE.fullmatch(sentence):
            found = []
            continue
        found.append(sentence)
        if sum(len(one.split()) for one in found) >= words:
            return " ".join(found)
    return None


def spoken(text: str, voice: str, speed: int) -> npt.NDArray[np.float32]:
    """What espeak-ng makes of a text. speed: words a minute."""
    if shutil.which("espeak-ng") is None:
        raise SystemExit("'espeak-ng' is not installed: apt-get install espeak-ng")
    with tempfile.TemporaryDirectory() as folder:  # what goes to standard output does not know its length
        file = Path(folder) / "spoken.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-s", str(speed), "-w", str(file), text], check=True)
        return _samples(file)


@cache
def news() -> tuple[list[Utterance], list[Utterance], list[Utterance]]:
    """Utterances that calibrate, others by which something may be chosen, and those that measure; each is of a text of
    its own.
    """
    found: list[Utterance] = []
    chosen = iter(texts()[0])
    while len(found) < CALIBRATION + CHOICE + TEST:
        place = len(found)
        said = passage(next(chosen), WORDS[place % len(WORDS)])
        if said is not None and len(said.split()) <= WORDS[-1] + 15:
            voice, speed = VOICES[place % len(VOICES)], SPEEDS[place // len(VOICES) % len(SPEEDS)]
            found.append(Utterance(said, spoken(said, voice, speed), f"{voice} {speed}"))
    assert max(len(one.sound) for one in found) <= 30 * RATE
    return found[:CALIBRATION], found[CALIBRATION:-TEST], found[-TEST:]


def recordings(folder: Path = RECORDINGS) -> list[Utterance]:
    """Five sentences of Jane Austen (LibriVox) and five hands of cards, with a capital and a full stop."""
    found = []
    for part, file in (("librivox", "transcription"), ("cards", "cards.transcription")):
        path = folder / part / file
        if not path.exists():
            raise SystemExit(f"no file '{path}': apt-get install pocketsphinx-testdata")
        for line in path.read_text().splitlines():
            said, name = re.fullmatch(r"<s> (.*?) *</s> \((.*)\)", line.strip()).groups()
            sound = _samples(folder / part / f"{name}.wav")
            found.append(Utterance(f"{said[0].upper()}{said[1:]}.", sound, part))
    return found


def features(utterances: Sequence[Utterance]) -> Tensor:
    """Log-mel spectrograms of 30 s each (N, 80, 3000)."""
    made = _extractor()([one.sound for one in utterances], sampling_rate=RATE)
    return torch.from_numpy(np.asarray(made["input_features"], np.float32))


@cache
def _extractor() -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=80)


def tokens(text: str) -> Tensor:
    """<|startoftranscript|><|notimestamps|>, the text's ids, <|endoftext|> (T,)."""
    return torch.tensor(tokenizer().encode(f" {text}").ids)


def batches(utterances: Sequence[Utterance]) -> list[dict[str, Tensor]]:
    """What the network is called with, an utterance each: the decoder hears and has read all but the last token."""
    return [{"input_features": features([one]), "decoder_input_ids": tokens(one.text)[None, :-1]} for one in utterances]


def _samples(file: Path) -> npt.NDArray[np.float32]:
    """Samples of a WAV file of one channel and 16 bits, at 16 kHz."""
    rate, values = wavfile.read(file)
    sound = values.astype(np.float32) / 32768
    if rate != RATE:
        common = np.gcd(rate, RATE)
        sound = resample_poly(sound, RATE // common, rate // common).astype(np.float32)
    return sound
