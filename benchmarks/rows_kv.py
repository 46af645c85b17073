"""Rows about saved KV: restarts, pictures, exactness, sizes on disk, branches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from figures import Figure, say
from numpy.typing import NDArray
from ours import FULL_CHAIN, Run, drop_from_page_cache, middle, opened, rounded, temporary_folder

from hearth.bench import Answer, ask, common_length, folder_bytes
from hearth.models.gguf_header import read_gguf_header
from hearth.models.kv_size import kv_bytes_per_token
from hearth.models.types import MediaSegment, Segment, TextSegment

KV_TYPES = ("f16", "q8_0", "q4_0")
SPARE = 256  # cells beyond what a row needs


def restart(run: Run) -> Iterator[Figure]:
    """A chat is read once; after a restart of the engine's process it is asked again."""
    n = run.sizes.prefix
    cold, warm, from_disk, restores, loads = [], [], [], [], []
    n_restored = n - 1
    for i in range(run.repeats):
        with temporary_folder() as folder:
            prompt = run.prompt(i, n)
            with opened(run, n_ctx=n + SPARE, kv=folder) as engine:
                cold.append(ask(engine, prompt, 1).wall_s)
                engine.flush()
            started_s = time.perf_counter()
            with opened(run, n_ctx=n + SPARE, kv=folder) as engine:
                loads.append(time.perf_counter() - started_s)
                answer = ask(engine, prompt, 1)
            warm.append(answer.wall_s)
            restores.append(answer.finished.timings.restore_s)
            n_restored = min(n_restored, answer.finished.cache.disk_tokens)
            if drop_from_page_cache(folder):
                with opened(run, n_ctx=n + SPARE, kv=folder) as engine:
                    from_disk.append(ask(engine, prompt, 1).wall_s)
        say(f"restart {i + 1}/{run.repeats}: cold {cold[-1]:.3f} s, after a restart {warm[-1]:.4f} s")
    details = {
        "cold_ttft_s": rounded(cold),
        "restart_ttft_s": rounded(warm, 5),
        "restart_not_in_page_cache_s": rounded(from_disk, 5),
        "restore_s": rounded(restores, 5),
        "load_s": rounded(loads),
        "restored_tokens": n_restored,
    }
    note = "" if n_restored == n - 1 else f"only {n_restored:,} of {n - 1:,} tokens were restored"
    ratio = middle(warm) / middle(cold)
    yield Figure("restart", f"TTFT after restart ÷ cold, {n:,} tokens", ratio, 0.01, True, details, note)


class Encoder:
    """Gives random embeddings after the work of a real encoder: the pocket model's, or matrix products."""

    def __init__(self, n_tokens: int, n_embd: int) -> None:
        rng = np.random.default_rng(3)
        self._embeddings = (rng.standard_normal((n_tokens, n_embd)) * 0.1).astype(np.float32)
        self.n_calls = 0
        self.seconds: list[float] = []
        self.what = "pocket encoder, its real work"
        self._work: Any = None

    def __call__(self) -> NDArray[np.float32]:
        started_s = time.perf_counter()
        if self._work is None:
            self._work = self._load()
        self._work()
        self.n_calls += 1
        self.seconds.append(time.perf_counter() - started_s)
        return self._embeddings

    def _load(self) -> Any:
        try:
            from PIL import Image

            from hearth import assets
            from hearth.multimodal.picture_encoder import PictureEncoder

            encoder = PictureEncoder.load(assets.pocket_dir())
            picture = Image.open(assets.samples_dir() / "picture.png").convert("RGB")
            return lambda: encoder.encode(picture)
        except Exception as error:  # whatever is missing: the row still measures, and says with what
            self.what = f"10 products of 1024 × 1024 matrices in numpy ({type(error).__name__} in the pocket encoder)"
            matrix = np.ones((1024, 1024), np.float32)
            return lambda: [matrix @ matrix for _ in range(10)]


