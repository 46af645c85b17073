"""The engine in a process of its own: the same answers, the same errors, and what happens when one of both dies."""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from hearth.models.engine import EngineOptions, LlamaEngine, child, messages
from hearth.models.engine.last_words import manner_of_death
from hearth.models.engine.process import CRASH_WINDOW_S, ProcessEngine
from hearth.models.engine.worker import Served, Worker
from hearth.models.errors import ContextOverflowError, EngineError, HearthError, ModelFileError, RequestError
from hearth.models.types import (
    EngineEvent,
    Failed,
    Finished,
    GenerationRequest,
    MediaSegment,
    PrefillProgress,
    SamplingParams,
    Segment,
    TextDelta,
    TextSegment,
)
from tests.models.tiny_gguf import write_tiny_gguf

OPTIONS = EngineOptions(n_threads=1)
SOON_S = 1.0  # what takes effect within 0.2 s, on a machine that is busy with other things too
posix_only = pytest.mark.skipif(os.name != "posix", reason="signals")

# engines that run in the child: the real one with doors to misbehave, and a light one that loads nothing
ENGINES = """
    import logging, os, sys, time, warnings
    from pathlib import Path
    from hearth.models.engine.engine import LlamaEngine

    class OddEngine(LlamaEngine):
        def flush(self, what=None):
            if what is None:
                return super().flush()
            if what == "modules":
                return sorted({name.partition(".")[0] for name in sys.modules})
            if what == "abort":
                os.write(2, b"ggml.c:7: GGML_ASSERT(n_rows > 0) failed\\n")
                os.abort()
            if what == "print":
                print("python prints", flush=True)
                os.write(1, b"native code prints\\n")
                warnings.warn("a warning of a library")
            if what == "log":
                logging.getLogger("hearth.odd").info("too low a level")
                logging.getLogger("hearth.odd").warning("from %s", "the child")
            if what == "raise":
                return 1 // 0
            return object if what == "object" else what
"""
LIGHT_ENGINES = '''
    import os, sys, time
    from pathlib import Path
    from hearth.models.errors import ModelFileError, RequestError
    from hearth.models.types import ModelInfo

    class LightEngine:
        """No model: loads as its path says."""

        def __init__(self, path, options, on_progress, **arguments):
            if path.name == "slow":
                for i in range(600):
                    on_progress(i / 600)
                    time.sleep(0.02)
            if path.name == "crash":
                os._exit(3)
            if path.name == "refuse":
                raise RequestError(f"arguments are {arguments}")
            for i in range(10_001):
                on_progress(i / 10_000)
            content = path.read_text() if path.is_file() else "same"
            self.info = ModelInfo(str(arguments), path, content, 8, 8, 8, 8, 8, 8, None, "", "", False)

        def tokenize(self, text, *, parse_special=False, add_bos=False):
            if text == "exit":
                os._exit(5)
            return [1, 2, 3]

        def close(self):
            pass
'''


