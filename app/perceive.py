"""First step of a turn: pictures, recordings and documents become content of the question."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hearth.attachments import HeardRecording, RawFile
from hearth.events import MemoryChanged, PhaseName, Transcribed
from hearth.memory import Memory, ScannedDocumentError
from hearth.models.errors import RequestError
from hearth.multimodal.errors import UnsupportedMediaError
from hearth.prompt import PictureContent, SoundContent
from hearth.reporter import Reporter
from hearth.runtime import Runtime
from hearth.speech import keep_transcript, transcribed
from hearth.store.records import Attachment, AttachmentKind, Document

if TYPE_CHECKING:
    from hearth.multimodal.pictures import Picture
    from hearth.multimodal.transcripts import Transcript
    from hearth.multimodal.video import Video

MAX_SCANNED_PAGES = 4  # of a scanned document, looked at as pictures in one turn
MAX_VIDEO_FRAMES = 4  # of a video
_FRAME_QUALITY = 90  # of JPEG


@dataclass(slots=True)
class Perceived:
    """What was sent, as far as it was read."""

    text: str = ""  # typed and spoken
    pictures: list[PictureContent] = field(default_factory=list)
    sounds: list[SoundContent] = field(default_factory=list)  # for a model that hears
    attachments: list[Attachment] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    transcripts: list[str] = field(default_factory=list)


class Perceiver:
    """Reads the attachments of one turn into ``perceived``.

    Raises PerceptionError, RequestError, StoreError and background.Cancelled.
    """

    def __init__(self, runtime: Runtime, memory: Memory, reporter: Reporter, perceived: Perceived) -> None:
        self._runtime = runtime
        self._memory = memory
        self._reporter = reporter
        self._perceived = perceived

    def see(self, files: list[RawFile]) -> None:
        """Pictures, for a model that takes them."""
        if not files:
            return
        from hearth.multimodal.pictures import read_picture

        self._reporter.phase("seeing", detail=files[0].name)
        self._runtime.chat.start()  # loads beside the encoder
        if self._runtime.is_elsewhere:
            self._reporter.wait_for(self._runtime.chat, "loading")
        if not self._runtime.sees:
            raise RequestError(
                f"the model {self._runtime.model_name!r} cannot see pictures; send text only, or use --model pocket"
            )
        read: list[tuple[RawFile, Picture]] = [(file, read_picture(file.data, file.name)) for file in files]
        if not self._runtime.is_elsewhere:
            self._runtime.senses.get(self._reporter.cancelled.is_set)
        for file, picture in read:
            self._reporter.check()
            self._keep(file, picture.sha256, "picture", picture.mime)
            self._perceived.pictures.append(PictureContent(picture.sha256, file.name))

    def hear(self, files: list[RawFile]) -> None:
        """Recordings: a model that hears gets them as they are; for others their words are added to the question.

        Of videos a model that sees gets some frames too.
        """
        if not files:
            return
        from hearth.multimodal.sound import read_sound

        self._runtime.chat.start()
        cancelled = self._reporter.cancelled.is_set
        if self._runtime.may_hear:
            self._reporter.wait_for(self._runtime.chat, "loading", self._runtime.load_fraction)
        watched = [(file, self._see_frames(file)) for file in files]
        heard = [(file, video is not None) for file, video in watched if video is None or video.has_sound]
        if self._runtime.may_hear and self._runtime.hears:
            for file, _ in heard:
                sound = read_sound(file.data, file.name, cancelled=cancelled)
                self._keep(file, sound.sha256, "sound", "audio")
                self._perceived.sounds.append(SoundContent(sound.sha256, file.name))
            return
        for file, seen in heard:
            if file.heard is not None:
                self._take_words(file, file.heard)
            else:
                self._transcribe(file, seen=seen)

    def _transcribe(self, file: RawFile, *, seen: bool) -> None:
        """Adds the words of a recording, or of a video of which frames were ``seen``."""
        from hearth.multimodal.sound import read_sound
        from hearth.multimodal.transcription import NoSpeechError

        cancelled = self._reporter.cancelled.is_set
        self._reporter.phase("transcribing", 0.0, file.name)
        sound = read_sound(file.data, file.name, cancelled=cancelled)
        try:
            transcript = transcribed(
                self._runtime,
                sound,
                on_progress=lambda fraction: self._reporter.listening(fraction, file.name, sound.duration_s),
                cancelled=cancelled,
            )
        except NoSpeechError:
            if not seen:
                raise
            self._reporter.notice(f"{file.name}: nothing is said in it; only its pictures count.")
            self._keep(file, sound.sha256, "sound", "audio")
            return
        self._keep(file, sound.sha256, "sound", "audio")
        self._add_words(file, sound.sha256, transcript.text, transcript)

    def _take_words(self, file: RawFile, heard: HeardRecording) -> None:
        """Adds the words of a recording as its user gave them."""
        sha256 = hashlib.sha256(file.data).hexdigest()
        self._keep(file, sha256, "sound", "audio")
        self._add_words(file, sha256, heard.text.strip(), heard.transcript)

    def _add_words(self, file: RawFile, sha256: str, text: str, transcript: Transcript | None) -> None:
        duration_s, language, prob = 0.0, None, None
        if transcript is not None:
            duration_s, language, prob = transcript.duration_s, transcript.language, transcript.language_prob
            keep_transcript(self._runtime, sha256, transcript)
        if text:
            self._perceived.transcripts.append(text)
            self._perceived.text = f"{self._perceived.text}\n{text}".strip()
            self._reporter.emit(Transcribed(file.name, text, duration_s, language, prob))

    def read(self, files: list[RawFile]) -> None:
        """Documents: they go into memory; one that is all scans is looked at as pictures instead."""
        for file in files:
            self._reporter.phase("reading", 0.0, file.name)
            try:
                ingested = self._memory.ingest(
                    file,
                    self._progress("reading", file),
                    self._reporter.cancelled.is_set,
                )
            except ScannedDocumentError:
                if not self._runtime.sees:
                    raise
                self._see_pages(file)
                continue
            document = ingested.document
            self._keep(file, document.sha256, "document", document.mime)
            self._perceived.documents.append(document)
            if ingested.new:
                self._reporter.emit(MemoryChanged(document.id, document.title, document.n_passages))
            for notice in ingested.notices:
                self._reporter.notice(notice)

    def _see_pages(self, file: RawFile) -> None:
        """Takes the first pages of a scanned document as pictures."""
        from hearth.documents_apart import page_png, read_document

        cancelled = self._reporter.cancelled.is_set
        pages = read_document(file.data, file.name, cancelled=cancelled).scanned_pages
        shown = pages[:MAX_SCANNED_PAGES]
        left = f"; the other {len(pages) - len(shown)} are not looked at" if len(pages) > len(shown) else ""
        self._reporter.notice(
            f"{file.name} has no text, only scans: its first {len(shown)} pages are looked at as pictures{left}."
        )
        drawn = []
        for number in shown:
            self._reporter.check()
            png = page_png(file.data, number, name=file.name, cancelled=cancelled)
            drawn.append(RawFile(png, f"{file.name}, page {number}.png"))
        self.see(drawn)

    def _see_frames(self, file: RawFile) -> Video | None:
        """Takes frames of a video as pictures; None if it is none, or cannot be looked at."""
        from hearth.multimodal.kinds import sniff
        from hearth.multimodal.video import read_video

        if sniff(file.data, file.name) != "video" or not self._runtime.sees:
            return None
        try:
            video = read_video(
                file.data,
                file.name,
                n_frames=MAX_VIDEO_FRAMES,
                on_progress=self._progress("seeing", file),
                cancelled=self._reporter.cancelled.is_set,
            )
        except UnsupportedMediaError as error:  # its sound may be readable
            self._reporter.notice(str(error))
            return None
        drawn, times = [], []
        for frame in video.frames:
            out = io.BytesIO()
            frame.image.save(out, "JPEG", quality=_FRAME_QUALITY)
            times.append(f"{int(frame.time_s) // 60}:{int(frame.time_s) % 60:02d}")
            drawn.append(RawFile(out.getvalue(), f"{file.name}, at {times[-1]}.jpg"))
        self.see(drawn)
        self._reporter.notice(f"{file.name} is looked at in {len(drawn)} frames, at {', '.join(times)}.")
        return video

    def _progress(self, name: PhaseName, file: RawFile) -> Callable[[float], None]:
        return lambda fraction: self._reporter.phase(name, fraction, file.name)

    def _keep(self, file: RawFile, sha256: str, kind: AttachmentKind, mime: str) -> None:
        self._runtime.store.blobs.put(file.data, name=file.name, mime=mime)
        self._perceived.attachments.append(Attachment(sha256, file.name, kind, mime, len(file.data)))
