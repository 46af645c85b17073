"""Opens the data folder: one owner, one database, blobs beside it, vectors when first needed."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from hearth.store.blobs import BlobStore
from hearth.store.conversations import ConversationStore
from hearth.store.database import Database
from hearth.store.derived import DerivedFiles
from hearth.store.documents import DocumentStore
from hearth.store.errors import from_os_error
from hearth.store.lock import FolderLock
from hearth.store.transcripts import TranscriptStore
from hearth.store.vectors import VectorIndex

DATABASE_NAME = "hearth.sqlite3"


class Store:
    """What lasts: ``conversations``, ``documents``, ``blobs``, their ``transcripts`` and what is ``derived`` from them.

    All may be used from any thread.
    """

    def __init__(self, data_dir: Path, lock: FolderLock, database: Database) -> None:
        """For ``open``, which is how to get a store."""
        self.data_dir = data_dir
        self._lock = lock
        self._database = database
        self._index = VectorIndex(data_dir / "vectors")
        self.derived = DerivedFiles(data_dir / "derived")
        self.blobs = BlobStore(data_dir / "blobs", database, self.derived)
        self.blobs.sweep()
        self.conversations = ConversationStore(database, self.blobs)
        self.documents = DocumentStore(database, self.blobs, self._index)
        self.transcripts = TranscriptStore(database)

    @classmethod
    def open(cls, data_dir: Path) -> Store:
        """Opens ``data_dir``, made with mode 0700 if it is not there, and migrates what an older Hearth left.

        Raises DataFolderInUseError if another process has it open; StoreError if it cannot be written, is damaged or
        was made by a newer Hearth. Then nothing is held open.
        """
        data_dir = Path(data_dir).absolute()
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise from_os_error(data_dir, error) from error
        lock = FolderLock(data_dir)
        try:
            database = Database(data_dir / DATABASE_NAME)
            try:
                return cls(data_dir, lock, database)
            except BaseException:
                database.close()
                raise
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        """Empties the write-ahead log, closes everything and gives the folder back. Idempotent."""
        try:
            self._index.close()
            self._database.close()
        finally:
            self._lock.release()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
