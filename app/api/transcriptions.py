"""``/v1/audio/transcriptions`` and ``…/translations``: what is said in a recording, as text, JSON or subtitles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse, PlainTextResponse, Response

from hearth.api.errors import ApiError
from hearth.api.fields import Fields
from hearth.api.jobs import Stop
from hearth.api.models import speech_model
from hearth.api.service import Service
from hearth.models.errors import RequestError
from hearth.multimodal.languages import language_code, language_name
from hearth.multimodal.transcript_formats import write_transcript
from hearth.multimodal.transcripts import SpeechOptions, Task, Transcript

if TYPE_CHECKING:
    from collections.abc import Mapping

_SUBTITLES: Final[Mapping[str, str]] = {"srt": "application/x-subrip", "vtt": "text/vtt"}
FORMATS: Final = ("json", "text", "srt", "verbose_json", "vtt")
_TIMES: Final = "timestamp_granularities[]"
_FIELDS: Final = ("model", "language", "prompt", "response_format", "temperature", _TIMES, "stream")


@dataclass(frozen=True, slots=True)
class TranscriptionCall:
    """A recording, how it is heard, and the form in which its words are wanted."""

    data: bytes
    name: str
    options: SpeechOptions
    response_format: str


def read_call(service: Service, form: dict[str, Any], data: bytes, name: str, task: Task) -> TranscriptionCall:
    """``form`` are the fields beside the file, as texts. Raises ApiError."""
    fields = Fields(form, _FIELDS)
    service.check_model(fields.need("model", "string"), speech_model(service.runtime))
    fields.refuse_unless("prompt", ("",), "not supported here; leave it out")
    fields.refuse_unless("stream", ("false",), "not supported here; leave it out")
    fields.refuse_unless(_TIMES, ("segment", "word"), "take segment or word")
    fields.refuse_unless("temperature", ("", "0", "0.0"), "words are chosen by beam search; leave it out")
    fields.refuse_unless("response_format", FORMATS, f"take {', '.join(FORMATS)}")
    language = form.get("language") or service.runtime.settings.speech_language
    try:
        code = language_code(language) if language else None
    except RequestError as error:
        raise ApiError(str(error), param="language") from None
    options = SpeechOptions(code, task, words=form.get(_TIMES) == "word")
    return TranscriptionCall(data, name, options, form.get("response_format") or "json")


def transcribe(service: Service, call: TranscriptionCall, stop: Stop) -> Response:
    """An empty text if nobody speaks. Raises PerceptionError (also when it was stopped), RequestError."""
    from hearth.multimodal.transcription import NoSpeechError

    try:
        transcript = service.transcribe(call.data, call.name, stop, call.options)
    except NoSpeechError:
        transcript = Transcript("", (), 0.0, call.options.language or "en", None, call.options.task)
    match call.response_format:
        case "text":
            return PlainTextResponse(transcript.text + "\n")
        case "srt" | "vtt" as form:
            return PlainTextResponse(write_transcript(transcript, form), media_type=_SUBTITLES[form])
        case "verbose_json":
            return JSONResponse(_verbose(transcript, words=call.options.words))
    return JSONResponse({"text": transcript.text})


def _verbose(transcript: Transcript, *, words: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "task": transcript.task,
        "language": language_name(transcript.language).lower(),
        "duration": transcript.duration_s,
        "text": transcript.text,
        "segments": [
            {
                "id": index,
                "start": segment.start_s,
                "end": segment.end_s,
                "text": segment.text,
                "temperature": segment.temperature,
                "avg_logprob": segment.avg_logprob,
                "no_speech_prob": segment.no_speech_prob,
            }
            for index, segment in enumerate(transcript.segments)
        ],
    }
    if words:
        every = [word for segment in transcript.segments for word in segment.words]
        found["words"] = [{"word": word.text.strip(), "start": word.start_s, "end": word.end_s} for word in every]
    return found


def missing_file() -> ApiError:
    return ApiError("file is missing; send the recording as multipart/form-data", param="file")
