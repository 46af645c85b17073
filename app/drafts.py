"""Recordings written down before they are sent, so that their words can be seen and corrected: jobs of the server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hearth.attachments import HeardRecording
from hearth.models.errors import HearthError

if TYPE_CHECKING:
    from hearth.multimodal.transcripts import Transcript, TranscriptSegment

log = logging.getLogger("hearth.drafts")


class Transcribe(Protocol):
    """``Assistant.transcribe``, as far as it is used here."""

    def __call__(
        self,
        recording: Path,
        *,
        on_progress: Callable[[float], None],
        on_segment: Callable[[TranscriptSegment], None],
        cancelled: Callable[[], bool],
    ) -> Transcript: ...


@dataclass(frozen=True, slots=True)
class DraftState:
    """How far a recording is: ``text`` is what was heard so far; ``version`` grows with every change."""

    version: int = 0
    fraction: float = 0.0
    text: str = ""
    transcript: Transcript | None = None
    error: HearthError | None = None

    @property
    def finished(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.transcript is not None or self.error is not None


class RecordingDraft:
    """One recording being written down on a thread of its own. All methods may be called from any thread."""

    def __init__(self, path: Path, transcribe: Transcribe) -> None:
        """Begins at once."""
        self.path = path
        self.corrected: str | None = None  # the words as they are sent; None: as heard
        self._cancelled = threading.Event()
        self._state = DraftState()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, args=(transcribe,), name="hearth-draft", daemon=True).start()

    @property
    def state(self) -> DraftState:
        """How far it is."""
        with self._changed:
            return self._state

    def wait(self, version: int, timeout_s: float) -> DraftState:
        """The state as soon as it is newer than ``version``, or as it is after ``timeout_s``."""
        with self._changed:
            self._changed.wait_for(lambda: self._state.version > version, timeout_s)
            return self._state

    def cancel(self) -> None:
        """Ends the work within 200 ms."""
        self._cancelled.set()

    def recording(self) -> Path | HeardRecording:
        """What a turn is given: the recording with its words, or alone if it has none yet."""
        state = self.state
        if self.corrected is None and state.transcript is None:
            return self.path
        text = self.corrected if self.corrected is not None else state.text
        if not text.strip() and state.transcript is None:
            return self.path  # the turn says what is wrong with it
        return HeardRecording(self.path, text, state.transcript)

    def _run(self, transcribe: Transcribe) -> None:
        try:
            made = transcribe(
                self.path, on_progress=self._advance, on_segment=self._hear, cancelled=self._cancelled.is_set
            )
        except HearthError as error:
            self._fail(error)
        except Exception as error:  # the page goes on
            log.exception("transcribing %s raised", self.path.name)
            self._fail(HearthError(f"unexpected {type(error).__name__}: {error}; the log has the details"))
        else:
            self._update(lambda state: replace(state, transcript=made, text=made.text, fraction=1.0))

    def _fail(self, error: HearthError) -> None:
        self._update(lambda state: replace(state, error=error))

    def _advance(self, fraction: float) -> None:
        self._update(lambda state: replace(state, fraction=fraction))

    def _hear(self, segment: TranscriptSegment) -> None:
        self._update(lambda state: replace(state, text=f"{state.text} {segment.text}".strip()))

    def _update(self, change: Callable[[DraftState], DraftState]) -> None:
        with self._changed:
            self._state = replace(change(self._state), version=self._state.version + 1)
            self._changed.notify_all()
