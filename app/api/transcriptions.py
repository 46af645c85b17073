"""``/v1/audio/transcriptions``: what is said in a recording, as text, JSON or subtitles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from hearth.api.errors import ApiError
from hearth.api.fields import Fields
from hearth.api.jobs import Stop
from hearth.api.models import TRANSCRIPTION_MODEL
from hearth.api.service import Service

if TYPE_CHECKING:
    from hearth.multimodal.transcription import Transcript

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
_FIELDS = ("model", "language", "prompt", "response_format", "temperature", "timestamp_granularities[]", "stream")


@dataclass(frozen=True, slots=True)
class TranscriptionCall:
    """A recording and the form in which its words are wanted."""

    data: bytes
    name: str
    response_format: str


def read_call(service: Service, form: dict[str, Any], data: bytes, name: str) -> TranscriptionCall:
    """``form`` are the fields beside the file, as texts. Raises ApiError."""
    fields = Fields(form, _FIELDS)
    service.check_model(fields.need("model", "string"), TRANSCRIPTION_MODEL)
    fields.refuse_unless("language", ("", "en", "english"), "the model hears English; leave it out")
    fields.refuse_unless("prompt", ("",), "not supported here; leave it out")
    fields.refuse_unless("stream", ("false",), "not supported here; leave it out")
    fields.refuse_unless("timestamp_granularities[]", ("segment",), "take segment")
    fields.refuse_unless("temperature", ("", "0", "0.0"), "words are chosen by beam search; leave it out")
    fields.refuse_unless("response_format", FORMATS, f"take {', '.join(FORMATS)}")
    return TranscriptionCall(data, name, form.get("response_format") or "json")


def transcribe(service: Service, call: TranscriptionCall, stop: Stop) -> Response:
    """An empty text if nobody speaks. Raises PerceptionError (also when it was stopped)."""
    from hearth.multimodal.transcription import NoSpeechError

    try:
        transcript = service.transcribe(call.data, call.name, stop)
    except NoSpeechError:
        transcript = None
    match call.response_format:
        case "text":
            return PlainTextResponse((transcript.text if transcript else "") + "\n")
        case "srt":
            return PlainTextResponse(_srt(transcript), media_type="application/x-subrip")
        case "vtt":
            return PlainTextResponse(_vtt(transcript), media_type="text/vtt")
        case "verbose_json":
            return JSONResponse(_verbose(transcript))
    return JSONResponse({"text": transcript.text if transcript else ""})


def _verbose(transcript: Transcript | None) -> dict[str, Any]:
    segments = transcript.segments if transcript else ()
    return {
        "task": "transcribe",
        "language": "english",
        "duration": transcript.duration_s if transcript else 0.0,
        "text": transcript.text if transcript else "",
        "segments": [
            {"id": index, "start": segment.start_s, "end": segment.end_s, "text": segment.text}
            for index, segment in enumerate(segments)
        ],
    }


def _srt(transcript: Transcript | None) -> str:
    cues = [
        f"{number}\n{_time(segment.start_s, ',')} --> {_time(segment.end_s, ',')}\n{_line(segment.text)}\n"
        for number, segment in enumerate(transcript.segments if transcript else (), 1)
    ]
    return "\n".join(cues)


def _vtt(transcript: Transcript | None) -> str:
    cues = [
        f"{_time(segment.start_s, '.')} --> {_time(segment.end_s, '.')}\n{_line(segment.text)}\n"
        for segment in (transcript.segments if transcript else ())
    ]
    return "\n".join(["WEBVTT\n", *cues])


def _line(text: str) -> str:
    """On one line, and without what would read as a time."""
    return " ".join(text.split()).replace("-->", "→")


def _time(seconds: float, point: str) -> str:
    total_ms = round(seconds * 1000)
    minutes, ms = divmod(total_ms, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{ms // 1000:02d}{point}{ms % 1000:03d}"


def missing_file() -> ApiError:
    return ApiError("file is missing; send the recording as multipart/form-data", param="file")
