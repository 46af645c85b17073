"""Measures the pocket models through ``hearth.Assistant``: held-out pictures, sentences, names and voices, greedy."""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

import hearth

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that ``python training/evaluate.py`` finds the recipe's other modules

from training.exams import TARGETS, Exam, exams  # noqa: E402


@dataclass(frozen=True)
class Row:
    """One line of the table; ``interval`` is the 95 % Wilson interval of ``score``."""

    skill: str
    n: int
    score: float
    interval: tuple[float, float]
    target: str


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The interval in which the true share lies with 95 % confidence."""
    share = right / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return (centre - spread) / scale, (centre + spread) / scale


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def answer(assistant: hearth.Assistant, exam: Exam) -> str:
    """Says every user message of the exam in turn, and returns the last answer."""
    conversation: str | None = None
    text = ""
    for message in exam.chat.messages[:-1]:
        if message.role == "user":
            reply = assistant.ask(
                message.text,
                images=[png(image) for image in message.images],
                conversation=conversation,
                temperature=0.0,
                max_tokens=96,
                use_memory=False,
            )
            conversation, text = reply.conversation_id, reply.text
    return text


def measure(assistant: hearth.Assistant, skill: str, number: int, data: Path, shown: int = 0) -> Row:
    """The share of right answers in one skill; prints up to ``shown`` wrong ones."""
    right = 0
    drawn = exams(skill, number, data)
    for exam in drawn:
        said = answer(assistant, exam)
        if exam.is_right(said):
            right += 1
        elif shown:
            shown -= 1
            print(f"    {exam.chat.messages[-2].text[-90:]!r} -> {said[:110]!r}, wanted {exam.chat.expected}")
    return Row(skill, len(drawn), right / len(drawn), wilson(right, len(drawn)), f"≥ {TARGETS[skill]:.0%}")


def speech_rows(number: int) -> list[Row]:
    """Word error rates of the speech model, measured by its own module."""
    from training.speech_eval import evaluate_speech

    return [Row(row.skill, row.n, row.score, row.interval, row.target) for row in evaluate_speech(number)]


def show(rows: list[Row]) -> None:
    print(f"{'skill':28} {'n':>5} {'score':>7}   {'95 % interval':15} target")
    for row in rows:
        low, high = row.interval
        print(f"{row.skill:28} {row.n:5d} {row.score:7.1%}   {low:6.1%} – {high:6.1%} {row.target}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with fluent-emoji/")
    parser.add_argument("--n", type=int, default=100, help="questions per skill")
    parser.add_argument("--skill", choices=tuple(TARGETS), action="append", help="only this skill (may be repeated)")
    parser.add_argument("--no-speech", action="store_true", help="leave out the speech model")
    parser.add_argument("--show-wrong", type=int, default=0, metavar="N", help="print up to N wrong answers per skill")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    args = parser.parse_args()
    if args.n < 1:
        parser.error(f"--n is {args.n}, but must be at least 1")
    with tempfile.TemporaryDirectory() as folder, hearth.Assistant(data_dir=folder, model="pocket") as assistant:
        skills = args.skill or TARGETS
        rows = [measure(assistant, skill, args.n, args.data, args.show_wrong) for skill in skills]
    if not args.no_speech and not args.skill:
        rows += speech_rows(min(args.n, 60))
    if args.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
    else:
        show(rows)


if __name__ == "__main__":
    main()
