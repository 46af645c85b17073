"""Pulls a model of the catalogue: what is missing is fetched, checked, put in place, and written down."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from hearth.models import hub
from hearth.models.catalogue import CatalogueEntry, CatalogueFile
from hearth.models.errors import ModelFileError, PullError, PullStoppedError
from hearth.models.gguf_header import read_gguf_header
from hearth.models.pulled import RECORD_NAME, PulledFile, PulledRecord, missing_files, read_record, write_record

DISK_RESERVE_BYTES = 512 * 2**20  # left free: chats, memory and KV blocks grow
SPEECH_FOLDER = "speech"  # of all checkpoints of the transcriber, whatever their size
_HASH_CHUNK_BYTES = 1 << 20
GIB = 2**30


@dataclass(frozen=True, slots=True)
class PullProgress:
    """``step`` is what is done with ``file``; bytes are of the whole pull."""

    step: str  # "looking up", "fetching", "checking"
    file: str
    done_bytes: int
    total_bytes: int


OnProgress = Callable[[PullProgress], None]


def _ignore(progress: PullProgress) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, slots=True)
class PullResult:
    """What lies where now. ``paths`` are the model's files, parts in order; ``fetched_bytes`` is 0 if all was there."""

    name: str
    quant: str
    commit: str
    paths: tuple[Path, ...]
    mmproj: Path | None
    fetched_bytes: int


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A file to be had: where from, its name here, and what it must be. A size of None is told by the server."""

    remote: str
    url: str
    name: str
    size_bytes: int | None
    expected_bytes: int  # of the announcement or the catalogue, for progress and the disk
    sha256: str | None
    git_sha1: str | None
    quant: str
    is_mmproj: bool = False


@dataclass(frozen=True, slots=True)
class PullPlace:
    """Where the files of a model lie once pulled, and the record of them."""

    folder: Path
    record: Path

    @classmethod
    def of(cls, models_dir: Path, entry: CatalogueEntry) -> PullPlace:
        if entry.kind == "speech":
            folder = models_dir / SPEECH_FOLDER
            return cls(folder, folder / f"{entry.name}.{RECORD_NAME}")
        return cls(models_dir / entry.name, models_dir / entry.name / RECORD_NAME)


def pull(
    entry: CatalogueEntry,
    models_dir: Path,
    *,
    quant: str | None = None,
    update: bool = False,
    offline: bool = False,
    on_progress: OnProgress = _ignore,
    cancelled: Callable[[], bool] = lambda: False,
) -> PullResult:
    """Fetches what is missing of ``entry``, with its encoder, into ``models_dir``. What is whole needs no connection.

    The commit of the first pull is kept to by all later ones, unless ``update``. A pull that was cut off goes on where
    it was. Nothing comes into place that does not have the announced checksum. Raises PullError naming the remedy,
    also if a connection is needed and ``offline``; PullStoppedError once ``cancelled()``; ModelFileError for an unknown
    quantization or a record that is damaged.
    """
    file = entry.file(quant)
    place = PullPlace.of(models_dir, entry)
    try:
        record = read_record(place.record)
        if record is not None and not update and is_whole(entry, record, place.folder, file.quant):
            return _result(record, place.folder, file.quant, 0)
        hub.refuse_if_offline(offline)
        with _alone(place, entry.name):
            record = read_record(place.record)
            on_progress(PullProgress("looking up", entry.repository or entry.name, 0, entry.download_bytes(quant)))
            commit, wanted = _announced(entry, file, record, update)
            if record is None:
                record = PulledRecord(entry.name, entry.repository or "", entry.revision, commit)
            record = replace(record, repository=entry.repository or "", commit=commit)
            return _Pull(place, record, on_progress, cancelled).run(wanted, file.quant)
    except OSError as error:
        where = error.filename or place.folder
        raise PullError(f"{where}: {error.strerror or error}; is the data folder writable?") from error


def is_whole(entry: CatalogueEntry, record: PulledRecord, folder: Path, quant: str) -> bool:
    """Whether all files of a quantization are there, its encoder and companions included."""
    names = [PurePosixPath(path).name for one in entry.companions for path in one.paths]
    common = [file for file in record.files if file.is_mmproj or file.name in names]
    n_files = len(entry.file(quant).paths) + len(names) + (len(entry.mmproj.paths) if entry.mmproj is not None else 0)
    files = [*record.of_quant(quant), *common]
    same = all(file.commit == record.commit for file in files)
    return len(files) == n_files and same and not missing_files(folder, files)


def _result(record: PulledRecord, folder: Path, quant: str, fetched_bytes: int) -> PullResult:
    mmproj = record.mmproj
    return PullResult(
        name=record.name,
        quant=quant,
        commit=record.commit,
        paths=tuple(folder / file.name for file in record.of_quant(quant)),
        mmproj=None if mmproj is None else folder / mmproj.name,
        fetched_bytes=fetched_bytes,
    )


class _Pull:
    """One pull under way."""

    def __init__(
        self, place: PullPlace, record: PulledRecord, on_progress: OnProgress, cancelled: Callable[[], bool]
    ) -> None:
        self._folder, self._place, self._record = place.folder, place, record
        self._on_progress, self._cancelled = on_progress, cancelled
        self._done_bytes = self._total_bytes = 0

    def run(self, wanted: list[_Wanted], quant: str) -> PullResult:
        write_record(self._place.record, self._record)  # the commit is kept to from the first byte on
        missing = [one for one in wanted if not self._is_here(one)]
        self._total_bytes = sum(one.expected_bytes for one in wanted)
        self._done_bytes = self._total_bytes - sum(one.expected_bytes for one in missing)
        self._check_disk(missing)
        for one in missing:
            self._fetch(one)
            self._done_bytes += one.expected_bytes
        return _result(self._record, self._folder, quant, sum(one.expected_bytes for one in missing))

    def _is_here(self, wanted: _Wanted) -> bool:
        """Whether the file is there as announced; then it belongs to the record's commit too."""
        for file in self._record.files:
            if file.name == wanted.name and not missing_files(self._folder, [file]):
                git_sha1 = wanted.git_sha1 if wanted.sha256 is None else None
                same = file.sha256 == wanted.sha256 or (
                    git_sha1 is not None and _git_sha1(self._folder / file.name) == git_sha1
                )
                if same and file.commit != self._record.commit:
                    self._write_down(replace(file, commit=self._record.commit))
                return same
        return False

    def _write_down(self, file: PulledFile) -> None:
        self._record = self._record.with_file(file)
        write_record(self._place.record, self._record)

    def _check_disk(self, missing: list[_Wanted]) -> None:
        """Raises PullError if what is missing would not leave DISK_RESERVE_BYTES free."""
        here_bytes = sum(_size(self._part(one)) for one in missing)
        needed_bytes = sum(one.expected_bytes for one in missing) - here_bytes
        free_bytes = shutil.disk_usage(self._folder).free
        if missing and needed_bytes + DISK_RESERVE_BYTES > free_bytes:
            raise PullError(
                f"{self._record.name}: {_gib(needed_bytes)} to fetch, and {_gib(DISK_RESERVE_BYTES)} to stay free, "
                f"do not fit: {self._folder} has {_gib(free_bytes)}; free some space, or take a smaller model or "
                "another --data-dir"
            )

    def _fetch(self, wanted: _Wanted) -> None:
        part = self._part(wanted)
        self._drop_other_parts(part, wanted.name)
        is_all_there = wanted.size_bytes is None and _size(part) > 0 and self._hash(wanted, part) == wanted.sha256
        if not is_all_there:  # a server asked for what stands behind the end of a file answers with an error
            tell = partial(self._tell, "fetching", wanted)
            hub.fetch(wanted.url, part, wanted.size_bytes, tell, self._cancelled)
        sha256 = self._check(wanted, part)
        part.replace(self._folder / wanted.name)
        size_bytes = _size(self._folder / wanted.name)
        commit = self._record.commit
        self._write_down(
            PulledFile(wanted.name, wanted.remote, commit, size_bytes, sha256, wanted.quant, wanted.is_mmproj)
        )

    def _check(self, wanted: _Wanted, part: Path) -> str:
        """The SHA-256 of what was fetched. What is not as announced is deleted, and PullError raised."""
        sha256 = self._hash(wanted, part)
        wrong = ""
        if wanted.sha256 is not None and sha256 != wanted.sha256:
            wrong = f"its SHA-256 is {sha256[:12]}…, announced was {wanted.sha256[:12]}…"
        elif wanted.sha256 is None and wanted.git_sha1 is not None and _git_sha1(part) != wanted.git_sha1:
            wrong = f"its git hash is not {wanted.git_sha1[:12]}…"
        elif wanted.name.lower().endswith(".gguf"):
            try:
                read_gguf_header(part)
            except ModelFileError as error:
                wrong = str(error).removeprefix(f"{part}: ")
        if wrong:
            part.unlink(missing_ok=True)
            raise PullError(f"{wanted.name}: {wrong}; it was deleted: pull again, and if it stays so, report it")
        return sha256

    def _hash(self, wanted: _Wanted, part: Path) -> str:
        digest = hashlib.sha256()
        n_bytes = 0
        with part.open("rb") as file:
            while chunk := file.read(_HASH_CHUNK_BYTES):
                if self._cancelled():
                    raise PullStoppedError("stopped; what was fetched is kept, and the next pull goes on from there")
                digest.update(chunk)
                n_bytes += len(chunk)
                self._tell("checking", wanted, n_bytes)
        return digest.hexdigest()

    def _tell(self, step: str, wanted: _Wanted, size_bytes: int) -> None:
        total = max(self._total_bytes, self._done_bytes + size_bytes)
        self._on_progress(PullProgress(step, wanted.name, self._done_bytes + size_bytes, total))

    def _part(self, wanted: _Wanted) -> Path:
        """Named by what is announced, so that parts of two versions are never put together."""
        version = (wanted.sha256 or wanted.git_sha1 or "")[:16]
        return self._folder / f"{wanted.name}.{version}.part"

    def _drop_other_parts(self, part: Path, name: str) -> None:
        for other in self._folder.glob(f"{name}.*.part"):
            if other != part:
                other.unlink(missing_ok=True)


