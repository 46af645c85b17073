"""Compares the memory that is planned before a model is loaded with what it takes: planned ÷ measured.

    python benchmarks/fit.py [--only tiny shapes encoders] [--models 0.5b 3b] [--contexts 512 4096] [--processes 5]
                            [--out FILE]

`tiny` are the architectures of tests/models/tiny_architectures.py, `shapes` the random 0.5 B and 3 B models of
random_models.py, `encoders` the mmproj families of tests/models/tiny_mmproj.py and two as wide as real ones.

Each is measured in processes of its own (the median counts), which have loaded another tiny model and read as much with
it before, so that libraries are counted out: growth of resident memory from before the model is loaded to after chats
that fill the whole context, without what the C library has been given back and keeps.
Loading touches every page of the file; those are dropped before the chats, so that only what the model goes on using is
counted. An encoder is given a picture of 4,096 x 4,096 pixels. Linux only.

Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sdist import MODELS, ROOT

from hearth.models.engine import EngineOptions, LlamaEngine
from hearth.models.engine.planning import Planner
from hearth.models.gguf_header import check_gguf
from hearth.models.types import Failed, GenerationRequest, SamplingParams, TextSegment

sys.path.insert(0, str(ROOT))
tiny_architectures, tiny_gguf, tiny_mmproj = (
    importlib.import_module(f"tests.models.{name}") for name in ("tiny_architectures", "tiny_gguf", "tiny_mmproj")
)

KV_TYPES = ("f16", "q8_0", "q4_0")
TINY_CONTEXTS = (512, 1024, 4096)
PICTURE_SIDE_PX = 4096
ANSWER_TOKENS = 8
WARM_CTX = 512
PROCESSES = 5  # of each case
READ_TOKENS = 4096  # at least, in chats that fill the context each: a vocabulary is touched by being used
WIDE = {"WIDTH": 768, "N_FF": 3072, "N_HEAD": 12}
BAND = (0.95, 1.10)
_MADV_DONTNEED = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=("tiny", "shapes", "encoders"), default=["tiny", "shapes", "encoders"]
    )
    parser.add_argument("--models", nargs="+", default=["0.5b", "3b"], help="of the shapes")
    parser.add_argument("--contexts", nargs="+", type=int, default=[512, 2048, 8192], help="of the shapes, in tokens")
    parser.add_argument("--processes", type=int, default=PROCESSES, help="each case is measured in")
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_measure(json.loads(options.one))))
        return 0
    rows = [row for kind in options.only for row in _rows(_cases(kind, options), options.processes)]
    ratios = [row["ratio"] for row in rows]
    inside = sum(BAND[0] <= ratio <= BAND[1] for ratio in ratios)
    print(f"{inside} of {len(rows)} within {BAND[0]}..{BAND[1]}, {min(ratios):.3f}..{max(ratios):.3f}")
    line = json.dumps(
        {
            "benchmark": "fit",
            "rows": rows,
            "within_band": inside,
            "lowest": min(ratios),
            "highest": max(ratios),
            "median": round(statistics.median(ratios), 3),
        }
    )
    if options.out:
        options.out.write_text(line + "\n", "utf-8")
    print(line)
    return 0


def _rows(cases: list[dict[str, Any]], processes: int) -> list[dict[str, Any]]:
    rows = []
    print(f"{'model':<22} {'n_ctx':>6} {'KV':<5} {'planned':>10} {'measured':>10} {'ratio':>6}   MB")
    for case in cases:
        found = sorted((_apart(case) for _ in range(processes)), key=lambda one: one["measured_bytes"])
        row = {**case, **found[len(found) // 2], "all_measured_bytes": [one["measured_bytes"] for one in found]}
        rows.append(row)
        sizes = f"{row['planned_bytes'] / 1e6:10.2f} {row['measured_bytes'] / 1e6:10.2f}"
        print(f"{row['name']:<22} {row['n_ctx']:>6} {row['kv_type']:<5} {sizes} {row['ratio']:6.3f}", flush=True)
    return rows


def _apart(case: dict[str, Any]) -> dict[str, Any]:
    """Measured in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", json.dumps(case)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{case}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _cases(kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    if kind == "encoders":
        families = [{"name": family.name, "wide": False} for family in tiny_mmproj.FAMILIES]
        families += [{"name": name, "wide": True} for name in ("gemma3", "qwen2vl")]
        return [{"kind": kind, "n_ctx": 4096, "kv_type": "f16", **family} for family in families]
    if kind == "shapes":
        names = [path.stem for name in options.models if (path := MODELS / f"random-{name}-q4_0.gguf").is_file()]
        if not names:
            raise SystemExit("no models: run benchmarks/random_models.py first")
        return [_case(kind, name, n, kv) for name in names for n in options.contexts for kv in KV_TYPES]
    found = [_case(kind, one.name, n, "f16") for one in tiny_architectures.ARCHITECTURES for n in TINY_CONTEXTS]
    # heads of the architectures are too small for quantized KV; those of this model are not
    return found + [_case(kind, "llama-wide", n, kv) for n in TINY_CONTEXTS for kv in KV_TYPES]


