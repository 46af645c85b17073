"""Reads a video: some of its frames as pictures with their times, and its sound. By content, never by file name."""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hearth.multimodal.errors import MediaTooLargeError, PerceptionCancelled, PerceptionError, UnsupportedMediaError
from hearth.multimodal.kinds import describe, identify, shown_name
from hearth.multimodal.sound import DEMUXERS, MAX_DURATION_S, Sound, read_sound

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 36_000_000  # of a frame; 8K has 33 million
MAX_FRAMES = 64  # that may be asked for
MAX_DECODING_S = 120.0  # by the clock; a video that takes longer to look through is refused
KEPT_EDGE_PX = 1024  # long side of the frames that are kept
_LOOKED_AT = 3  # frames looked at for each that is kept, to find where the scene changes
_DECODED_AHEAD = 300  # frames at most from the nearest key frame on; then the frame at hand is taken
_SOUGHT_EARLIER_S = (0.0, 2.0, 10.0)  # one after the other: in MPEG streams seeking leads past the place, or its end
_SMALL = (32, 18)  # pixels by which frames are compared

Progress = Callable[[float], None]
Cancelled = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a video, RGB, upright; ``time_s`` counts from its beginning."""

    time_s: float
    image: Image.Image


@dataclass(frozen=True, slots=True)
class Video:
    """``frames`` in the order of time; ``width`` and ``height`` are the file's, in pixels; ``codec`` is FFmpeg's name
    of its encoding; ``sha256`` is the file's, hexadecimal."""

    frames: tuple[Frame, ...]
    duration_s: float
    width: int
    height: int
    codec: str
    has_sound: bool
    sha256: str
    name: str


