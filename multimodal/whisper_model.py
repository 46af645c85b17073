"""The only module that knows the whisper package: a checkpoint on this machine → the words of one window of sound."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hearth.models.errors import ModelFileError

WINDOW_S = 30.0  # what a Whisper encoder takes; shorter sound is padded with silence
SAMPLE_RATE = 16_000
MOST_TOKENS_PER_S = 8.0  # fast English is about 5; a decoder that loops is stopped here
SPARE_TOKENS = 16
BEAM_SIZE = 5
SMALL_STATE = 256  # of width up to here, threads wait for each other longer than they work


@dataclass(frozen=True, slots=True)
class WindowTranscript:
    """What the model makes of one window. ``no_speech_prob`` in 0..1; ``avg_logprob`` per token, near 0 when sure."""

    text: str
    no_speech_prob: float
    avg_logprob: float


def find_checkpoint(name: str) -> Path:
    """The file of a checkpoint: a path, or the name of a Whisper size in its usual folder. Never downloads.

    Raises ModelFileError when it is not on this machine.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper" / f"{name}.pt"
    if os.sep not in name and cache.is_file():
        return cache
    raise ModelFileError(
        f"speech model {name!r} is not on this machine (looked at {path} and {cache}); name a .pt file"
    )


class WhisperModel:
    """A loaded checkpoint. One thread at a time."""

    def __init__(self, checkpoint: Path) -> None:
        """Reads the checkpoint: a second or more the first time, for torch itself.

        Raises ModelFileError: missing, truncated, not a Whisper checkpoint.
        """
        import torch
        import whisper

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = _read(checkpoint, lambda: whisper.load_model(str(checkpoint), device=self.device))
        self._model.eval()
        self._check: Callable[[], None] = _never
        for block in (*self._model.encoder.blocks, *self._model.decoder.blocks):
            block.register_forward_pre_hook(lambda *_: self._check())
        extra = _read(checkpoint, lambda: torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True))
        self.window_s = float(min(WINDOW_S, extra.get("window_s", WINDOW_S)))
        """Longest window, in seconds of sound, on which this model is at its best."""

    @property
    def is_multilingual(self) -> bool:
        return bool(self._model.is_multilingual)

    def decode(self, samples: NDArray[np.float32], check: Callable[[], None] | None = None) -> WindowTranscript:
        """The words in ``samples``, shape (n_samples,), at most 30 s at 16 kHz.

        ``check`` is called before every block of the network; what it raises ends the decoding.
        """
        import torch
        import whisper

        padded = whisper.pad_or_trim(np.array(samples, np.float32))  # a copy: torch wants it writable
        fp16 = self.device == "cuda"
        options = whisper.DecodingOptions(
            language=None if self.is_multilingual else "en",
            without_timestamps=True,
            fp16=fp16,
            beam_size=BEAM_SIZE,
            sample_len=self._most_tokens(len(samples) / SAMPLE_RATE),
        )
        self._check = check or _never
        try:
            with torch.inference_mode(), _threads(1 if self._model.dims.n_audio_state <= SMALL_STATE else None):
                mel = whisper.log_mel_spectrogram(torch.from_numpy(padded), self._model.dims.n_mels).to(self.device)
                result: Any = whisper.decode(self._model, mel, options)
        finally:
            self._check = _never
        return WindowTranscript(result.text.strip(), float(result.no_speech_prob), float(result.avg_logprob))

    def _most_tokens(self, duration_s: float) -> int:
        return min(int(self._model.dims.n_text_ctx) // 2, SPARE_TOKENS + int(duration_s * MOST_TOKENS_PER_S))


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Runs torch with ``count`` threads in the calling thread; None leaves them as they are."""
    import torch

    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _never() -> None:
    """The check of a decoding that nobody can cancel."""


def _read(checkpoint: Path, load: Callable[[], Any]) -> Any:
    """``load()``, with the ways in which a checkpoint can be bad turned into one error."""
    if not checkpoint.is_file():
        raise ModelFileError(f"speech model {checkpoint} does not exist; name a Whisper checkpoint (.pt)")
    try:
        return load()
    except (RuntimeError, KeyError, TypeError, EOFError, OSError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ModelFileError(
            f"{checkpoint} ({checkpoint.stat().st_size} bytes) is not a Whisper checkpoint or is cut off: {reason}"
        ) from error
