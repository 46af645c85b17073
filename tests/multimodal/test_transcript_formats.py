"""Transcripts as text, JSON and subtitles."""

from __future__ import annotations

import json

from hearth.multimodal.transcript_formats import write_transcript
from hearth.multimodal.transcripts import Transcript, TranscriptSegment, Word

PLAIN = Transcript.of(
    (TranscriptSegment(0.0, 1.5, "One --> two."), TranscriptSegment(3661.25, 3662.0, "<b>Three</b> & four.")),
    3700.0,
    "de",
    0.9,
    "transcribe",
)


def test_text_and_json() -> None:
    assert write_transcript(PLAIN, "txt") == "One --> two.\n<b>Three</b> & four.\n"
    fields = json.loads(write_transcript(PLAIN, "json"))
    assert (fields["language"], fields["language_prob"], fields["text"]) == ("de", 0.9, PLAIN.text)
    assert fields["segments"][1]["start_s"] == 3661.25
    assert "made_by" not in fields


def test_subtitles_cannot_be_broken_by_what_is_said() -> None:
    assert write_transcript(PLAIN, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\nOne → two.\n\n2\n01:01:01,250 --> 01:01:02,000\n<b>Three</b> & four.\n\n"
    )
    assert write_transcript(PLAIN, "vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nOne → two.\n\n"
        "01:01:01.250 --> 01:01:02.000\n&lt;b&gt;Three&lt;/b&gt; &amp; four.\n\n"
    )


def test_words_divide_long_subtitles() -> None:
    words = tuple(Word(second, second + 0.5, f" word{second}", 0.9) for second in range(30))
    segment = TranscriptSegment(0.0, 29.5, "".join(word.text for word in words).strip(), words)
    transcript = Transcript.of((segment,), 30.0, "en", None, "transcribe")
    cues = write_transcript(transcript, "srt").strip().split("\n\n")
    assert len(cues) > 1
    assert all(len(cue.splitlines()[2]) <= 84 for cue in cues)
    assert " ".join(cue.splitlines()[2] for cue in cues) == segment.text
    assert write_transcript(transcript, "txt").splitlines()[1] == "1.00\tword1"
