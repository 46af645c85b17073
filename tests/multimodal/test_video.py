"""Video: frames spread over the time and where scenes change, the sound, and every way in which a file can be bad."""

from __future__ import annotations

import hashlib
import io
import random
import socket

import av
import numpy as np
import pytest

from hearth.multimodal import video as video_module
from hearth.multimodal.errors import MediaTooLargeError, PerceptionCancelled, PerceptionError, UnsupportedMediaError
from hearth.multimodal.sound import SAMPLE_RATE
from hearth.multimodal.video import KEPT_EDGE_PX, read_video, sound_of

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)
Colour = tuple[int, int, int]


def film(
    container: str = "mp4",
    codec: str = "mpeg4",
    *,
    colours: tuple[Colour, ...] = (RED, GREEN, BLUE),
    n_frames: int = 60,
    size: tuple[int, int] = (64, 48),
    sound: bool = False,
    key_frames: int = 12,
) -> bytes:
    """Ten frames a second, one colour after the other."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as output:
        stream = output.add_stream(codec, rate=10)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = key_frames
        track = output.add_stream("aac", rate=48_000, layout="mono") if sound else None
        for number in range(n_frames):
            colour = colours[number * len(colours) // n_frames]
            picture = np.full((size[1], size[0], 3), colour, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
        if track is not None:
            wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(4_800 * n_frames) / 48_000)
            frame = av.AudioFrame.from_ndarray(wave[np.newaxis].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate = 48_000
            output.mux(track.encode(frame))
            output.mux(track.encode(None))
    return out.getvalue()


FILM = film(sound=True)


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp4", "mpeg4"),
        ("mp4", "libx264"),
        ("webm", "libvpx"),
        ("avi", "mpeg4"),
        ("matroska", "mpeg4"),
        ("mpegts", "mpeg2video"),
    ],
)
def test_frames_are_spread_over_the_time(container: str, codec: str) -> None:
    data = film(container, codec)
    read = read_video(data, "film.bin", n_frames=6)
    assert len(read.frames) == 6
    times = [frame.time_s for frame in read.frames]
    assert times == sorted(times)
    assert times[0] < 1.0
    assert times[-1] > 4.5
    assert read.duration_s == pytest.approx(6.0, abs=0.2)
    assert (read.width, read.height) == (64, 48)
    assert read.sha256 == hashlib.sha256(data).hexdigest()
    for frame in read.frames:
        assert frame.image.mode == "RGB"
        expected = (RED, GREEN, BLUE)[int(min(frame.time_s, 5.9) // 2)]
        assert np.abs(np.subtract(frame.image.getpixel((30, 20)), expected)).max() < 20


def test_a_short_scene_is_found() -> None:
    colours = (RED,) * 11 + (GREEN,) + (RED,) * 12
    read = read_video(film(colours=colours, n_frames=120), "f.mp4", n_frames=4)
    assert any(frame.image.getpixel((30, 20))[1] > 150 for frame in read.frames)


def test_one_key_frame_does_not_mean_one_frame() -> None:
    assert len(read_video(film(codec="libx264", key_frames=1_000), "f.mp4", n_frames=8).frames) == 8


def test_one_frame_and_very_short_videos() -> None:
    assert read_video(FILM, "f.mp4", n_frames=1).frames[0].time_s == pytest.approx(3.0, abs=0.2)
    assert 1 <= len(read_video(film(n_frames=2), "f.mp4", n_frames=8).frames) <= 2
    assert len(read_video(film(n_frames=1), "f.mp4", n_frames=8).frames) == 1


def test_large_frames_are_kept_small() -> None:
    read = read_video(film(size=(2_048, 64), n_frames=3), "f.mp4", n_frames=1)
    assert (read.width, read.height) == (2_048, 64)
    assert read.frames[0].image.size == (KEPT_EDGE_PX, 32)


def test_sound() -> None:
    read = read_video(FILM, "f.mp4")
    sound = sound_of(read, FILM)
    assert sound is not None
    assert sound.duration_s == pytest.approx(6.0, abs=0.1)
    spectrum = np.abs(np.fft.rfft(sound.samples))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(sound.samples) == pytest.approx(440, abs=2)
    silent = film()
    assert sound_of(read_video(silent, "f.mp4"), silent) is None


def test_a_recording_whose_head_says_no_duration() -> None:
    data = film("matroska")
    at = data.index(b"\x44\x89\x88")  # the element Duration, which browsers leave out
    unknown = data[:at] + b"\xec\x89" + b"\x80" * 9 + data[at + 11 :]
    read = read_video(unknown, "f.webm", n_frames=6)
    assert read.duration_s == pytest.approx(6.0, abs=0.3)
    assert len(read.frames) == 6


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaTooLargeError, match=r"^f\.mp4 is 6 s long, the limit is 5 s; cut it"):
        read_video(FILM, "f.mp4", max_duration_s=5)
    with monkeypatch.context() as patched:
        patched.setattr(video_module, "MAX_PIXELS", 3_000)
        with pytest.raises(
            MediaTooLargeError, match=r"^f\.mp4 has frames of 64 × 48 pixels, more than the limit of 3,000"
        ):
            read_video(FILM, "f.mp4")
    monkeypatch.setattr(video_module, "MAX_DECODING_S", 0.0)
    with pytest.raises(MediaTooLargeError, match=r"^f\.mp4 \(mpeg4, 64 × 48\) takes more than 0 s to look through"):
        read_video(FILM, "f.mp4")
    for n_frames in (0, 65):
        with pytest.raises(ValueError, match=f"n_frames = {n_frames}: must be between 1 and 64"):
            read_video(FILM, "f.mp4", n_frames=n_frames)


def test_progress_and_cancel() -> None:
    seen: list[float] = []
    read_video(FILM, "f.mp4", on_progress=seen.append)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, 1.0)
    answers = iter([False] * 10 + [True])
    with pytest.raises(PerceptionCancelled, match=r"looking through f\.mp4 was cancelled"):
        read_video(FILM, "f.mp4", cancelled=lambda: next(answers))


def test_not_a_video() -> None:
    only_sound = io.BytesIO()
    with av.open(only_sound, "w", format="mp4") as output:
        track = output.add_stream("aac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4_800), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        output.mux(track.encode(frame))
        output.mux(track.encode(None))
    with pytest.raises(
        UnsupportedMediaError, match=r"^a\.mp4 has no moving pictures \(found in it: audio\); attach a video"
    ):
        read_video(only_sound.getvalue(), "a.mp4")
    with pytest.raises(UnsupportedMediaError, match=r"^a\.mp4 is not a video: it is a PNG picture; MP4, WebM"):
        read_video(b"\x89PNG\r\n\x1a\n", "a.mp4")
    with pytest.raises(PerceptionError, match=r"^a\.mp4 is empty \(0 bytes\)"):
        read_video(b"", "a.mp4")


def test_an_unknown_codec_is_named() -> None:
    data = film("matroska").replace(b"V_MPEG4/ISO/ASP", b"V_SECRET/NO/ONE")
    message = r"^f\.mkv is encoded with the codec 'V_SECRET/NO/ONE', which no decoder here knows; save it as MP4"
    with pytest.raises(UnsupportedMediaError, match=message):
        read_video(data, "f.mkv")


def test_truncated_and_damaged() -> None:
    for share in (0.05, 0.5):
        with pytest.raises(PerceptionError, match=r"^cut\.mp4 is damaged or cut off \([\d,]+ bytes"):
            read_video(FILM[: int(len(FILM) * share)], "cut.mp4")
    stream = film("mpegts", "mpeg2video")
    assert read_video(stream[: len(stream) // 2], "cut.ts", n_frames=4).frames
    rng = random.Random(3)
    for _ in range(30):
        data = bytearray(FILM)
        for _ in range(30):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            assert read_video(bytes(data), "x.mp4", n_frames=3).frames
        except PerceptionError as error:
            assert "x.mp4" in str(error)  # noqa: PT017


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    with pytest.raises(UnsupportedMediaError, match="it is plain text"):
        read_video(playlist, "f.m3u8")