def picture(run: Run) -> Iterator[Figure]:
    """As ``restart``, with a picture in the middle of the chat; then greedy answers on both sides are compared."""
    n, n_picture = run.sizes.prefix, run.sizes.picture
    n_answer = min(64, run.sizes.answer)
    cold, warm, encode_s, n_equal, calls_after = [], [], [], [], 0
    encoder: Encoder | None = None
    for i in range(run.repeats):
        with temporary_folder() as folder:
            text = run.prompt(100 + i, n - n_picture)
            with opened(run, n_ctx=n + n_answer + SPARE, kv=folder) as engine:
                # loaded before, as in a program that has seen pictures: only its work counts
                encoder = Encoder(n_picture, engine.info.n_embd)
                encoder()
                segments = _around_picture(text, MediaSegment(f"picture-{i}", n_picture, n_picture, encoder))
                cold.append(ask(engine, segments, 1).wall_s)
                encode_s.append(encoder.seconds[-1])
                before = ask(engine, segments, n_answer)
                engine.flush()
            calls = encoder.n_calls
            with opened(run, n_ctx=n + n_answer + SPARE, kv=folder) as engine:
                answer = ask(engine, segments, n_answer)
            warm.append(answer.finished.timings.ttft_s)
            calls_after += encoder.n_calls - calls
            n_equal.append(common_length(before.finished.tokens, answer.finished.tokens))
        say(f"picture {i + 1}/{run.repeats}: cold {cold[-1]:.3f} s, after a restart {warm[-1]:.4f} s")
    details = {
        "cold_ttft_s": rounded(cold),
        "restart_ttft_s": rounded(warm, 5),
        "encoder": encoder.what if encoder else "",
        "encode_s": rounded(encode_s),
        "encoder_calls_after_restart": calls_after,
        "identical_tokens": n_equal,
        "compared_tokens": n_answer,
    }
    note = "" if not calls_after else f"the encoder ran {calls_after} times after the restart"
    name = f"same with a picture of {n_picture} tokens in it"
    yield Figure("picture", name, middle(warm) / middle(cold), 0.02, True, details, note)


def _around_picture(text: list[int], media: MediaSegment) -> list[Segment]:
    half = len(text) // 2
    return [TextSegment(tuple(text[:half])), media, TextSegment(tuple(text[half:]))]


def identical(run: Run) -> Iterator[Figure]:
    """Answers to a prompt whose cells are in RAM, against those after a restart; greedy and with a seed."""
    n, n_answer = run.sizes.compared_prefix, run.sizes.answer
    for kv_type in KV_TYPES:
        differing = 0
        compared: list[int] = []
        restored: list[int] = []
        for i in range(run.repeats):
            prompt = run.prompt(200 + i, n)
            with temporary_folder() as folder:
                with opened(run, n_ctx=n + n_answer + SPARE, kv=folder, kv_type=kv_type) as engine:
                    ask(engine, prompt, 1)
                    engine.flush()
                    before = _both(engine, prompt, n_answer)
                after: list[Answer] = []
                for number in range(2):  # each after a restart of its own
                    with opened(run, n_ctx=n + n_answer + SPARE, kv=folder, kv_type=kv_type) as engine:
                        after.append(_both(engine, prompt, n_answer, only=number)[0])
            for one, other in zip(before, after, strict=True):
                same = common_length(one.finished.tokens, other.finished.tokens)
                differing += max(len(one.finished.tokens), len(other.finished.tokens)) - same
                compared.append(len(one.finished.tokens))
                restored.append(other.finished.cache.disk_tokens)
            say(f"identical {kv_type} {i + 1}/{run.repeats}: {differing} tokens differ")
        n_missing = sum(n - 1 != found for found in restored)
        note = f"{n_missing} of {len(restored)} were not restored entirely" if n_missing else ""
        details = {"prompt_tokens": n, "compared": compared, "restored_tokens": restored}
        name = f"tokens that differ after restore, {kv_type}: {n_answer} greedy + {n_answer} sampled, {run.repeats} ×"
        yield Figure("identical", name, float(differing), 0.0, True, details, note)


def _both(engine: Any, prompt: list[int], n_answer: int, only: int | None = None) -> list[Answer]:
    """The greedy answer and one sampled with a seed, or only one of the two."""
    from hearth.bench import GREEDY

    kinds = [GREEDY, FULL_CHAIN]
    return [ask(engine, prompt, n_answer, kind) for kind in (kinds if only is None else [kinds[only]])]


