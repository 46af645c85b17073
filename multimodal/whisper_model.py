"""The only module that knows the whisper package: a checkpoint on this machine → the words of one window of sound."""

from __future__ import annotations

import hashlib
import logging
import math
import pickle
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hearth.models.errors import ModelFileError
from hearth.multimodal.languages import LANGUAGES
from hearth.multimodal.speech_doubts import FALLBACK_TEMPERATURES, Attempt, best_attempt, decoding_failed
from hearth.multimodal.speech_files import SAME_AS, SIZES
from hearth.multimodal.transcripts import Check, Samples, SpeechOptions, TranscriptSegment, WindowTranscript, Word

log = logging.getLogger("hearth.speech")
WINDOW_S = 30.0  # what a Whisper encoder takes; shorter sound is padded with silence
SAMPLE_RATE = 16_000
FRAME_S = 0.01  # of the mel spectrogram
# fast English is about 5; scripts that the vocabulary spells in bytes need more. A decoder that loops is stopped here.
MOST_TOKENS_PER_S, MOST_TOKENS_PER_S_MULTILINGUAL = 8.0, 24.0
SPARE_TOKENS = 16
BEAM_SIZE = 5
SAMPLES_TRIED = 5  # at a temperature above 0, of which the likeliest counts
SMALL_STATE = 256  # of width up to here, threads wait for each other longer than they work
LARGE_STATE = 1024  # of width from here on, a block takes too long to wait for a cancel between blocks
WAIT_S = 0.05


