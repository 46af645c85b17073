"""``/v1`` as programs use it: OpenAI's own client on loopback, the embedded models behind it."""

from __future__ import annotations

import base64
import json
import struct
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

import hearth
from hearth import assets
from tests.app.served import Served
from tests.models.tiny_gguf import special_id, write_tiny_gguf

sys.path.insert(0, str(Path(__file__).parents[1]))
import drawing

ENDLESS = {str(special_id("<|end|>")): -100}  # so that what is to be seen running does not end by itself
QUESTION = assets.samples_dir() / "question.wav"
CIRCLE = drawing.png(drawing.shape("circle", "red"))
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}},
    "required": ["colour"],
    "additionalProperties": False,
}


def picture(data: bytes = CIRCLE) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(data).decode()}"}}


def sound(data: bytes) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "wav"}}


def user(*parts: Any) -> list[Any]:
    listed = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return [{"role": "user", "content": listed}]


SEEN = user("What is this?", picture())


def client_of(served: Served, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=served.url, api_key=key, max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(hearth.Assistant(data_dir=tmp_path_factory.mktemp("api") / "data"))
    yield served
    served.stop()


@pytest.fixture(scope="module")
def client(pocket: Served) -> openai.OpenAI:
    return client_of(pocket)


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_gguf(path, n_ctx_train=8192)
    return path


@pytest.fixture(scope="module")
def noise(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A random model that goes on until its limit: its answers are noise, and long."""
    assistant = hearth.Assistant(
        model=str(random_model), data_dir=tmp_path_factory.mktemp("noise") / "data", n_ctx=8192, temperature=0.0
    )
    served = Served(assistant, reader_pause_s=0.5, max_body_bytes=1 << 20, body_pause_s=0.5)
    yield served
    served.stop()


def ask(client: openai.OpenAI, messages: list[Any], **options: Any) -> Any:
    return client.chat.completions.create(**{"model": "pocket", "messages": messages, **options})


def test_models_are_listed_with_what_they_take(client: openai.OpenAI) -> None:
    chat, embedding, speech = client.models.list().data
    assert (chat.id, embedding.id, speech.id) == ("pocket", "all-MiniLM-L6-v2", "pocket-speech")
    assert "image" in chat.architecture["input_modalities"]  # type: ignore[attr-defined]
    assert client.models.retrieve("pocket").id == "pocket"
    with pytest.raises(openai.NotFoundError, match="pocket, all-MiniLM-L6-v2, pocket-speech are"):
        client.models.retrieve("gpt-9")


def test_an_answer_is_that_of_the_assistant(pocket: Served, client: openai.OpenAI) -> None:
    answer = ask(client, SEEN)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == pocket.assistant.ask("What is this?", images=[CIRCLE]).text
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_is_the_same_answer_in_pieces(client: openai.OpenAI) -> None:
    chunks = list(ask(client, SEEN, stream=True, stream_options={"include_usage": True}))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    whole = ask(client, SEEN)
    assert said == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_one_more_turn_reads_only_what_is_new(client: openai.OpenAI) -> None:
    first = ask(client, SEEN)
    more = [{"role": "assistant", "content": first.choices[0].message.content}, *user("What colour is it?")]
    second = ask(client, [*SEEN, *more])
    known = first.usage.prompt_tokens + first.usage.completion_tokens - 1  # the end token is computed with what follows
    assert second.usage.prompt_tokens_details.cached_tokens >= known


def test_ids_are_those_that_were_generated_whatever_the_text_would_be_cut_into(noise: Served) -> None:
    client, chat = client_of(noise), [{"role": "user", "content": "the cat sat"}]
    for _ in range(3):
        answer = ask(client, chat, model="tiny", max_tokens=24)
        text = answer.choices[0].message.content
        chat += [{"role": "assistant", "content": text}, {"role": "user", "content": "and"}]
        again = ask(client, chat, model="tiny", max_tokens=1)
        if "\ufffd" not in text:  # bytes that are no text cannot be sent back
            known = answer.usage.prompt_tokens + answer.usage.completion_tokens - 1
            assert again.usage.prompt_tokens_details.cached_tokens >= known


def test_a_chat_goes_on_from_disk_after_a_restart(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "The key to the greenhouse is kept by Tobias. " * 70 + "Who keeps the key?"}]
    usages = []
    for _ in range(2):
        served = Served(hearth.Assistant(data_dir=tmp_path / "data"))
        usages.append(ask(client_of(served), chat, max_tokens=4).usage)
        served.stop()
    assert usages[0].prompt_tokens_details.cached_tokens == 0
    assert usages[1].prompt_tokens_details.cached_tokens >= 512


def test_a_recording_is_heard(client: openai.OpenAI) -> None:
    heard = ask(client, user(sound(QUESTION.read_bytes())))
    typed = ask(client, user(client.audio.transcriptions.create(model="pocket-speech", file=QUESTION).text))
    assert heard.choices[0].message.content == typed.choices[0].message.content
    assert heard.usage.prompt_tokens == typed.usage.prompt_tokens


def test_an_answer_follows_a_schema(client: openai.OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "colour", "schema": SCHEMA, "strict": True}}
    answer = ask(client, user("What colour is it?", picture()), response_format=form)
    assert json.loads(answer.choices[0].message.content)["colour"] in ("red", "blue")
    begun = ask(client, SEEN, response_format={"type": "json_object"}, max_tokens=8).choices[0].message.content
    assert begun.lstrip().startswith("{")


def test_logprobs_are_of_the_tokens_that_were_said(client: openai.OpenAI) -> None:
    choice = ask(client, SEEN, logprobs=True, top_logprobs=3).choices[0]
    entries = choice.logprobs.content
    assert bytes(byte for entry in entries for byte in entry.bytes).decode() == choice.message.content
    assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 3 for entry in entries)
    assert all(entry.top_logprobs[0].logprob >= entry.logprob for entry in entries)
    streamed = [
        entry
        for chunk in ask(client, SEEN, stream=True, logprobs=True)
        if chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content
    ]
    assert [entry.token for entry in streamed] == [entry.token for entry in entries]


def test_stop_strings_limits_seeds_and_biases(client: openai.OpenAI, noise: Served) -> None:
    whole = ask(client, SEEN).choices[0].message.content
    stopped = ask(client, SEEN, stop=[" is"]).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == (whole.split(" is")[0], "stop")
    assert ask(client, SEEN, max_tokens=2).choices[0].finish_reason == "length"
    assert ask(client, SEEN, max_completion_tokens=2).usage.completion_tokens == 2

    def said(**options: Any) -> str:
        text = ask(client_of(noise), user("the cat"), model="tiny", max_tokens=12, **options).choices[0].message.content
        return str(text)

    assert said(temperature=1.5, seed=5) == said(temperature=1.5, seed=5)
    assert said(temperature=1.5, seed=5) != said(temperature=1.5, seed=6)
    assert said(logit_bias={str(ord("a")): 100}) == "a" * 12
    assert said(logit_bias={str(special_id("<|end|>")): 100}) == ""


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ({"n": 2}, 400, "n is 2"),
        ({"model": "gpt-9"}, 404, "'gpt-9' is not served here; 'pocket' is"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "tools is"),
        ({"extra_body": {"temprature": 1}}, 400, "temprature: not supported here; did you mean temperature?"),
        ({"temperature": 99}, 400, "temperature is 99; it must be within 0..10"),
        ({"temperature": "warm"}, 400, 'temperature is "warm"; it must be a JSON number'),
        ({"max_tokens": 0}, 400, "max_tokens is 0"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 400, "give one of them"),
        ({"top_logprobs": 2}, 400, "logprobs is not true"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "within 0..20"),
        ({"stop": [""]}, 400, "a stop string has 0 characters"),
        ({"logit_bias": {"x": 1}}, 400, "'x' is no token id"),
        ({"logit_bias": {"99999999": 1}}, 400, "token id"),
        ({"seed": -1}, 400, "seed is -1"),
        ({"response_format": {"type": "xml"}}, 400, "take text, json_object or json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, 400, "schema is missing"),
        ({"stream_options": {"include_usage": True}}, 400, "stream is not true"),
        ({"messages": []}, 400, "messages is empty"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "take system, developer, user or assistant"),
        ({"messages": [{"role": "user", "content": None}]}, 400, r"messages\[0\].content must be a string"),
        ({"messages": user({"type": "file"})}, 400, r"content\[0\].type is 'file'"),
        ({"messages": user(picture(b"no picture"))}, (415, 422), "picture at messages"),
        ({"messages": user(sound(b"no sound"))}, (415, 422), "sound at messages"),
        ({"messages": [{"role": "assistant", "content": [picture()]}]}, 400, "has text only"),
        ({"messages": user("word " * 4000)}, 413, "the context holds"),
    ],
)
def test_what_cannot_be_done_is_named(client: openai.OpenAI, options: dict[str, Any], status: Any, said: str) -> None:
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError, match=said) as refused:
            ask(client, **{"messages": SEEN, "stream": stream, **options})
        assert refused.value.status_code in (status if isinstance(status, tuple) else (status,))
        assert set(refused.value.body) == {"message", "type", "param", "code"}  # type: ignore[call-overload]
        if "stream_options" in options:
            return


@pytest.mark.parametrize(
    "url", ["https://example.org/a.png", "http://127.0.0.1:1/a.png", "file:///etc/passwd", "data:,x"]
)
def test_nothing_is_fetched(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.BadRequestError, match="nothing is fetched here"):
        ask(client, user({"type": "image_url", "image_url": {"url": url}}))


def test_parameters_about_accounts_have_no_effect(client: openai.OpenAI) -> None:
    plain = ask(client, SEEN).choices[0].message.content
    same = ask(client, SEEN, user="u", metadata={"a": "b"}, store=True, service_tier="auto", tools=[], n=1)
    assert same.choices[0].message.content == plain


def test_a_text_goes_on(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="pocket", prompt="The apple is", max_tokens=3)
    chunks = client.completions.create(model="pocket", prompt="The apple is", max_tokens=3, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 3
    with pytest.raises(openai.BadRequestError, match="prompt must be one string"):
        client.completions.create(model="pocket", prompt=["a", "b"])


def test_many_clients_at_once_get_their_own_answers(client: openai.OpenAI) -> None:
    things = [("circle", "red"), ("square", "blue"), ("triangle", "green"), ("circle", "yellow")] * 4
    chats = [user("What colour is it?", picture(drawing.png(drawing.shape(*thing)))) for thing in things]
    with ThreadPoolExecutor(len(chats)) as pool:
        together = list(pool.map(lambda chat: ask(client, chat).choices[0].message.content, chats))
    assert together[:4] == together[4:8] == together[8:12] == together[12:]
    assert sum(colour in said for (_, colour), said in zip(things, together, strict=True)) >= 12


def running(served: Served) -> float:
    return served.assistant.runtime.engine.get().stats()["running"]


def seconds_until_idle(served: Served) -> float:
    started = time.perf_counter()
    while running(served):
        assert time.perf_counter() - started < 20
        time.sleep(0.005)
    return time.perf_counter() - started


def test_a_client_that_goes_ends_its_request(noise: Served) -> None:
    client = client_of(noise)
    stream = ask(client, user("the cat"), model="tiny", max_tokens=8000, logit_bias=ENDLESS, stream=True)
    next(iter(stream))
    assert running(noise) == 1
    stream.close()
    assert seconds_until_idle(noise) < 5.0  # an answer to its end takes longer


def test_a_client_that_waits_for_a_whole_answer_ends_it_by_going(noise: Served) -> None:
    hasty = client_of(noise).with_options(timeout=0.3)
    with pytest.raises(openai.APITimeoutError):
        ask(hasty, user("the dog"), model="tiny", max_tokens=8000)
    assert seconds_until_idle(noise) < 5.0


def test_a_reader_that_does_not_read_holds_nobody_up_and_is_given_up(noise: Served) -> None:
    import socket

    body = json.dumps(
        {"model": "tiny", "messages": user("the mat"), "max_tokens": 7000, "stream": True, "logprobs": True}
        | {"top_logprobs": 20}
    ).encode()
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", noise.port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{noise.port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        deaf.sendall(head.encode() + body)
        while not running(noise):
            time.sleep(0.01)
        started = time.perf_counter()
        ask(client_of(noise), user("hello"), model="tiny", max_tokens=4)
        assert time.perf_counter() - started < 8.0
        assert seconds_until_idle(noise) < 15.0


def test_a_body_that_is_too_large_or_never_comes_is_refused(noise: Served) -> None:
    import socket

    with pytest.raises(openai.APIStatusError, match=r"the limit is 1 MiB; send less") as refused:
        ask(client_of(noise), user("x" * (1 << 21)), model="tiny")
    assert refused.value.status_code == 413
    with socket.create_connection(("127.0.0.1", noise.port)) as slow:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{noise.port}\r\n"
        slow.sendall((head + 'Content-Type: application/json\r\nContent-Length: 90\r\n\r\n{"model"').encode())
        assert b"408" in slow.recv(4096).splitlines()[0]


def test_too_many_requests_are_told_to_come_back(random_model: Path, tmp_path: Path) -> None:
    assistant = hearth.Assistant(model=str(random_model), data_dir=tmp_path / "data", n_ctx=8192)
    served = Served(assistant, max_requests=1)
    stream = ask(client_of(served), user("the cat"), model="tiny", max_tokens=8000, logit_bias=ENDLESS, stream=True)
    next(iter(stream))
    with pytest.raises(openai.RateLimitError, match="ask again in a moment"):
        ask(client_of(served), user("the dog"), model="tiny")
    stream.close()
    served.stop()


def test_stopping_the_server_ends_what_runs(random_model: Path, tmp_path: Path) -> None:
    assistant = hearth.Assistant(model=str(random_model), data_dir=tmp_path / "data", n_ctx=8192)
    served = Served(assistant)
    ended = threading.Event()

    def read() -> None:
        try:
            for _ in ask(
                client_of(served), user("the cat"), model="tiny", max_tokens=8000, logit_bias=ENDLESS, stream=True
            ):
                pass
        except openai.APIError:
            pass
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    while assistant.runtime.engine.peek() is None or not running(served):
        time.sleep(0.01)
    started = time.perf_counter()
    served.stop()
    assert time.perf_counter() - started < 8
    assert ended.wait(5)


# embeddings, transcriptions


def test_embeddings_are_those_of_memory(pocket: Served, client: openai.OpenAI) -> None:
    texts = ["the cat sat", "a boiler in the kitchen"]
    as_floats = client.embeddings.create(model="all-MiniLM-L6-v2", input=texts, encoding_format="float")
    as_bytes = client.embeddings.with_raw_response.create(
        model="all-MiniLM-L6-v2", input=texts, encoding_format="base64"
    )
    raw = json.loads(as_bytes.text)["data"][1]["embedding"]
    expected = pocket.assistant.runtime.text_embedder.get().embed(texts)
    np.testing.assert_allclose([one.embedding for one in as_floats.data], expected, atol=1e-6)
    np.testing.assert_allclose(struct.unpack("<384f", base64.b64decode(raw)), expected[1], atol=1e-6)
    assert as_floats.usage.prompt_tokens == 5 + 7


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"input": []}, "input must be a string"),
        ({"input": ["a", " "]}, r"input\[1\] is empty"),
        ({"input": [[1, 2]]}, "token ids are not taken"),
        ({"input": "word " * 300}, r"input\[0\] has 302 tokens, the model reads 256"),
        ({"input": "a", "dimensions": 12}, "the vectors have 384"),
        ({"input": "a", "model": "pocket"}, "'all-MiniLM-L6-v2' is"),
    ],
)
def test_embeddings_that_cannot_be_made_are_named(client: openai.OpenAI, options: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.APIStatusError, match=said):
        client.embeddings.create(**{"model": "all-MiniLM-L6-v2", **options})


def test_transcriptions_in_every_form(client: openai.OpenAI) -> None:
    def made(form: str) -> Any:
        return client.audio.transcriptions.create(model="pocket-speech", file=QUESTION, response_format=form)  # type: ignore[call-overload]

    text = made("json").text
    assert text
    assert made("text") == text + "\n"
    assert made("srt").startswith("1\n00:00:00,")
    assert made("vtt").startswith("WEBVTT\n\n00:00:00.")
    whole = made("verbose_json")
    assert " ".join(segment.text for segment in whole.segments) == text
    timed = client.audio.transcriptions.create(
        model="pocket-speech", file=QUESTION, response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert timed.words is not None
    assert " ".join(word.word for word in timed.words) == text
    assert 0 <= whole.segments[0].start < whole.segments[0].end <= whole.duration


def test_silence_is_an_empty_text_and_no_recording_an_error(client: openai.OpenAI, tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000), 16_000)
    made = client.audio.transcriptions.create
    assert made(model="pocket-speech", file=tmp_path / "silence.wav").text == ""
    with pytest.raises(openai.APIStatusError, match=r"a\.wav"):
        made(model="pocket-speech", file=("a.wav", b"no sound"))
    with pytest.raises(openai.BadRequestError, match="English"):
        made(model="pocket-speech", file=QUESTION, language="fr")
    with pytest.raises(openai.BadRequestError, match="did you mean german"):
        made(model="pocket-speech", file=QUESTION, language="germann")
    with pytest.raises(openai.BadRequestError, match="translat"):
        client.audio.translations.create(model="pocket-speech", file=QUESTION)
    with pytest.raises(openai.BadRequestError, match="prompt is"):
        made(model="pocket-speech", file=QUESTION, prompt="Names: Renner")
