"""The process of kv_torture.py that damages saved KV in many ways and asks the engine all the same.

Each case begins with a fresh copy of a folder that holds two chats with a common beginning. Both are asked again; their
answers must be those of an engine without a store, and nothing may come from a block that was damaged. Chunks are as
long as blocks, so that what is computed again is computed in the same portions and must be equal to the last bit.
Prints a JSON object a line.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import resource
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ours import make_saving_all

from hearth.bench import ask
from hearth.engine_factory import KvFolder
from hearth.models.engine.options import EngineOptions
from hearth.store import kv_files
from hearth.store.kv_blocks import KvBlockStore

BLOCK = 256
N_FIRST, N_SHARED, N_OWN, N_ANSWER = 5 * BLOCK + 100, 3 * BLOCK, 300, 24
BUDGET_BYTES = 1 << 30
INDEX = "index.sqlite3"
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER = 1, 2, 3
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
SMALL_DISK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Chat:
    """A prompt, and its answers when nothing was cached and when all was."""

    prompt: list[int]
    cold: tuple[int, ...]
    warm: tuple[int, ...]


class Bench:
    """The model, the chats, and the folder that the cases copy."""

    def __init__(self, model: Path, other_model: Path, work: Path) -> None:
        self.model, self.other_model, self.work = model, other_model, work
        self.pristine, self.folder = work / "pristine", work / "kv"
        rng = random.Random(5)
        first = [rng.randrange(250) for _ in range(N_FIRST)]
        prompts = [first, first[:N_SHARED] + [rng.randrange(250) for _ in range(N_OWN)]]
        shutil.rmtree(self.pristine, ignore_errors=True)
        self.chats: list[Chat] = []
        for prompt in prompts:
            with self.engine(None) as engine:
                cold, warm = self._ask(engine, prompt)[0], self._ask(engine, prompt)[0]
            self.chats.append(Chat(prompt, cold, warm))
        with self.engine(self.pristine) as engine:
            for chat in self.chats:
                self._ask(engine, chat.prompt)
            self.fingerprint = engine.info.fingerprint
        self.order = [self._order(chat) for chat in self.chats]

    def _order(self, chat: Chat) -> list[tuple[str, int, int]]:
        """(key, first entry, the one behind its last) of the blocks of a chat."""
        store = KvBlockStore(self.pristine, budget_bytes=BUDGET_BYTES)
        found, start = [], 0
        for block in store.match(self.fingerprint, chat.prompt[:-1]):
            found.append((block.key, start, start + len(block.entries)))
            start += len(block.entries)
        store.close()
        return found

    @contextmanager
    def engine(self, folder: Path | None, model: Path | None = None, **options: Any) -> Iterator[Any]:
        kv = KvFolder(folder, BUDGET_BYTES) if folder is not None else None
        chosen = EngineOptions(
            **{"n_ctx": 4096, "n_threads": 1, "n_batch": BLOCK, "n_ubatch": BLOCK, "prompt_lookup": False, **options}
        )
        engine = make_saving_all(model or self.model, chosen, kv=kv)
        try:
            yield engine
        finally:
            engine.close()

    @staticmethod
    def _ask(engine: Any, prompt: list[int]) -> tuple[tuple[int, ...], int, int]:
        """The answer, and how many tokens of the prompt came from memory and behind them from disk."""
        finished = ask(engine, prompt, N_ANSWER).finished
        return finished.tokens, finished.cache.memory_tokens, finished.cache.disk_tokens

    def fresh_copy(self) -> None:
        make_removable(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.pristine, self.folder)

    def blocks(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith(INDEX))

    def check(self, damaged: set[str], model: Path | None = None, **options: Any) -> dict[str, Any]:
        """Asks both chats on the folder as it is; what is wrong, and how many tokens were restored."""
        restored, wrong = [], []
        with self.engine(self.folder, model, **options) as engine:
            for chat, order in zip(self.chats, self.order, strict=True):
                tokens, n_memory, n_disk = self._ask(engine, chat.prompt)
                restored.append(n_disk)
                if tokens not in (chat.cold, chat.warm):
                    wrong.append("another answer")
                for key, start, end in order:
                    if key in damaged and end > n_memory and start < n_memory + n_disk:
                        wrong.append(f"tokens {n_memory}..{n_memory + n_disk} restored, {start}..{end} are damaged")
            engine.check_integrity()
        return {"wrong": wrong, "restored": restored}

    def unknown(self, model: Path | None = None, **options: Any) -> dict[str, Any]:
        """Asks with another model or other settings: nothing may be restored."""
        with self.engine(self.folder, model, **options) as engine:
            n_disk = self._ask(engine, self.chats[0].prompt)[2]
            engine.check_integrity()
        return {"wrong": [f"{n_disk} tokens of another model were restored"] if n_disk else [], "restored": [n_disk]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--other-model", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kind", choices=("flips", "truncations", "versions", "read-only", "full"), required=True)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--start", type=int, default=0)
    given = parser.parse_args()
    how = {"read-only": _leave_override_rights, "full": _enter_small_disk}.get(given.kind)
    given.work.mkdir(parents=True, exist_ok=True)
    if how is not None:  # before any thread is started
        _tell(0, "how", {"how": how(given.work / "kv")})
    bench = Bench(given.model, given.other_model, given.work)
    _tell(0, "ready", {"restored": [len(order) for order in bench.order]})
    if given.kind in ("flips", "truncations"):
        damage = _flip if given.kind == "flips" else _truncate
        for number in range(given.start, given.rounds):
            bench.fresh_copy()
            what, damaged = damage(bench, random.Random(f"{given.kind} {number}"))
            _tell(number, what, bench.check(damaged))
    else:
        cases = {"versions": _version_cases, "read-only": _read_only_cases, "full": _full_cases}[given.kind]
        for number, (name, run) in enumerate(cases(bench).items()):
            if number >= given.start:
                if given.kind != "full":
                    bench.fresh_copy()
                _tell(number, name, run())
    make_removable(bench.folder)
    return 0


def _tell(number: int, case: str, result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"n": number, "case": case, **result}) + "\n")
    sys.stdout.flush()


def make_removable(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        with suppress(OSError):
            folder.chmod(0o700)
            for path in folder.iterdir():
                make_removable(path)
    else:
        with suppress(OSError):
            folder.chmod(0o600)


def _choose(bench: Bench, rng: random.Random) -> tuple[Path, set[str]]:
    """A file of the folder: mostly a block, sometimes the index."""
    if rng.random() < 0.25:
        return bench.folder / INDEX, set()
    path = rng.choice(bench.blocks())
    return path, {path.name}


def _flip(bench: Bench, rng: random.Random) -> tuple[str, set[str]]:
    path, damaged = _choose(bench, rng)
    size = path.stat().st_size
    # headers are small: without this they would hardly ever be met
    at = rng.randrange(min(size, 128)) if rng.random() < 0.25 else rng.randrange(size)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))
    return f"bit {at}.. of {'a block' if damaged else 'the index'}", damaged


def _truncate(bench: Bench, rng: random.Random) -> tuple[str, set[str]]:
    path, damaged = _choose(bench, rng)
    size = rng.choice([0, 1, path.stat().st_size - 1, rng.randrange(path.stat().st_size)])
    os.truncate(path, size)
    return f"{'a block' if damaged else 'the index'} cut to {size}", damaged


def _version_cases(bench: Bench) -> dict[str, Callable[[], dict[str, Any]]]:
    def second_block() -> Path:
        key = bench.order[0][1][0]
        return next(path for path in bench.blocks() if path.name == key)

    def on_block(change: Callable[[Path], object]) -> Callable[[], dict[str, Any]]:
        def run() -> dict[str, Any]:
            path = second_block()
            change(path)
            return bench.check({path.name})

        return run

    def on_index(change: Callable[[Path], object]) -> Callable[[], dict[str, Any]]:
        def run() -> dict[str, Any]:
            change(bench.folder / INDEX)
            return bench.check(set())

        return run

    def sql(statement: str) -> Callable[[Path], None]:
        def change(path: Path) -> None:
            connection = sqlite3.connect(path, isolation_level=None)
            connection.execute(statement)
            connection.close()

        return change

    def swapped() -> dict[str, Any]:
        one, other = second_block(), next(path for path in bench.blocks() if path.name == bench.order[0][2][0])
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)
        return bench.check({one.name, other.name})

    def of_another_model() -> dict[str, Any]:
        theirs = bench.work / "theirs"
        shutil.rmtree(theirs, ignore_errors=True)
        with bench.engine(theirs, bench.other_model) as engine:
            ask(engine, bench.chats[0].prompt, N_ANSWER)
        size = second_block().stat().st_size
        same = [path for path in theirs.rglob("*") if path.is_file() and path.stat().st_size == size]
        path = second_block()
        path.write_bytes(same[0].read_bytes())
        return bench.check({path.name})

    return {
        "a block of the next format version": on_block(_next_version),
        "two blocks swapped": swapped,
        "a block of another model under this one's name": of_another_model,
        "a block is gone": on_block(lambda path: path.unlink()),
        "a block is a folder": on_block(_make_folder_of),
        "a block is a link to nowhere": on_block(_make_link_of),
        "a block with something behind it": on_block(lambda path: path.write_bytes(path.read_bytes() + b"more")),
        "an unfinished file lies about": on_index(_leave_unfinished),
        "an index of a later version": on_index(sql("PRAGMA user_version = 99")),
        "an index of another program": on_index(sql("PRAGMA application_id = 7")),
        "an index with another table": on_index(sql("CREATE TABLE other (a)")),
        "an index with wrong sizes": on_index(sql("UPDATE blocks SET n_bytes = n_bytes + 1")),
        "an index with wrong entries": on_index(sql("UPDATE blocks SET entries = substr(entries, 5)")),
        "an index that is gone": on_index(lambda path: path.unlink()),
        "an index that is a text": on_index(lambda path: path.write_text("no database at all\n" * 300)),
        "other KV type": lambda: bench.unknown(kv_type="q8_0"),
        "no flash attention": lambda: bench.unknown(flash_attention=False),
        "another model of the same vocabulary": lambda: bench.unknown(bench.other_model),
    }


def _make_folder_of(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _make_link_of(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _leave_unfinished(index: Path) -> None:
    """As a crash in the middle of writing a block does."""
    shard = index.with_name("ab")
    shard.mkdir(exist_ok=True)
    (shard / ("ab" * 20 + ".unfinished")).write_bytes(b"x")


def _next_version(path: Path) -> None:
    """Rewrites a block's header as a later version would, its checksum included."""
    data = path.read_bytes()
    fields = list(kv_files._HEADER.unpack_from(data))
    fields[1] += 1
    header = kv_files._HEADER.pack(*fields)
    path.write_bytes(header + kv_files.checksum(header) + data[kv_files.HEADER_BYTES :])


