"""Hostile pictures, recordings and videos for fuzz.py."""

# ruff: noqa: E501 (hostile texts are long)

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import av
import numpy as np
import soundfile
from fuzz_bytes import HOSTILE_NUMBERS, mutated
from PIL import Image

Named = tuple[str, str, bytes]  # what is hostile, the file's name, the file


# pictures


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@cache
def _pictures() -> dict[str, bytes]:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (48, 64, 3), dtype=np.uint8))
    frames = [noise.rotate(90 * turn) for turn in range(4)]
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "rgb.png": _saved(noise, "PNG"),
        "palette.png": _saved(noise.quantize(16), "PNG", transparency=3),
        "grey16.png": _saved(Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64)), "PNG"),
        "plain.jpg": _saved(noise, "JPEG", exif=exif),
        "progressive.jpg": _saved(noise, "JPEG", progressive=True),
        "cmyk.jpg": _saved(noise.convert("CMYK"), "JPEG"),
        "lossy.webp": _saved(noise, "WEBP"),
        "moving.webp": _saved(noise, "WEBP", save_all=True, append_images=frames, lossless=True),
        "moving.gif": _saved(noise, "GIF", save_all=True, append_images=frames),
        "plain.tif": _saved(noise, "TIFF"),
        "lzw.tif": _saved(noise, "TIFF", compression="tiff_lzw"),
        "jpeg.tif": _saved(noise, "TIFF", compression="jpeg"),
        "float.tif": _saved(
            Image.fromarray(np.random.default_rng(1).standard_normal((48, 64)).astype(np.float32)), "TIFF"
        ),
        "plain.bmp": _saved(noise, "BMP"),
        "palette.bmp": _saved(noise.quantize(16), "BMP"),
        "plain.avif": _saved(noise, "AVIF"),
        "moving.avif": _saved(noise, "AVIF", save_all=True, append_images=frames),
        "plain.ico": _saved(noise, "ICO"),
        "plain.jp2": _saved(noise, "JPEG2000"),
        "plain.psd.ppm": _saved(noise, "PPM"),
    }


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int, height: int, *, depth: int = 8, colour: int = 2, data: bytes = b"\0" * 99, further: bytes = b""
) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + further + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def many_scans(edge: int, n_scans: int) -> bytes:
    """A progressive JPEG of one colour, one of whose passes over all pixels is repeated."""
    plain = _saved(Image.new("L", (edge, edge), 128), "JPEG", progressive=True)
    starts, at = [], plain.find(b"\xff\xda")
    while at >= 0:
        starts.append(at)
        at = plain.find(b"\xff\xda", at + 2)
    last = plain[starts[-1] : -2]
    return plain[:-2] + last * n_scans + plain[-2:]


def _large(mode: str, kind: str, edge: int = 9_990, **options: Any) -> bytes:
    return _saved(Image.new(mode, (edge, edge)), kind, **options)


def _gif_bomb() -> bytes:
    """A small canvas with a frame that claims more."""
    made = bytearray(_pictures()["moving.gif"])
    made[6:10] = struct.pack("<HH", 9_999, 9_999)
    return bytes(made)


def _gif_comments(blocks: bytes) -> bytes:
    return b"GIF89a\x01\0\x01\0\0\0\0" + blocks + b",\0\0\0\0\x01\0\x01\0\x80\0\0\0\xff\xff\xff\x02\x02D\x01\0;"


