"""Reads a recording, or the sound of a video, into one waveform. By content, never by file name."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hearth.multimodal.errors import MediaTooLargeError, PerceptionCancelled, PerceptionError, UnsupportedMediaError

SAMPLE_RATE = 16_000  # of every Sound, in Hz
MAX_DURATION_S = 4 * 3600.0
BLOCK_S = 5  # decoded between two looks at ``cancelled``
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # Hz; outside, a header is damaged
TRUNCATED_S = 0.1  # what may be missing at the end before a recording counts as cut off
KNOWN_LENGTH_FORMATS = {"WAV", "WAVEX", "FLAC", "AIFF", "W64", "RF64"}  # their headers say how long they are
STREAMED_BYTES = 0x7FFF_0000  # a data size from here on was written into a pipe and says nothing

# Demuxers of sound and video files. Playlists (hls, concat, dash) are not among them: they name other files and hosts.
DEMUXERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,matroska,webm,mov,mp4,m4a,3gp,mp3,mpeg,mpegts,ogg,tta,w64,wav,wv"
)


@dataclass(frozen=True, slots=True)
class Sound:
    """A recording: ``samples`` float32 in -1..1, mono, 16 kHz, shape (n_samples,); ``sha256`` of the file's bytes."""

    samples: NDArray[np.float32]
    duration_s: float
    sha256: str
    name: str


def read_sound(
    data: bytes,
    name: str,
    *,
    max_duration_s: float = MAX_DURATION_S,
    cancelled: Callable[[], bool] | None = None,
) -> Sound:
    """Decodes ``data`` (a file's content; ``name`` is only for messages).

    Memory: about 64 kB for each second of sound, at most ``max_duration_s`` of it.
    Raises UnsupportedMediaError (not sound, or a codec without a decoder), MediaTooLargeError (too long),
    PerceptionCancelled, PerceptionError (empty, damaged, cut off).
    """
    if not data:
        raise PerceptionError(f"{name} is empty (0 bytes); record or export it again")
    waveform = _Waveform(name, max_duration_s, cancelled or (lambda: False))
    if not _read_by_soundfile(data, name, waveform):
        _read_by_av(data, name, waveform)
    samples = waveform.samples()
    if not len(samples):
        raise PerceptionError(f"{name} holds no sound (0 samples in {len(data)} bytes); record or export it again")
    return Sound(samples, len(samples) / SAMPLE_RATE, hashlib.sha256(data).hexdigest(), name)


