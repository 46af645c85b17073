"""Reads what users hand in, as paths or bytes, with limits on number and size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearth.models.errors import RequestError
from hearth.multimodal.errors import MediaTooLargeError, PerceptionError

if TYPE_CHECKING:
    from hearth.multimodal.transcripts import Transcript

MAX_FILE_BYTES = 1 << 30  # read whole; a larger file is refused before it is read
MAX_ATTACHMENTS = 32  # per turn


@dataclass(frozen=True, slots=True)
class HeardRecording:
    """A recording whose words are known, so that it is not transcribed: ``text`` is what it says, as its user has
    corrected it, ``transcript`` what was heard, with its times."""

    source: str | Path | bytes
    text: str
    transcript: Transcript | None = None


Source = str | Path | bytes | HeardRecording


@dataclass(frozen=True, slots=True)
class RawFile:
    """Bytes of an attachment and the name to show for it; ``heard`` are a recording's words if they are known."""

    data: bytes
    name: str
    heard: HeardRecording | None = None


def read_files(sources: Source | Sequence[Source], kind: str) -> list[RawFile]:
    """Reads every source. Raises PerceptionError naming the file; RequestError for what is none, or too many."""
    is_one = isinstance(sources, (str, Path, bytes, HeardRecording))
    listed: list[Any] = list(sources) if isinstance(sources, Iterable) and not is_one else [sources]
    if len(listed) > MAX_ATTACHMENTS:
        raise RequestError(f"{len(listed)} files of kind {kind}: at most {MAX_ATTACHMENTS} fit in a turn; send fewer")
    return [_read(source, f"{kind} {number}") for number, source in enumerate(listed, 1)]


def _read(source: Any, default_name: str) -> RawFile:
    if isinstance(source, HeardRecording):
        file = _read(source.source, default_name)
        return RawFile(file.data, file.name, source)
    if isinstance(source, bytes):
        return RawFile(source, default_name)
    if not isinstance(source, (str, Path)):
        raise RequestError(f"{default_name} is of type {type(source).__name__}; give a file's path, or its bytes")
    path = Path(source).expanduser()
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise PerceptionError(f"{path}: a folder or device, not a file; give the path of a file")
        if size > MAX_FILE_BYTES:
            raise MediaTooLargeError(
                f"{path.name}: {size / 2**20:.0f} MiB, the limit is {MAX_FILE_BYTES // 2**20} MiB; give a smaller file"
            )
        return RawFile(path.read_bytes(), path.name)
    except FileNotFoundError as error:
        raise PerceptionError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise PerceptionError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