def read_video(
    data: bytes,
    name: str,
    *,
    n_frames: int = 8,
    max_duration_s: float = MAX_DURATION_S,
    on_progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> Video:
    """At most ``n_frames`` frames of ``data``: half of them evenly over its time, the others where most changes. A
    video with fewer frames gives fewer. ``name`` is only for messages.

    Raises UnsupportedMediaError (no video, or a codec without a decoder), MediaTooLargeError (duration, pixels, work),
    PerceptionCancelled, PerceptionError (empty, damaged), ValueError unless 1 <= n_frames <= ``MAX_FRAMES``.
    """
    if not 1 <= n_frames <= MAX_FRAMES:
        raise ValueError(f"n_frames = {n_frames}: must be between 1 and {MAX_FRAMES}")
    import av

    name = shown_name(name)
    if not data:
        raise PerceptionError(f"{name} is empty (0 bytes); record or export it again")
    if identify(data).kind not in ("video", "sound"):  # an MP4 or WebM whose tracks are not in view may be either
        raise UnsupportedMediaError(
            f"{name} is not a video: it is {describe(data)}; MP4, WebM, MKV, AVI, MPEG can be read"
        )
    options = {"protocol_whitelist": "none", "format_whitelist": DEMUXERS}
    try:
        container = av.open(io.BytesIO(data), options=options, metadata_errors="ignore")
    except av.FFmpegError as error:
        raise PerceptionError(
            f"{name} is damaged or cut off ({len(data):,} bytes, {error.strerror}); copy or export it again"
        ) from error
    with container:
        stream = _stream(container, data, name)
        sampler = _Sampler(container, stream, name, on_progress, cancelled)
        duration_s = _declared_duration_s(container, stream) or sampler.measured_duration_s()
        if duration_s > max_duration_s:
            raise MediaTooLargeError(
                f"{name} is {duration_s:,.0f} s long, the limit is {max_duration_s:,.0f} s; cut it into shorter videos"
            )
        frames = _chosen(sampler.frames(duration_s, n_frames * _LOOKED_AT if n_frames > 1 else 1), n_frames)
        if not frames:
            raise PerceptionError(
                f"{name} has no frame that can be decoded ({stream.codec_context.name}); export it again"
            )
        return Video(
            frames,
            duration_s,
            stream.codec_context.width,
            stream.codec_context.height,
            stream.codec_context.name,
            bool(container.streams.audio),
            hashlib.sha256(data).hexdigest(),
            name,
        )


def sound_of(
    video: Video, data: bytes, *, max_duration_s: float = MAX_DURATION_S, cancelled: Cancelled | None = None
) -> Sound | None:
    """The sound of ``data``, 16 kHz mono; None if the video is silent by nature. Raises what ``read_sound`` raises."""
    if not video.has_sound:
        return None
    return read_sound(data, video.name, max_duration_s=max_duration_s, cancelled=cancelled)


def _stream(container: Any, data: bytes, name: str) -> Any:
    """The first track of moving pictures, ready to decode."""
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise UnsupportedMediaError(f"{name} has no moving pictures (found in it: {kinds}); attach a video")
    stream = streams[0]
    if stream.codec_context is None:
        raise UnsupportedMediaError(
            f"{name} is encoded with {_codec_name(data)}, which no decoder here knows; save it as MP4 with H.264"
        )
    n_pixels = stream.codec_context.width * stream.codec_context.height
    if n_pixels > MAX_PIXELS:
        raise MediaTooLargeError(
            f"{name} has frames of {stream.codec_context.width:,} × {stream.codec_context.height:,} pixels, more than "
            f"the limit of {MAX_PIXELS:,}; scale it down first"
        )
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # frames may grow on the way
    stream.thread_type = "AUTO"
    return stream


def _is_cover(stream: Any) -> bool:
    """Whether it is the picture on the sleeve of a recording."""
    return bool(int(stream.disposition) & 0x400)


def _codec_name(data: bytes) -> str:
    """The codec as the container names it, for codecs that no decoder knows."""
    for entry in re.finditer(rb"stsd.{12}([ -~]{4})", data, re.DOTALL):
        return f"the codec {entry[1].decode().strip()!r}"
    if found := re.search(rb"V_[A-Z0-9/_]{2,30}", data[:65536]):
        return f"the codec {found.group().decode()!r}"
    if data[:4] == b"RIFF" and (found := re.search(rb"strh.{4}vids(.{4})", data[:65536], re.DOTALL)):
        return f"the codec {found[1].decode('latin-1')!r}"
    return "an unknown codec"


def _declared_duration_s(container: Any, stream: Any) -> float:
    """As the file says; 0 if it says nothing."""
    if stream.duration and stream.time_base:
        return max(0.0, float(stream.duration * stream.time_base))
    return max(0.0, container.duration / 1_000_000) if container.duration else 0.0


class _Sampler:
    """Decodes single frames spread over a video."""

    def __init__(
        self, container: Any, stream: Any, name: str, on_progress: Progress | None, cancelled: Cancelled | None
    ) -> None:
        self._container = container
        self._stream = stream
        self._name = name
        self._on_progress = on_progress or (lambda _: None)
        self._cancelled = cancelled or (lambda: False)
        self._start_s = float((stream.start_time or 0) * (stream.time_base or 0))
        self._deadline = time.monotonic() + MAX_DECODING_S

    def frames(self, duration_s: float, n: int) -> list[Frame]:
        """About ``n`` frames in the middle of equal stretches of time, each once. What follows damage is left out."""
        frames: list[Frame] = []
        for index in range(n):
            self._on_progress(index / n)
            frame = self._at((index + 0.5) * duration_s / n)
            if frame is not None and (not frames or frame.time_s > frames[-1].time_s):
                frames.append(frame)
        self._on_progress(1.0)
        return frames

    def measured_duration_s(self) -> float:
        """How long the video is by the times in it; browsers record without writing it in front."""
        import av

        last = 0.0
        try:
            for packet in self._container.demux(self._stream):
                self._check()
                if packet.pts is not None and packet.time_base:
                    last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        except av.FFmpegError:
            pass  # cut off here
        return max(0.0, last - self._start_s)

    def _at(self, time_s: float) -> Frame | None:
        """The frame at ``time_s``, or the last that can be decoded before it."""
        found = None
        for earlier_s in _SOUGHT_EARLIER_S:
            first_s, frame = self._decoded_from(time_s - earlier_s, time_s)
            found = frame or found
            if frame is not None and first_s <= time_s:
                break
        return None if found is None else Frame(self._time_s(found), self._image(found))

    def _decoded_from(self, from_s: float, time_s: float) -> tuple[float, Any]:
        """Decodes from the key frame before ``from_s`` on to ``time_s``: time of the first frame, and the last one or
        None."""
        import av

        first_s, last = 0.0, None
        try:
            target = int((from_s + self._start_s) / self._stream.time_base)
            self._container.seek(target, stream=self._stream, backward=True)
            for number, frame in enumerate(self._decoded()):
                first_s = first_s if number else self._time_s(frame)
                last = frame
                if number == _DECODED_AHEAD or (frame.time is not None and self._time_s(frame) >= time_s - 1e-3):
                    break
        except av.DecoderNotFoundError as error:
            raise UnsupportedMediaError(
                f"{self._name} is encoded with {self._stream.codec_context.name}, which has no decoder here; "
                "save it as MP4 with H.264"
            ) from error
        except (av.FFmpegError, ValueError):
            pass  # damaged here; other places may not be
        return first_s, last

    def _time_s(self, frame: Any) -> float:
        return max(0.0, (frame.time or 0.0) - self._start_s)

    def _decoded(self) -> Iterator[Any]:
        for frame in self._container.decode(self._stream):
            self._check()
            yield frame

    def _check(self) -> None:
        if self._cancelled():
            raise PerceptionCancelled(f"looking through {self._name} was cancelled; nothing was kept")
        if time.monotonic() > self._deadline:
            context = self._stream.codec_context
            raise MediaTooLargeError(
                f"{self._name} ({context.name}, {context.width} × {context.height}) takes more than "
                f"{MAX_DECODING_S:.0f} s to look through; scale it down or cut it"
            )

    def _image(self, frame: Any) -> Image.Image:
        scale = min(1.0, KEPT_EDGE_PX / max(frame.width, frame.height))
        size = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
        image: Image.Image = frame.to_image(width=size[0], height=size[1])
        turned = round(getattr(frame, "rotation", 0) or 0) % 360
        return image.rotate(turned, expand=True) if turned else image


def _chosen(frames: list[Frame], n: int) -> tuple[Frame, ...]:
    """``n`` of ``frames``: half evenly, the others where most has changed since the frame before."""
    if len(frames) <= n:
        return tuple(frames)
    from PIL import ImageChops, ImageStat

    small = [frame.image.convert("L").resize(_SMALL) for frame in frames]
    changes = [0.0] + [ImageStat.Stat(ImageChops.difference(a, b)).mean[0] for a, b in pairwise(small)]
    n_even = (n + 1) // 2
    kept = {round((index + 0.5) * len(frames) / n_even - 0.5) for index in range(n_even)}
    by_change = sorted((at for at in range(len(frames)) if at not in kept), key=lambda at: -changes[at])
    return tuple(frames[at] for at in sorted([*kept, *by_change[: n - len(kept)]]))