class _Waveform:
    """Collects 16 kHz mono blocks; refuses what goes over the limit."""

    def __init__(self, name: str, max_duration_s: float, cancelled: Callable[[], bool]) -> None:
        self._name = name
        self._max_duration_s = max_duration_s
        self._cancelled = cancelled
        self._samples = np.empty(SAMPLE_RATE * 60, np.float32)
        self._length = 0

    @property
    def duration_s(self) -> float:
        return self._length / SAMPLE_RATE

    def check_duration(self, duration_s: float) -> None:
        """Raises MediaTooLargeError when ``duration_s`` is over the limit."""
        if duration_s > self._max_duration_s:
            raise MediaTooLargeError(
                f"{self._name} is {_minutes(duration_s)} long, the limit is {_minutes(self._max_duration_s)}; "
                "cut it into shorter recordings"
            )

    def append(self, block: NDArray[np.float32]) -> None:
        """Adds samples, shape (n,). Raises MediaTooLargeError, PerceptionCancelled."""
        if self._cancelled():
            raise PerceptionCancelled(f"reading {self._name} was cancelled after {self.duration_s:.1f} s of sound")
        end = self._length + len(block)
        self.check_duration(end / SAMPLE_RATE)
        if end > len(self._samples):
            self._samples.resize(max(end, len(self._samples) * 3 // 2), refcheck=False)
        self._samples[self._length : end] = block
        self._length = end

    def samples(self) -> NDArray[np.float32]:
        """Everything appended, finite and within -1..1."""
        self._samples.resize(self._length, refcheck=False)
        for start in range(0, self._length, SAMPLE_RATE * 60):
            part = self._samples[start : start + SAMPLE_RATE * 60]
            np.nan_to_num(part, copy=False, nan=0.0, posinf=1.0, neginf=-1.0)
            np.clip(part, -1.0, 1.0, out=part)
        self._samples.flags.writeable = False
        return self._samples


class _Resampler:
    """Any rate and layout → mono float32 at 16 kHz, block by block (libswresample, through PyAV)."""

    def __init__(self) -> None:
        from av import AudioResampler

        self._resampler = AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)

    def resample(self, frame: Any | None) -> Iterator[NDArray[np.float32]]:
        """Blocks for a frame; None flushes what the filter still holds."""
        for resampled in self._resampler.resample(frame):
            yield np.asarray(resampled.to_ndarray(), np.float32).reshape(-1)


def _read_by_soundfile(data: bytes, name: str, waveform: _Waveform) -> bool:
    """Whether libsndfile knows the format; if so, all of it is in ``waveform``."""
    import soundfile

    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except soundfile.LibsndfileError:
        return False
    with file:
        if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
            raise PerceptionError(
                f"{name} claims {file.samplerate} samples a second, outside {LOWEST_RATE} to {HIGHEST_RATE}; "
                "its header is damaged: export it again"
            )
        declared_s = _declared_duration_s(file, data)
        if file.format in KNOWN_LENGTH_FORMATS:
            waveform.check_duration(file.frames / file.samplerate)
        try:
            for block in _soundfile_blocks(file):
                waveform.append(block)
        except soundfile.LibsndfileError as error:
            raise PerceptionError(
                f"{name} is damaged after {waveform.duration_s:.1f} s ({error.error_string}); export it again"
            ) from error
    _check_complete(name, declared_s, waveform.duration_s)
    return True


def _soundfile_blocks(file: Any) -> Iterator[NDArray[np.float32]]:
    from av import AudioFrame

    resampler = _Resampler()
    for block in file.blocks(blocksize=file.samplerate * BLOCK_S, dtype="float32", always_2d=True):
        mono = np.ascontiguousarray(block.mean(axis=1, dtype=np.float32)[np.newaxis])
        if file.samplerate == SAMPLE_RATE:
            yield mono[0]
            continue
        frame = AudioFrame.from_ndarray(mono, format="flt", layout="mono")
        frame.sample_rate = file.samplerate
        yield from resampler.resample(frame)
    if file.samplerate != SAMPLE_RATE:
        yield from resampler.resample(None)


def _declared_duration_s(file: Any, data: bytes) -> float:
    """What the header promises, 0 when it promises nothing. libsndfile itself trusts the file's length for a WAV."""
    if file.format not in KNOWN_LENGTH_FORMATS:
        return 0.0
    declared = file.frames / file.samplerate
    chunk = data.find(b"data", 12, 4096) if data[:4] == b"RIFF" else -1
    if chunk > 0 and len(data) >= chunk + 8:
        n_bytes = int.from_bytes(data[chunk + 4 : chunk + 8], "little")
        held = len(data) - chunk - 8
        if 0 < held < n_bytes < STREAMED_BYTES:
            declared = max(declared, declared * n_bytes / held)
    return float(declared)


def _check_complete(name: str, declared_s: float, read_s: float) -> None:
    if read_s < declared_s - max(TRUNCATED_S, 0.02 * declared_s):
        raise PerceptionError(
            f"{name} is cut off: its header promises {declared_s:.1f} s, {read_s:.1f} s are there; "
            "copy or export it again"
        )


def _read_by_av(data: bytes, name: str, waveform: _Waveform) -> None:
    import av

    options = {"protocol_whitelist": "none", "format_whitelist": DEMUXERS}
    try:
        container = av.open(io.BytesIO(data), options=options, metadata_errors="ignore")
    except av.FFmpegError as error:
        raise UnsupportedMediaError(_unreadable(data, name, error)) from error
    with container:
        if not container.streams.audio:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise UnsupportedMediaError(f"{name} has no sound (found in it: {kinds}); attach a recording")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise UnsupportedMediaError(
                f"{name} is encoded with {_codec_name(data)}, which no decoder here knows; save it as WAV, MP3 or FLAC"
            )
        declared_s = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        waveform.check_duration(declared_s)
        _decode(container, name, waveform)
        _check_complete(name, declared_s, waveform.duration_s)


def _decode(container: Any, name: str, waveform: _Waveform) -> None:
    import av

    resampler = _Resampler()
    try:
        for frame in container.decode(audio=0):
            for block in resampler.resample(frame):
                waveform.append(block)
        for block in resampler.resample(None):
            waveform.append(block)
    except av.DecoderNotFoundError as error:
        raise UnsupportedMediaError(f"{name} has a codec without a decoder; save it as WAV, MP3 or FLAC") from error
    except av.FFmpegError as error:
        raise PerceptionError(
            f"{name} is damaged or cut off after {waveform.duration_s:.1f} s ({error.strerror}); export it again"
        ) from error


def _unreadable(data: bytes, name: str, error: Any) -> str:
    if data[4:8] == b"ftyp" or data[:4] in (b"RIFF", b"OggS", b"fLaC", b"\x1aE\xdf\xa3") or data[:3] == b"ID3":
        return f"{name} is damaged or cut off ({len(data)} bytes, {error.strerror}); copy or export it again"
    start = data[:8].decode("latin-1").encode("unicode_escape").decode()
    return f"{name} is not sound that can be read (it begins with {start!r}); WAV, MP3, M4A, OGG, FLAC, WebM can"


def _codec_name(data: bytes) -> str:
    """The codec as the container names it, for codecs that no decoder knows."""
    if data[:4] == b"RIFF" and (at := data.find(b"fmt ", 12, 4096)) > 0:
        return f"the WAV codec 0x{int.from_bytes(data[at + 8 : at + 10], 'little'):04x}"
    if (at := data.find(b"stsd")) > 0 and re.fullmatch(rb"[ -~]{4}", data[at + 16 : at + 20]):
        return f"the codec {data[at + 16 : at + 20].decode().strip()!r}"
    if found := re.search(rb"A_[A-Z0-9/_]{2,30}", data[:65536]):
        return f"the codec {found.group().decode()!r}"
    return "an unknown codec"


def _minutes(duration_s: float) -> str:
    if duration_s < 90:
        return f"{duration_s:.0f} s"
    minutes = round(duration_s / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
