"""What was heard in recordings, with its times: kept with the file it comes from, and gone with it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from hearth.store.database import Database
from hearth.store.words import storable


class TranscriptStore:
    """Transcripts by the recording's SHA-256 and by what made them. All methods may be called from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, sha256: str, made_by: str, transcript: Mapping[str, Any]) -> None:
        """Keeps ``transcript``, which must be JSON-ready, in the place of an earlier one of the same making.

        Its blob must have been put; it goes with that. Raises StoreError.
        """
        body = storable(json.dumps(transcript, ensure_ascii=False))
        with self._database.write() as transaction:
            transaction.execute(
                "INSERT OR REPLACE INTO transcripts (sha256, made_by, body, created_at) VALUES (?, ?, ?, ?)",
                (sha256, made_by, body, time.time()),
            )

    def get(self, sha256: str, made_by: str | None = None) -> dict[str, Any] | None:
        """What ``made_by`` heard in a recording, or the newest transcript of any; None if there is none."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT body FROM transcripts WHERE sha256 = ?1 AND (?2 IS NULL OR made_by = ?2) "
                "ORDER BY created_at DESC LIMIT 1",
                (sha256, made_by),
            ).fetchone()
        return None if row is None else dict(json.loads(row["body"]))
