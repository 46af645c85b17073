"""The only module that opens connections to other machines: what a repository on the hub holds, and its files."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from hearth.models.errors import PullError, PullStoppedError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read at its import: which libraries are installed is not told
log = logging.getLogger("hearth.hub")
DEFAULT_ENDPOINT = "https://huggingface.co"
TOKEN_REMEDY = "make a token at huggingface.co/settings/tokens and set HF_TOKEN to it"
TIMEOUT_S = 15.0  # without a byte, then the connection counts as broken
RETRIES = 5  # connections in a row that bring nothing
RETRY_S = 1.0
CHUNK_BYTES = 256 * 1024  # how often progress is told and a stop is looked for
HTTP_PARTIAL = 206
_TRUE = {"1", "on", "yes", "true"}

OnBytes = Callable[[int], None]
"""Gets the size of the file so far, in bytes."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the hub announces it: ``sha256`` of large files, ``git_sha1`` (of git's blob) of small ones."""

    path: str
    size_bytes: int
    sha256: str | None
    git_sha1: str | None


@dataclass(frozen=True, slots=True)
class RemoteRepository:
    """A repository at one commit, which the hub does not change any more."""

    name: str
    commit: str
    files: Mapping[str, RemoteFile]
    is_gated: bool


def endpoint() -> str:
    """The hub in force: HF_ENDPOINT, as the hub's own tools have it."""
    return (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


def refuse_if_offline(offline: bool) -> None:
    """Raises PullError if the setting ``offline``, or a variable of the hub's own tools, forbids connections."""
    if offline:
        raise PullError("offline = true: nothing may be fetched; set it to false (HEARTH_OFFLINE=false) for a pull")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").lower() in _TRUE:
            raise PullError(f"{name} is set: nothing may be fetched; unset it for a pull")


def look_up(repository: str, revision: str) -> RemoteRepository:
    """What ``repository`` holds at ``revision``: a branch, tag or commit. One request. Raises PullError."""
    with _explained(f"{repository}@{revision}"):
        found = _api().model_info(repository, revision=revision, files_metadata=True)
    if not found.sha:
        raise PullError(f"{endpoint()}: it named no commit of {repository}; is HF_ENDPOINT a Hugging Face hub?")
    files = {}
    for file in found.siblings or []:
        lfs = file.lfs
        if file.size is not None:
            sha256, git_sha1 = (lfs.sha256, None) if lfs is not None else (None, file.blob_id)
            files[file.rfilename] = RemoteFile(file.rfilename, file.size, sha256, git_sha1)
    return RemoteRepository(repository, found.sha, files, bool(found.gated))


def file_url(repository: str, commit: str, path: str) -> str:
    """Where a file of a repository is fetched from."""
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repository, path, revision=commit, endpoint=endpoint())


def fetch(url: str, part: Path, size_bytes: int | None, on_bytes: OnBytes, cancelled: Callable[[], bool]) -> None:
    """Fetches ``url`` into ``part``, going on behind what is there. A connection that breaks is made again.

    The user's token goes to the hub alone. Raises PullError, or PullStoppedError once ``cancelled()``, and keeps
    ``part``.
    """
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    headers = build_hf_headers(library_name="hearth") if url.startswith(f"{endpoint()}/") else {}
    headers["Accept-Encoding"] = "identity"  # ranges count the bytes of the file itself
    with _explained(url), part.open("ab") as file:
        if size_bytes is not None and file.tell() > size_bytes:  # of another file
            file.truncate(0)
        tries_left = RETRIES
        while size_bytes is None or file.tell() < size_bytes:
            before_bytes = file.tell()
            broken = _stream(url, headers, file, on_bytes, cancelled)
            if broken is None:
                break
            tries_left = RETRIES if file.tell() > before_bytes else tries_left - 1
            if tries_left == 0:
                raise broken
            log.info("%s: the connection broke after %d bytes (%s)", url, file.tell(), broken)
            time.sleep(RETRY_S)
        if size_bytes is not None and file.tell() != size_bytes:
            raise PullError(f"{url}: {file.tell():,} bytes came, {size_bytes:,} were announced; pull again")


def _stream(
    url: str, headers: Mapping[str, str], file: BinaryIO, on_bytes: OnBytes, cancelled: Callable[[], bool]
) -> Exception | None:
    """One connection's worth of a file; what broke it, or None at the end of the file."""
    import httpx2
    from huggingface_hub.utils import hf_raise_for_status, http_stream_backoff  # type: ignore[attr-defined]

    range_ = {"Range": f"bytes={file.tell()}-"} if file.tell() else {}
    try:
        with http_stream_backoff(
            "GET", url, headers={**headers, **range_}, timeout=TIMEOUT_S, retry_on_exceptions=()
        ) as response:
            hf_raise_for_status(response)
            if range_ and response.status_code != HTTP_PARTIAL:  # a server that knows no ranges sends all of it
                file.truncate(0)
            for chunk in response.iter_bytes(CHUNK_BYTES):
                file.write(chunk)
                on_bytes(file.tell())
                if cancelled():
                    raise PullStoppedError("stopped; what was fetched is kept, and the next pull goes on from there")
    except (httpx2.NetworkError, httpx2.TimeoutException, httpx2.RemoteProtocolError) as error:
        return error
    return None


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint(), library_name="hearth")


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns what the hub's library raises into one PullError with a remedy."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise PullError("HF_HUB_OFFLINE is set: nothing may be fetched; unset it for a pull") from error
    except errors.GatedRepoError as error:
        raise PullError(f"{what}: gated: accept its licence on its page, {TOKEN_REMEDY}") from error
    except errors.RepositoryNotFoundError as error:  # the hub says 401 for what is private and for what is not there
        raise PullError(f"{what}: not there (HTTP {_status(error)}); if it is private, {TOKEN_REMEDY}") from error
    except errors.RevisionNotFoundError as error:
        raise PullError(f"{what}: no such revision; `hearth models pull --update` takes the newest") from error
    except errors.HfHubHTTPError as error:
        status = _status(error)
        remedies = {401: TOKEN_REMEDY, 403: TOKEN_REMEDY, 404: "the file is not there (any more)"}
        remedy = remedies.get(status, "try again later")
        raise PullError(f"{what}: the server answered HTTP {status}; {remedy}") from error
    except httpx2.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise PullError(f"{what}: no connection ({reason}); what was fetched is kept: pull again to go on") from error
    except OSError as error:
        reason = (error.strerror or str(error)).splitlines()[0]
        raise PullError(f"{what}: {reason}; what was fetched is kept: pull again to go on") from error


def _status(error: Any) -> int:
    response = getattr(error, "response", None)
    return int(response.status_code) if response is not None else 0
