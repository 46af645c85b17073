"""The rows of the evaluation that are no exams: search, size, time, speech."""

from __future__ import annotations

import io
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

import hearth
from training.captions import describe
from training.exams import Exam, ExamBoard
from training.intervals import wilson
from training.scenes import Scene

SEARCHED = 500
TOP = 5
SPOKEN_SKILLS = ("name", "colour", "count", "position")
TIMED = 12


@dataclass(frozen=True)
class Row:
    """One line of the table; ``interval`` is the 95 % interval of ``score``; ``unit`` is a share where it is empty."""

    skill: str
    n: int
    score: float
    interval: tuple[float, float]
    target: str
    unit: str = ""


def show(rows: list[Row]) -> None:
    for row in rows:
        if row.unit:
            low, high = (f"{bound:.2f}" for bound in row.interval)
            print(f"{row.skill:42} {row.n:5d} {row.score:7.2f} {row.unit:3} {low} – {high}  {row.target}")
        else:
            low, high = (f"{bound:6.1%}" for bound in row.interval)
            print(f"{row.skill:42} {row.n:5d} {row.score:7.1%}   {low} – {high}  {row.target}")


def show_differences(rows: list[Row], others: list[Row]) -> None:
    """How many points more or less than in ``others`` the scores of ``rows`` are, of those that are shares."""
    differences = {
        row.skill: 100 * (row.score - other.score) for row, other in zip(rows, others, strict=True) if not row.unit
    }
    if not differences:
        print("no scores to compare: choose a --skill that is one")
        return
    for skill, points in differences.items():
        print(f"{skill:42} {points:+7.1f}")
    worst = min(differences, key=differences.__getitem__)
    mean = sum(differences.values()) / len(differences)
    print(f"{'mean':42} {mean:+7.1f}; least: {worst}, {differences[worst]:+.1f}")


def search_row(folder: Path, board: ExamBoard) -> Row:
    """Share of pictures among the first five of ``SEARCHED`` for a description that fits no other of them."""
    from hearth.multimodal.picture_encoder import PictureEncoder

    encoder = PictureEncoder.load(folder)
    painter = board.painter(random.Random("search"))
    scenes: dict[str, Scene] = {}
    for _ in range(40 * SEARCHED):
        scene = painter.single()
        scenes.setdefault(describe(scene, places=False), scene)
        if len(scenes) == SEARCHED:
            break
    pictures = np.stack([encoder.embed_picture(scene.image) for scene in scenes.values()])
    texts = np.stack([encoder.embed_text(text) for text in scenes])
    likeness = texts @ pictures.T
    better = (likeness > likeness.diagonal()[:, None]).sum(axis=1)
    found = int((better < TOP).sum())
    return Row(
        f"picture search, among the first {TOP} of {SEARCHED}",
        len(scenes),
        found / len(scenes),
        wilson(found, len(scenes)),
        "≥ 85%",
    )


def size_row(folder: Path) -> Row:
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    return Row("size of the pocket models", 1, size, (size, size), "≤ 64", "MB")


def latency_rows(board: ExamBoard) -> list[Row]:
    """Loading up to an answer, and questions on new pictures: to the first token, and to the end of the answer.

    All of it in a data folder of its own: pictures that were asked about before are in the KV store.
    """
    first: list[float] = []
    whole: list[float] = []
    started_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as data, hearth.Assistant(data_dir=data, model="pocket") as assistant:
        assistant.ask("Hello", use_memory=False)
        loading = [time.perf_counter() - started_s]
        for exam in board.exams("name", TIMED + 1):
            buffer = io.BytesIO()
            exam.chat.messages[0].images[0].save(buffer, "PNG")
            question = exam.chat.messages[0].text
            reply = assistant.ask(question, images=[buffer.getvalue()], temperature=0.0, use_memory=False)
            first.append(reply.timings.ttft_s)
            whole.append(reply.timings.total_s)
    named = (
        ("warm load, to the first answer", loading, "≤ 3"),
        ("picture question, first token", first[1:], "≤ 0.4"),  # the first one loads the encoder
        ("picture question, whole answer", whole[1:], "≤ 1.2"),
    )
    return [
        Row(name, len(times), statistics.median(times), (min(times), max(times)), target, "s")
        for name, times, target in named
    ]


def spoken_row(ask: Callable[[Exam, bytes | None], str], board: ExamBoard, number: int) -> Row:
    """How much of the typed score is left when the same questions on pictures are spoken in held-out voices."""
    from hearth.multimodal.sound import SAMPLE_RATE
    from training.speech_eval import spoken
    from training.speech_voices import Speaker

    rng, speaker = random.Random("spoken"), Speaker()
    typed = heard = 0.0
    exams = [exam for skill in SPOKEN_SKILLS for exam in board.exams(skill, number // len(SPOKEN_SKILLS))]
    for exam in exams:
        typed += exam.score(ask(exam, None))
        buffer = io.BytesIO()
        soundfile.write(buffer, spoken(rng, exam.chat.messages[-2].text, speaker, None), SAMPLE_RATE, format="WAV")
        heard += exam.score(ask(exam, buffer.getvalue()))
    share = min(1.0, heard / max(typed, 1.0))
    return Row(
        "spoken question, of the typed score", len(exams), share, wilson(share * len(exams), len(exams)), "≥ 85%"
    )


def speech_rows(folder: Path, number: int) -> list[Row]:
    """Word error rates of the speech model in ``folder``, measured by its own module."""
    from training.speech_eval import evaluate_speech

    rows = evaluate_speech(number, folder / "speech.pt")
    return [Row(row.skill, row.n, row.score, row.interval, row.target) for row in rows]
