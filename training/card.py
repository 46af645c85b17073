"""Puts measured scores into the table of the models' card.

python training/evaluate.py --json > scores.json
python -m training.card scores.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CARD = ROOT / "assets" / "pocket" / "README.md"
# how the card calls a row of the evaluation, where it does not call it as that does
LABELS = {
    "name": "name the one thing, of 421, in its own style",
    "name, Noto": "the same in Noto's style, never trained on",
    "product, kind": "kind of a photographed product, of 43",
    "product, exact": "exact product, of 81",
    "relation": "what lies where beside what",
    "comparison": "which is bigger, which are more",
    "yes or no": "statements, yes or no",
    "printed word": "read a printed word or number",
    "several pictures": "two or three pictures: which, what in common, what differs",
    "bar chart": "read a value off a bar chart",
    "JSON": "JSON by schema, fields right",
    "grounded": "answer from 4 to 8 passages, and its number",
    "not in sources": '"not in these sources" when it is not',
    "told facts": "facts told in the chat",
    "sums": "sums up to 100",
    "about Hearth": "about Hearth, from its documents",
    "beyond": "beyond its world: says so",
    "no picture": "a picture question without a picture: says so",
    "spoken question, of the typed score": "spoken question on a picture, of the typed score",
    "picture search, among the first 5 of 500": "text to picture search, among the first 5 of 500",
    "size of the pocket models": "size of everything",
}


def line(row: dict[str, Any]) -> str:
    """A row of the card's table from one of the evaluation's."""
    label = LABELS.get(row["skill"], row["skill"])
    if row["unit"]:
        return f"| {label} | {row['n']} | {row['score']:.2f} {row['unit']} | {row['target']} |"
    low, high = (round(100 * bound) for bound in row["interval"])
    target = row["target"].replace("%", " %").replace("  ", " ")
    return f"| {label} | {row['n']} | {100 * row['score']:.1f} % [{low}, {high}] | {target} |"


def filled(card: str, rows: list[dict[str, Any]]) -> tuple[str, list[str]]:
    """The card with the lines of ``rows`` in place of those of the same label, and the labels that it lacks."""
    lines = {found.split(" | ")[0]: found for found in map(line, rows)}
    old = card.splitlines()
    missing = sorted(set(lines) - {one.split(" | ")[0] for one in old})
    return "\n".join(lines.get(one.split(" | ")[0], one) for one in old) + "\n", missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path, help="what evaluate.py printed with --json")
    parser.add_argument("--card", type=Path, default=CARD)
    args = parser.parse_args()
    card, missing = filled(args.card.read_text(), json.loads(args.scores.read_text())["rows"])
    args.card.write_text(card)
    for label in missing:
        print(f"the card has no row {label.removeprefix('| ')!r}")


if __name__ == "__main__":
    main()
