"""Reading sound: formats by content, resampling, and every way in which a file can be bad."""

from __future__ import annotations

import hashlib
import io
import struct
import wave

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from hearth.multimodal.errors import MediaTooLargeError, PerceptionCancelled, PerceptionError, UnsupportedMediaError
from hearth.multimodal.sound import SAMPLE_RATE, read_sound

TONE_HZ = 440.0


def tone(duration_s: float, rate: int, level: float = 0.5) -> NDArray[np.float32]:
    time = np.arange(int(duration_s * rate)) / rate
    return (level * np.sin(2 * np.pi * TONE_HZ * time)).astype(np.float32)


def by_soundfile(duration_s: float, rate: int, kind: str, channels: int = 1) -> bytes:
    file = io.BytesIO()
    samples = np.repeat(tone(duration_s, rate)[:, np.newaxis], channels, axis=1)
    soundfile.write(file, samples, rate, format=kind)
    return file.getvalue()


def by_av(duration_s: float, rate: int, container: str, codec: str, *, picture: bool = False) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        video = output.add_stream("mpeg4", rate=10) if picture else None
        if video is not None:
            video.width = video.height = 64
            video.pix_fmt = "yuv420p"
        stream = output.add_stream(codec, rate=rate)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(tone(duration_s, rate)[np.newaxis], format="fltp", layout="mono")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            output.mux(packet)
        if video is not None:
            for _ in range(int(duration_s * 10)):
                output.mux(video.encode(av.VideoFrame(64, 64, "yuv420p")))
            output.mux(video.encode(None))
    return file.getvalue()


def wav(samples: bytes, *, codec: int = 1, rate: int = 16_000, declared: int | None = None) -> bytes:
    n_bytes = len(samples) if declared is None else declared
    head = struct.pack("<IHHIIHH", 16, codec, 1, rate, rate * 2, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + len(samples))
        + b"WAVEfmt "
        + head
        + b"data"
        + struct.pack("<I", n_bytes)
        + samples
    )


def strongest_hz(samples: NDArray[np.float32]) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * SAMPLE_RATE / len(samples))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        pytest.param(by_soundfile(1.0, 16_000, "WAV"), "plain.wav", id="wav-16k"),
        pytest.param(by_soundfile(1.0, 44_100, "WAV", channels=2), "stereo.wav", id="wav-44k-stereo"),
        pytest.param(by_soundfile(1.0, 48_000, "FLAC"), "a.flac", id="flac"),
        pytest.param(by_soundfile(1.0, 48_000, "OGG"), "a.ogg", id="ogg"),
        pytest.param(by_soundfile(1.0, 44_100, "MP3"), "a.mp3", id="mp3"),
        pytest.param(by_av(1.0, 44_100, "mp4", "aac"), "a.m4a", id="m4a"),
        pytest.param(by_av(1.0, 44_100, "adts", "aac"), "a.aac", id="aac"),
        pytest.param(by_av(1.0, 48_000, "webm", "libopus"), "a.webm", id="webm"),
        pytest.param(by_av(1.0, 44_100, "mp4", "aac", picture=True), "film.mp4", id="video"),
        pytest.param(by_soundfile(1.0, 22_050, "WAV"), "misnamed.txt", id="wrong-name"),
    ],
)
def test_formats_become_16_khz_mono(data: bytes, name: str) -> None:
    sound = read_sound(data, name)
    assert sound.samples.dtype == np.float32
    assert sound.samples.ndim == 1
    assert sound.duration_s == pytest.approx(1.0, abs=0.08)
    assert sound.duration_s == len(sound.samples) / SAMPLE_RATE
    assert strongest_hz(sound.samples) == pytest.approx(TONE_HZ, abs=3)
    assert np.sqrt(np.mean(sound.samples[2000:-2000] ** 2)) == pytest.approx(0.5 / 2**0.5, rel=0.05)
    assert sound.sha256 == hashlib.sha256(data).hexdigest()
    assert sound.name == name


def test_resampling_removes_what_16_khz_cannot_hold() -> None:
    rate = 48_000
    time = np.arange(rate) / rate
    file = io.BytesIO()
    soundfile.write(file, 0.5 * np.sin(2 * np.pi * 11_000 * time), rate, format="WAV")
    samples = read_sound(file.getvalue(), "high.wav").samples
    assert np.sqrt(np.mean(samples[1000:-1000] ** 2)) < 0.01


