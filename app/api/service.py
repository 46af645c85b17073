"""What the requests run on: the assistant's own engine, senses, embedder and transcriber. Nothing is stored."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hearth.api.chat_call import Call, ChatCall, TextCall
from hearth.api.content import GivenFile, GivenMessage
from hearth.api.errors import ApiError
from hearth.api.jobs import Stop
from hearth.api.shapes import Ended, Said
from hearth.background import Cancelled
from hearth.chat_engine import ChatEngine, Wanted
from hearth.kv_disk import PROGRAMS
from hearth.models.errors import EngineError, RequestError
from hearth.models.types import Failed, Finished, RequestHandle, SamplingParams, TextDelta, TokenLogprobs
from hearth.multimodal.errors import PerceptionCancelled
from hearth.prompt import ChatMessage, MediaContent, PictureContent, SoundContent

if TYPE_CHECKING:
    from hearth.multimodal.transcripts import SpeechOptions, Transcript
    from hearth.runtime import Runtime

REMEMBERED = 4096  # answers whose ids are known, transcripts, pieces of tokens
K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The last used of what was computed. Any thread."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._kept: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: K, value: V) -> None:
        with self._lock:
            self._kept[key] = value
            self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)


class Service:
    """Methods block, and may be called from any thread; a Stop ends them within 200 ms with Cancelled."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._written: Recent[str, tuple[int, ...]] = Recent(REMEMBERED)  # ids by the hash of the answer's text
        self._seen: Recent[str, bool] = Recent(REMEMBERED)  # pictures that can be read, by the hash of the file
        self._heard: Recent[str, str] = Recent(REMEMBERED)  # transcripts by the hash of the file
        self._pieces: Recent[int, bytes] = Recent(1 << 16)

    @property
    def runtime(self) -> Runtime:
        return self._runtime

    def chat_engine(self, stop: Stop) -> ChatEngine:
        """Waits until it is ready. Raises what loading raises."""
        return self._runtime.chat.get(stop.is_set)

    def check_model(self, asked: str, served: str) -> None:
        """Raises ApiError (404) naming the model that there is."""
        if asked != served:
            raise ApiError(
                f"the model {asked[:80]!r} is not served here; {served!r} is",
                param="model",
                code="model_not_found",
                status=404,
            )

    def answer_chat(self, call: ChatCall, stop: Stop) -> Iterator[Said | Ended]:
        """The answer to a chat as it is made; Ended comes last. Raises HearthError, Cancelled."""
        chat = self.chat_engine(stop)
        self.check_model(call.model, chat.model.name)
        files = [part for message in call.messages for part in message.parts if isinstance(part, GivenFile)]
        with self._runtime.files.holding(file.data for file in files):
            messages = [self._message(message, chat, stop) for message in call.messages]
            encoded = any(not isinstance(part, str) for message in messages for part in message.content)
            if encoded and not self._runtime.is_elsewhere:
                self._runtime.senses.get(stop.is_set)
            if stop.is_set():
                raise Cancelled
            yield from self._follow(chat, chat.answer(messages, self._wanted(call)), stop)

    def answer_text(self, call: TextCall, stop: Stop) -> Iterator[Said | Ended]:
        """How a text goes on. Raises HearthError, Cancelled."""
        chat = self.chat_engine(stop)
        self.check_model(call.model, chat.model.name)
        yield from self._follow(chat, chat.complete(call.prompt, self._wanted(call)), stop)

    def transcribe(self, data: bytes, name: str, stop: Stop, options: SpeechOptions | None = None) -> Transcript:
        """What is said; as the settings have it without ``options``. Raises PerceptionError, NoSpeechError,
        RequestError (a language that the model does not know)."""
        from hearth.multimodal.sound import read_sound

        sound = read_sound(data, name, cancelled=stop.is_set)
        return self._runtime.transcriber.get(stop.is_set).transcribe(sound, options, cancelled=stop.is_set)

    def _wanted(self, call: Call) -> Wanted:
        settings, choice = self._runtime.settings, self._runtime.choice
        own = settings.temperature if settings.temperature is not None else choice.temperature
        top_p = call.top_p if call.top_p is not None else settings.top_p
        sampling = replace(
            call.sampling,
            temperature=call.temperature if call.temperature is not None else own,
            top_p=top_p if top_p is not None else SamplingParams().top_p,
        )
        if self._runtime.is_elsewhere and sampling.n_logprobs is not None:
            raise ApiError(
                "logprobs: the engine is a server elsewhere, whose own are not passed on; leave it out",
                param="logprobs",
                code="unsupported",
            )
        return Wanted(secrets.token_hex(8), sampling, call.max_tokens, call.stop, PROGRAMS)

    def _follow(self, chat: ChatEngine, handle: RequestHandle, stop: Stop) -> Iterator[Said | Ended]:
        ended = False
        try:
            with stop.calling(handle.cancel):
                for event in handle.events():
                    ended = isinstance(event, Finished | Failed)
                    if isinstance(event, TextDelta):
                        yield Said(event.text, self._logprob_entries(chat, event.logprobs) if event.logprobs else None)
                    elif isinstance(event, Failed):
                        raise event.error
                    elif isinstance(event, Finished):
                        if event.reason == "cancelled":
                            if stop.is_set():
                                raise Cancelled
                            raise EngineError("the answer was broken off as the server is stopping; ask again")
                        self._remember(chat, event)
                        yield Ended(event.reason, event.usage)
        finally:
            if not ended:
                handle.cancel()

    def _remember(self, chat: ChatEngine, finished: Finished) -> None:
        """A client that goes on sends the text alone; its ids as they were generated are what the KV cache knows."""
        ids = chat.written(finished)
        if ids:
            self._written.put(_digest(finished.text), ids)

    def _message(self, message: GivenMessage, chat: ChatEngine, stop: Stop) -> ChatMessage:
        content: list[str | MediaContent] = []
        for part in message.parts:
            content.append(part if isinstance(part, str) else self._media(part, chat, stop))
        text = "".join(part for part in content if isinstance(part, str))
        ids = self._written.get(_digest(text)) if message.role == "assistant" and text else None
        return ChatMessage(message.role, tuple(content), ids or ())

    def _media(self, file: GivenFile, chat: ChatEngine, stop: Stop) -> str | MediaContent:
        sha256 = hashlib.sha256(file.data).hexdigest()
        if file.kind == "picture":
            if not chat.model.sees:
                raise RequestError(f"{file.name}: the model {chat.model.name!r} cannot see pictures; send text only")
            if self._seen.get(sha256) is None:  # what cannot be read is told with its place in the request
                from hearth.multimodal.pictures import read_picture

                read_picture(file.data, file.name)
                self._seen.put(sha256, True)
            return PictureContent(sha256, file.name)
        if chat.model.hears:
            return SoundContent(sha256, file.name)
        heard = self._heard.get(sha256)
        if heard is None:
            try:
                heard = self.transcribe(file.data, file.name, stop).text
            except PerceptionCancelled:
                raise Cancelled from None
            self._heard.put(sha256, heard)
        return heard

    def _logprob_entries(self, chat: ChatEngine, found: Sequence[TokenLogprobs]) -> list[dict[str, Any]]:
        ids = {token for one in found for token in (one.token, *(other for other, _ in one.top))}
        pieces = {token: self._pieces.get(token) for token in ids}
        unknown = [token for token, piece in pieces.items() if piece is None]
        for token, piece in zip(unknown, chat.pieces(unknown), strict=True):
            pieces[token] = piece
            self._pieces.put(token, piece)
        return [
            {
                **_entry(pieces[one.token] or b"", one.logprob),
                "top_logprobs": [_entry(pieces[token] or b"", logprob) for token, logprob in one.top],
            }
            for one in found
        ]


def _entry(piece: bytes, logprob: float) -> dict[str, Any]:
    return {"token": piece.decode("utf-8", "replace"), "logprob": max(logprob, -9999.0), "bytes": list(piece)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