def _case(kind: str, name: str, n_ctx: int, kv_type: str) -> dict[str, Any]:
    return {"kind": kind, "name": name, "n_ctx": n_ctx, "kv_type": kv_type}


def _measure(case: dict[str, Any]) -> dict[str, Any]:
    """Planned and measured bytes of one case, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        warm = tiny_gguf.write_tiny_gguf(Path(folder) / "warm.gguf")
        _use(warm, EngineOptions(n_ctx=WARM_CTX, n_threads=2))
        path, options = _files(case, Path(folder))
        header = check_gguf(path)
        planner = Planner(path, header)
        plan = planner.plan(options)
        planner.close()
        before = _resident_bytes()
        measured = _use(path, options) - before
    return {
        "planned_bytes": plan.total_bytes,
        "measured_bytes": measured,
        "weights_bytes": plan.weights_bytes,
        "kv_bytes": plan.kv_bytes,
        "compute_bytes": plan.compute_bytes,
        "encoder_bytes": plan.encoder_bytes,
        "other_bytes": plan.other_bytes,
        "ratio": round(plan.total_bytes / measured, 3),
    }


def _files(case: dict[str, Any], folder: Path) -> tuple[Path, EngineOptions]:
    options = EngineOptions(n_ctx=case["n_ctx"], kv_type=case["kv_type"], n_threads=2, check_fit=False)
    if case["kind"] == "shapes":
        return MODELS / f"{case['name']}.gguf", options
    path = folder / "model.gguf"
    if case["kind"] == "encoders":
        family = next(one for one in tiny_mmproj.FAMILIES if one.name == case["name"])
        for name, value in WIDE.items() if case["wide"] else ():
            setattr(tiny_mmproj, name, value)
        return family.write_text(path), replace(options, mmproj=family.write_encoder(folder / "mmproj.gguf"))
    if case["name"] == "llama-wide":
        return tiny_gguf.write_tiny_gguf(path, n_embd=128, n_ctx_train=TINY_CONTEXTS[-1]), options
    one = next(one for one in tiny_architectures.ARCHITECTURES if one.name == case["name"])
    return one.write(path), options


def _use(path: Path, options: EngineOptions) -> int:
    """Resident bytes after a chat that fills the context, and after the largest picture if there is an encoder."""
    with LlamaEngine.load(path, options) as engine:
        _drop_pages(path)
        passing = 0 if engine.info.media is None else _encode(engine)
        n_prompt = engine.info.n_ctx - 2 * ANSWER_TOKENS
        rng = np.random.default_rng(0)
        for _ in range(max(1, -(-READ_TOKENS // n_prompt))):
            ids = rng.integers(0, engine.info.n_vocab - 40, n_prompt).tolist()
            request = GenerationRequest("fit", (TextSegment(tuple(ids)),), SamplingParams(), max_tokens=ANSWER_TOKENS)
            for event in engine.submit(request).events():
                if isinstance(event, Failed):
                    raise event.error
        return _resident_bytes() + passing


def _encode(engine: LlamaEngine) -> int:
    """Bytes that are needed while the largest picture, or half a minute of sound, is encoded, and not afterwards."""
    assert engine.info.media is not None
    media = _media(hears=engine.info.media.hears)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    engine.encode_media(media)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return max(0, 1024 * int(status["VmHWM"].split()[0]) - _resident_bytes())


def _media(*, hears: bool) -> Any:
    rng = np.random.default_rng(0)
    if hears:
        return rng.standard_normal(30 * 16_000).astype(np.float32)
    return np.broadcast_to(np.uint8(127), (PICTURE_SIDE_PX, PICTURE_SIDE_PX, 3)).copy()


def _resident_bytes() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return 1024 * int(line.split()[1])
    raise SystemExit("/proc/self/smaps_rollup does not say what is resident")


def _drop_pages(path: Path) -> None:
    """Lets go of the pages of a mapped file; those that are used come back."""
    libc = ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(path.resolve())):
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


if __name__ == "__main__":
    sys.exit(main())
