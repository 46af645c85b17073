"""Pictures: every mode comes out as upright RGB; every bad input is an error that names file, content and limit."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hearth.multimodal.errors import MediaTooLargeError, PerceptionError, UnsupportedMediaError
from hearth.multimodal.pictures import KEPT_EDGE_PX, READABLE_MIMES, read_picture, thumbnail


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def scene(width: int = 64, height: int = 48) -> Image.Image:
    """White with a red square in the upper left corner."""
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).rectangle((0, 0, width // 4, height // 4), fill=(220, 20, 20))
    return image


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size, with next to no content."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def near(pixel: Any, expected: tuple[int, int, int], within: int = 12) -> bool:
    return all(abs(a - b) <= within for a, b in zip(pixel, expected, strict=True))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_reads_every_format_by_content(kind: str) -> None:
    if f"image/{kind.lower()}" not in READABLE_MIMES:
        pytest.skip(f"this Pillow cannot read {kind}")
    picture = read_picture(saved(scene(), kind), "named.wrong")
    assert (picture.width, picture.height, picture.image.size, picture.image.mode) == (64, 48, (64, 48), "RGB")
    assert picture.mime == f"image/{kind.lower()}"
    assert picture.name == "named.wrong"
    assert len(picture.sha256) == 64
    assert near(picture.image.getpixel((4, 4)), (220, 20, 20), 25)
    assert near(picture.image.getpixel((60, 40)), (255, 255, 255))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind: str, orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = scene().transpose(undo[orientation]) if orientation in undo else scene()
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read_picture(saved(stored, kind, exif=exif), "turned")
    assert (picture.width, picture.height) == (64, 48)
    assert picture.image.size == (64, 48)
    assert near(picture.image.getpixel((4, 4)), (220, 20, 20), 25)
    assert near(picture.image.getpixel((60, 4)), (255, 255, 255), 25)
    assert not picture.image.info


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_transparency_becomes_white(kind: str) -> None:
    image = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    image.paste((10, 200, 10, 255), (0, 0, 10, 10))
    picture = read_picture(saved(image, kind), "clear")
    assert near(picture.image.getpixel((15, 5)), (255, 255, 255))
    assert near(picture.image.getpixel((3, 5)), (10, 200, 10))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_modes(mode: str) -> None:
    grey = Image.new("L", (16, 16), 128)
    if mode == "I;16":
        image = Image.fromarray(np.full((16, 16), 128 * 257, dtype=np.uint16))
    elif mode == "F":
        image = Image.fromarray(np.full((16, 16), 0.5, dtype=np.float32))
    else:
        image = grey.quantize(16) if mode == "P" else grey.convert("RGB").convert(mode)
    kind = "PNG" if mode in ("1", "L", "LA", "P", "RGBA", "I;16") else "JPEG" if mode in ("CMYK", "YCbCr") else "TIFF"
    picture = read_picture(saved(image, kind), "mode")
    assert picture.image.mode == "RGB"
    if mode != "1":
        assert near(picture.image.getpixel((8, 8)), (128, 128, 128), 4)


def test_16_bit_grey_is_scaled_not_cut_off() -> None:
    ramp = np.tile(np.linspace(0, 65535, 64, dtype=np.uint16), (8, 1))
    picture = read_picture(saved(Image.fromarray(ramp), "PNG"), "ramp.png")
    values = np.asarray(picture.image)[4, :, 0].astype(int)
    np.testing.assert_allclose(values, np.linspace(0, 255, 64), atol=2)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (10, 10), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        assert near(read_picture(data, "moving").image.getpixel((5, 5)), (255, 0, 0))


@pytest.mark.parametrize(
    ("kind", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "P"), ("PNG", "I;16")]
)
def test_large_pictures_are_reduced_but_keep_their_size_in_numbers(kind: str, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((1000, 5000), 128 * 257, dtype=np.uint16))
    else:
        plain = Image.new("RGB", (5000, 1000), (128, 128, 128))
        image = plain.quantize(16) if mode == "P" else plain.convert(mode)
    picture = read_picture(saved(image, kind), "large")
    assert (picture.width, picture.height) == (5000, 1000)
    assert picture.image.size == (KEPT_EDGE_PX, round(1000 * KEPT_EDGE_PX / 5000))
    assert near(picture.image.getpixel((100, 100)), (128, 128, 128), 4)


def test_pixel_bomb_is_refused_before_decoding() -> None:
    with pytest.raises(
        MediaTooLargeError, match=r"^bomb\.png has 30,000 × 30,000 pixels, .* limit of 100,000,000; "
    ) as caught:
        read_picture(png_header(30_000, 30_000), "bomb.png")
    assert caught.value.http_status == 413


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP", "JPEG"])
def test_pixel_limit_for_every_format(kind: str) -> None:
    with pytest.raises(MediaTooLargeError, match="64 × 48 pixels"):
        read_picture(saved(scene(), kind), "x", max_pixels=1000)


def test_byte_limit() -> None:
    with pytest.raises(MediaTooLargeError, match=r"^p\.png has [\d,]+ bytes, more than the limit of 100"):
        read_picture(saved(scene(), "PNG"), "p.png", max_bytes=100)


def test_empty_file() -> None:
    with pytest.raises(PerceptionError, match=r"^apple\.jpg is empty \(0 bytes\)"):
        read_picture(b"", "apple.jpg")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"hello there", "plain text"),
        (b"<html><p>login", "an HTML page"),
        (b"%PDF-1.4", "a PDF"),
        (b"\x7fELF\x02", "a program"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a PostScript file"),
    ],
)
def test_not_a_picture(data: bytes, found: str) -> None:
    with pytest.raises(UnsupportedMediaError, match=rf"^a\.jpg is not a picture: it is {found}"):
        read_picture(data, "a.jpg")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"8BPS\x00\x01", "Photoshop"),
        (b"\x00\x00\x01\x00\x01\x00", "icon"),
    ],
)
def test_pictures_that_are_not_read_say_how_to_convert(data: bytes, found: str) -> None:
    with pytest.raises(UnsupportedMediaError, match=rf"{found}.* save it as PNG or JPEG"):
        read_picture(data, "holiday")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_pictures_are_refused(kind: str, share: float) -> None:
    data = saved(noise(200, 150), kind)
    with pytest.raises(PerceptionError, match=r"^half\.img is .*truncated or damaged") as caught:
        read_picture(data[: int(len(data) * share)], "half.img")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about damaged TIFF tags
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"])
def test_damaged_bytes_give_a_picture_or_a_perception_error(kind: str) -> None:
    rng = random.Random(7)
    original = saved(noise(24, 18), kind)
    for _ in range(150):
        data = bytearray(original)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(64, len(data)))] = rng.randrange(
                256
            )
        with contextlib.suppress(PerceptionError):
            assert read_picture(bytes(data), "damaged", max_pixels=4_000_000).image.mode == "RGB"


def test_thumbnail() -> None:
    picture = read_picture(saved(scene(400, 300), "PNG"), "p.png")
    small = Image.open(io.BytesIO(thumbnail(picture, 100)))
    assert (small.format, small.size) == ("WEBP", (100, 75))
    tiny = read_picture(saved(scene(40, 30), "PNG"), "p.png")
    assert Image.open(io.BytesIO(thumbnail(tiny, 100))).size == (40, 30)
    assert picture.image.size == (400, 300)