def test_not_a_number_and_too_loud_are_made_harmless() -> None:
    file = io.BytesIO()
    samples = np.array([0.1, np.nan, np.inf, -np.inf, 5.0] * 1000, np.float32)
    soundfile.write(file, samples, 16_000, format="WAV", subtype="FLOAT")
    read = read_sound(file.getvalue(), "wild.wav").samples
    assert np.isfinite(read).all()
    assert np.abs(read).max() <= 1.0


def test_empty_file() -> None:
    with pytest.raises(PerceptionError, match=r"q\.wav is empty \(0 bytes\)"):
        read_sound(b"", "q.wav")


def test_header_without_samples() -> None:
    with pytest.raises(PerceptionError, match=r"q\.wav"):
        read_sound(wav(b""), "q.wav")


@pytest.mark.parametrize("data", [b"hello there, this is text\n" * 40, b"\x89PNG\r\n\x1a\n" + bytes(200), bytes(1000)])
def test_not_sound(data: bytes) -> None:
    with pytest.raises(UnsupportedMediaError, match=r"notes\.wav is not sound that can be read") as caught:
        read_sound(data, "notes.wav")
    assert "\n" not in str(caught.value)


def test_playlist_does_not_open_other_files() -> None:
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    with pytest.raises(UnsupportedMediaError, match="not sound that can be read"):
        read_sound(playlist, "list.m3u8")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(wav(tone(10.0, 16_000).tobytes()[:64_000], declared=320_000), id="wav"),
        pytest.param(by_soundfile(10.0, 16_000, "FLAC")[:40_000], id="flac"),
        pytest.param(by_av(10.0, 44_100, "mp4", "aac")[:30_000], id="m4a"),
    ],
)
def test_cut_off(data: bytes) -> None:
    with pytest.raises(PerceptionError, match=r"talk\.wav is (damaged or )?cut off|talk\.wav is damaged") as caught:
        read_sound(data, "talk.wav")
    assert "again" in str(caught.value)


def test_wav_written_into_a_pipe_has_no_length_and_is_read() -> None:
    samples = (tone(1.0, 16_000) * 32767).astype("<i2").tobytes()
    assert read_sound(wav(samples, declared=0x7FFF_F000), "espeak.wav").duration_s == pytest.approx(1.0)


def test_unknown_codec_is_named() -> None:
    with pytest.raises(UnsupportedMediaError, match=r"odd\.wav is encoded with the WAV codec 0x1234"):
        read_sound(wav(bytes(32_000), codec=0x1234), "odd.wav")


def test_video_without_sound() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(5):
            output.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        output.mux(stream.encode(None))
    with pytest.raises(UnsupportedMediaError, match=r"silent\.mp4 has no sound \(found in it: video\)"):
        read_sound(file.getvalue(), "silent.mp4")


@pytest.mark.parametrize(
    "data", [by_soundfile(3.0, 16_000, "WAV"), by_soundfile(3.0, 16_000, "MP3"), by_av(3.0, 16_000, "mp4", "aac")]
)
def test_too_long(data: bytes) -> None:
    with pytest.raises(MediaTooLargeError, match=r"long\.wav is 3 s long, the limit is 2 s"):
        read_sound(data, "long.wav", max_duration_s=2.0)


def test_hours_are_written_as_hours() -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as output:
        output.setnchannels(1)
        output.setsampwidth(1)
        output.setframerate(1_000)
        output.writeframes(bytes(1_000 * 5 * 3600))
    with pytest.raises(MediaTooLargeError, match="5 h 00 min long, the limit is 4 h 00 min"):
        read_sound(file.getvalue(), "long.wav")


def test_cancel_between_blocks() -> None:
    looks = 0

    def cancelled() -> bool:
        nonlocal looks
        looks += 1
        return looks > 2

    with pytest.raises(PerceptionCancelled, match=r"talk\.wav was cancelled after 10"):
        read_sound(by_soundfile(30.0, 16_000, "WAV"), "talk.wav", cancelled=cancelled)
