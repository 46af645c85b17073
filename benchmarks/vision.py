"""What a picture costs: the first question about it against later ones, and ours against llama-mtmd-cli.

    python benchmarks/vision.py [--repeats N]

Model: the random 0.5 B of random_models.py with an encoder of the shape of CLIP ViT-L/14-336, which is LLaVA 1.5's
(576 tokens a picture), written when it is missing. Every question goes through `hearth.Assistant`, after a restart in a
new process; times are from the call to the first text. llama-mtmd-cli comes from build_peers.py and gets the same files
and settings; its times of encoding and decoding the picture are compared with ours, which have a token on both
sides. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from figures import Figure, header, say, summary
from ours import N_BATCH, Run, middle, opened, rounded, temporary_folder
from peers import PeerError, environment, tool
from PIL import Image
from random_encoder import N_TOKENS, PATH, write_encoder
from random_models import model_path

N_CTX = 2048
LIMIT_S = 300
SIDE_PX = 480
QUESTIONS = ("What is this?", "And what colour is it?", "Is there anything beside it?")
_ENCODED = re.compile(r"batch encoding done in (\d+) ms")
_DECODED = re.compile(r"image decoded \(batch \d+/\d+\) in (\d+) ms")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--picture", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    model = model_path("0.5b")
    if not model.is_file():
        parser.error(f"{model}: no such model; run benchmarks/random_models.py")
    if not PATH.is_file():
        write_encoder()
    if given.child:
        print(json.dumps(_ask(model, given.child, given.picture)))
        return 0
    run = Run(model, model, n_threads=given.threads, repeats=given.repeats)
    figures: list[Figure] = []
    print(header(), flush=True)
    for measure in (_again, _against_mtmd):
        try:
            for figure in measure(run):
                figures.append(figure)
                print(figure.line(), flush=True)
        except PeerError as error:
            say(str(error))
    print(summary("vision", figures, {"model": model.name, "encoder": PATH.name, "repeats": run.repeats}))
    return 0


def _picture(path: Path, number: int) -> Path:
    pixels = np.random.default_rng(number).integers(0, 256, (SIDE_PX // 8, SIDE_PX // 8, 3), np.uint8)
    Image.fromarray(pixels).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC).save(path)
    return path


def _again(run: Run) -> Iterator[Figure]:
    first, second, restarted = [], [], []
    for i in range(run.repeats):
        with temporary_folder() as folder:
            picture = _picture(folder / "picture.png", i)
            told = _process(folder / "data", picture)
            first.append(told["ttft_s"][0])
            second.append(told["ttft_s"][1])
            restarted.append(_process(folder / "data", None)["ttft_s"][0])
        say(f"again {i + 1}/{run.repeats}: {first[-1]:.3f} s, then {second[-1]:.3f} s, restarted {restarted[-1]:.3f} s")
    details = {"first_s": rounded(first), "second_s": rounded(second), "restarted_s": rounded(restarted)}
    name = "question about a picture, first text: {} ÷ first"
    yield Figure("again", name.format("second"), middle(second) / middle(first), 0.05, True, details)
    yield Figure("again", name.format("after a restart"), middle(restarted) / middle(first), 0.10, True, details)


def _process(data: Path, picture: Path | None) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", str(data), *(["--picture", str(picture)] if picture else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        raise SystemExit(f"the measured process failed: {done.stderr.strip()[-800:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _ask(model: Path, data: Path, picture: Path | None) -> dict[str, Any]:
    """Questions about a picture in a new chat; without one, another question in the chat that is there."""
    import hearth

    settings = {"model": str(model), "mmproj": PATH, "n_ctx": N_CTX, "data_dir": data, "temperature": 0.0}
    times_s: list[float] = []
    with hearth.Assistant(**settings, isolate_engine=True) as assistant:  # type: ignore[arg-type]
        chats = assistant.conversations.list()
        conversation = chats[0].id if picture is None else None
        assistant.ask("Hello.", max_tokens=1, use_memory=False)  # loads the model
        for number, question in enumerate(QUESTIONS[:2] if picture else QUESTIONS[2:]):
            images = [picture] if picture and not number else []
            asked = {"images": images, "conversation": conversation, "max_tokens": 8, "use_memory": False}
            started_s, first_s = time.perf_counter(), None
            for event in assistant.stream(question, **asked):  # type: ignore[arg-type]
                if isinstance(event, hearth.TextDelta) and first_s is None:
                    first_s = time.perf_counter() - started_s
                elif isinstance(event, hearth.TurnFailed):
                    raise event.error
                elif isinstance(event, hearth.Done):
                    conversation = event.reply.conversation_id
            times_s.append(first_s if first_s is not None else time.perf_counter() - started_s)
    return {"ttft_s": times_s}


def _against_mtmd(run: Run) -> Iterator[Figure]:
    """Encoding a picture and reading a prompt with it, in turns."""
    from hearth.models.types import Finished, GenerationRequest, MediaSegment, SamplingParams, TextSegment

    ours, theirs, parts = [], [], []
    with temporary_folder() as folder, opened(run, n_ctx=N_CTX, mmproj=PATH, n_parallel=1, n_sequences=1) as engine:
        for i in range(run.repeats + 1):  # the first one warms
            picture = _picture(folder / "picture.png", i)
            their_encode_s, their_prompt_s = _mtmd_cli(run, picture)
            pixels = np.asarray(Image.open(picture).convert("RGB"))
            started_s = time.perf_counter()
            (embeddings,) = engine.encode_media(pixels)
            encode_s = time.perf_counter() - started_s
            text = run.prompt(1300 + i, 2)
            media = MediaSegment(f"picture {i}", N_TOKENS, N_TOKENS, lambda given=embeddings: given)
            segments = (TextSegment((text[0],)), media, TextSegment((text[1],)))
            request = GenerationRequest(f"picture {i}", segments, SamplingParams(), max_tokens=1)
            last = list(engine.submit(request).events())[-1]
            if not isinstance(last, Finished):
                raise SystemExit(f"our engine failed: {last}")
            if not i:
                continue
            ours.append(encode_s + last.timings.prefill_s)
            theirs.append(their_encode_s + their_prompt_s)
            parts.append((encode_s, last.timings.prefill_s, their_encode_s, their_prompt_s))
            found = "{:.3f} + {:.3f} s, llama-mtmd-cli {:.3f} + {:.3f} s".format(*parts[-1])
            say(f"mtmd {i}/{run.repeats}: encode + prefill {found}")
    names = ("ours_encode_s", "ours_prefill_s", "mtmd_cli_encode_s", "mtmd_cli_prefill_s")
    details = {name: rounded(list(values)) for name, values in zip(names, zip(*parts, strict=True), strict=True)}
    name = "encode and prefill of a picture ÷ llama-mtmd-cli"
    yield Figure("mtmd", name, middle(ours) / middle(theirs), 1.05, True, details)


def _mtmd_cli(run: Run, picture: Path) -> tuple[float, float]:
    """(seconds of encoding the picture, seconds of decoding it)."""
    command = [
        *(str(tool("llama-mtmd-cli")), "-m", str(run.model), "--mmproj", str(PATH), "--image", str(picture)),
        *("-p", QUESTIONS[0], "-n", "1", "--temp", "0", "-c", str(N_CTX), "-b", str(N_BATCH), "-ub", str(N_BATCH)),
        *("-t", str(run.n_threads), "-tb", str(run.n_threads), "-fa", "on", "-ngl", "0", "--chat-template", "chatml"),
        *("--no-warmup", "-lv", "4", "--perf"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, env=environment(run), check=False)
    said = done.stderr + done.stdout
    encoded, decoded = _ENCODED.findall(said), _DECODED.findall(said)
    if not encoded or not decoded:
        raise PeerError(f"llama-mtmd-cli said no times: {said.strip()[-400:]}")
    return sum(map(int, encoded)) / 1000, sum(map(int, decoded)) / 1000


if __name__ == "__main__":
    sys.exit(main())
