"""A video in a turn: frames for a model that sees, its words for all; silence is no error where frames are seen."""

from __future__ import annotations

import io
import re
import threading
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from hearth.attachments import RawFile
from hearth.events import Notice
from hearth.multimodal.errors import PerceptionError
from hearth.multimodal.transcription import NoSpeechError
from hearth.multimodal.transcripts import SpeechOptions, Transcript
from hearth.perceive import MAX_VIDEO_FRAMES, Perceived, Perceiver


def film(*, sound: bool) -> RawFile:
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        track = output.add_stream("aac", rate=48_000, layout="mono") if sound else None
        for number in range(30):
            picture = np.full((48, 64, 3), 8 * number, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
        if track is not None:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 144_000), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 48_000
            output.mux(track.encode(frame))
            output.mux(track.encode(None))
    return RawFile(out.getvalue(), "film.mkv")


class Transcriber:
    identity = "scripted"
    options = SpeechOptions()

    def __init__(self, text: str) -> None:
        self._text = text

    def transcribe(self, sound: Any, *_: Any, **__: Any) -> Any:
        if not self._text:
            raise NoSpeechError(f"no speech found in {sound.name}")
        return Transcript(self._text, (), sound.duration_s)


def perceive(file: RawFile, *, sees: bool = True, said: str = "hello") -> tuple[Perceived, list[str]]:
    events: list[Any] = []
    reporter = SimpleNamespace(
        emit=events.append,
        phase=lambda *_, **__: None,
        listening=lambda *_: None,
        notice=lambda text: events.append(Notice(text)),
        check=lambda: None,
        cancelled=threading.Event(),
    )
    runtime = SimpleNamespace(
        sees=sees,
        is_elsewhere=False,
        may_hear=False,
        model_name="m",
        chat=SimpleNamespace(start=lambda: None),
        senses=SimpleNamespace(get=lambda *_: None),
        transcriber=SimpleNamespace(get=lambda *_: Transcriber(said)),
        store=SimpleNamespace(
            blobs=SimpleNamespace(put=lambda *_, **__: ""),
            transcripts=SimpleNamespace(get=lambda *_: None, put=lambda *_: None),
        ),
    )
    perceived = Perceived(text="What happens?")
    Perceiver(runtime, None, reporter, perceived).hear([file])  # type: ignore[arg-type]
    return perceived, [event.text for event in events if isinstance(event, Notice)]


def test_frames_and_words() -> None:
    perceived, notices = perceive(film(sound=True))
    assert len(perceived.pictures) == MAX_VIDEO_FRAMES
    assert perceived.transcripts == ["hello"]
    assert [part.kind for part in perceived.attachments] == ["picture"] * MAX_VIDEO_FRAMES + ["sound"]
    assert len(notices) == 1
    assert re.fullmatch(r"film\.mkv is looked at in 4 frames, at 0:00, 0:0[01], 0:0[12], 0:02\.", notices[0])


def test_a_model_that_does_not_see_hears_as_before() -> None:
    perceived, notices = perceive(film(sound=True), sees=False)
    assert (perceived.pictures, perceived.transcripts, notices) == ([], ["hello"], [])
    with pytest.raises(PerceptionError, match=r"film\.mkv has no sound"):
        perceive(film(sound=False), sees=False)


@pytest.mark.parametrize("sound", [True, False])
def test_a_video_in_which_nothing_is_said(sound: bool) -> None:
    perceived, notices = perceive(film(sound=sound), said="")
    assert len(perceived.pictures) == MAX_VIDEO_FRAMES
    assert perceived.transcripts == []
    assert any("nothing is said" in notice for notice in notices) == sound


def test_an_unreadable_picture_track_leaves_the_sound() -> None:
    file = film(sound=True)
    perceived, notices = perceive(RawFile(file.data.replace(b"V_MPEG4/ISO/ASP", b"V_SECRET/NO/ONE"), file.name))
    assert (perceived.pictures, perceived.transcripts) == ([], ["hello"])
    assert "the codec 'V_SECRET/NO/ONE'" in notices[0]
