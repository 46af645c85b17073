"""Turns messages into the text a model was trained on, by the template in its GGUF, which is not trusted."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import jinja2
from jinja2.exceptions import SecurityError

from hearth.models.errors import TemplateError
from hearth.models.template_sandbox import TemplateEnvironment, TemplateRefusal

T = TypeVar("T")

MAX_SOURCE_BYTES = 64 * 1024
TIME_LIMIT_S = 2.0

DEFAULT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML, for files that have no template."""


class ChatTemplate:
    """A compiled template. ``render`` may be called from any thread."""

    def __init__(self, source: str | None, bos_token: str = "", eos_token: str = "") -> None:
        """``source`` None is ChatML. Raises TemplateError for a source that is too long or does not compile."""
        source = DEFAULT_TEMPLATE if source is None else source
        n_bytes = len(source.encode("utf-8", "replace"))
        if n_bytes > MAX_SOURCE_BYTES:
            raise TemplateError(f"the chat template has {n_bytes:,} bytes; the limit is {MAX_SOURCE_BYTES:,}")
        self.source = source
        self._special = {"bos_token": bos_token, "eos_token": eos_token}
        self._template: jinja2.Template = _within_bounds(lambda: TemplateEnvironment().from_string(source))

    def render(self, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        """The prompt's text. Raises TemplateError if the template refuses the messages, fails, or exceeds a bound."""
        return _within_bounds(
            lambda: self._template.render(
                messages=messages, add_generation_prompt=add_generation_prompt, tools=None, **self._special
            )
        )


class _OutOfTime(BaseException):
    """Raised inside a job from outside."""


class _Job(threading.Thread, Generic[T]):
    """One call on a thread of its own, which can be stopped between two bytecodes."""

    def __init__(self, function: Callable[[], T]) -> None:
        super().__init__(name="hearth-template", daemon=True)
        self._function = function
        self._lock = threading.Lock()
        self._finished = False
        self.result: T | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            try:
                self.result = self._function()
            except BaseException as error:  # carried over to the caller's thread
                self.error = error
            with self._lock:
                self._finished = True
        except _OutOfTime:  # came between the call and the flag
            pass

    def stop(self) -> None:
        with self._lock:
            if not self._finished and self.ident is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(_OutOfTime))


def _within_bounds(function: Callable[[], T]) -> T:
    """Calls the function for at most TIME_LIMIT_S. Raises TemplateError for whatever goes wrong in it."""
    job = _Job(function)
    job.start()
    job.join(TIME_LIMIT_S)
    if job.is_alive():
        job.stop()
        job.join(1.0)
        raise TemplateError(f"the chat template ran longer than {TIME_LIMIT_S:g} s; use another file of this model")
    if job.error is not None:
        raise TemplateError(" ".join(_reason(job.error).split())) from job.error
    return cast(T, job.result)


def _reason(error: BaseException) -> str:
    match error:
        case TemplateRefusal():
            return f"the chat template refuses these messages: {error}"
        case SecurityError():
            return f"the chat template goes beyond its bounds: {error}"
        case jinja2.TemplateSyntaxError():
            return f"the chat template does not compile: line {error.lineno}: {error.message}"
        case RecursionError() | MemoryError():
            return f"the chat template goes beyond its bounds: {type(error).__name__}"
        case _:
            return f"the chat template failed: {type(error).__name__}: {error}"
