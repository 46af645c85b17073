"""Conversations: what is appended comes back, is found by its words, and goes when deleted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hearth.models.errors import RequestError
from hearth.store.errors import NotFoundError, StoreError
from hearth.store.records import Attachment
from hearth.store.store import Store

DIFFICULT_TEXTS = [
    "",
    "naïve café, ﬁne print",
    "東京タワーへ行きたい",
    "👩‍👩‍👧 𝔘nicode \u202eleft",
    "zero\x00byte",
    'Robert"); DROP TABLE messages;--',
    "line\r\nbreaks\n\n",
]
HOSTILE_QUERIES = [
    '"',
    '" OR *',
    "a AND",
    "NEAR(",
    "text:x",
    "-x",
    "^",
    "(((",
    "*",
    "'; DROP TABLE",
    "\x00",
    "{a b}:c",
    "+",
]


def picture(store: Store, data: bytes, name: str = "apple.jpg") -> Attachment:
    sha256 = store.blobs.put(data, name=name, mime="image/jpeg")
    return Attachment(sha256, name, "picture", "image/jpeg", len(data))


def test_messages_come_back_as_they_were(data_dir: Path) -> None:
    with Store.open(data_dir) as store:
        conversation = store.conversations.create("A chat")
        first = store.conversations.append(
            conversation.id,
            "user",
            "What is this?",
            attachments=(picture(store, b"one"), picture(store, b"two", "../../etc/passwd")),
            frozen='{"segments": []}',
            fingerprint="model-1",
        )
        second = store.conversations.append(
            conversation.id,
            "assistant",
            "An apple [1].",
            citations=({"number": 1, "title": "Früchte"},),
            reply={"finish_reason": "stop", "usage": {"prompt_tokens": 7}},
        )
    with Store.open(data_dir) as store:
        assert store.conversations.messages(conversation.id) == [first, second]
        assert [message.position for message in (first, second)] == [0, 1]
        kept = store.conversations.get(conversation.id)
    assert (kept.title, kept.n_messages, kept.updated_at) == ("A chat", 2, second.created_at)


@pytest.mark.parametrize("text", DIFFICULT_TEXTS)
def test_any_text_is_kept(store: Store, text: str) -> None:
    conversation = store.conversations.create(text)
    store.conversations.append(conversation.id, "user", text)
    assert store.conversations.messages(conversation.id)[0].text == text
    assert store.conversations.get(conversation.id).title == text
    store.conversations.delete(conversation.id)


def test_half_a_surrogate_pair_is_replaced(store: Store) -> None:
    conversation = store.conversations.create("\ud800")
    message = store.conversations.append(conversation.id, "user", "a\udfffb")
    assert message.text == "a\ufffdb"
    assert store.conversations.messages(conversation.id) == [message]


def test_list_has_the_last_used_first_and_pages(store: Store) -> None:
    made = [store.conversations.create(f"chat {number}") for number in range(5)]
    store.conversations.append(made[1].id, "user", "again")
    order = [one.title for one in store.conversations.list()]
    assert order == ["chat 1", "chat 4", "chat 3", "chat 2", "chat 0"]
    assert [one.title for one in store.conversations.list(limit=2, offset=1)] == ["chat 4", "chat 3"]
    with pytest.raises(RequestError, match="limit = -1"):
        store.conversations.list(limit=-1)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("boiler", True),
        ("BOIL", True),  # beginnings of words, either case
        ("heating boiler", True),  # one in the title, one in a message
        ("cafe", True),  # without its accent
        ("京タワー", True),  # from the middle of a run without spaces
        ("room-12", True),
        ("boiler fridge", False),
        ("oiler", False),
        ("タ京", False),
        ("...", False),
        ("  ", True),
    ],
)
def test_list_is_narrowed_by_words(store: Store, query: str, found: bool) -> None:
    wanted = store.conversations.create("The heating")
    store.conversations.append(wanted.id, "user", "The boiler at the Café is in room 12")
    store.conversations.append(wanted.id, "assistant", "東京タワー")
    other = store.conversations.create("Fridge" if query.strip() else "x")
    hits = [one.id for one in store.conversations.list(query=query)]
    assert (wanted.id in hits) == found
    assert (other.id in hits) == (not query.strip())


@pytest.mark.parametrize("query", HOSTILE_QUERIES)
def test_hostile_queries_are_words_only(store: Store, query: str) -> None:
    store.conversations.create("x a c text DROP")
    store.conversations.list(query=query)
    assert len(store.conversations.list()) == 1


def test_rename_moves_the_words_too(store: Store) -> None:
    conversation = store.conversations.create("old name")
    assert store.conversations.rename(conversation.id, "new title").title == "new title"
    assert store.conversations.list(query="old") == []
    assert [one.id for one in store.conversations.list(query="title")] == [conversation.id]


def test_refreeze_replaces_the_prompt_piece(store: Store) -> None:
    conversation = store.conversations.create()
    message = store.conversations.append(conversation.id, "user", "hi", frozen="a", fingerprint="1")
    store.conversations.refreeze(message.id, "b", "2")
    kept = store.conversations.messages(conversation.id)[0]
    assert (kept.frozen, kept.fingerprint) == ("b", "2")


def test_unknown_ids_are_named(store: Store) -> None:
    conversations = store.conversations
    for call in (conversations.get, conversations.delete, conversations.messages):
        with pytest.raises(NotFoundError, match="nosuch"):
            call("nosuch")
    with pytest.raises(NotFoundError, match="nosuch"):
        conversations.append("nosuch", "user", "x")
    with pytest.raises(NotFoundError, match="nosuch"):
        conversations.rename("nosuch", "x")
    with pytest.raises(NotFoundError, match="nosuch"):
        conversations.refreeze("nosuch", None, None)
    with pytest.raises(RequestError, match="robot"):
        conversations.append(conversations.create().id, "robot", "x")  # type: ignore[arg-type]


def test_append_with_an_unknown_blob_changes_nothing(store: Store) -> None:
    conversation = store.conversations.create()
    missing = Attachment("0" * 64, "x.png", "picture", "image/png", 1)
    with pytest.raises(NotFoundError, match="add the file again"):
        store.conversations.append(conversation.id, "user", "x", attachments=[missing])
    assert store.conversations.messages(conversation.id) == []
    assert store.conversations.list(query="x") == []


def test_delete_removes_blobs_that_nothing_else_uses(store: Store) -> None:
    own, common = picture(store, b"own"), picture(store, b"common")
    first, second = store.conversations.create(), store.conversations.create()
    store.conversations.append(first.id, "user", "x", attachments=[own, common])
    picture(store, b"common")
    store.conversations.append(second.id, "user", "x", attachments=[common])
    assert store.conversations.delete(first.id) == 1
    assert store.blobs.get(common.sha256) == b"common"
    with pytest.raises(NotFoundError):
        store.blobs.get(own.sha256)
    assert store.conversations.delete(second.id) == 1
    assert store.conversations.list() == []


def test_what_is_done_while_deleting_comes_first_and_may_refuse(store: Store) -> None:
    conversation = store.conversations.create("The heating")
    store.conversations.append(conversation.id, "user", "x", attachments=[picture(store, b"own")])
    events: list[str] = []

    @contextmanager
    def watch(conversation_id: str) -> Iterator[None]:
        events.append(f"{store.conversations.get(conversation_id).n_messages} messages")
        if len(events) == 1:
            raise StoreError("not now")
        yield
        events.append(f"{len(store.conversations.list())} conversations")

    store.conversations.while_deleting = watch
    with pytest.raises(NotFoundError):
        store.conversations.delete("nope")
    assert events == []
    with pytest.raises(StoreError, match="not now"):
        store.conversations.delete(conversation.id)
    assert [message.text for message in store.conversations.messages(conversation.id)] == ["x"]
    assert store.conversations.delete(conversation.id) == 1
    assert events == ["1 messages", "1 messages", "0 conversations"]


def test_a_blob_put_for_a_turn_survives_the_deletion_of_another_chat(store: Store) -> None:
    old = store.conversations.create()
    store.conversations.append(old.id, "user", "x", attachments=[picture(store, b"same")])
    attachment = picture(store, b"same")  # a new turn begins with the same picture
    assert store.conversations.delete(old.id) == 0
    new = store.conversations.create()
    store.conversations.append(new.id, "user", "x", attachments=[attachment])
    assert store.blobs.get(attachment.sha256) == b"same"


def test_many_threads_write_and_read_at_once(store: Store) -> None:
    n_threads, n_messages = 8, 15
    conversations = [store.conversations.create(f"thread {number}") for number in range(n_threads // 2)]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        conversation = conversations[number % len(conversations)]
        try:
            for step in range(n_messages):
                store.conversations.append(conversation.id, "user", f"{number} {step}")
                seen = [message.position for message in store.conversations.messages(conversation.id)]
                assert seen == list(range(len(seen)))
                store.conversations.list(query="thread")
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for conversation in conversations:
        messages = store.conversations.messages(conversation.id)
        assert len(messages) == store.conversations.get(conversation.id).n_messages == 2 * n_messages
        assert len({message.id for message in messages}) == 2 * n_messages


def test_a_closed_store_says_so(data_dir: Path) -> None:
    store = Store.open(data_dir)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.conversations.list()
    with pytest.raises(StoreError, match="closed"):
        store.conversations.create()
