"""Measures the pocket models through ``hearth.Assistant``: held-out pictures, sentences, names and voices, greedy.

python training/evaluate.py [--n 200] [--skill "name, Noto"] [--pocket FOLDER] [--against FOLDER] [--json]
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

import hearth
from hearth import assets

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that ``python training/evaluate.py`` finds the recipe's other modules

from training.exams import TARGETS, Exam, ExamBoard  # noqa: E402
from training.intervals import wilson  # noqa: E402
from training.measures import Row, latency_rows, search_row, show, show_differences, size_row, speech_rows, spoken_row  # noqa: E402
from training.smalltalk import BEYOND, NO_PICTURE  # noqa: E402

REFUSING = (BEYOND[:20], NO_PICTURE[:16])  # how an answer begins that refuses
OTHER_ROWS = ("search", "size", "latency", "speech", "spoken")
REFUSALS = frozenset(("beyond", "no picture"))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def answer(assistant: hearth.Assistant, exam: Exam, audio: bytes | None = None) -> str:
    """Says every user message of the exam in turn, the last one by ``audio`` if given, and returns the last answer."""
    conversation: str | None = None
    text = ""
    asked = [message for message in exam.chat.messages[:-1] if message.role == "user"]
    for message in asked:
        last = message is asked[-1]
        reply = assistant.ask(
            "" if last and audio is not None else message.text,
            images=[png(image) for image in message.images],
            audio=[audio] if last and audio is not None else [],
            conversation=conversation,
            temperature=0.0,
            max_tokens=120,
            use_memory=False,
            json_schema=exam.schema if last else None,
        )
        conversation, text = reply.conversation_id, reply.text
    return text


def measure(assistant: hearth.Assistant, board: ExamBoard, skill: str, number: int, shown: int = 0) -> tuple[Row, int]:
    """The mean score in one skill, and how often the answer was a refusal; prints up to ``shown`` wrong answers."""
    total, refused = 0.0, 0
    drawn = board.exams(skill, number)
    for exam in drawn:
        said = answer(assistant, exam)
        score = exam.score(said)
        total += score
        refused += said.startswith(REFUSING)
        if score < 1 and shown:
            shown -= 1
            print(f"    {exam.chat.messages[-2].text[-90:]!r} -> {said[:110]!r}, wanted {exam.chat.expected}")
    row = Row(skill, len(drawn), total / len(drawn), wilson(total, len(drawn)), f"≥ {TARGETS[skill]:.0%}")
    return row, refused


def measured(folder: Path, board: ExamBoard, args: argparse.Namespace) -> list[Row]:
    """All rows that were asked for, of the models in ``folder``; shown as they come unless JSON is wanted."""
    assets.pocket_dir = lambda: folder  # the runtime asks for it there
    wanted = tuple(args.skill or (*TARGETS, *OTHER_ROWS))
    rows: list[Row] = []
    refused = answerable = 0
    with tempfile.TemporaryDirectory() as data, hearth.Assistant(data_dir=data, model="pocket") as assistant:
        for skill in wanted:
            before = len(rows)
            if skill in TARGETS:
                row, refusals = measure(assistant, board, skill, args.n, args.show_wrong)
                rows.append(row)
                refused += 0 if skill in REFUSALS else refusals
                answerable += 0 if skill in REFUSALS else row.n
            elif skill == "spoken":
                rows.append(spoken_row(lambda exam, audio: answer(assistant, exam, audio), board, args.n))
            elif skill == "latency":
                rows += latency_rows(board)
            if not args.json:
                show(rows[before:])
        if answerable:
            share = refused / answerable
            rows.append(Row("answerable, but refused", answerable, share, wilson(refused, answerable), "< 3%"))
    rows += [search_row(folder, board)] if "search" in wanted else []
    rows += [size_row(folder)] if "size" in wanted else []
    rows += speech_rows(folder, args.n) if "speech" in wanted else []
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with fluent-emoji/")
    parser.add_argument("--pocket", type=Path, default=assets.pocket_dir(), help="folder of the models to measure")
    parser.add_argument(
        "--against", type=Path, metavar="FOLDER", help="measure the models in FOLDER by the same questions, and compare"
    )
    parser.add_argument("--n", type=int, default=200, help="questions per skill")
    parser.add_argument(
        "--skill", choices=(*TARGETS, *OTHER_ROWS), action="append", help="only this row (may be repeated)"
    )
    parser.add_argument("--show-wrong", type=int, default=0, metavar="N", help="print up to N wrong answers per skill")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    args = parser.parse_args()
    if args.n < 1:
        parser.error(f"--n is {args.n}, but must be at least 1")
    for folder in filter(None, (args.pocket, args.against)):
        if not (folder / "pocket.toml").is_file():
            parser.error(f"{folder} is not a folder of pocket models: there is no pocket.toml in it")
    board = ExamBoard(args.data)
    rows = measured(args.pocket.resolve(), board, args)
    others = measured(args.against.resolve(), board, args) if args.against else []
    if args.json:
        found: dict[str, Any] = {"pocket": args.pocket.name, "rows": [asdict(row) for row in rows]}
        print(json.dumps({**found, "against": [asdict(row) for row in others]} if others else found))
        return
    print()
    show(rows)
    if others:
        print(f"\nAgainst {args.against}, in points:")
        show_differences(rows, others)


if __name__ == "__main__":
    main()