def _tiff_strips(n: int) -> bytes:
    """A pixel wide, a strip for each row, all of them the same byte."""
    fields = [(256, 4, 1, 1), (257, 4, 1, n), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    fields += [(273, 4, n, 200), (278, 4, 1, 1), (279, 4, n, 200 + 4 * n)]
    body = b"".join(struct.pack("<HHII", *one) for one in sorted(fields))
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + body + bytes(4)
    return head.ljust(200, b"\0") + struct.pack("<I", 8) * n + struct.pack("<I", 1) * n


_PICTURES: list[tuple[str, Callable[[], Named | tuple[str, bytes]]]] = [
    ("size 2^31", lambda: ("a.png", png(2**31 - 1, 2**31 - 1))),
    ("size 0", lambda: ("a.png", png(0, 10))),
    ("size 1 x 10^8", lambda: ("a.png", png(1, 100_000_000))),
    ("size 10^8 x 1", lambda: ("a.png", png(100_000_000, 1))),
    ("claims 100 MP, no pixels", lambda: ("a.png", png(10_000, 10_000))),
    ("100 MP of one colour", lambda: ("a.png", _large("RGB", "PNG"))),
    ("100 MP with a palette and transparency", lambda: ("a.png", _large("P", "PNG", transparency=0))),
    ("100 MP of bits", lambda: ("a.png", _large("1", "PNG", transparency=0))),
    ("100 MP RGBA", lambda: ("a.png", _large("RGBA", "PNG"))),
    ("100 MP 16 bit", lambda: ("a.png", _large("I;16", "PNG"))),
    ("100 MP of grey and transparency", lambda: ("a.png", _large("LA", "PNG"))),
    ("100 MP JPEG", lambda: ("a.jpg", _large("RGB", "JPEG"))),
    ("100 MP CMYK", lambda: ("a.jpg", _large("CMYK", "JPEG"))),
    ("100 MP GIF", lambda: ("a.gif", _large("P", "GIF", transparency=0))),
    ("100 MP TIFF of floats", lambda: ("a.tif", _large("F", "TIFF", compression="tiff_lzw"))),
    ("100 MP TIFF palette", lambda: ("a.tif", _large("P", "TIFF", compression="tiff_lzw"))),
    ("100 MP WebP", lambda: ("a.webp", _large("RGB", "WEBP", method=0, lossless=True))),
    ("100 MP BMP", lambda: ("a.bmp", _large("1", "BMP"))),
    ("16 MP AVIF", lambda: ("a.avif", _large("RGB", "AVIF", edge=4_000, speed=10))),
    ("2,000 scans, 25 MP", lambda: ("a.jpg", many_scans(5_000, 2_000))),
    ("300 scans, 64 MP", lambda: ("a.jpg", many_scans(8_000, 300))),
    ("50,000 scans, 1 MP", lambda: ("a.jpg", many_scans(1_000, 50_000))),
    ("40 MB of text chunks", lambda: ("a.png", png(9, 9, further=chunk(b"tEXt", b"k\0" + b"x" * 40_000_000)))),
    ("zTXt bomb", lambda: ("a.png", png(9, 9, further=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(400_000_000), 9))))),
    ("iCCP bomb", lambda: ("a.png", png(9, 9, further=chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(400_000_000), 9))))),
    ("200,000 chunks", lambda: ("a.png", png(9, 9, further=chunk(b"tEXt", b"k\0v") * 200_000))),
    ("IDAT bomb", lambda: ("a.png", png(9, 9, data=bytes(500_000_000)))),
    ("EXIF of 60 kB noise", lambda: ("a.jpg", _saved(Image.new("RGB", (9, 9)), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + bytes(range(256)) * 230))),
    ("EXIF that refers to itself", lambda: ("a.jpg", _saved(Image.new("RGB", (9, 9)), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"))),
    ("TIFF whose directory is its next", lambda: ("a.tif", b"II*\0\x08\0\0\0\x00\0\x08\0\0\0")),
    ("TIFF tag of 2^32 items", lambda: ("a.tif", b"II*\0\x08\0\0\0\x02\0\0\x01\x04\0\xff\xff\xff\xff\x08\0\0\0\x01\x01\x04\0\xff\xff\xff\xff\x08\0\0\0\0\0\0\0")),
    ("GIF canvas larger than its frame", lambda: ("a.gif", _gif_bomb())),
    ("2,000 frames", lambda: ("a.gif", _saved(Image.new("P", (500, 500)), "GIF", save_all=True, append_images=[Image.new("P", (500, 500), n % 200) for n in range(400)]))),
    ("4 million chunks", lambda: ("a.png", png(9, 9, further=chunk(b"tEXt", b"") * 4_000_000))),
    ("10 million comments", lambda: ("a.jpg", b"\xff\xd8" + b"\xff\xfe\0\x02" * 10_000_000 + _pictures()["plain.jpg"][2:])),
    ("GIF of 5 million comments", lambda: ("a.gif", _gif_comments(b"!\xfe\x01a\0" * 5_000_000))),
    ("GIF of a comment in 20 million blocks", lambda: ("a.gif", _gif_comments(b"!\xfe" + b"\x01a" * 20_000_000 + b"\0"))),
    ("TIFF of 10 million strips", lambda: ("a.tif", _tiff_strips(10_000_000))),
    ("SVG", lambda: ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'>" + b"<g>" * 100_000)),
    ("HEIC without content", lambda: ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\xff" * 99)),
    ("EPS", lambda: ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run")),
]  # fmt: skip


def hostile_picture(rng: random.Random, number: int) -> Named:
    if number < len(_PICTURES):
        what, make = _PICTURES[number]
        return (what, *make())  # type: ignore[return-value]
    name = rng.choice(sorted(_pictures()))
    data = _pictures()[name]
    if rng.random() < 0.1:
        return "name of another format", "a." + rng.choice(("png", "jpg", "exe", "gguf", "pdf")), data
    if rng.random() < 0.1:
        other = _pictures()[rng.choice(sorted(_pictures()))]
        return "two halves", name, data[: len(data) // 2] + other[len(other) // 2 :]
    return "changed bytes", name, mutated(rng, data, head=rng.choice((64, 200, None)))


# sound and video


def _tone(duration_s: float, rate: int) -> Any:
    return (0.4 * np.sin(np.arange(int(duration_s * rate)) * 0.17)).astype(np.float32)


def _by_soundfile(kind: str, rate: int = 16_000, duration_s: float = 0.5, **options: Any) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, _tone(duration_s, rate), rate, format=kind, **options)
    return out.getvalue()


def _by_av(
    container: str, codec: str | None, picture: str | None = None, *, size: int = 64, n_frames: int = 10
) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=container) as output:
        video: Any = output.add_stream(picture, rate=25) if picture else None
        sound: Any = output.add_stream(codec, rate=48_000, layout="mono") if codec else None
        if video is not None:
            video.width = video.height = size
            video.pix_fmt = "yuv420p"
            for number in range(n_frames):
                pixels = np.full((size, size, 3), 20 * number % 255, np.uint8)
                output.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            output.mux(video.encode(None))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(_tone(1, 48_000)[np.newaxis], format="fltp", layout="mono")
            frame.sample_rate = 48_000
            output.mux(sound.encode(frame))
            output.mux(sound.encode(None))
    return out.getvalue()


@cache
def _recordings() -> dict[str, bytes]:
    return {
        "a.wav": _by_soundfile("WAV"),
        "float.wav": _by_soundfile("WAV", subtype="FLOAT"),
        "adpcm.wav": _by_soundfile("WAV", subtype="MS_ADPCM"),
        "a.flac": _by_soundfile("FLAC"),
        "a.ogg": _by_soundfile("OGG"),
        "opus.ogg": _by_soundfile("OGG", subtype="OPUS"),
        "a.mp3": _by_soundfile("MP3"),
        "a.aiff": _by_soundfile("AIFF"),
        "a.w64": _by_soundfile("W64"),
        "a.au": _by_soundfile("AU"),
        "a.caf": _by_soundfile("CAF"),
        "a.m4a": _by_av("mp4", "aac"),
        "a.webm": _by_av("webm", "libopus"),
        "a.aac": _by_av("adts", "aac"),
        "a.mp4": _by_av("mp4", "aac", "mpeg4"),
        "b.mp4": _by_av("mp4", "aac", "libx264"),
        "b.webm": _by_av("webm", "libopus", "libvpx"),
        "a.mkv": _by_av("matroska", "aac", "mpeg4"),
        "a.avi": _by_av("avi", "mp2", "mpeg4"),
        "a.ts": _by_av("mpegts", "mp2", "mpeg2video"),
        "a.mpg": _by_av("mpeg", None, "mpeg1video"),
    }


def wav(
    n_bytes: int, *, rate: int = 16_000, channels: int = 1, bits: int = 16, codec: int = 1, declared: int | None = None
) -> bytes:
    fields = (16, codec, channels, rate, rate * channels * bits // 8 & 0xFFFFFFFF, channels * bits // 8 & 0xFFFF, bits)
    size = n_bytes if declared is None else declared
    return b"RIFF" + struct.pack("<I", 0xFFFFFFFF & (36 + size)) + b"WAVEfmt " + struct.pack("<IHHIIHH", *fields) + b"data" + struct.pack("<I", size) + bytes(n_bytes)  # fmt: skip


def _patched(name: str, mark: bytes, offset: int, value: bytes) -> bytes:
    made = bytearray(_recordings()[name])
    at = made.find(mark) + offset
    made[at : at + len(value)] = value
    return bytes(made)


def _flac(*, rate: int, n_samples: int) -> bytes:
    """With another rate (20 bits) and number of samples (36 bits) in its head."""
    made = bytearray(_recordings()["a.flac"])
    packed = int.from_bytes(made[18:26], "big") & 0xFF << 36  # channels and bits
    made[18:26] = (rate << 44 | packed | n_samples).to_bytes(8, "big")
    return bytes(made)


_SOUNDS: list[tuple[str, Callable[[], tuple[str, bytes]]]] = [
    *((f"rate {rate}", lambda rate=rate: ("a.wav", wav(3_200, rate=rate))) for rate in (0, 1, 999, 768_001, 2**31 - 1, 2**32 - 1)),
    *((f"{n} channels", lambda n=n: ("a.wav", wav(3_200, channels=n))) for n in (0, 9, 1_025, 65_535)),
    *((f"{n} bits", lambda n=n: ("a.wav", wav(3_200, bits=n))) for n in (0, 1, 7, 33, 65_535)),
    *((f"codec {n:#x}", lambda n=n: ("a.wav", wav(3_200, codec=n))) for n in (0, 2, 3, 0x11, 0x55, 0x161, 0xFFFE, 0xFFFF)),
    *((f"declares {n} bytes", lambda n=n: ("a.wav", wav(3_200, declared=n))) for n in (0, 1, 3_201, 2**31 - 1, 2**32 - 1)),
    ("hours of silence", lambda: ("a.flac", _by_soundfile("FLAC", 16_000, 4 * 3600 - 60))),
    ("hours at 1,000 Hz", lambda: ("a.flac", _by_soundfile("FLAC", 1_000, 5 * 3600))),
    ("1 kHz, nearly 4 hours", lambda: ("a.wav", wav(2_000 * 14_000, rate=1_000))),
    ("768 kHz", lambda: ("a.wav", wav(30_000_000, rate=768_000))),
    ("256 channels", lambda: ("a.wav", wav(30_000_000, channels=256))),
    ("1,024 channels at 768 kHz", lambda: ("a.wav", wav(60_000_000, channels=1_024, rate=768_000))),
    ("FLAC of 2^36 samples", lambda: ("a.flac", _flac(rate=16_000, n_samples=2**36 - 1))),
    ("FLAC of rate 0", lambda: ("a.flac", _flac(rate=0, n_samples=8_000))),
    ("FLAC of rate 2^20", lambda: ("a.flac", _flac(rate=2**20 - 1, n_samples=0))),
    ("mp4 of 10^6 hours", lambda: ("a.mp4", _patched("a.mp4", b"mvhd", 16, struct.pack(">II", 1, 2**31 - 1)))),
    ("mp4 track of 10^6 hours", lambda: ("a.mp4", _patched("a.mp4", b"mdhd", 16, struct.pack(">II", 1, 2**31 - 1)))),
    ("mp4 of time scale 0", lambda: ("a.mp4", _patched("a.mp4", b"mdhd", 16, struct.pack(">I", 0)))),
    ("mp4 table of 2^32 entries", lambda: ("a.mp4", _patched("a.mp4", b"stsz", 12, b"\xff" * 4))),
    ("mp4 times of 2^32 entries", lambda: ("a.mp4", _patched("a.mp4", b"stts", 8, b"\xff" * 4))),
    ("mp4 of one sample, 2^32 times", lambda: ("a.mp4", _patched("a.mp4", b"stts", 12, struct.pack(">II", 2**32 - 1, 1)))),
    ("mp4 sizes of frames", lambda: ("a.mp4", _patched("a.mp4", b"mp4v", 28, struct.pack(">HH", 65_535, 65_535)))),
    ("mp4 box in itself", lambda: ("a.mp4", b"\0\0\0\x18ftypisom\0\0\0\0isommp41" + struct.pack(">I4s", 2**31, b"moov") * 100_000)),
    ("mkv of 10^9 s", lambda: ("a.mkv", _patched("a.mkv", b"\x44\x89\x88", 3, struct.pack(">d", 1e12)))),
    ("mkv of not a number", lambda: ("a.mkv", _patched("a.mkv", b"\x44\x89\x88", 3, struct.pack(">d", float("nan"))))),
    ("mkv of -1 s", lambda: ("a.mkv", _patched("a.mkv", b"\x44\x89\x88", 3, struct.pack(">d", -1.0)))),
    ("8,000 x 4,000 frames", lambda: ("a.mp4", _by_av("mp4", None, "mpeg4", size=4_096, n_frames=4))),
    ("3,000 frames and one key frame", lambda: ("a.mp4", _by_av("mp4", None, "mpeg4", n_frames=3_000))),
    ("ID3 of 256 MB", lambda: ("a.mp3", b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + _recordings()["a.mp3"])),
    ("ID3 in ID3", lambda: ("a.mp3", b"ID3\x04\0\0\0\0\0\x0a" * 100_000 + _recordings()["a.mp3"])),
    ("MP3 frames, 10 MB of the same", lambda: ("a.mp3", _recordings()["a.mp3"] * 3_000)),
    ("Ogg pages without an end", lambda: ("a.ogg", _recordings()["a.ogg"] * 1_000)),
    ("playlist", lambda: ("a.m3u8", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n")),
    ("concat list", lambda: ("a.wav", b"ffconcat version 1.0\nfile /etc/hostname\n")),
]  # fmt: skip


def hostile_recording(rng: random.Random, number: int) -> Named:
    if number < len(_SOUNDS):
        what, make = _SOUNDS[number]
        return (what, *make())
    name = rng.choice(sorted(_recordings()))
    data = _recordings()[name]
    if rng.random() < 0.15:
        at = rng.randrange(min(len(data), 2_000))
        size = rng.choice((2, 4, 8))
        value = rng.choice(HOSTILE_NUMBERS) & ((1 << 8 * size) - 1)
        order = "little" if name.endswith((".wav", ".avi", ".w64")) else "big"
        return "a number", name, data[:at] + value.to_bytes(size, order) + data[at + size :]  # type: ignore[arg-type]
    if rng.random() < 0.1:
        return "repeated", name, data * rng.choice((2, 50))
    return "changed bytes", name, mutated(rng, data, head=rng.choice((100, 1_000, None)))
