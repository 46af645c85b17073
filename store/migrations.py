"""The database's schema as numbered steps: entry n-1 takes a database of version n-1 to version n. Never edit a step.

Word indexes (FTS5) keep no text of their own (``content=''``); their rowid is the row's ``number``.
"""

from __future__ import annotations

_CONVERSATIONS = (
    """CREATE TABLE blobs (
        sha256 TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        mime TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        created_at REAL NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE conversations (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        title TEXT NOT NULL,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        n_messages INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    "CREATE INDEX conversations_by_time ON conversations (updated_at DESC, id DESC)",
    """CREATE TABLE messages (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        conversation_number INTEGER NOT NULL REFERENCES conversations (number) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant')),
        text TEXT NOT NULL,
        citations TEXT NOT NULL,
        frozen TEXT,
        fingerprint TEXT,
        reply TEXT,
        created_at REAL NOT NULL,
        UNIQUE (conversation_number, position)
    ) STRICT""",
    """CREATE TABLE attachments (
        message_number INTEGER NOT NULL REFERENCES messages (number) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        sha256 TEXT NOT NULL REFERENCES blobs (sha256),
        name TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('picture', 'sound', 'document')),
        mime TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        PRIMARY KEY (message_number, position)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX attachments_by_blob ON attachments (sha256)",
    "CREATE VIRTUAL TABLE titles_words USING fts5(title, content='', tokenize='unicode61 remove_diacritics 2')",
    "CREATE VIRTUAL TABLE messages_words USING fts5(text, content='', tokenize='unicode61 remove_diacritics 2')",
)

_DOCUMENTS = (
    """CREATE TABLE documents (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        title TEXT NOT NULL,
        name TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('text', 'picture')),
        mime TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        n_pages INTEGER NOT NULL,
        n_passages INTEGER NOT NULL DEFAULT 0,
        state TEXT NOT NULL CHECK (state IN ('ingesting', 'ready', 'failed')),
        detail TEXT NOT NULL DEFAULT '',
        created_at REAL NOT NULL
    ) STRICT""",
    "CREATE INDEX documents_by_blob ON documents (sha256)",
    """CREATE TABLE passages (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        document_number INTEGER NOT NULL REFERENCES documents (number) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        text TEXT NOT NULL,
        page INTEGER,
        start INTEGER NOT NULL,
        "end" INTEGER NOT NULL,
        section TEXT NOT NULL,
        UNIQUE (document_number, position)
    ) STRICT""",
    "CREATE VIRTUAL TABLE passages_words USING fts5("
    "heading, text, content='', tokenize='porter unicode61 remove_diacritics 2')",
    # vectors that may stand in the index although no ready document has them: about to be added, or not yet deleted
    "CREATE TABLE stray_vectors (space TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (space, id)) STRICT, WITHOUT ROWID",
)

_RECORDINGS = (
    "ALTER TABLE passages ADD COLUMN start_s REAL",  # of a recording: when the passage is said
    "ALTER TABLE passages ADD COLUMN end_s REAL",
    """CREATE TABLE transcripts (
        sha256 TEXT NOT NULL REFERENCES blobs (sha256) ON DELETE CASCADE,
        made_by TEXT NOT NULL,
        body TEXT NOT NULL,
        created_at REAL NOT NULL,
        PRIMARY KEY (sha256, made_by)
    ) STRICT, WITHOUT ROWID""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_CONVERSATIONS, _DOCUMENTS, _RECORDINGS)
LATEST = len(MIGRATIONS)