def _read_only_cases(bench: Bench) -> dict[str, Callable[[], dict[str, Any]]]:
    def with_modes(folders: int, files: int) -> Callable[[], dict[str, Any]]:
        def run() -> dict[str, Any]:
            # the innermost first: a folder that cannot be entered hides what is in it
            for path in sorted([*bench.folder.rglob("*"), bench.folder], reverse=True):
                path.chmod(folders if path.is_dir() else files)
            result = bench.check(set())
            make_removable(bench.folder)
            return {**result, "wrong": result["wrong"] + bench.check(set())["wrong"]}

        return run

    return {
        "nothing can be written": with_modes(0o500, 0o400),
        "files can be written, folders cannot": with_modes(0o500, 0o600),
        "nothing can be read": with_modes(0o700, 0o000),
        "folders cannot be entered": with_modes(0o000, 0o600),
    }


def _full_cases(bench: Bench) -> dict[str, Callable[[], dict[str, Any]]]:
    """On a disk of 1 MiB with a file that fills it up to some room."""
    filler = bench.folder / "filler"

    def with_room(n_bytes: int) -> Callable[[], dict[str, Any]]:
        def run() -> dict[str, Any]:
            for path in list(bench.folder.iterdir()):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                for _ in range(max(SMALL_DISK_BYTES - n_bytes, 0) // 4096):
                    file.write(bytes(4096))
            results = [bench.check(set()) for _ in range(2)]  # the second finds what the first could save
            filler.unlink(missing_ok=True)
            results += [bench.check(set()) for _ in range(2)]
            return {
                "wrong": [wrong for result in results for wrong in result["wrong"]],
                "restored": [sum(result["restored"]) for result in results],
            }

        return run

    return {f"{n_bytes >> 10} KiB left": with_room(n_bytes) for n_bytes in (0, 16 << 10, 128 << 10, 256 << 10, 1 << 20)}


def _leave_override_rights(_folder: Path) -> str:
    """The administrator may write anywhere; without these rights file modes hold for this process too."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "file modes, as an ordinary user"
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, data) != 0:
        raise SystemExit("the rights of this process cannot be read")
    gone = 1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH | 1 << CAP_FOWNER
    data[0] &= ~gone & 0xFFFFFFFF
    if libc.capset(header, data) != 0:
        raise SystemExit("the rights of this process cannot be changed")
    return "file modes, as administrator without the right to override them"


def _enter_small_disk(folder: Path) -> str:
    """Mounts a small disk in RAM that only this process sees; else limits the size of files."""
    folder.mkdir(parents=True, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "unshare") and libc.unshare(CLONE_NEWNS) == 0:
        libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None)
        options = f"size={SMALL_DISK_BYTES}".encode()
        if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options) == 0:
            return f"a disk of {SMALL_DISK_BYTES >> 20} MiB in RAM, in a mount namespace of its own"
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, resource.RLIM_INFINITY))
    return "no right to mount: files limited to 64 KiB instead"


if __name__ == "__main__":
    sys.exit(main())