@pytest.fixture(scope="module")
def doubles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], ModuleType]]:
    """Modules of engines, importable here and, because the child takes over ``sys.path``, there."""
    folder = tmp_path_factory.mktemp("doubles")
    (folder / "odd_engines.py").write_text(textwrap.dedent(ENGINES))
    (folder / "light_engines.py").write_text(textwrap.dedent(LIGHT_ENGINES))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, doubles: Callable[[str], ModuleType]) -> Iterator[ProcessEngine]:
    """One process for all tests that do not end it."""
    path = write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")
    with ProcessEngine.load(path, OPTIONS, make_engine=doubles("odd_engines").OddEngine.load) as engine:
        yield engine


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompt of some thousand tokens takes seconds."""
    path = tmp_path_factory.mktemp("models") / "slow.gguf"
    return write_tiny_gguf(path, n_embd=256, n_layer=6, n_head=8, n_head_kv=4, n_ff=768, n_ctx_train=8192)


@pytest.fixture(scope="module")
def slow_engine(slow_model: Path, doubles: Callable[[str], ModuleType]) -> Iterator[ProcessEngine]:
    with ProcessEngine.load(slow_model, OPTIONS, make_engine=doubles("odd_engines").OddEngine.load) as engine:
        yield engine


@pytest.fixture
def load_light(doubles: Callable[[str], ModuleType]) -> Iterator[Callable[..., ProcessEngine]]:
    engines: list[ProcessEngine] = []

    def load(path: str | Path = "model", **arguments: object) -> ProcessEngine:
        make = doubles("light_engines").LightEngine
        engines.append(ProcessEngine.load(Path(path), make_engine=make, **arguments))  # type: ignore[arg-type]
        return engines[-1]

    yield load
    for engine in engines:
        engine.close()


def tokens(n: int, seed: int = 0) -> TextSegment:
    return TextSegment(tuple(np.random.default_rng(seed).integers(32, 127, n).tolist()))


def request(*segments: Segment, **fields: object) -> GenerationRequest:
    return GenerationRequest("r", segments, **{"max_tokens": 12, **fields})  # type: ignore[arg-type]


def run(engine: ProcessEngine | LlamaEngine, *segments: Segment, **fields: object) -> list[EngineEvent]:
    events = list(engine.submit(request(*segments, **fields)).events())
    engine.check_integrity()
    return events


def finish(engine: ProcessEngine | LlamaEngine, *segments: Segment, **fields: object) -> Finished:
    last = run(engine, *segments, **fields)[-1]
    assert isinstance(last, Finished), last
    return last


def fail(engine: ProcessEngine, *segments: Segment, **fields: object) -> HearthError:
    last = run(engine, *segments, **fields)[-1]
    assert isinstance(last, Failed), last
    return last.error


def picture(identity: str, embed: Callable[[], NDArray[np.float32]] | None = None) -> MediaSegment:
    def random() -> NDArray[np.float32]:
        return np.random.default_rng(len(identity)).standard_normal((9, 64)).astype(np.float32)

    return MediaSegment(identity, 9, 9, embed or random)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone_within(pid: int, seconds: float) -> bool:
    deadline_s = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return not is_running(pid)


def kill(engine: ProcessEngine) -> float:
    """Ends the child as the system does when memory runs out; returns when."""
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    return time.monotonic()


# The same as in a thread.


def test_answers_and_errors_are_those_of_the_engine_in_a_thread(engine: ProcessEngine) -> None:
    with LlamaEngine.load(engine.info.path, OPTIONS) as local:
        assert engine.info == local.info
        prompt = tokens(40)
        here, there = run(local, prompt, max_tokens=60), run(engine, prompt, max_tokens=60)
        assert [event for event in there if isinstance(event, PrefillProgress)] == [
            event for event in here if isinstance(event, PrefillProgress)
        ]
        assert there[-1] != here[-1], "the timings are measured"
        assert isinstance(there[-1], Finished)
        assert isinstance(here[-1], Finished)
        assert there[-1].tokens == here[-1].tokens
        assert there[-1].text == here[-1].text == "".join(e.text for e in there if isinstance(e, TextDelta))
        segments = (tokens(5), picture("apple"), tokens(3), picture("a pear"))
        assert finish(engine, *segments).tokens == finish(local, *segments).tokens
        text = "the cat <|end|> żółw 🐢\x00 sat"
        for special in (False, True):
            ids = local.tokenize(text, parse_special=special, add_bos=special)
            assert engine.tokenize(text, parse_special=special, add_bos=special) == ids
            assert engine.detokenize(ids, special=special) == local.detokenize(ids, special=special)
        for wrong in (
            request(tokens(600)),
            request(),
            request(tokens(5), sampling=SamplingParams(temperature=-1)),
            request(TextSegment((1, 9999))),
        ):
            with pytest.raises(HearthError) as expected:
                local.submit(wrong)
            with pytest.raises(HearthError) as raised:
                engine.submit(wrong)
            assert (type(raised.value), str(raised.value)) == (type(expected.value), str(expected.value))
        with pytest.raises(EngineError, match=r"within 0\.\."):
            engine.detokenize([9999])


def test_requests_at_once_are_answered_each(engine: ProcessEngine) -> None:
    alone = [finish(engine, tokens(30, seed), max_tokens=20).tokens for seed in range(4)]
    handles = [engine.submit(request(tokens(30, seed), max_tokens=20)) for seed in range(4)]
    answers: dict[int, EngineEvent] = {}

    def read(index: int) -> None:
        answers[index] = list(handles[index].events())[-1]

    threads = [threading.Thread(target=read, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for index, expected in enumerate(alone):
        answer = answers[index]
        assert isinstance(answer, Finished)
        assert answer.tokens == expected


def test_large_messages_pass_both_ways_at_once(engine: ProcessEngine) -> None:
    text = "the cat sat on the mat and ate " * 20_000
    lengths: list[int] = []

    def there_and_back() -> None:
        ids = engine.tokenize(text)
        lengths.append(len(engine.detokenize(ids)))

    threads = [threading.Thread(target=there_and_back) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert finish(engine, tokens(30), max_tokens=50).reason == "length"
    for thread in threads:
        thread.join(60)
    assert lengths == [len(text)] * 3


def test_cancel_ends_a_prefill_soon_and_keeps_what_was_read(slow_engine: ProcessEngine) -> None:
    handle = slow_engine.submit(request(tokens(7000)))
    events = handle.events()
    while not (isinstance(event := next(events), PrefillProgress) and event.done >= 512):
        pass
    started_s = time.monotonic()
    handle.cancel()
    last = list(events)[-1]
    assert time.monotonic() - started_s < SOON_S
    assert isinstance(last, Finished)
    assert (last.reason, last.usage.prompt_tokens) == ("cancelled", 7000)
    handle.cancel()
    again = finish(slow_engine, TextSegment(tokens(7000).tokens[:600]), max_tokens=2)
    assert again.usage.cached_tokens >= 512


# Embeddings come from the parent.


class UnreadablePicture(HearthError):
    """A class that the child does not know."""


def test_errors_of_an_encoder_end_its_request_only(engine: ProcessEngine, caplog: pytest.LogCaptureFixture) -> None:
    unreadable = UnreadablePicture("apple.jpg: not a picture; save it as JPEG or PNG")

    def refuse() -> NDArray[np.float32]:
        raise unreadable

    def broken() -> NDArray[np.float32]:
        raise ZeroDivisionError("no pixels")

    assert fail(engine, picture("1", refuse), tokens(3)) is unreadable
    wrapped = fail(engine, picture("2", broken), tokens(3))
    assert (type(wrapped), str(wrapped)) == (EngineError, "the engine failed: ZeroDivisionError: no pixels")
    assert isinstance(wrapped.__cause__, ZeroDivisionError)
    assert "no pixels" in caplog.text
    shape = fail(engine, picture("3", lambda: np.zeros((9, 32), np.float32)), tokens(3))
    assert "shape (9, 32), the model needs (9, 64)" in str(shape)
    nan = fail(engine, picture("4", lambda: np.full((9, 64), np.nan, np.float32)), tokens(3))
    assert "not finite" in str(nan)
    assert finish(engine, picture("5"), tokens(3)).reason == "length"


def test_the_thread_that_reads_cancels_nothing_itself() -> None:
    """Whoever ends a request writes its last event, and a reader that writes may wait for a parent that does, too."""
    threads: list[threading.Thread] = []
    served, worker = Served(1, None), Worker.__new__(Worker)  # type: ignore[arg-type]
    served.cancel = lambda: threads.append(threading.current_thread())  # type: ignore[method-assign]
    worker._requests, worker._threads = {1: served}, set()
    worker._take(messages.Cancel(1))
    deadline_s = time.monotonic() + SOON_S
    while not threads and time.monotonic() < deadline_s:
        time.sleep(0.001)
    assert threads != [threading.current_thread()]
    assert len(threads) == 1


def test_cancel_does_not_wait_for_an_encoder(engine: ProcessEngine) -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow() -> NDArray[np.float32]:
        started.set()
        assert go_on.wait(30)
        return np.ones((9, 64), np.float32)

    handle = engine.submit(request(tokens(20, seed=9), picture("slow", slow), tokens(3)))
    events = handle.events()
    assert any(isinstance(event, PrefillProgress) and event.done == 20 for event in events), "the text is read"
    assert started.wait(30)
    assert engine.tokenize("the cat"), "the reader is free"
    started_s = time.monotonic()
    handle.cancel()
    *_, last = events
    assert time.monotonic() - started_s < SOON_S
    assert isinstance(last, Finished)
    assert (last.reason, last.usage.prompt_tokens) == ("cancelled", 32)
    assert finish(engine, tokens(20, seed=9)).usage.cached_tokens == 19
    go_on.set()
    engine.check_integrity()


# What else passes.


def test_the_child_is_silent_and_light(
    engine: ProcessEngine, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert engine.call("flush", "print") == "print"
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert "a warning of a library" in caplog.text
    modules = set(engine.call("flush", "modules"))
    assert modules.isdisjoint({"torch", "gradio", "fastapi", "chromadb", "onnxruntime", "pytest"})
    assert "llama_cpp" in modules


def test_log_records_arrive_with_their_level(engine: ProcessEngine, caplog: pytest.LogCaptureFixture) -> None:
    engine.call("flush", "log")
    records = [record for record in caplog.records if record.name == "hearth.odd"]
    assert [(record.levelname, record.getMessage()) for record in records] == [("WARNING", "from the child")]


def test_calls_are_named_and_their_results_plain(engine: ProcessEngine, caplog: pytest.LogCaptureFixture) -> None:
    assert engine.call("flush", {"a": (1, None)}) == {"a": (1, None)}
    engine.flush()
    assert engine.forget("nobody") == 0
    assert finish(engine, tokens(6), owner="somebody").reason == "length"
    assert engine.stats()["n_requests"] >= 1
    with pytest.raises(EngineError, match="close may not be called in the engine process"):
        engine.call("close")
    with pytest.raises(EngineError, match="ZeroDivisionError"):
        engine.call("flush", "raise")
    assert "Traceback" in caplog.text
    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.object"):
        engine.call("flush", "object")
    with pytest.raises(RequestError, match="not plain data"):
        engine.submit(request(tokens(3), sampling=SamplingParams(json_schema={"a": lambda: 1})))
    assert finish(engine, tokens(3)).reason == "length"


def test_nothing_but_plain_data_is_unpickled() -> None:
    for message in (
        messages.Event(1, Finished("stop", "a", (1,), *(None, None), 1)),  # type: ignore[arg-type]
        messages.Answer(1, b"", messages.record_of(ValueError("x"))),
        [Path("a"), {"b": {1, 2.5}}, None],
    ):
        assert messages.read_plain(pickle.dumps(message)) == message
    for hostile in (os.system, print, subprocess.Popen, messages.read_plain, EngineError("x"), np.zeros(2)):
        with pytest.raises(pickle.UnpicklingError, match="only plain data"):
            messages.read_plain(pickle.dumps(hostile))


def test_an_error_of_an_unknown_class_is_its_nearest_known_base() -> None:
    class Unheard(ContextOverflowError):
        pass

    record = messages.record_of(Unheard("too long"))
    renamed = messages.ErrorRecord(("elsewhere.Unheard", *record.names[1:]), record.text)
    assert type(messages.error_of(record)) is Unheard
    for one in (messages.error_of(renamed), ContextOverflowError("too long")):
        assert (type(one), str(one), one.args) == (ContextOverflowError, "too long", ("too long",))
    assert str(messages.error_of(messages.record_of(KeyError("k")))) == "the engine failed: KeyError: 'k'"


@posix_only
def test_a_death_in_a_few_words() -> None:
    frames = ["Fatal Python error: Segmentation fault", "Thread 1:", 'File "/a/b.py", line 1 in wait']
    frames += ["Current thread 2 (most recent call first):", 'File "/c/llama.py", line 303 in _decode']
    assert manner_of_death(-signal.SIGSEGV, frames) == "signal 11, SIGSEGV: in _decode, llama.py line 303"
    assert manner_of_death(-signal.SIGKILL, ["old news"]) == "signal 9, SIGKILL, often because memory ran out"
    assert manner_of_death(1, ["Traceback", "ImportError: x"]) == "exit status 1: ImportError: x"
    assert manner_of_death(0xC0000005, []) == "exit status 0xc0000005"


# Deaths of the child.


@posix_only
def test_a_killed_child_ends_its_requests_once_and_another_starts(
    slow_engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hearth.models.engine.process.CRASH_WINDOW_S", 0.0)
    expected = finish(slow_engine, tokens(10), max_tokens=4).tokens

    def die_while(running: GenerationRequest, seen: Callable[[EngineEvent], bool]) -> None:
        handle, waiting = slow_engine.submit(running), slow_engine.submit(request(tokens(10, seed=3)))
        events = handle.events()
        while not seen(next(events)):
            pass
        killed_s = kill(slow_engine)
        rest = [*list(events), *list(waiting.events())]
        assert time.monotonic() - killed_s < SOON_S
        failures = [event for event in rest if isinstance(event, Failed | Finished)]
        assert len(failures) == 2
        for failure in failures:
            assert isinstance(failure, Failed)
            assert isinstance(failure.error, EngineError)
            assert "ended unexpectedly (signal 9, SIGKILL" in str(failure.error)
            assert "ask again: the conversation is kept" in str(failure.error)
        handle.cancel()

    die_while(request(tokens(7900)), lambda event: isinstance(event, PrefillProgress))
    assert finish(slow_engine, tokens(10), max_tokens=4).tokens == expected
    die_while(request(tokens(20), max_tokens=5000), lambda event: isinstance(event, TextDelta))
    assert finish(slow_engine, tokens(10), max_tokens=4).tokens == expected
    kill(slow_engine)  # idle: whoever comes next notices nothing
    ids: list[list[int]] = []
    threads = [threading.Thread(target=lambda: ids.append(slow_engine.tokenize("the cat"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert finish(slow_engine, tokens(10), max_tokens=4).tokens == expected
    for thread in threads:
        thread.join(30)
    assert len(ids) == 3
    assert caplog.text.count("ended unexpectedly") == 3


@posix_only
def test_an_abort_tells_what_native_code_said(
    slow_engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hearth.models.engine.process.CRASH_WINDOW_S", 0.0)
    handle = slow_engine.submit(request(tokens(7900)))
    with pytest.raises(EngineError, match=r"SIGABRT: ggml\.c:7: GGML_ASSERT\(n_rows > 0\) failed\); ask again"):
        slow_engine.call("flush", "abort")  # tried again with a new child, which does the same
    failed = list(handle.events())[-1]
    assert isinstance(failed, Failed)
    assert "GGML_ASSERT" in str(failed.error)
    assert "Current thread" in caplog.text, "the log has the rest"
    assert "\n" not in caplog.messages[-1]


def test_a_crash_loop_ends(load_light: Callable[..., ProcessEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load_light()
    for _ in range(2):
        with pytest.raises(EngineError, match="exit status 5"):
            engine.tokenize("exit")
    for _ in range(2):
        with pytest.raises(EngineError, match=r"ended 3 times within 60 s, last with exit status 5; choose another"):
            engine.tokenize("the cat")
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + CRASH_WINDOW_S)
    assert engine.tokenize("the cat") == [1, 2, 3]


@posix_only
def test_an_interrupt_from_the_terminal_is_not_the_childs(engine: ProcessEngine) -> None:
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGINT)
    assert finish(engine, tokens(5)).reason == "length"
    assert engine.pid == pid


# Loading.


def test_loading_tells_how_far_it_is_and_passes_arguments(load_light: Callable[..., ProcessEngine]) -> None:
    told: list[float] = []
    engine = load_light(on_progress=told.append, kv_folder=Path("kv"))
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert 10 < len(told) < 300
    assert engine.info.name == str({"kv_folder": Path("kv")})


def test_what_loading_raises_is_raised(tmp_path: Path, load_light: Callable[..., ProcessEngine]) -> None:
    with pytest.raises(ModelFileError, match=r"missing\.gguf"):
        ProcessEngine.load(tmp_path / "missing.gguf", OPTIONS)
    with pytest.raises(RequestError, match=r"arguments are \{'n': 1\}"):
        load_light("refuse", n=1)
    with pytest.raises(EngineError, match=r"ended while it loaded crash \(exit status 3\); choose another"):
        load_light("crash")


def test_another_version_of_hearth_is_not_talked_to(
    load_light: Callable[..., ProcessEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "protocol_id", lambda: "of the last version")
    with pytest.raises(EngineError, match=r"exit status 1: Hearth was updated while it ran: end it and start it again"):
        load_light()


def test_loading_can_be_stopped(load_light: Callable[..., ProcessEngine]) -> None:
    told: list[float] = []
    with pytest.raises(EngineError, match="loading slow was stopped"):
        load_light("slow", on_progress=told.append, cancelled=lambda: len(told) > 1)
    with pytest.raises(EngineError, match="loading slow was stopped"):
        load_light("slow", cancelled=lambda: True)

    def refuse(_fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_light("slow", on_progress=refuse)


def test_another_file_in_the_models_place_is_refused(tmp_path: Path, load_light: Callable[..., ProcessEngine]) -> None:
    path = tmp_path / "model"
    path.write_text("one")
    engine = load_light(path)
    path.write_text("another")
    with pytest.raises(EngineError):
        engine.tokenize("exit")
    with pytest.raises(EngineError, match="not the file it was"):
        engine.tokenize("the cat")


# Ends.


def resources() -> tuple[set[str], int]:
    gc.collect()
    threads = {thread.name for thread in threading.enumerate()}
    folder = Path("/proc/self/fd")
    return threads, len(list(folder.iterdir())) if folder.is_dir() else 0


def test_close_ends_everything_and_leaves_nothing(slow_model: Path) -> None:
    before = resources()
    engine = ProcessEngine.load(slow_model, OPTIONS)
    hold = threading.Event()

    def slow() -> NDArray[np.float32]:
        hold.wait(0.5)
        return np.zeros((9, 256), np.float32)

    pid = engine.pid
    assert pid is not None
    running = engine.submit(request(tokens(6000)))
    waiting = engine.submit(request(picture("p", slow), tokens(10)))
    events = running.events()
    next(events)
    engine.close()
    last = list(events)[-1]
    assert isinstance(last, Finished)
    assert last.reason == "cancelled"
    refused = list(waiting.events())[-1]
    assert isinstance(refused, Failed)
    assert "closed" in str(refused.error)
    for use in (lambda: engine.submit(request(tokens(5))), lambda: engine.tokenize("late"), engine.check_integrity):
        with pytest.raises(EngineError, match="the engine is closed; load the model again"):
            use()
    engine.close()
    running.cancel()
    assert not Path(f"/proc/{pid}").exists(), "gone, and no zombie"
    assert resources() == before


def test_close_while_an_encoder_works(engine: ProcessEngine) -> None:
    started, hold = threading.Event(), threading.Event()

    def slow() -> NDArray[np.float32]:
        started.set()
        hold.wait(30)
        return np.zeros((9, 64), np.float32)

    other = ProcessEngine.load(engine.info.path, OPTIONS)
    handle = other.submit(request(picture("p", slow), tokens(3)))
    assert started.wait(30)
    threading.Timer(0.2, hold.set).start()
    other.close()
    last = list(handle.events())[-1]
    assert isinstance(last, Finished)
    assert last.reason == "cancelled"


@posix_only
def test_a_child_that_hangs_is_ended_by_force(
    load_light: Callable[..., ProcessEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "CLOSE_S", 0.1)
    monkeypatch.setattr(child, "TERMINATE_S", 0.2)
    engine = load_light()
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)

    def fill_the_pipe() -> None:
        with pytest.raises(EngineError):
            engine.tokenize("x" * 1_000_000)

    stuck = threading.Thread(target=fill_the_pipe)
    stuck.start()
    time.sleep(0.1)
    engine.close()
    stuck.join(5)
    assert not stuck.is_alive()
    assert not is_running(pid)


PARENT = """
    import sys, threading
    from pathlib import Path
    from hearth.models.engine import EngineOptions
    from hearth.models.engine.process import ProcessEngine
    from hearth.models.types import GenerationRequest, TextSegment

    if __name__ == "__main__":
        engine = ProcessEngine.load(Path(sys.argv[1]), EngineOptions(n_threads=1))
        print(engine.pid, flush=True)
        if sys.argv[2] == "leave":
            sys.exit()
        handle = engine.submit(GenerationRequest("r", (TextSegment((1,) * 7900),), max_tokens=200))
        for event in handle.events():
            print("event", flush=True)
"""


def start_parent(folder: Path, model: Path, what: str) -> subprocess.Popen[str]:
    script = folder / "parent.py"
    script.write_text(textwrap.dedent(PARENT))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(model), what]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@posix_only
def test_the_child_of_a_killed_parent_leaves(tmp_path: Path, slow_model: Path) -> None:
    with start_parent(tmp_path, slow_model, "generate") as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline() == "event\n"
        assert is_running(pid)
        parent.kill()
        assert gone_within(pid, 1.0 + SOON_S)


@posix_only
def test_a_parent_that_forgets_to_close_exits_quietly(tmp_path: Path, slow_model: Path) -> None:
    with start_parent(tmp_path, slow_model, "leave") as parent:
        out, err = parent.communicate(timeout=60)
    assert (parent.returncode, err) == (0, "")
    assert gone_within(int(out), SOON_S)
