"""Transcripts as text, JSON, and the subtitles SRT and WebVTT."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Literal, get_args

from hearth.multimodal.transcripts import Transcript, TranscriptSegment

Format = Literal["txt", "json", "srt", "vtt"]
FORMATS: tuple[Format, ...] = get_args(Format)
MAX_CUE_CHARS = 84  # of a subtitle with word times: two lines
_ARROW = "-->"


def write_transcript(transcript: Transcript, form: Format) -> str:
    """The transcript as a file's content, which ends with a line break.

    Subtitles are the segments; where the times of words are known, long ones are divided.
    """
    if form == "json":
        fields = {name: value for name, value in transcript.to_dict().items() if name != "made_by"}
        return json.dumps(fields, ensure_ascii=False) + "\n"
    if form == "txt":
        return "".join(line for segment in transcript.segments for line in _lines(segment))
    cues = [cue for segment in transcript.segments for cue in _cues(segment)]
    if form == "srt":
        return "".join(
            f"{number}\n{_time(start, ',')} --> {_time(end, ',')}\n{_cue_text(text)}\n\n"
            for number, (start, end, text) in enumerate(cues, 1)
        )
    body = "".join(f"{_time(start, '.')} --> {_time(end, '.')}\n{_escaped(text)}\n\n" for start, end, text in cues)
    return f"WEBVTT\n\n{body}"


def _lines(segment: TranscriptSegment) -> Iterable[str]:
    """The text; where the times of words are known, a line for each word, with when it begins in seconds."""
    if not segment.words:
        yield f"{segment.text}\n"
    for word in segment.words:
        yield f"{word.start_s:.2f}\t{word.text.strip()}\n"


def _cues(segment: TranscriptSegment) -> Iterable[tuple[float, float, str]]:
    if not segment.words:
        yield segment.start_s, segment.end_s, segment.text
        return
    start, end, text = segment.words[0].start_s, segment.words[0].end_s, ""
    for word in segment.words:
        if text and len(text) + len(word.text) > MAX_CUE_CHARS:
            yield start, end, text.strip()
            start, text = word.start_s, ""
        text += word.text
        end = word.end_s
    yield start, end, text.strip()


def _time(time_s: float, point: str) -> str:
    """“00:01:02,345”."""
    ms = round(time_s * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{point}{ms % 1000:03d}"


def _cue_text(text: str) -> str:
    """Without what would end a subtitle or begin a time."""
    return " ".join(text.replace(_ARROW, "→").split())


def _escaped(text: str) -> str:
    return _cue_text(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
