"""Reads pictures: bytes of a file in, one upright, opaque, bounded RGB image out, or an error that says why not."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL import features as pillow_features

from hearth.multimodal.errors import MediaTooLargeError, PerceptionError, UnsupportedMediaError
from hearth.multimodal.kinds import describe, identify, shown_name
from hearth.multimodal.pictures_structure import MAX_PARTS, MAX_SCANNED_PIXELS, MAX_SCANS, n_parts, n_scans

MAX_PIXELS = 100_000_000
MAX_WEBP_PIXELS = 64_000_000  # its decoder holds four copies of the picture
MAX_BYTES = 100 * 1024 * 1024
KEPT_EDGE_PX = 4096  # long side of the image kept in memory; views and tiles never need more
THUMBNAIL_QUALITY = 80
_ORIENTATION_TAG = 0x0112
_BAND_PIXELS = 4_000_000

# The formats that are read, each by its own decoder: opening goes by this table alone, so that no other
# of Pillow's plugins (some of which start programs) ever sees a stranger's bytes.
_OPENERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "image/png": PngImagePlugin.PngImageFile,
    "image/jpeg": JpegImagePlugin.JpegImageFile,
    "image/gif": GifImagePlugin.GifImageFile,
    "image/webp": WebPImagePlugin.WebPImageFile,
    "image/bmp": BmpImagePlugin.BmpImageFile,
    "image/tiff": TiffImagePlugin.TiffImageFile,
}
if pillow_features.check("avif"):
    _OPENERS["image/avif"] = AvifImagePlugin.AvifImageFile

READABLE_MIMES = frozenset(_OPENERS)

# What Pillow's decoders raise on damaged bytes; none of it says more than "damaged".
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    AttributeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture. ``width`` and ``height`` are those of the file, upright, in pixels; ``image`` is RGB, upright,
    and reduced so that its long side is at most ``KEPT_EDGE_PX``. ``sha256`` is the file's, hexadecimal."""

    image: Image.Image
    width: int
    height: int
    mime: str
    sha256: str
    name: str


