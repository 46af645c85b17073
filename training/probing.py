"""How well the vision half sees, before any language model reads it: held-out scenes at the visual tokens.

python -m training.probing --runs training/runs/pocket [--stage look] [--n 200]

With ``--stage names`` it is the tower alone, by the classes of that stage: crops in their own style and in Noto's, and
held-out photographs among the products. With ``--stage letters`` it is the reader of print alone, in fonts of training
and in others, with ``--stage lines`` and what is read again by lines; with ``--stage places`` the locator, on held-out
scenes, with ``--stage zoom`` what it and the namer tell.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from hearth.multimodal.clip import VisionNetwork
from hearth.multimodal.locating import listed, looks_at
from hearth.multimodal.print_cells import BARS, Printed
from hearth.multimodal.print_reading import read_print
from hearth.multimodal.views import tile_frame, token_grid
from training.aligning import normalised
from training.asking import PLACE_WORDS
from training.checkpoints import TOKENIZER, load_stage, new_network, saved_names, saved_network, saved_tokenizer
from training.fonts import fonts
from training.letters import CROP_PX
from training.material import load_material
from training.naming import Crops, Naming, class_names
from training.noto import noto_sprites
from training.pictures import Material, Painter
from training.placing import wanted
from training.pocket_network import PocketNetwork
from training.printing import Printer
from training.scene_pool import FreshScenes, encode_scenes, encode_tiles
from training.scenes import Scene
from training.shipped import shipped_vision
from training.view_batches import SIDE_PX, ViewBatch, ViewBatches, whole_view
from training.world import NUMBERS, SHAPES, SIZES

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("single", "counted", "pair", "photograph")
NAMED_KINDS, NAMELESS_KINDS = ("single", "counted", "photograph"), ("pair", "words", "chart")
PLACED_KINDS = ("counted", "single", "groups", "crowd", "pair", "photograph", "words", "chart")


GROUPS = {
    "number": ("counted", NUMBERS),
    "place": ("pair", tuple(sorted(PLACE_WORDS))),
    "size": ("pair", tuple(dict.fromkeys(size.split()[-1] for size in SIZES))),
}


@torch.inference_mode()
def probe(network: PocketNetwork, material: Material, tokenizer: Tokenizer, n: int, seed: int = 5) -> dict[str, float]:
    """Share of scenes where the name that some token finds likeliest is right for a thing.

    Then what the token over the middle of a thing says of its number in scenes of several equal things, and of its
    place and size in scenes of two: the likeliest of the words for it.
    """
    batches = ViewBatches(material, tokenizer, seed, held_out=True)
    shares: dict[str, Share] = {kind: Share() for kind in (*KINDS, *GROUPS)}
    language = network.language
    for kind in KINDS:
        for start in range(0, n, 32):
            parts = [whole_view(batches.draw(kind)) for _ in range(min(32, n - start))]
            batch = batches.packed(parts)
            maps = network.vision.feature_maps(normalised(batch.pixels))
            normed = language.norm(network.vision.visual_tokens(maps, batch.places))
            logits = network.saying.word_logits(normed, language).log_softmax(-1)
            for view, (scene, _) in enumerate(parts):
                best = logits[view].amax(0)
                scores = {n: float(best[batches.words.ids(n)].mean()) for n in batches.names()}
                named = max(scores, key=scores.__getitem__) in {thing.name for thing in scene.things}
                shares[kind].add(torch.tensor([named]))
            for group, (of_kind, words) in GROUPS.items():
                if of_kind == kind:
                    shares[group].add(
                        _told(batch, logits, torch.tensor([batches.words.ids(word)[0] for word in words]))
                    )
    return {kind: round(share.value, 3) for kind, share in shares.items()}


@dataclass
class Share:
    """How many of all were right."""

    right: int = 0
    total: int = 0

    def add(self, right: Tensor) -> None:
        self.right += int(right.sum())
        self.total += right.numel()

    @property
    def value(self) -> float:
        return self.right / max(1, self.total)


def _told(batch: ViewBatch, logits: Tensor, group: Tensor) -> Tensor:
    """For the tokens over the middle of a thing: whether the likeliest word of ``group`` is asked of them."""
    asked = torch.zeros(len(batch.rows), logits.shape[-1], dtype=torch.bool)
    asked[batch.entries[:, 0], batch.entries[:, 1]] = True
    middles = (batch.row_weights == 1.0) & asked[:, group].any(1)
    views, tokens = batch.rows[middles].T
    guessed = group[logits[views, tokens][:, group].argmax(-1)]
    return asked[middles].gather(1, guessed[:, None])[:, 0]


@torch.inference_mode()
def probe_names(naming: Naming, material: Material, n: int, seed: int = 5) -> dict[str, float]:
    """Share of crops, each of one thing, that the tower tells by the classes of the stage "names"."""
    names = class_names(material)
    shares = {name: Share() for name in ("fluent", "noto", "photograph")}
    for style, sprites in (("fluent", material.sprites), ("noto", tuple(noto_sprites()))):
        drawn = Material(tuple(sprites), {})
        pixels, labels = Crops(drawn, seed, worn=False).batch(n)
        guessed = naming(pixels).argmax(1)
        right = [names[g] == class_names(drawn)[w] for g, w in zip(guessed, labels, strict=True)]
        shares[style].add(torch.tensor(right))
    held_out = [(photograph.product.name, image) for photograph, image in material.photographs if photograph.held_out]
    first_product = len({*(sprite.name for sprite in material.sprites), *SHAPES})
    for name, image in held_out[:n]:
        crop = np.asarray(image.resize((CROP_PX, CROP_PX), Image.Resampling.BICUBIC), dtype=np.float32)
        logits = naming(torch.from_numpy(crop).permute(2, 0, 1)[None])[0, first_product:]
        shares["photograph"].add(torch.tensor([names[first_product + int(logits.argmax())] == name]))
    return {name: round(share.value, 3) for name, share in shares.items()}


@torch.inference_mode()
def probe_print(vision: VisionNetwork, n: int, seed: int = 5, side_px: int = 2 * SIDE_PX) -> dict[str, float]:
    """Share of pictures of one word of which nothing but that word is read, of bars that are told without an error, and
    of their values, in fonts of training and in others. Pictures larger than the tiles are looked at closer, and lines
    are read again if ``vision`` does so.
    """
    found: dict[str, float] = {}
    for name, held_out in (("own fonts", False), ("other fonts", True)):
        rng = random.Random(seed)
        painter = Painter(Material((), {}), rng, Printer(fonts(), rng, held_out=held_out), side_px=side_px)
        words, bars, values = Share(), Share(), Share()
        for _ in range(n):
            scene = painter.words()
            words.add(torch.tensor([words_read(vision, scene) == [scene.text]]))
            scene = painter.chart()
            read = f" {' '.join(words_read(vision, scene))} "
            bars.add(torch.tensor([f" {bar.colour} {bar.text} " in read for bar in scene.bars]))
            values.add(torch.tensor([f" {bar.value} " in read for bar in scene.bars]))
        shares = {"words": words, "bars": bars, "values": values}
        found |= {f"{what}, {name}": round(share.value, 3) for what, share in shares.items()}
    return found


def words_read(vision: VisionNetwork, scene: Scene) -> list[str]:
    """What is read of a scene; bars by their colours."""
    letters, lines = vision.letters, vision.lines
    assert letters is not None
    read = read_print(
        scene.image,
        tile_frame(*scene.image.size, SIDE_PX),
        lambda pixels: letters(torch.from_numpy(pixels)[None])[0].numpy(),
        None if lines is None else lambda strips: lines(torch.from_numpy(strips)).numpy(),
    )
    return "".join(f" {one.character} " if one.character in BARS else one.character for one in read).split()


@torch.inference_mode()
def probe_places(vision: VisionNetwork, material: Material, n: int, seed: int = 5) -> dict[str, float]:
    """Share of held-out scenes of each kind of which the list is right: all places of alike things, or none."""
    assert vision.locator is not None
    rng = random.Random(seed)
    printer = Printer(fonts(), rng, held_out=True)
    scenes = FreshScenes(Painter(material, rng, printer, held_out=True, side_px=4 * SIDE_PX))
    shares = {kind: Share() for kind in PLACED_KINDS}
    for kind, share in shares.items():
        drawn = [scene for _ in range(n) for scene in scenes.draw(kind)]
        for scene, tokens in zip(drawn, encode_tiles(drawn, vision, torch.device("cpu")), strict=True):
            frame = tile_frame(*scene.image.size, SIDE_PX)
            looks = torch.from_numpy(looks_at(frame, SIDE_PX))[None]
            said = vision.locator(tokens.reshape(1, *token_grid(frame, SIDE_PX), -1), looks)[0]
            right = listed(said.numpy(), frame) == listed((wanted(scene) - 0.5).numpy(), frame)
            share.add(torch.tensor([right]))
    return {kind: round(share.value, 3) for kind, share in shares.items()}


@torch.inference_mode()
def probe_things(vision: VisionNetwork, material: Material, n: int, seed: int = 5) -> dict[str, float]:
    """Share of held-out scenes of each kind of which the right name is told: that of the things or, where they differ
    or there is none, no name. Noto's are single things in its style, no shapes: as the exam asks for them.
    """
    rng = random.Random(seed)
    printer = Printer(fonts(), rng, held_out=True)
    shares = {}
    for label, kinds, drawn_from in (
        ("Noto's ", ("single",), Material(tuple(noto_sprites()), {})),
        ("", (*NAMED_KINDS, *NAMELESS_KINDS), material),
    ):
        scenes = FreshScenes(Painter(drawn_from, rng, printer, held_out=True, side_px=4 * SIDE_PX))
        for kind in kinds:
            share = shares[label + kind] = Share()
            drawn = _drawn(scenes, kind, n, shapes=drawn_from is material)
            for scene, encoded in zip(drawn, encode_scenes(drawn, vision, torch.device("cpu")), strict=True):
                name = scene.things[0].name if kind in NAMED_KINDS else None
                share.add(torch.tensor([told_name(encoded.printed, vision.names) == name]))
    return {kind: round(share.value, 3) for kind, share in shares.items()}


def _drawn(scenes: FreshScenes, kind: str, n: int, *, shapes: bool) -> list[Scene]:
    drawn: list[Scene] = []
    while len(drawn) < n:
        drawn += [scene for scene in scenes.draw(kind) if shapes or scene.things[0].name not in SHAPES]
    return drawn


def told_name(printed: Sequence[Printed], names: Sequence[Sequence[str]]) -> str | None:
    """The name that stands behind all else."""
    told = [one.character for one in printed]
    longest_first = sorted(names, key=len, reverse=True)
    return next(("".join(name).strip() for name in longest_first if told[-len(name) :] == list(name)), None)


def saved_vision(runs: Path, stage: str) -> VisionNetwork:
    """An encoder of the right shape for what ``stage`` left. FileNotFoundError names what is missing."""
    checkpoint, tokenizer = runs / f"{stage}.pt", saved_tokenizer(runs)
    if tokenizer is None or not checkpoint.is_file():
        missing = checkpoint if tokenizer is not None else runs / TOKENIZER
        raise FileNotFoundError(f"{missing} does not exist: run python -m training.pocket --stage {stage} first")
    return new_network(tokenizer.get_vocab_size(), saved_names(runs)).vision


def saved_naming(runs: Path, n_names: int) -> Naming:
    """The tower and the classes as the stage "names" left them."""
    naming = Naming(saved_vision(runs, "names"), n_names)
    load_stage(runs / "names.pt", naming)
    return naming


def saved_readers(runs: Path, stage: str) -> VisionNetwork:
    """The readers of print as the stage "letters" left theirs, and "lines" too if that is the ``stage``."""
    vision = saved_vision(runs, "letters")
    assert vision.letters is not None
    load_stage(runs / "letters.pt", vision.letters)
    if stage == "letters":
        vision.lines = None
    elif vision.lines is None or not load_stage(runs / "lines.pt", vision.lines):
        missing = runs / "lines.pt"
        raise FileNotFoundError(f"{missing} does not exist: run python -m training.pocket --stage lines first")
    return vision


def saved_locating(runs: Path) -> VisionNetwork:
    """The encoder as the stages "look" and "places" left it."""
    vision = saved_network(runs, "look")[0].vision
    if vision.locator is None or not load_stage(runs / "places.pt", vision.locator):
        missing = runs / "places.pt"
        raise FileNotFoundError(f"{missing} does not exist: run python -m training.pocket --stage places first")
    return vision


def saved_naming_things(runs: Path) -> VisionNetwork:
    """The encoder as the stages "look", "places" and "zoom" left it."""
    vision = saved_locating(runs)
    if vision.namer is None or not load_stage(runs / "zoom.pt", vision.namer):
        missing = runs / "zoom.pt"
        raise FileNotFoundError(f"{missing} does not exist: run python -m training.pocket --stage zoom first")
    return vision


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=ROOT / "training" / "runs" / "pocket")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--stage", default="look", help="whose checkpoint")
    parser.add_argument(
        "--pocket", type=Path, help="with --stage letters, lines, places or zoom: finished files, not a checkpoint"
    )
    parser.add_argument(
        "--side-px", type=int, default=2 * SIDE_PX, help="with --stage letters or lines: of the pictures"
    )
    parser.add_argument("--n", type=int, default=200, help="scenes of each kind")
    args = parser.parse_args()
    if args.stage in ("letters", "lines"):
        readers = shipped_vision(args.pocket) if args.pocket else saved_readers(args.runs, args.stage).eval()
        if readers.letters is None or (args.stage == "lines" and readers.lines is None):
            first = 6 if readers.letters is None else 12
            parser.error(f"{args.pocket} has no reader of {args.stage}: name files of version {first} or later")
        if args.stage == "letters":
            readers.lines = None
        print(json.dumps(probe_print(readers, args.n, side_px=args.side_px)))
        return
    material = load_material(args.data, 7, styled=False)
    if args.stage == "places":
        vision = shipped_vision(args.pocket) if args.pocket else saved_locating(args.runs).eval()
        if vision.locator is None:
            parser.error(f"{args.pocket} has no locator: name files of version 10 or later by --pocket")
        print(json.dumps(probe_places(vision, material, args.n)))
        return
    if args.stage == "zoom":
        vision = shipped_vision(args.pocket) if args.pocket else saved_naming_things(args.runs).eval()
        if vision.namer is None:
            parser.error(f"{args.pocket} has no namer: name files of version 14 or later by --pocket")
        print(json.dumps(probe_things(vision, material, args.n)))
        return
    if args.stage == "names":
        naming = saved_naming(args.runs, len(class_names(material)))
        print(json.dumps(probe_names(naming.eval(), material, args.n)))
        return
    network, tokenizer = saved_network(args.runs, args.stage)
    print(json.dumps(probe(network.eval(), material, tokenizer, args.n)))


if __name__ == "__main__":
    main()
