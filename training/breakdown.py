"""What the language model answers about pictures, kind by kind and skill by skill, without an export.

python -m training.breakdown --runs training/runs/pocket [--stage chat] [--n 40] [--held-out] [--imagined]

An answer counts as right where the likeliest token is the right one at every place of it, those before it given. That
is kinder than the exam, which lets the model go on from what it said itself, and takes a minute.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F  # noqa: N812

from training.answers import Examiner
from training.batches import Rows, pack_chats
from training.chats import IMAGE_ID, Chat
from training.checkpoints import saved_network
from training.dialogues import IMAGINED_KINDS, KINDS, Composer
from training.fonts import fonts
from training.imagined import ImaginedScenes, Imaginer, TokenMaker
from training.material import load_material
from training.pictures import Painter
from training.pocket_network import PocketNetwork
from training.printing import Printer
from training.scene_pool import FreshScenes, Scenes, encode_scenes
from training.smalltalk import Talker
from training.view_batches import SIDE_PX

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Tally:
    """Answers asked for, those wholly right, and their loss in nats."""

    asked: int = 0
    right: int = 0
    loss: float = 0.0


class Breakdown:
    """Asks ``network`` what ``composer`` draws; ``tallies`` by skill and kind of scene."""

    def __init__(self, network: PocketNetwork, tokenizer: Tokenizer, composer: Composer) -> None:
        self.network = network.eval()
        self.tokenizer = tokenizer
        self.composer = composer
        self.tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)

    @torch.inference_mode()
    def ask(self, kind: str) -> None:
        """Every skill once on one scene, or on one group of scenes."""
        scenes = self.composer.scenes.draw(kind)
        visual = torch.cat(self._visual(scenes))
        for skill in self.composer.skills(scenes):
            exchange = self.composer.ask(scenes, skill)
            chat = Chat(tuple(self.composer.turn(exchange, scenes)), skill)
            losses, right = self._answered(pack_chats([chat], self.tokenizer, random.Random(0)), visual)
            tally = self.tallies[(skill, kind)]
            tally.asked += 1
            tally.right += right
            tally.loss += losses

    def _visual(self, scenes: Scenes) -> list[torch.Tensor]:
        source = self.composer.scenes
        if isinstance(source, ImaginedScenes):
            return [source.visual(scene) for scene in scenes]
        return [one.tokens for one in encode_scenes(list(scenes), self.network.vision, torch.device("cpu"))]

    def _answered(self, rows: Rows, visual: torch.Tensor) -> tuple[float, bool]:
        language = self.network.language
        places = (rows.ids == IMAGE_ID)[..., None]
        embedded = language.embedding(rows.ids.clamp(min=0)).masked_scatter(places, visual)
        logits = language.logits(language(embedded, rows.positions)[:, :-1]).float()
        learnt = rows.weights[:, 1:] > 0
        wanted = rows.ids[:, 1:][learnt]
        losses = F.cross_entropy(logits[learnt], wanted, reduction="sum")
        return float(losses), bool((logits[learnt].argmax(-1) == wanted).all())


def composer_of(network: PocketNetwork, tokenizer: Tokenizer, args: argparse.Namespace) -> Composer:
    """Draws scenes, or imagines them, and asks for them, by what training sees or by what is kept from it."""
    rng, held_out = random.Random(args.seed), args.held_out
    material = load_material(args.data, 7, styled=False)
    painter = Painter(material, rng, Printer(fonts(), rng, held_out=held_out), held_out=held_out, side_px=2 * SIDE_PX)
    scenes: FreshScenes | ImaginedScenes = FreshScenes(painter)
    if args.imagined:
        imaginer = Imaginer(material, rng, painter.printer, held_out=held_out)
        scenes = ImaginedScenes(painter, imaginer, TokenMaker(network.language, tokenizer))
        scenes.fit(network.vision, torch.device("cpu"))
    return Composer(scenes, Examiner(rng, held_out=held_out), Talker(rng, held_out=held_out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "training" / "runs" / "pocket")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--stage", default="chat", help="whose checkpoint")
    parser.add_argument("--n", type=int, default=40, help="scenes of each kind")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--held-out", action="store_true", help="sentences, fonts and compositions kept for the exam")
    parser.add_argument("--imagined", action="store_true", help="scenes that are not drawn, as in the stage bind")
    args = parser.parse_args()
    network, tokenizer = saved_network(args.runs, args.stage)
    breakdown = Breakdown(network, tokenizer, composer_of(network, tokenizer, args))
    for kind in IMAGINED_KINDS if args.imagined else KINDS:
        for _ in range(args.n):
            breakdown.ask(kind)
    print(f"{'skill':14} {'kind':11} {'asked':>5} {'right':>6} {'nats an answer':>15}")
    for (skill, kind), tally in sorted(breakdown.tallies.items()):
        share, loss = tally.right / tally.asked, tally.loss / tally.asked
        print(f"{skill:14} {kind:11} {tally.asked:5} {share:6.0%} {loss:15.2f}")


if __name__ == "__main__":
    main()