def sizes(run: Run) -> Iterator[Figure]:
    """Bytes of all files of the KV folder, the index included, for each token of one chat."""
    n = run.sizes.sized_prefix
    for number, kv_type in enumerate(KV_TYPES):
        with temporary_folder() as folder:
            with opened(run, n_ctx=n + SPARE, kv=folder, kv_type=kv_type) as engine:
                ask(engine, run.prompt(300 + number, n), 1)
                engine.flush()
            per_token = folder_bytes(folder) / n
        theory = kv_bytes_per_token(read_gguf_header(run.model), kv_type)
        details = {"tokens": n, "bytes_per_token": round(per_token, 1), "theoretical_bytes_per_token": theory}
        say(f"sizes {kv_type}: {per_token:,.0f} bytes a token")
        value = per_token / theory if theory else None
        yield Figure("sizes", f"bytes on disk per token ÷ theory, {kv_type}, {n:,} tokens", value, 1.03, True, details)


def shared(run: Run) -> Iterator[Figure]:
    """Chats of different owners that begin alike."""
    s = run.sizes
    prefix, n_answer, n_tokens = run.prompt(400, s.shared_prefix), 32, s.shared_prefix
    cached = []
    with temporary_folder() as folder:
        n_ctx = s.shared_prefix + 4 * (s.shared_own + n_answer) + SPARE
        with opened(run, n_ctx=n_ctx, kv=folder) as engine:
            for i in range(s.n_shared):
                answer = ask(engine, prefix + run.prompt(401 + i, s.shared_own), n_answer)
                cached.append(answer.finished.usage.cached_tokens)
                n_tokens += s.shared_own + len(answer.finished.tokens) - 1  # the last one is in no cell
                say(f"shared {i + 1}/{s.n_shared}: {cached[-1]:,} tokens were there")
            engine.flush()
        n_bytes = folder_bytes(folder)
    theory = kv_bytes_per_token(read_gguf_header(run.model), "f16")
    value = n_bytes / (n_tokens * theory) if theory else None
    details = {"bytes": n_bytes, "distinct_tokens": n_tokens, "cached_tokens": cached}
    name = f"bytes of {s.n_shared} chats sharing {s.shared_prefix:,} tokens ÷ ideal"
    yield Figure("shared", name, value, 1.10, True, details)


def branch(run: Run) -> Iterator[Figure]:
    """A chat that leaves a saved one at its half, and the rest of a chat whose first half is in RAM."""
    n = run.sizes.prefix
    half, own = n // 2, 64
    prompt = run.prompt(500, n)
    full, half_s, rest, found = [], [], [], []
    with temporary_folder() as folder:
        options: dict[str, Any] = {"n_ctx": n + half + 2 * own + SPARE, "kv": folder}
        with opened(run, **options) as engine:
            say(f"branch: reading {n:,} tokens")
            ask(engine, prompt, 1)
            engine.flush()
        for i in range(max(3, run.repeats)):
            with opened(run, **options) as engine:
                full.append(ask(engine, prompt, 1).finished.timings.restore_s)
            with opened(run, **options) as engine:
                left = ask(engine, prompt[:half] + run.prompt(501 + i, own), 1).finished
                half_s.append(left.timings.restore_s)
                then = ask(engine, prompt, 1).finished
                rest.append(then.timings.restore_s)
            found.append((left.cache.disk_tokens, then.cache.memory_tokens, then.cache.disk_tokens))
            say(f"branch {i + 1}: full {full[-1]:.4f} s, half {half_s[-1]:.4f} s, rest {rest[-1]:.4f} s")
    details = {
        "full_restore_s": rounded(full, 5),
        "branch_restore_s": rounded(half_s, 5),
        "rest_restore_s": rounded(rest, 5),
        "branch_disk_then_memory_disk_tokens": found,
    }
    base = middle(full)
    name = f"branch at half of {n:,} tokens: restore ÷ full restore"
    yield Figure("branch", name, middle(half_s) / base if base else None, 0.7, True, details)
    name = "the other half with the first in RAM: restore ÷ full restore"
    yield Figure("branch", name, middle(rest) / base if base else None, 0.7, True)