class WhisperModel:
    """A loaded checkpoint, as a SpeechBackend. One thread at a time."""

    name = "whisper"

    def __init__(self, checkpoint: Path, size: str | None = None) -> None:
        """Reads the checkpoint: a second or more the first time, for torch itself. ``size`` is what it must be.

        Raises ModelFileError: missing, truncated, not a Whisper checkpoint, not OpenAI's file of that size.
        """
        import torch
        import whisper

        official = _official_size(checkpoint, size)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = _read(checkpoint, lambda: whisper.load_model(str(checkpoint), device=self.device))
        self._model.eval()
        if official is not None:
            self._model.set_alignment_heads(whisper._ALIGNMENT_HEADS[official])
        self._check: Check = _never
        for module in _stops(self._model):
            module.register_forward_pre_hook(lambda *_: self._check())
        extra = _read(checkpoint, lambda: torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True))
        # windows of its own mean a training of its own: without timestamps, and with other doubts
        self.tells_times = "window_s" not in extra
        self.window_s = float(min(WINDOW_S, extra.get("window_s", WINDOW_S)))
        self._encoded: tuple[bytes, Any] | None = None

    @property
    def is_multilingual(self) -> bool:
        return bool(self._model.is_multilingual)

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages it knows."""
        return tuple(LANGUAGES)[: self._model.num_languages] if self.is_multilingual else ("en",)

    def language_probs(self, samples: Samples, check: Check) -> dict[str, float]:
        """How likely each language is in a window of at most 30 s at 16 kHz, shape (n_samples,)."""
        if not self.is_multilingual:
            return {"en": 1.0}
        with self._running(check):
            _, probs = self._model.detect_language(self._features(samples))
        return {str(code): float(prob) for code, prob in probs.items()}

    def decode(self, samples: Samples, options: SpeechOptions, prompt: str, check: Check) -> WindowTranscript:
        """The words in ``samples``, shape (n_samples,), at most 30 s at 16 kHz, in ``options.language``.

        What failed is decoded again at higher temperatures, as in Whisper's paper. ``check`` is called before every
        block of the network; what it raises ends the decoding.
        """
        duration_s = len(samples) / SAMPLE_RATE
        with self._running(check):
            features = self._features(samples)
            result = self._decoded(features, duration_s, options, prompt)
            tokenizer = self._tokenizer(options)
            pieces, finished_s = self._pieces(result.tokens, tokenizer, duration_s)
            words: Sequence[tuple[Word, ...]] = [()] * len(pieces)
            if options.words and pieces:
                words = self._aligned(pieces, tokenizer, features, duration_s, check)
        segments = (
            TranscriptSegment(
                start_s,
                end_s,
                text,
                timed,
                float(result.avg_logprob),
                float(result.no_speech_prob),
                float(result.temperature),
            )
            for (start_s, end_s, tokens), timed in zip(pieces, words, strict=True)
            if (text := tokenizer.decode(tokens).strip())
        )
        return WindowTranscript(tuple(segments), finished_s)

    @contextmanager
    def _running(self, check: Check) -> Iterator[None]:
        import torch

        self._check = check
        try:
            with torch.inference_mode(), _threads(1 if self._model.dims.n_audio_state <= SMALL_STATE else None):
                yield
        finally:
            self._check = _never

    def _features(self, samples: Samples) -> Any:
        """The encoded window, shape (n_audio_ctx, n_audio_state); the last one is kept, as a language is looked for in
        the same sound."""
        import torch
        import whisper

        key = hashlib.blake2b(np.ascontiguousarray(samples, np.float32).tobytes()).digest()
        if self._encoded is None or self._encoded[0] != key:
            padded = whisper.pad_or_trim(np.array(samples, np.float32))  # a copy: torch wants it writable
            mel = whisper.log_mel_spectrogram(torch.from_numpy(padded), self._model.dims.n_mels).to(self.device)
            mel = mel.half() if self.device == "cuda" else mel
            self._encoded = (key, self._model.encoder(mel[None])[0])
        return self._encoded[1]

    def _decoded(self, features: Any, duration_s: float, options: SpeechOptions, prompt: str) -> Any:
        """Whisper's DecodingResult, of the first attempt that succeeded or else the best one."""
        import torch
        import whisper

        attempts: list[Attempt] = []
        for temperature in FALLBACK_TEMPERATURES if self.tells_times else (0.0,):
            greedy = temperature == 0.0
            decoding = whisper.DecodingOptions(
                task=options.task,
                language=options.language or "en",
                temperature=temperature,
                sample_len=self._most_tokens(duration_s),
                beam_size=BEAM_SIZE if greedy else None,
                best_of=None if greedy else SAMPLES_TRIED,
                prompt=prompt or None,
                without_timestamps=not self.tells_times,
                fp16=self.device == "cuda",
            )
            # the same recording gives the same words
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                torch.manual_seed(0)
                result: Any = whisper.decode(self._model, features, decoding)
            attempts.append(
                Attempt(result, result.avg_logprob, float(result.no_speech_prob), float(result.compression_ratio))
            )
            if not decoding_failed(attempts[-1]):
                return result
        return best_attempt(attempts).result

    def _tokenizer(self, options: SpeechOptions) -> Any:
        from whisper.tokenizer import get_tokenizer

        return get_tokenizer(
            self.is_multilingual,
            num_languages=self._model.num_languages,
            language=options.language or "en",
            task=options.task,
        )

    def _pieces(
        self, tokens: Sequence[int], tokenizer: Any, duration_s: float
    ) -> tuple[list[tuple[float, float, list[int]]], float]:
        """(start, end, tokens of its text) of every piece in order, and the time up to which all is finished."""
        if not self.tells_times:
            return ([(0.0, duration_s, list(tokens))] if tokens else []), duration_s
        precision = WINDOW_S / self._model.dims.n_audio_ctx
        pieces: list[tuple[float, float, list[int]]] = []
        start, finished_s = 0.0, 0.0
        text: list[int] = []
        for token in tokens:
            if token < tokenizer.timestamp_begin:
                text.append(token)
                continue
            time_s = min(duration_s, max(finished_s, (token - tokenizer.timestamp_begin) * precision))
            if text:
                pieces.append((start, max(start, time_s), text))
                text = []
                finished_s = time_s
            start = time_s
        if text:
            pieces.append((start, duration_s, text))
            return pieces, finished_s
        ends_in_pair = len(tokens) > 1 and min(tokens[-2:]) >= tokenizer.timestamp_begin
        return pieces, finished_s if ends_in_pair else duration_s

    def _aligned(
        self,
        pieces: Sequence[tuple[float, float, list[int]]],
        tokenizer: Any,
        features: Any,
        duration_s: float,
        check: Check,
    ) -> list[tuple[Word, ...]]:
        """The words of each piece with their times, by dynamic time warping over the decoder's attention to the sound
        (whisper.timing)."""
        from whisper.timing import add_word_timestamps

        compiling = _compiled_alignment()
        while compiling.is_alive():
            check()
            compiling.join(WAIT_S)
        found: list[dict[str, Any]] = [
            {"seek": 0, "start": start, "end": end, "tokens": tokens} for start, end, tokens in pieces
        ]
        n_frames = max(2, min(int(WINDOW_S / FRAME_S), math.ceil(duration_s / FRAME_S)))
        try:
            add_word_timestamps(
                segments=found,
                model=_OnFeatures(self._model),
                tokenizer=tokenizer,
                mel=features,
                num_frames=n_frames,
                last_speech_timestamp=0.0,
            )
        except BaseException:
            for block in self._model.decoder.blocks:  # whisper.timing leaves its own there when it is interrupted
                block.cross_attn._forward_hooks.clear()
            raise
        return [_words(piece.get("words", ()), duration_s) for piece in found]

    def _most_tokens(self, duration_s: float) -> int:
        per_s = MOST_TOKENS_PER_S_MULTILINGUAL if self.is_multilingual else MOST_TOKENS_PER_S
        return min(int(self._model.dims.n_text_ctx) // 2, SPARE_TOKENS + int(duration_s * per_s))


class _OnFeatures:
    """The model as whisper.timing calls it, on a window that has been encoded already."""

    def __init__(self, model: Any) -> None:
        self.dims, self.decoder, self.device = model.dims, model.decoder, model.device
        self.alignment_heads = model.alignment_heads

    def __call__(self, features: Any, tokens: Any) -> Any:
        return self.decoder(tokens, features)


def _words(found: Sequence[dict[str, Any]], duration_s: float) -> tuple[Word, ...]:
    """In order, within the window, none ending before it begins."""
    words: list[Word] = []
    before_s = 0.0
    for word in found:
        start_s = min(duration_s, max(before_s, float(word["start"])))
        end_s = min(duration_s, max(start_s, float(word["end"])))
        words.append(Word(start_s, end_s, str(word["word"]), float(word["probability"])))
        before_s = end_s
    return tuple(words)


@cache
def _compiled_alignment() -> threading.Thread:
    """Has numba compile the alignment, on a thread of its own: it takes seconds that nobody can cancel."""

    def compile_it() -> None:
        from whisper.timing import dtw_cpu

        dtw_cpu(np.zeros((2, 2)))

    thread = threading.Thread(target=compile_it, name="hearth-compile-alignment", daemon=True)
    thread.start()
    return thread


def _stops(model: Any) -> Iterator[Any]:
    """The parts of the network before which a cancel is looked for."""
    import torch

    large = model.dims.n_audio_state >= LARGE_STATE
    for block in (*model.encoder.blocks, *model.decoder.blocks):
        yield block
        if large:
            yield from (module for module in block.modules() if isinstance(module, torch.nn.Linear))


def _official_size(checkpoint: Path, size: str | None) -> str | None:
    """The size whose official file ``checkpoint`` is, by its SHA-256; None for another model.

    Raises ModelFileError if it must be ``size`` and is not.
    """
    import whisper

    named = size or SAME_AS.get(checkpoint.stem, checkpoint.stem)
    if named not in SIZES or not checkpoint.is_file():
        return None
    expected = whisper._MODELS[named].split("/")[-2]  # the package keeps its checksums in its addresses
    with checkpoint.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found == expected:
        return named
    if size is not None:
        raise ModelFileError(
            f"{checkpoint} is not OpenAI's checkpoint of {size}, or is damaged: its SHA-256 begins {found[:12]}, "
            f"not {expected[:12]}; delete it and fetch it again (`hearth models pull whisper-{size}`), or give its "
            "path if it is a model of your own"
        )
    log.info("%s has the name of an official checkpoint, but is another one", checkpoint)
    return None


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
