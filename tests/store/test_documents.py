"""Memory: documents are found by meaning and words, forgotten wholly, and their vectors can always be rebuilt."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hearth.models.errors import RequestError
from hearth.store.documents import NewPassage
from hearth.store.errors import NotFoundError, StoreError
from hearth.store.ranking import RRF_K, reciprocal_rank_fusion
from hearth.store.records import Document
from hearth.store.store import Store
from hearth.store.words import match_any, query_terms

MODEL = "letters-1"
TEXTS = (
    "To reset the boiler hold the red button for ten seconds.",
    "The battery of the remote control lasts nine months.",
    "Room 12 is opened by Dr. Weber at half past eight.",
    "Kündigungsfrist: drei Monate zum Quartalsende.",
    "東京タワーの高さは三百三十三メートルです。",
)
HOSTILE_QUERIES = ['"', '" OR *', "a AND", "NEAR(a b)", "text:x", "heading : boiler", "-x", "(((", "*", "\x00", "{a}:b"]


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """A bag of letters: near for texts of the same letters. Shape (len(texts), 26)."""
    vectors = np.zeros((len(texts), 26), dtype=np.float32)
    for row, text in enumerate(texts):
        for letter in text.lower():
            if "a" <= letter <= "z":
                vectors[row, ord(letter) - 97] += 1
    return vectors + np.float32(0.01)


def add(store: Store, *texts: str, title: str = "Manual", data: bytes = b"", model: str = MODEL) -> Document:
    sha256 = store.blobs.put(data or title.encode(), name="m.pdf", mime="application/pdf")
    document = store.documents.begin(title, "m.pdf", "text", "application/pdf", sha256, 3)
    passages = [NewPassage(text, page, page * 10, page * 10 + 9, "Use") for page, text in enumerate(texts, 1)]
    return store.documents.finish(document.id, passages, embed(texts), model)


def add_picture(store: Store, data: bytes, vector: Sequence[float]) -> Document:
    sha256 = store.blobs.put(data, name="p.png", mime="image/png")
    document = store.documents.begin("Picture", "p.png", "picture", "image/png", sha256, 1)
    caption = [NewPassage("a purple umbrella", None, 0, 17, "")]
    return store.documents.finish_picture(document.id, np.array(vector, np.float32), "clip-1", caption)


def found(store: Store, query: str, **options: object) -> list[str]:
    hits = store.documents.search(query, None, model_id=MODEL, **options)  # type: ignore[arg-type]
    return [hit.passage.text for hit in hits if hit.passage]


def test_fusion_adds_reciprocal_ranks() -> None:
    scores = reciprocal_rank_fusion([["a", "b"], ["b", "c"]])
    assert list(scores) == ["b", "a", "c"]
    assert scores["b"] == 1 / (RRF_K + 2) + 1 / (RRF_K + 1)


def test_query_words_are_quoted_and_stop_words_left_out() -> None:
    assert match_any("How is the boiler?") == '"boiler"*'
    assert match_any("to be or not to be") == '"not"'
    assert match_any("what is it") == '"what"* OR "is" OR "it"'
    assert match_any("?! —") is None
    assert match_any("東京 NEAR") == '"東 京" OR "near"*'
    assert len(query_terms(" ".join(map(str, range(1000))))) == 64


def test_a_document_is_found_by_meaning_and_words(data_dir: Path) -> None:
    with Store.open(data_dir) as store:
        document = add(store, *TEXTS)
        assert (document.state, document.n_passages) == ("ready", len(TEXTS))
    with Store.open(data_dir) as store:
        vector = embed([TEXTS[1]])[0]
        hits = store.documents.search("how long does the battery last", vector, k=3, model_id=MODEL)
        best = hits[0]
        assert best.document == document
        assert best.passage is not None
        assert (best.passage.text, best.passage.page, best.passage.start, best.passage.section) == (
            TEXTS[1],
            2,
            20,
            "Use",
        )
        assert (best.rank_dense, best.rank_words) == (1, 1)
        assert best.distance == pytest.approx(0, abs=1e-5)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        only_words = store.documents.search("boiler", embed(["zzz"])[0], k=1, model_id=MODEL)[0]
        assert only_words.passage is not None
        assert only_words.passage.text == TEXTS[0]
        assert only_words.distance is not None


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("resetting boilers", TEXTS[0]),
        ("the red one", TEXTS[0]),
        ("ROOM 12?", TEXTS[2]),
        ("kundigung", TEXTS[3]),
        ("京タワー", TEXTS[4]),
    ],
)
def test_words_alone_find(store: Store, query: str, text: str) -> None:
    add(store, *TEXTS)
    assert found(store, query)[0] == text


@pytest.mark.parametrize("query", HOSTILE_QUERIES)
def test_hostile_queries_are_words_only(store: Store, query: str) -> None:
    add(store, "x")
    found(store, query)


def test_search_is_limited_to_documents(store: Store) -> None:
    first, second = add(store, TEXTS[0], title="A"), add(store, TEXTS[0] + " Twice.", TEXTS[1], title="B")
    vector = embed([TEXTS[0]])[0]

    def search(*ids: str) -> set[str]:
        hits = store.documents.search("boiler", vector, document_ids=ids, model_id=MODEL)
        return {hit.document.id for hit in hits}

    assert search(first.id) == {first.id}
    assert search(first.id, second.id) == {first.id, second.id}
    assert search("nosuch") == search() == set()


def test_repeated_passages_are_given_once_but_other_numbers_kept(store: Store) -> None:
    add(store, "Bill 7: total 12 euros", "bill 7 — TOTAL: 12 Euros!", "Bill 8: total 12 euros")
    assert sorted(found(store, "bill total")) == ["Bill 7: total 12 euros", "Bill 8: total 12 euros"]


def test_neighbours_stand_around_a_passage(store: Store) -> None:
    passages = store.documents.passages(add(store, *TEXTS).id)
    assert [one.text for one in passages] == list(TEXTS)
    assert store.documents.neighbours(passages[0].id) == [passages[1]]
    assert store.documents.neighbours(passages[2].id, before=2, after=1) == [*passages[:2], passages[3]]
    with pytest.raises(NotFoundError):
        store.documents.neighbours("nosuch")


def test_pictures_are_found_by_vector_and_caption(store: Store) -> None:
    left, right = add_picture(store, b"left", [1, 0]), add_picture(store, b"right", [0, 1])
    hits = store.documents.search_pictures(np.array([0.1, 1], np.float32), k=5, model_id="clip-1")
    assert [hit.document.id for hit in hits] == [right.id, left.id]
    assert [(hit.passage, hit.rank_dense) for hit in hits] == [(None, 1), (None, 2)]
    assert found(store, "umbrella") == ["a purple umbrella"] * 1
    store.documents.forget(right.id)
    assert len(store.documents.search_pictures(np.array([0.1, 1], np.float32), k=5, model_id="clip-1")) == 1
    assert store.documents.self_check_pictures("clip-1") is None
    assert store.documents.reindex_pictures(lambda files: np.ones((len(files), 3), np.float32), "clip-2") == 1
    assert store.documents.self_check_pictures("clip-2") is None


def test_forgetting_leaves_nothing(store: Store) -> None:
    kept = add(store, TEXTS[0], title="kept")
    gone = add(store, *TEXTS[1:], title="gone")
    store.documents.forget(gone.id)
    hits = store.documents.search("battery room", embed([TEXTS[1]])[0], model_id=MODEL)
    assert {hit.document.id for hit in hits} == {kept.id}
    assert store.documents.self_check(MODEL) is None
    assert store.documents.find(gone.sha256) is None
    for call in (store.documents.get, store.documents.forget, store.documents.passages):
        with pytest.raises(NotFoundError, match=gone.id):
            call(gone.id)
    with pytest.raises(NotFoundError):
        store.blobs.get(gone.sha256)
    assert store.blobs.get(kept.sha256) == b"kept"
    raw = b"".join(path.read_bytes() for path in store.data_dir.rglob("*") if path.is_file())
    assert b"boiler" in raw
    assert b"battery" not in raw
    assert "東".encode() not in raw


def test_states_of_a_document(data_dir: Path) -> None:
    with Store.open(data_dir) as store:
        begun = store.documents.begin("A", "a.txt", "text", "text/plain", "a" * 64, 1)
        assert store.documents.find("a" * 64) == begun
        store.documents.fail(begun.id, "no text\ud800 in it")
        assert store.documents.get(begun.id).detail == "no text\ufffd in it"
        with pytest.raises(StoreError, match="failed already"):
            store.documents.finish(begun.id, [], embed([]), MODEL)
        again = store.documents.begin("A", "a.txt", "text", "text/plain", "a" * 64, 1)
        assert store.documents.list() == [again]
    with Store.open(data_dir) as store:
        left = store.documents.get(again.id)
        assert (left.state, left.detail) == ("failed", "interrupted")
        assert store.documents.n_ready() == 0


def test_vectors_of_the_wrong_shape_are_refused(store: Store) -> None:
    document = store.documents.begin("A", "a.txt", "text", "text/plain", "a" * 64, 1)
    passage = [NewPassage("x", 1, 0, 1, "")]
    for vectors in (np.ones((2, 4)), np.ones(4), np.ones((1, 0)), np.array([[np.nan, 1.0]])):
        with pytest.raises(RequestError):
            store.documents.finish(document.id, passage, vectors, MODEL)
    assert store.documents.get(document.id).state == "ingesting"
    with pytest.raises(RequestError, match="k = 0"):
        store.documents.search("x", None, k=0, model_id=MODEL)
    with pytest.raises(RequestError, match="sound"):
        store.documents.begin("A", "a", "sound", "x", "a" * 64, 1)  # type: ignore[arg-type]


def test_a_document_forgotten_while_it_is_read_stays_forgotten(store: Store) -> None:
    add(store, TEXTS[0])
    document = store.documents.begin("B", "b.txt", "text", "text/plain", "b" * 64, 1)
    store.documents.forget(document.id)
    with pytest.raises(NotFoundError):
        store.documents.finish(document.id, [NewPassage("late", 1, 0, 4, "")], embed(["late"]), MODEL)
    assert store.documents.self_check(MODEL) is None


def test_a_failure_after_the_vectors_takes_them_out_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, TEXTS[0], title="kept")
    with monkeypatch.context() as patch:
        patch.setattr("hearth.store.document_rows.make_ready", _no_room)
        with pytest.raises(StoreError, match="disk"):
            add(store, TEXTS[1], title="lost")
    assert store.documents.self_check(MODEL) is None
    assert store.documents.n_ready() == 1


def _no_room(*_: object) -> None:
    raise StoreError("the disk is full")


def test_another_model_needs_a_reindex(store: Store) -> None:
    add(store, *TEXTS)
    with pytest.raises(StoreError, match="letters-2"):
        add(store, "more", title="More", model="letters-2")
    vector = embed([TEXTS[1]])[0]
    assert all(hit.rank_dense is None for hit in store.documents.search("battery", vector, model_id="letters-2"))
    assert "letters-2" in (store.documents.self_check("letters-2") or "")
    seen: list[str] = []

    def embed_and_note(texts: Sequence[str]) -> NDArray[np.float32]:
        seen.extend(texts)
        return embed(texts)

    assert store.documents.reindex(embed_and_note, "letters-2") == len(TEXTS)
    assert seen[0] == f"Manual › Use › page 1\n{TEXTS[0]}"
    assert store.documents.self_check("letters-2") is None
    assert store.documents.search("battery", vector, model_id="letters-2")[0].rank_dense == 1


@pytest.mark.parametrize("damage", ["gone", "garbage"])
def test_lost_vectors_are_noticed_and_rebuilt(data_dir: Path, damage: str) -> None:
    with Store.open(data_dir) as store:
        add(store, *TEXTS)
        assert store.documents.self_check(MODEL) is None
    if damage == "gone":
        shutil.rmtree(data_dir / "vectors")
    else:
        (data_dir / "vectors" / "text" / "chroma.sqlite3").write_bytes(b"garbage" * 1000)
    with Store.open(data_dir) as store:
        vector = embed([TEXTS[1]])[0]
        assert store.documents.search("battery", vector, model_id=MODEL)[0].rank_dense is None  # words still find
        assert store.documents.self_check(MODEL) is not None
        store.documents.reindex(embed, MODEL)
        assert store.documents.self_check(MODEL) is None
        assert store.documents.search("battery", vector, model_id=MODEL)[0].rank_dense == 1


def test_searching_while_adding_and_forgetting(store: Store) -> None:
    add(store, *TEXTS, title="kept")
    failures: list[BaseException] = []

    def change(number: int) -> None:
        try:
            for step in range(3):
                document = add(store, f"passing {number} {step}", title=f"passing {number} {step}")
                store.documents.forget(document.id)
        except BaseException as error:
            failures.append(error)
            raise

    def search() -> None:
        try:
            for _ in range(20):
                hits = store.documents.search("battery", embed([TEXTS[1]])[0], k=3, model_id=MODEL)
                assert hits[0].passage is not None
                assert hits[0].passage.text == TEXTS[1]
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=change, args=(number,)) for number in range(2)]
    threads += [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert store.documents.self_check(MODEL) is None


def test_an_empty_memory_needs_no_chroma(data_dir: Path) -> None:
    program = f"""
import sys
import numpy as np
from pathlib import Path
from hearth.store.store import Store
with Store.open(Path({str(data_dir)!r})) as store:
    vector = np.ones(3, np.float32)
    assert store.documents.search("x", vector, model_id="m") == []
    assert store.documents.search_pictures(vector, k=3, model_id="m") == []
    assert store.documents.self_check("m") is None
    document = store.documents.begin("A", "a.txt", "text", "text/plain", "a" * 64, 1)
    store.documents.forget(document.id)
assert "chromadb" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
