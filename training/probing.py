"""How well the vision half sees, before any language model reads it: held-out scenes at the visual tokens.

python -m training.probing --runs training/runs/pocket [--stage look] [--n 200]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer

from training.aligning import normalised
from training.asking import IGNORED
from training.checkpoints import saved_network
from training.material import load_material
from training.pictures import Material
from training.pocket_network import PocketNetwork
from training.view_batches import ViewBatches

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("single", "counted", "pair", "photograph", "words", "chart")


@torch.inference_mode()
def probe(network: PocketNetwork, material: Material, tokenizer: Tokenizer, n: int, seed: int = 5) -> dict[str, float]:
    """Share of scenes where the name that some token finds likeliest is right for a thing, and of characters read."""
    batches = ViewBatches(material, tokenizer, seed, held_out=True)
    found: dict[str, float] = {}
    language = network.language
    for kind in KINDS:
        right = total = letters = spelt = 0
        for start in range(0, n, 32):
            parts = batches.parts_of(
                [batches.draw(kind) for _ in range(min(32, n - start))], whole_only=kind not in ("words", "chart")
            )
            batch = batches.packed(parts)
            fine, coarse = network.vision.feature_maps(normalised(batch.pixels))
            normed = language.norm(network.vision.visual_tokens(fine, coarse, batch.places))
            if kind in ("words", "chart"):
                rows = batch.characters
                guessed = network.spelling(normed[rows[:, 0], rows[:, 1]]).argmax(-1)
                wanted = rows[:, 2:]
                asked = (wanted > 0) & (wanted != IGNORED)
                letters += int(asked.sum())
                spelt += int((guessed == wanted)[asked].sum())
                continue
            logits = network.spelling.word_logits(normed, language).log_softmax(-1)
            for view, (scene, _) in enumerate(parts):
                best = logits[view].amax(0)
                scores = {n: float(best[batches.word_ids(n)].mean()) for n in batches.names()}
                total += 1
                right += max(scores, key=scores.__getitem__) in {thing.name for thing in scene.things}
        found[kind] = spelt / max(1, letters) if kind in ("words", "chart") else right / max(1, total)
    return {kind: round(share, 3) for kind, share in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=ROOT / "training" / "runs" / "pocket")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--stage", default="look", help="whose checkpoint")
    parser.add_argument("--n", type=int, default=200, help="scenes of each kind")
    args = parser.parse_args()
    network, tokenizer = saved_network(args.runs, args.stage)
    material = load_material(args.data, 7, styled=False)
    print(json.dumps(probe(network.eval(), material, tokenizer, args.n)))


if __name__ == "__main__":
    main()
