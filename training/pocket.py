"""Makes the pocket vision-language model from data to GGUF: ``python -m training.pocket --budget-hours 6``."""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer

from training import aligning, conversing, lettering, line_reading, mixing, naming, placing, reading, zooming
from training.checkpoints import NAMES, TOKENIZER, load_stage, new_network, saved_names, saved_tokenizer
from training.copying import start_with_copying
from training.export import export_all
from training.lookup import attribute_ids, character_ids, start_with_lookup
from training.loop import StagePlan
from training.material import load_material
from training.naming import class_names
from training.pictures import Material
from training.pocket_network import PocketNetwork
from training.printing import Printer
from training.shipped import load_shipped, start_from
from training.sources import start_with_quoting
from training.tokenizer import train_tokenizer
from training.view_batches import new_fonts

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("names", "letters", "lines", "text", "look", "places", "zoom", "bind", "mixed", "chat", "export")
SHARES = {
    "names": 0.08,
    "letters": 0.09,
    "lines": 0.06,
    "text": 0.18,
    "look": 0.14,
    "places": 0.03,
    "zoom": 0.03,
    "bind": 0.1,
    "mixed": 0.02,
    "chat": 0.3,
}  # of the budget
MATRIX_TYPES = ("Q5_1", "Q8_0", "F16")
PICTURE_STAGES = {"names", "look", "places", "zoom", "bind", "mixed", "chat"}

log = logging.getLogger("training.pocket")


@dataclass(frozen=True)
class Recipe:
    """Everything that a run depends on."""

    data: Path
    runs: Path
    out: Path
    budget_s: float
    seed: int
    stages: tuple[str, ...]
    start: Path | None
    matrix_type: gguf.GGMLQuantizationType

    def plan(self, stage: str, learning_rate: float) -> StagePlan:
        return StagePlan(stage, self.budget_s * SHARES[stage], learning_rate, self.runs)


