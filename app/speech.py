"""Which speech model transcribes, by which program, and what is kept of its work."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hearth import assets
from hearth.models.errors import ModelFileError
from hearth.multimodal.speech_files import SpeechFiles, find_speech_model

if TYPE_CHECKING:
    from hearth.multimodal.sound import Sound
    from hearth.multimodal.transcription import Transcriber
    from hearth.multimodal.transcripts import SpeechBackend, SpeechOptions, Transcript, TranscriptSegment
    from hearth.runtime import Runtime
    from hearth.settings import Settings

log = logging.getLogger("hearth.speech")
Backend = Literal["whisper", "faster-whisper"]
BACKENDS: tuple[Backend, ...] = ("whisper", "faster-whisper")
TRANSCRIPTS_VERSION = 1  # of how recordings are read: other words are heard by another one
RECORD_NAME = "speech-backends.json"
RECORD_VERSION = 1


def speech_files(settings: Settings) -> SpeechFiles:
    """The files of the speech model in use. Raises ModelFileError."""
    if settings.speech_model is not None:
        return find_speech_model(settings.speech_model, settings.data_dir / "models" / "speech")
    checkpoint = assets.pocket_dir() / "speech.pt"
    if not checkpoint.is_file():
        raise ModelFileError(f"{checkpoint}: the speech model is missing; reinstall Hearth or run `make train`")
    return SpeechFiles("pocket", checkpoint, None)


def choose_backend(files: SpeechFiles, settings: Settings) -> Backend:
    """The program for a model: as the setting says; else the one whose format is there; else the measured one.

    Raises ModelFileError if the setting names one that cannot read the model.
    """
    from hearth.multimodal.faster_whisper_model import MISSING, is_installed

    wanted = settings.speech_backend
    if wanted == "whisper" and files.checkpoint is None:
        raise ModelFileError(
            f"speech model {files.name} is a folder of CTranslate2, which speech_backend = whisper cannot read; "
            "use auto, or a checkpoint (.pt)"
        )
    if wanted == "faster-whisper" and files.converted is None:
        raise ModelFileError(
            f"speech model {files.name} is not there in CTranslate2's format, which speech_backend = faster-whisper "
            f"needs; put its folder at {settings.data_dir / 'models' / 'speech' / f'faster-whisper-{files.name}'}, "
            "give the path of one, or use auto"
        )
    needs_it = wanted == "faster-whisper" or files.checkpoint is None
    if needs_it and not is_installed():
        raise ModelFileError(f"speech model {files.name}: {MISSING}")
    if needs_it:
        return "faster-whisper"
    if wanted == "whisper" or files.converted is None or not is_installed():
        return "whisper"
    measured = load_measurements(settings.data_dir).get(files.name, {})
    if set(BACKENDS) <= set(measured) and measured["faster-whisper"] < measured["whisper"]:
        return "faster-whisper"
    return "whisper"


def backend_loader(files: SpeechFiles, backend: Backend) -> Callable[[], SpeechBackend]:
    """What loads a model by a program that ``choose_backend`` gave."""
    from hearth.multimodal.transcription import converted_model, whisper_checkpoint

    if backend == "faster-whisper":
        assert files.converted is not None
        return converted_model(files.converted)
    assert files.checkpoint is not None
    return whisper_checkpoint(files.checkpoint, files.size)


def make_transcriber(settings: Settings) -> Transcriber:
    """The transcriber of the settings, not loaded. Raises ModelFileError."""
    from hearth.multimodal.transcription import Transcriber

    files = speech_files(settings)
    backend = choose_backend(files, settings)
    return Transcriber(backend_loader(files, backend), options_of(settings), _identity(files, backend))


def options_of(settings: Settings, *, words: bool = False) -> SpeechOptions:
    """How the settings have recordings transcribed."""
    from hearth.multimodal.transcripts import SpeechOptions

    return SpeechOptions(settings.speech_language, settings.speech_task, words, settings.speech_carry_text)


def transcribed(
    runtime: Runtime,
    sound: Sound,
    options: SpeechOptions | None = None,
    *,
    on_progress: Callable[[float], None] | None = None,
    on_segment: Callable[[TranscriptSegment], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Transcript:
    """The transcript of ``sound`` as it was kept, or made now. Raises what ``Transcriber.transcribe`` raises, and
    background.Cancelled."""
    from hearth.multimodal.transcripts import Transcript

    transcriber = runtime.transcriber.get(cancelled)
    chosen = options or transcriber.options
    made_by = _made_by(transcriber, chosen)
    kept = runtime.store.transcripts.get(sound.sha256, made_by)
    if kept is not None:
        try:
            return Transcript.from_dict(kept)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("the transcript of %s is not readable (%s); transcribed again", sound.name, error)
    made = transcriber.transcribe(sound, chosen, on_progress=on_progress, on_segment=on_segment, cancelled=cancelled)
    return replace(made, made_by=made_by)


def keep_transcript(runtime: Runtime, sha256: str, transcript: Transcript) -> None:
    """Stores what was heard with the recording, whose blob is there. Raises StoreError."""
    runtime.store.transcripts.put(sha256, transcript.made_by, transcript.to_dict())


def load_measurements(data_dir: Path) -> dict[str, dict[str, float]]:
    """Seconds of work for a second of sound, by model and program, as measured on this machine."""
    path = data_dir / RECORD_NAME
    try:
        record = json.loads(path.read_text("utf-8"))
        if record["version"] != RECORD_VERSION:
            return {}
        return {
            str(model): {str(backend): float(factor) for backend, factor in factors.items()}
            for model, factors in record["models"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s cannot be read (%s); measure again by `hearth bench speech`", path, error)
        return {}


def save_measurements(data_dir: Path, model: str, factors: Mapping[str, float]) -> None:
    """Keeps what was measured of ``model``, in the place of earlier figures. Raises StoreError."""
    from hearth.store.errors import from_os_error

    models = load_measurements(data_dir) | {model: dict(factors)}
    path = data_dir / RECORD_NAME
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix="unfinished-", dir=data_dir)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"version": RECORD_VERSION, "models": models}, file, indent=1)
        Path(temporary).replace(path)
    except OSError as error:
        raise from_os_error(path, error) from error


def _made_by(transcriber: Transcriber, options: SpeechOptions) -> str:
    parts: dict[str, Any] = {"version": TRANSCRIPTS_VERSION, "model": transcriber.identity, **asdict(options)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _identity(files: SpeechFiles, backend: Backend) -> str:
    """What changes when the model does, without reading all of it."""
    from hearth.multimodal.speech_files import CONVERTED_FILE

    path = files.checkpoint if backend == "whisper" else (files.converted or Path()) / CONVERTED_FILE
    assert path is not None
    status = path.stat()
    return f"{backend}:{path}:{status.st_size}:{status.st_mtime_ns}"
