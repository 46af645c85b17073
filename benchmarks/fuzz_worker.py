"""The process of fuzz.py that reads hostile files by the ways of the application.

Takes a JSON object a line, {"kind", "path", "role"}, and answers with {"step"} before each step and {"outcomes"} at the
end of each file: pairs of step and what became of it, which is "read", "refused" (a HearthError that names the file),
"stopped" (it obeyed the user, who stops after ``PATIENCE_S``), "engine ended" (only the engine's own process died, and
the error says so), or "wrong: …".
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from sdist import ROOT

from hearth.models.errors import EngineError, HearthError

PATIENCE_S = 6.0  # then the user presses stop, where there is a stop
MAX_SCANNED_PAGES = 4
MESSAGES = [{"role": "user", "content": "Hello, who are you? " * 4}]

Step = Callable[[str, Callable[[], Any]], Any]


class Outcomes:
    """Runs steps and notes what became of them."""

    def __init__(self, names: tuple[str, ...], say: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
        self._names = names
        self._say = say
        self.found: list[tuple[str, str]] = []

    def step(self, name: str, call: Callable[[], Any]) -> Any:
        """What the call returns, None if it was refused or went wrong."""
        from hearth.multimodal.errors import PerceptionCancelled

        self._say({"step": name})
        result, outcome = None, "read"
        try:
            result = call()
        except PerceptionCancelled:
            outcome = "stopped"
        except HearthError as error:
            outcome = self._judged(error)
        except BaseException as error:  # what must not come out of the application
            trace = traceback.extract_tb(error.__traceback__)
            at = f"{Path(trace[-1].filename).name}:{trace[-1].lineno}"
            outcome = f"wrong: {type(error).__name__} at {at}: {str(error)[:200]}"
        self.found.append((name, outcome))
        return result

    def _judged(self, error: HearthError) -> str:
        message = str(error)
        if not any(name in message for name in self._names):
            return f"wrong: the message names no file: {message[:300]}"
        if "\n" in message.strip():
            return f"wrong: the message has several lines: {message[:300]!r}"
        ended = isinstance(error, EngineError) and ("process ended" in message or "ended with" in message)
        return f"engine ended: {message[:300]}" if ended else "refused"


def read_template(outcomes: Outcomes, source: str) -> None:
    from hearth.models.chat_template import ChatTemplate

    template = outcomes.step("compile", lambda: ChatTemplate(source, "<s>", "</s>"))
    if template is not None:
        outcomes.step("render", lambda: template.render(MESSAGES, add_generation_prompt=True))


def read_picture(outcomes: Outcomes, data: bytes, name: str) -> None:
    from hearth.multimodal import pictures
    from hearth.multimodal.kinds import describe, sniff

    outcomes.step("sniff", lambda: (sniff(data, name), describe(data)))
    picture = outcomes.step("picture", lambda: pictures.read_picture(data, name))
    if picture is not None:
        outcomes.step("thumbnail", lambda: pictures.thumbnail(picture, 256))


def read_document(outcomes: Outcomes, data: bytes, name: str) -> None:
    """As app/perceive.py: the text, its passages, and pages that are scans as pictures."""
    from hearth import documents_apart as documents
    from hearth.multimodal.kinds import sniff
    from hearth.multimodal.passages import embedding_text, split_passages

    outcomes.step("sniff", lambda: sniff(data, name))
    stop = _user()
    text = outcomes.step("document", lambda: documents.read_document(data, name, cancelled=stop))
    if text is None:
        return
    outcomes.step("passages", lambda: [embedding_text(text, passage) for passage in split_passages(text)])
    for number in text.scanned_pages[:MAX_SCANNED_PAGES]:
        stop = _user()
        outcomes.step("page", partial(documents.page_png, data, number, name=name, cancelled=stop))


def read_recording(outcomes: Outcomes, data: bytes, name: str) -> None:
    """As app/perceive.py: the sound, and of a video some frames."""
    from hearth.multimodal import sound, video
    from hearth.multimodal.kinds import sniff

    kind = outcomes.step("sniff", lambda: sniff(data, name))
    if kind == "video":
        stop = _user()
        outcomes.step("video", lambda: video.read_video(data, name, n_frames=4, cancelled=stop))
    stop = _user()
    outcomes.step("sound", lambda: sound.read_sound(data, name, cancelled=stop))


def read_header(outcomes: Outcomes, path: Path) -> None:
    """What is read of a model in the application's own process."""
    from hearth.model_choice import choose
    from hearth.models.encoders import encoder_for
    from hearth.models.gguf_header import check_gguf

    outcomes.step("check", lambda: check_gguf(path))
    outcomes.step("encoder_for", lambda: encoder_for(path, sorted(path.parent.glob("*.gguf"))))
    outcomes.step("choose", lambda: choose(str(path)))


