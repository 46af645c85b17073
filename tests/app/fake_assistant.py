"""An assistant without models: what it answers follows from the words it is sent. Its store is the real one."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hearth.attachments import HeardRecording
from hearth.events import (
    Citation,
    CitationsFound,
    Done,
    Notice,
    Phase,
    Reply,
    Timings,
    Transcribed,
    TurnEvent,
    TurnFailed,
)
from hearth.model_library import ModelLibrary
from hearth.models.types import FinishReason, TextDelta, Usage
from hearth.multimodal.errors import PerceptionCancelled, PerceptionError
from hearth.multimodal.transcription import NoSpeechError
from hearth.multimodal.transcripts import Transcript, TranscriptSegment
from hearth.settings import Settings
from hearth.store.conversations import ConversationStore
from hearth.store.errors import NotFoundError
from hearth.store.records import Attachment, Document, PassageRecord, SearchHit
from hearth.store.store import Store

SLOW_WORDS = 2000  # many minutes: only stopping ends it
SLOW_WORD_S = 0.4
WORD_S = 0.03
FACT = "The meeting about the blue kettle is in room 12."


def path_of(source: Any) -> Path:
    return Path(source.source if isinstance(source, HeardRecording) else source)


def sha256_of(source: Any) -> str:
    return hashlib.sha256(path_of(source).read_bytes()).hexdigest()


class FakeMemory:
    """Documents by words only, in memory."""

    def __init__(self) -> None:
        self._documents: dict[str, tuple[Document, str]] = {}
        self.recordings: dict[str, str] = {}

    def add(
        self,
        path: Path,
        on_progress: Callable[[float], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Document:
        data = Path(path).read_bytes()
        name = Path(path).name
        for step in range(5):
            if on_progress is not None:
                on_progress(step / 5)
            if cancelled():
                raise PerceptionError(f"{name}: stopped")
            time.sleep(0.03)
        if b"\x00" in data:
            raise PerceptionError(f"{name}: not a document; memory takes text, Markdown, PDF, Word and HTML")
        sha256 = hashlib.sha256(data).hexdigest()
        document = Document(sha256[:12], name, name, "text", "text/plain", sha256, 1, 1, "ready", "", time.time())
        self._documents[document.id] = (document, data.decode())
        return document

    def search(self, query: str, k: int = 5) -> list[SearchHit]:
        words = query.lower().split()
        return [
            SearchHit(document, self.passages(document.id)[0], 0.5, 0.5, 1, 1)
            for document, text in self._documents.values()
            if any(word in text.lower() for word in words)
        ][:k]

    def passages(self, document_id: str) -> list[PassageRecord]:
        document, text = self._documents[document_id]
        return [PassageRecord(f"{document.id}-0", document.id, 0, text, 1, 0, len(text), "")]

    def list(self) -> list[Document]:
        return [document for document, _ in self._documents.values()]

    def recording_of(self, document_id: str) -> str | None:
        return self.recordings.get(document_id)

    def forget(self, document_id: str) -> None:
        if document_id not in self._documents:
            raise NotFoundError(f"document {document_id}: not in memory")
        del self._documents[document_id]


class FakeAssistant:
    """The surface of ``hearth.Assistant`` that the server uses.

    “slow …” writes until it is stopped, “fail …” ends in an error, “cite …” answers from a source; pictures are
    apples, recordings ask about them. Anything else is echoed.
    """

    def __init__(self, data_dir: Path) -> None:
        self._store = Store.open(data_dir)
        self._data_dir = data_dir
        self.memory = FakeMemory()
        self.settings = Settings(data_dir=data_dir)
        self.library = ModelLibrary(data_dir)
        self.state = "ready"
        self.hearing_s = 0.2
        self.seen: list[dict[str, Any]] = []

    @property
    def conversations(self) -> ConversationStore:
        return self._store.conversations

    def load(self) -> None:
        pass

    def status(self) -> dict[str, Any]:
        return {
            "model": "pocket",
            "state": self.state,
            "fraction": None,
            "note": "",
            "n_ctx": 1024,
            "data_dir": str(self._data_dir),
        }

    def attachment_path(self, sha256: str) -> Path:
        return self._store.blobs.path(sha256)

    def close(self) -> None:
        self._store.close()

    hears_by_itself = False

    def transcribe(
        self,
        recording: Path,
        *,
        on_progress: Callable[[float], None],
        on_segment: Callable[[TranscriptSegment], None],
        cancelled: Callable[[], bool],
    ) -> Transcript:
        """Hears “What is this?” in German in every recording; nothing in one named “silent”."""
        for step in range(4):
            on_progress(step / 4)
            if cancelled():
                raise PerceptionCancelled(f"{recording.name}: cancelled")
            time.sleep(self.hearing_s / 4)
        if "silent" in recording.name:
            raise NoSpeechError(f"no speech found in {recording.name}")
        segment = TranscriptSegment(0.0, 1.0, "What is this?")
        on_segment(segment)
        return Transcript.of((segment,), 1.0, "de", 0.98, "transcribe")

    def transcript(self, sha256: str) -> Transcript | None:
        kept = self._store.transcripts.get(sha256)
        return None if kept is None else Transcript.from_dict(kept)

    def stream(
        self,
        text: str = "",
        *,
        images: Sequence[Path] = (),
        audio: Sequence[Path | HeardRecording] = (),
        documents: Sequence[Path] = (),
        conversation: str | None = None,
        cancelled: threading.Event | None = None,
        **_: Any,
    ) -> Iterator[TurnEvent]:
        stopped = cancelled or threading.Event()
        self.seen.append({"text": text, "images": images, "audio": audio, "documents": documents})
        attachments = [
            self._keep(path_of(path), kind)
            for kind, paths in (("picture", images), ("sound", audio), ("document", documents))
            for path in paths
        ]
        conversation = conversation or self.conversations.create(text[:60]).id
        if images:
            yield Phase("seeing", detail=Path(images[0]).name)
            stopped.wait(0.1)
        for recording in audio:
            said = "What is this?"
            if isinstance(recording, HeardRecording):
                said = recording.text
                if recording.transcript is not None:
                    self._store.transcripts.put(sha256_of(recording), "fake", recording.transcript.to_dict())
            else:
                yield Phase("transcribing", 0.5, Path(recording).name)
                stopped.wait(0.1)
            yield Transcribed("recording", said, 1.0)
            text = f"{text}\n{said}".strip()
        self.conversations.append(conversation, "user", text, attachments=tuple(attachments))
        if text.startswith("fail"):
            error = PerceptionError("letter.pdf: encrypted; remove its password and send it again")
            self.conversations.append(conversation, "assistant", "", reply={"error": str(error)})
            yield TurnFailed(error, conversation)
            return
        yield Phase("prefilling", 0.4)
        yield from self._answer(conversation, text, bool(images), bool(documents), stopped)

    def _answer(
        self, conversation: str, text: str, sees: bool, reads: bool, stopped: threading.Event
    ) -> Iterator[TurnEvent]:
        citations: tuple[Citation, ...] = ()
        if text.startswith("cite the talk"):
            citations = (Citation(1, "talk", "talk.wav", None, 0, len(FACT), FACT, 0.9, start_s=42.0),)
            yield CitationsFound(citations)
            answer = "It is in room 12 [1]."
        elif reads or text.startswith("cite"):
            citations = (Citation(1, "d1", "Notes of Monday", 3, 0, len(FACT), FACT, 0.9),)
            yield CitationsFound(citations)
            answer = "The meeting is in **room 12** [1]."
        elif text.startswith("slow"):
            answer = "word " * SLOW_WORDS
        elif sees:
            answer = "It is a red apple."
        else:
            answer = f"You said: {text}"
        yield Phase("generating")
        pause_s = SLOW_WORD_S if text.startswith("slow") else WORD_S
        said = ""
        reason: FinishReason = "stop"
        for word in answer.split(" "):
            if stopped.wait(pause_s):
                reason = "cancelled"
                break
            said += word + " "
            yield TextDelta(word + " ")
        if text.startswith("notice"):
            yield Notice("Page 2 is a scan; send it as a picture to ask about it.")
        reply = Reply(
            text=said.strip(),
            conversation_id=conversation,
            message_id="",
            finish_reason=reason,
            citations=tuple(replace(citation, used=True) for citation in citations),
            usage=Usage(prompt_tokens=180, cached_tokens=150, completion_tokens=24),
            timings=Timings(ttft_s=0.42, decode_tokens_per_s=31.4),
            model="pocket",
        )
        kept = asdict(replace(reply, text="", citations=()))
        message = self.conversations.append(
            conversation, "assistant", reply.text, citations=tuple(map(asdict, reply.citations)), reply=kept
        )
        yield Done(replace(reply, message_id=message.id))

    def _keep(self, path: Path, kind: Any) -> Attachment:
        data = path.read_bytes()
        sha256 = self._store.blobs.put(data, name=path.name, mime="application/octet-stream")
        return Attachment(sha256, path.name, kind, "application/octet-stream", len(data))