def _announced(
    entry: CatalogueEntry, file: CatalogueFile, record: PulledRecord | None, update: bool
) -> tuple[str, list[_Wanted]]:
    """The commit, and the files to be had from it. Raises PullError."""
    if entry.repository is None:
        assert file.url is not None  # the catalogue was checked
        size_bytes = None if file.approximate else file.size_bytes
        name = f"{entry.name}{PurePosixPath(file.paths[0]).suffix}"
        wanted = _Wanted(file.url, file.url, name, size_bytes, file.size_bytes, file.sha256, None, file.quant)
        return "", [wanted]
    pinned = record is not None and record.commit and record.repository == entry.repository and not update
    revision = record.commit if record is not None and pinned else entry.revision
    found = hub.look_up(entry.repository, revision)
    parts = [(path, file.quant, False) for path in file.paths]
    parts += [(path, "", False) for companion in entry.companions for path in companion.paths]
    if entry.mmproj is not None:
        parts += [(path, "", True) for path in entry.mmproj.paths]
    return found.commit, [_of_hub(found, path, quant, is_mmproj) for path, quant, is_mmproj in parts]


def _of_hub(found: hub.RemoteRepository, path: str, quant: str, is_mmproj: bool) -> _Wanted:
    """The announced file of ``path``; repositories have been known to change the case of a name."""
    alike = [path] if path in found.files else [one for one in found.files if one.lower() == path.lower()]
    if len(alike) != 1:
        there = ", ".join(sorted(one for one in found.files if one.endswith(PurePosixPath(path).suffix))) or "none"
        raise PullError(
            f"{found.name}: no {path} at commit {found.commit[:8]} (there are: {there}); the catalogue is out of date, "
            "download the file you want and `hearth models add` it"
        )
    file = found.files[alike[0]]
    if file.sha256 is None and file.git_sha1 is None:
        raise PullError(f"{found.name}: {path} has no checksum on the hub; it is not fetched")
    name = PurePosixPath(path).name
    url = hub.file_url(found.name, found.commit, file.path)
    return _Wanted(file.path, url, name, file.size_bytes, file.size_bytes, file.sha256, file.git_sha1, quant, is_mmproj)


@contextmanager
def _alone(place: PullPlace, name: str) -> Iterator[None]:
    """The right to pull a model; two at a time would write into one file. Raises PullError."""
    place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(place.folder / f".{name}.pulling", timeout=0, mode=0o600)
    try:
        lock.acquire()
    except Timeout:
        raise PullError(f"{name}: another Hearth is pulling it already; wait for its end") from None
    try:
        yield
    finally:
        lock.release()


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / GIB:.1f} GiB"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _git_sha1(path: Path) -> str:
    """Git's name of a blob: of small files the hub tells no other checksum."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