def read_model(outcomes: Outcomes, path: Path, role: str, sound_files: dict[str, Path]) -> None:
    from hearth.model_report import examine, lines

    read_header(outcomes, path)
    outcomes.step("inspect", lambda: list(lines(examine(path), whole_template=True)))
    given: dict[str, Any] = {"encoder": {"mmproj": path}, "adapter": {"lora": (str(path),)}}.get(role, {})
    model = {"encoder": sound_files["text"], "adapter": sound_files["model"]}.get(role, path)
    outcomes.step("load and ask", lambda: _load_and_ask(model, given))


def _load_and_ask(path: Path, given: dict[str, Any]) -> None:
    """As the application: the settings' options, a process of its own, the file's template."""
    import numpy as np

    from hearth.engine_factory import make_engine
    from hearth.models.chat_template import DEFAULT_TEMPLATE, ChatTemplate
    from hearth.models.engine.process import ProcessEngine
    from hearth.models.errors import TemplateError
    from hearth.models.types import Failed, GenerationRequest, MediaShape, TextSegment
    from hearth.settings import Settings

    options = Settings(model=str(path), **given).engine_options()
    with ProcessEngine.load(path, options, make_engine=make_engine) as engine:
        info = engine.info
        try:
            template = ChatTemplate(info.chat_template or DEFAULT_TEMPLATE, info.bos_token, info.eos_token)
            text = template.render(MESSAGES, add_generation_prompt=True)[:200]
        except TemplateError:
            text = "Hello"
        if info.media is not None and info.media.sees:
            with _Naming(path, given):
                engine.plan_media(MediaShape(width=64, height=48))
                engine.encode_media(np.zeros((48, 64, 3), np.uint8))
        with _Naming(path, given):
            tokens = tuple(engine.tokenize(text, parse_special=True))[: max(1, info.n_ctx // 2)] or (0,)
            handle = engine.submit(GenerationRequest("fuzz", (TextSegment(tokens),), max_tokens=4))
            for event in handle.events():
                if isinstance(event, Failed):
                    raise event.error
            engine.stats()


class _Naming:
    """What goes wrong once the model is loaded is said about the engine, and need not name the file."""

    def __init__(self, path: Path, given: dict[str, Any]) -> None:
        self._name = next(
            (Path(str(one)).name for one in (given.get("mmproj"), *given.get("lora", ())) if one), path.name
        )

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        if isinstance(error, HearthError):
            raise type(error)(f"{self._name}: {error}") from error


def _user() -> Callable[[], bool]:
    """Asks whether the user has had enough."""
    enough_s = time.monotonic() + PATIENCE_S
    return lambda: time.monotonic() > enough_s


def read(kind: str, path: Path, role: str, outcomes: Outcomes, sound_files: dict[str, Path]) -> None:
    if kind == "models":
        return read_model(outcomes, path, role, sound_files)
    data = path.read_bytes()
    if kind == "templates":
        return read_template(outcomes, data.decode("utf-8", "surrogatepass"))
    reader = {"pictures": read_picture, "documents": read_document, "recordings": read_recording}[kind]
    return reader(outcomes, data, path.name)


def names_of(kind: str, path: Path) -> tuple[str, ...]:
    """What a message may call the file."""
    return ("chat template",) if kind == "templates" else (path.name,)


def left_running() -> list[str]:
    """Threads of templates that obey no stop, after a moment of grace."""
    deadline_s = time.monotonic() + PATIENCE_S
    while threads := [one.name for one in threading.enumerate() if one.name == "hearth-template"]:
        if time.monotonic() > deadline_s:
            return threads
        time.sleep(0.05)
    return []


def _jobs() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    sound_files = {role: Path(path) for role, path in json.loads(sys.argv[1]).items()}
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    for path in (ROOT / "assets", Path(__file__)):  # the libraries are loaded before memory is counted
        quiet = Outcomes((path.name,))
        for reader in (read_picture, read_document, read_recording):
            reader(quiet, b"words and more words", path.name)
    read_template(Outcomes(("",)), "{{ messages }}")
    say({"ready": True})
    for job in _jobs():
        path = Path(job["path"])
        outcomes = Outcomes(names_of(job["kind"], path), say)
        with suppress(FileNotFoundError):
            read(job["kind"], path, job["role"], outcomes, sound_files)
        if threads := left_running():
            outcomes.found.append(("stop", f"wrong: {len(threads)} template threads go on after their time"))
        say({"outcomes": outcomes.found})


if __name__ == "__main__":
    main()
