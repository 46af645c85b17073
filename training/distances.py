"""How far pictures lie from questions for them, and from questions for others: what the memory's limit is set by.

python -m training.distances [--pocket FOLDER] [--n 100] [--limit 0.5]
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hearth import assets
from hearth.memory import MAX_PICTURE_DISTANCE
from hearth.multimodal.picture_encoder import PictureEncoder
from training.captions import describe
from training.exams import ExamBoard
from training.scenes import Scene

ROOT = Path(__file__).resolve().parent.parent
UNRELATED = (
    "When does the train leave?",
    "How do I reset the router?",
    "What did Maria say about the contract?",
    "Who wrote the report on sales?",
    "The invoice of last March",
    "Thank you, that was helpful.",
    "And what about the second point?",
    "Shorten the summary to three lines.",
    "Which of the two offers is cheaper?",
    "Is the warranty still valid?",
    "Good morning, how are you?",
    "What did we agree on yesterday?",
    "Translate this into Spanish.",
    "How much rent do we pay?",
    "Who else was invited?",
    "Why did the build fail?",
    "Tell me more.",
    "When is the deadline for the application?",
    "What does clause seven say?",
    "How many hours did I work in May?",
)
QUESTIONS: dict[str, Callable[[Scene], str]] = {
    "its description": lambda scene: describe(scene, places=False),
    "its name": lambda scene: scene.things[0].name,
    "where it is": lambda scene: f"Could you get me the shot that has a {scene.things[0].name} on it?",
    "something else": lambda scene: random.Random(scene.things[0].name).choice(UNRELATED),
}
Floats = NDArray[np.float32]


def of_others(distances: Floats, names: list[str]) -> Floats:
    """Distances of questions (rows) to pictures (columns), NaN where a picture shows what its question asks for."""
    same = np.array(names)[:, None] == np.array(names)[None, :]
    others: Floats = np.where(same, np.nan, distances)
    return others


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with fluent-emoji/")
    parser.add_argument("--pocket", type=Path, default=assets.pocket_dir(), help="folder of the models to measure")
    parser.add_argument("--n", type=int, default=100, help="pictures, and questions of each kind")
    parser.add_argument("--limit", type=float, default=MAX_PICTURE_DISTANCE, help="distance up to which one is found")
    args = parser.parse_args()
    encoder = PictureEncoder.load(args.pocket)
    painter = ExamBoard(args.data).painter(random.Random("distances"))
    scenes = [painter.single() for _ in range(args.n)]
    names = [scene.things[0].name for scene in scenes]
    pictures = np.stack([encoder.embed_picture(scene.image) for scene in scenes])
    print(f"{'question for':16} {'median':>7} {'90 %':>6} {'of others':>10} {'found':>7} {'others found':>13}")
    for kind, question in QUESTIONS.items():
        distances = 1 - np.stack([encoder.embed_text(question(scene)) for scene in scenes]) @ pictures.T
        own, others = distances.diagonal(), of_others(distances, names)
        others = others[~np.isnan(others)]
        middle, most, other = np.median(own), np.quantile(own, 0.9), np.median(others)
        found, wrong = (own <= args.limit).mean(), (others <= args.limit).mean()
        print(f"{kind:16} {middle:7.2f} {most:6.2f} {other:10.2f} {found:7.0%} {wrong:13.0%}")


if __name__ == "__main__":
    main()