def read_picture(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> Picture:
    """Decodes the first frame of ``data``. ``name`` only appears in messages.

    Turned upright by its EXIF orientation, composited on white where it is transparent, 16-bit scaled to 8.
    Raises MediaTooLargeError (bytes or pixels, before decoding), UnsupportedMediaError (not a picture, or of a format
    that is not read) and PerceptionError (empty, truncated or damaged).
    """
    name = shown_name(name)
    mime = _readable_mime(data, name, max_bytes)
    if n_parts(data, mime) > MAX_PARTS:
        raise MediaTooLargeError(
            f"{name} is {describe(data)} in more than {MAX_PARTS:,} parts, the limit; save it again as PNG or JPEG"
        )
    try:
        opened = _OPENERS[mime](io.BytesIO(data))
    except _DECODER_ERRORS as error:
        raise _damaged(name, data, error) from error
    width, height = opened.size
    if mime == "image/webp":
        max_pixels = min(max_pixels, MAX_WEBP_PIXELS)
    if width * height > max_pixels:
        raise MediaTooLargeError(
            f"{name} has {width:,} × {height:,} pixels, more than the limit of {max_pixels:,}; scale it down first"
        )
    _check_scans(data, mime, width * height, name)
    try:
        orientation = _orientation(opened) if mime != "image/tiff" else 1  # Pillow turns TIFFs by itself
        image = _decode(opened)
    except _DECODER_ERRORS as error:
        raise _damaged(name, data, error) from error
    image = _turn(image, orientation)
    if orientation >= 5:
        width, height = height, width
    return Picture(image, width, height, mime, hashlib.sha256(data).hexdigest(), name)


def thumbnail(picture: Picture, edge_px: int) -> bytes:
    """``picture`` as a WebP file whose long side is at most ``edge_px`` pixels; never enlarged, without metadata."""
    small = picture.image.copy()
    small.thumbnail((edge_px, edge_px), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=THUMBNAIL_QUALITY)
    return out.getvalue()


def _readable_mime(data: bytes, name: str, max_bytes: int) -> str:
    if not data:
        raise PerceptionError(f"{name} is empty (0 bytes); choose a picture with content")
    if len(data) > max_bytes:
        raise MediaTooLargeError(
            f"{name} has {len(data):,} bytes, more than the limit of {max_bytes:,} for a picture; scale it down first"
        )
    content = identify(data, name)
    if content.mime in _OPENERS:
        return content.mime
    readable = ", ".join(sorted(mime.removeprefix("image/").upper() for mime in _OPENERS))
    if content.kind == "picture":
        raise UnsupportedMediaError(f"{name} is {content.words}, which is not read; save it as PNG or JPEG first")
    raise UnsupportedMediaError(f"{name} is not a picture: it is {content.words}; pictures are read as {readable}")


def _check_scans(data: bytes, mime: str, n_pixels: int, name: str) -> None:
    """A progressive JPEG can have its pixels gone over any number of times, at a hundred bytes each."""
    n = n_scans(data) if mime == "image/jpeg" else 0
    limit = min(MAX_SCANS, MAX_SCANNED_PIXELS // max(n_pixels, 1))
    if n > limit:
        raise MediaTooLargeError(
            f"{name} is a JPEG of {n:,} passes over its pixels, more than the limit of {limit:,}; save it again"
        )


def _damaged(name: str, data: bytes, error: BaseException) -> PerceptionError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return PerceptionError(
        f"{name} is {describe(data)} of {len(data):,} bytes that is truncated or damaged ({reason}); use an intact copy"
    )


def _orientation(image: ImageFile.ImageFile) -> int:
    """EXIF orientation, 1 to 8. Broken EXIF is no reason to refuse a picture that decodes."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DECODER_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _decode(image: ImageFile.ImageFile) -> Image.Image:
    """RGB of the first frame, its long side at most ``KEPT_EDGE_PX``."""
    longest = max(image.size)
    if longest > KEPT_EDGE_PX:  # a JPEG can be decoded at a half, a quarter or an eighth, in as much less memory
        width, height = (max(1, edge * KEPT_EDGE_PX // longest) for edge in image.size)
        image.draft(None, (width, height))
    image.load()
    decoded: Image.Image = image
    if max(decoded.size) > KEPT_EDGE_PX and decoded.mode not in ("P", "1", "PA"):  # palette indices cannot be averaged
        decoded = _reduced(decoded)
    decoded = _rgb(_eight_bit(decoded))
    return _reduced(decoded) if max(decoded.size) > KEPT_EDGE_PX else decoded


def _reduced(image: Image.Image) -> Image.Image:
    scale = KEPT_EDGE_PX / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if image.mode.startswith("I;16"):  # Pillow does not average these
        return image.resize(size, Image.Resampling.NEAREST)
    return image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits or of floats as 8-bit grey; Pillow's own conversion would cut it off at 255."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.nan_to_num(np.asarray(image).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 65535:
        ceilings = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        low, high = 0.0, next(ceiling for ceiling in ceilings if high <= ceiling)
    scaled = (values - low) * (255.0 / (high - low) if high > low else 0.0)
    return Image.fromarray(np.round(scaled).astype(np.uint8))


def _rgb(image: Image.Image) -> Image.Image:
    """In bands where it is transparent: the layers of a whole picture of 100 megapixels would take 1.5 GB."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    width, height = image.size
    band_px = max(1, _BAND_PIXELS // width)
    opaque = Image.new("RGB", image.size)
    for top in range(0, height, band_px):
        rgba = image.crop((0, top, width, min(height, top + band_px))).convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        opaque.paste(Image.alpha_composite(white, rgba).convert("RGB"), (0, top))
    return opaque


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    """Upright, and rid of all metadata."""
    transposed = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    upright = image.transpose(transposed[orientation]) if orientation in transposed else image
    upright.info = {}
    return upright
