"""Pictures and recordings as they are sent to a server elsewhere: what is seen and heard, and nothing else of the file.

A photograph's place and time, its camera and its thumbnail are in its metadata, which is left behind.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from hearth.held_files import HeldFiles
from hearth.models.remote.chat import MediaPart
from hearth.prompt import MediaContent, SoundContent

if TYPE_CHECKING:
    from hearth.store.derived import DerivedFiles

MAX_SIDE = 2048  # pixels; servers scale larger pictures down themselves
MAX_PNG_BYTES = 2 << 20  # of a picture without loss; larger ones go as JPEG
JPEG_QUALITY = 90
RECENT_BYTES = 64 << 20
_MADE_BY = "sent1"
_PNG_HEAD = b"\x89PNG"


class SentMedia:
    """Files to send, each made once and kept as long as the file it comes from. Any thread."""

    def __init__(self, files: HeldFiles, derived: DerivedFiles) -> None:
        self._files = files
        self._derived = derived
        self._lock = threading.Lock()
        self._recent: OrderedDict[str, bytes] = OrderedDict()  # a chat's pictures go out with every question

    def part(self, content: MediaContent) -> MediaPart:
        """What stands in a message. Its ``read`` raises StoreError, and what reading the file raises."""
        if isinstance(content, SoundContent):
            return MediaPart("sound", lambda: (self._sound(content), "audio/wav"))
        return MediaPart("picture", lambda: self._picture(content))

    def _picture(self, content: MediaContent) -> tuple[bytes, str]:
        with self._lock:
            data = self._recent.get(content.sha256)
        if data is None:
            data = self._derived.get(content.sha256, _MADE_BY)
        if data is None:
            data = _drawn(self._files.get(content.sha256), content.name)
            if not self._files.is_held(content.sha256):
                self._derived.put(content.sha256, _MADE_BY, data)
        with self._lock:
            self._recent[content.sha256] = data
            self._recent.move_to_end(content.sha256)
            while len(self._recent) > 1 and sum(map(len, self._recent.values())) > RECENT_BYTES:
                self._recent.popitem(last=False)
        return data, "image/png" if data.startswith(_PNG_HEAD) else "image/jpeg"

    def _sound(self, content: MediaContent) -> bytes:
        import soundfile

        from hearth.multimodal.sound import SAMPLE_RATE, read_sound

        samples = read_sound(self._files.get(content.sha256), content.name).samples
        out = io.BytesIO()
        soundfile.write(out, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
        return out.getvalue()


def _drawn(data: bytes, name: str) -> bytes:
    """The picture anew, upright and without metadata."""
    from hearth.multimodal.pictures import read_picture

    image = read_picture(data, name).image
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    image.info.clear()  # Pillow would write a comment and a profile along
    if data.startswith(_PNG_HEAD):
        png = io.BytesIO()
        image.save(png, "PNG")
        if png.tell() <= MAX_PNG_BYTES:
            return png.getvalue()
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=JPEG_QUALITY)
    return jpeg.getvalue()