def parse_arguments() -> Recipe:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with fluent-emoji/")
    parser.add_argument("--runs", type=Path, default=ROOT / "training" / "runs" / "pocket", help="checkpoints and logs")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "pocket", help="where the finished files go")
    parser.add_argument("--budget-hours", type=float, default=6.0, help="computing time for all stages together")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--start", type=Path, help="folder of finished files to go on from, instead of random weights")
    parser.add_argument("--stage", choices=STAGES, action="append", help="only this stage (may be repeated)")
    parser.add_argument(
        "--matrices", choices=MATRIX_TYPES, default="Q5_1", help="of the feed-forward network, in the stage export"
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves it to torch")
    args = parser.parse_args()
    if args.budget_hours <= 0:
        parser.error(f"--budget-hours is {args.budget_hours}, but must be above 0")
    if args.threads:
        torch.set_num_threads(args.threads)
    args.runs.mkdir(parents=True, exist_ok=True)
    stages = tuple(args.stage or STAGES)
    matrix_type = gguf.GGMLQuantizationType[args.matrices]
    return Recipe(args.data, args.runs, args.out, args.budget_hours * 3600, args.seed, stages, args.start, matrix_type)


def tokenizer_of(recipe: Recipe) -> Tokenizer:
    """The run's tokenizer, trained if the run begins. FileNotFoundError if it is gone: another one's ids would mean
    other words to the weights.
    """
    if recipe.start is not None:
        return start_from(recipe.start, recipe.runs)
    tokenizer = saved_tokenizer(recipe.runs)
    if tokenizer is not None:
        return tokenizer
    trained = [f"{stage}.pt" for stage in STAGES if (recipe.runs / f"{stage}.pt").is_file()]
    trained = [name for name in trained if name not in ("names.pt", "letters.pt", "lines.pt")]  # they know no words
    if trained:
        raise FileNotFoundError(
            f"{recipe.runs / TOKENIZER} does not exist, but {', '.join(trained)} were trained with one: put it back, "
            "or name another folder by --runs"
        )
    tokenizer = train_tokenizer(recipe.data, recipe.seed)
    tokenizer.save(str(recipe.runs / TOKENIZER))
    return tokenizer


def names_of(recipe: Recipe, tokenizer: Tokenizer, pictures: Material | None) -> list[list[str]]:
    """The names that the run's namer tells, each by its tokens; they are kept with the run once there are pictures."""
    names = saved_names(recipe.runs)
    if not names and pictures is not None:
        ids = [tokenizer.encode(f" {name}", add_special_tokens=False).ids for name in class_names(pictures)]
        names = [[tokenizer.decode([one]) for one in of_name] for of_name in ids]
        (recipe.runs / NAMES).write_text(json.dumps(names), "utf-8")
    return names


def check_parts(recipe: Recipe, new: set[str]) -> None:
    """ValueError if a part that finished files lack would be shipped as it is before any training."""
    for part, stage in (("letters.", "letters"), ("lines.", "lines"), ("locator.", "places"), ("namer.", "zoom")):
        if part in new and stage not in recipe.stages and not (recipe.runs / f"{stage}.pt").is_file():
            raise ValueError(f"{recipe.start} has no {part.rstrip('.')}: train it by --stage {stage} besides")


def load_whole(recipe: Recipe, stage: str, network: PocketNetwork) -> None:
    """The network as ``stage`` left it; the readers and the locator, which stand still in these stages, as their own
    left them, which may have been gone on with since.
    """
    load_stage(recipe.runs / f"{stage}.pt", network)
    vision = network.vision
    parts = ("letters", vision.letters), ("lines", vision.lines), ("places", vision.locator), ("zoom", vision.namer)
    for name, part in parts:
        if part is not None:
            load_stage(recipe.runs / f"{name}.pt", part)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    recipe = parse_arguments()
    random.seed(recipe.seed)
    np.random.seed(recipe.seed)
    torch.manual_seed(recipe.seed)
    tokenizer = tokenizer_of(recipe)
    pictures = load_material(recipe.data, recipe.seed) if PICTURE_STAGES & set(recipe.stages) else None
    names = names_of(recipe, tokenizer, pictures)
    network = new_network(tokenizer.get_vocab_size(), names)
    language = network.language
    if recipe.start is not None:
        check_parts(recipe, load_shipped(recipe.start, network))
    else:
        start_with_copying(language, recipe.seed)
        start_with_quoting(language)
    if "names" in recipe.stages and pictures:
        naming.run(recipe.plan("names", 3e-3), network.vision, pictures, recipe.seed + 30_000)
    if "letters" in recipe.stages:
        printer = Printer(new_fonts(), random.Random(recipe.seed))
        lettering.run(recipe.plan("letters", 3e-3), network.vision, printer, recipe.seed + 40_000)
    if "lines" in recipe.stages:
        printer = Printer(new_fonts(), random.Random(recipe.seed))
        line_reading.run(recipe.plan("lines", 3e-3), network.vision, printer, recipe.seed + 45_000)
    if shutil.which("g++") or shutil.which("clang++") or torch.cuda.is_available():
        language.compile_blocks()
    if "text" in recipe.stages:
        reading.run(recipe.plan("text", 6e-4), language, tokenizer, recipe.data, recipe.seed)
    load_stage(recipe.runs / "names.pt", network.vision, "vision.")
    if network.vision.letters is not None:
        load_stage(recipe.runs / "letters.pt", network.vision.letters)
    if network.vision.lines is not None:
        load_stage(recipe.runs / "lines.pt", network.vision.lines)
    load_stage(recipe.runs / "text.pt", language)
    lettering.start_with_print(network.vision, language, tokenizer)
    if "look" in recipe.stages and pictures:
        aligning.run(recipe.plan("look", 1.5e-3), network, pictures, tokenizer, recipe.seed, clip_weight=0.5)
    load_whole(recipe, "look", network)
    if "places" in recipe.stages and pictures:
        placing.run(recipe.plan("places", 2e-3), network.vision, pictures, recipe.seed + 50_000)
    if "zoom" in recipe.stages and pictures:
        zooming.run(recipe.plan("zoom", 2e-3), network.vision, pictures, recipe.seed + 55_000)
    if "bind" in recipe.stages and pictures:
        seed = recipe.seed + 120_000
        if recipe.start is None:  # finished files have learnt theirs
            start_with_lookup(language, attribute_ids(tokenizer), character_ids(tokenizer))
        conversing.run(recipe.plan("bind", 8e-4), network, pictures, tokenizer, recipe.data, seed, drawn=False)
    load_whole(recipe, "bind", network)
    if "mixed" in recipe.stages and pictures:
        mixing.run(recipe.plan("mixed", 6e-4), network, pictures, tokenizer, recipe.seed + 60_000)
    load_whole(recipe, "mixed", network)
    if "chat" in recipe.stages and pictures:
        conversing.run(recipe.plan("chat", 5e-4), network, pictures, tokenizer, recipe.data, recipe.seed + 90_000)
    if "export" in recipe.stages:
        load_whole(recipe, "chat", network)
        config = aligning.vision_config(language.config.n_embd, language.config.n_vocab, names)
        export_all(network.vision, config, language, tokenizer, recipe.out, recipe.matrix_type)


if __name__ == "__main__":
    main()
