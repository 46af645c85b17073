"""Text embeddings: equal to sentence-transformers, independent of the batch, offline, clear about missing files."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from hearth.multimodal.errors import PerceptionError
from hearth.multimodal.text_embedding import BATCH_TOKENS, MAX_TOKENS, TextEmbedder, _batches, _installed_folder

# The first six numbers and the sum of each vector, as sentence-transformers 6.2.0 computes them from the same weights.
REFERENCE = {
    "The meeting is in room 12.": ([0.0105336, 0.0524739, -0.0740203, -0.0067342, -0.0642648, 0.080182], 0.094063),
    "Wo findet das Treffen statt? Im Café „Größe“.": (
        [0.004705, 0.0199176, -0.0603765, -0.0209941, -0.0021025, 0.0877144],
        0.091426,
    ),
    "": ([-0.1188384, 0.0482988, -0.002548, -0.0110112, 0.0519507, 0.0102918], 0.629071),
    "word " * 400: ([-0.0081237, -0.095586, -0.0386731, 0.049662, -0.0437937, 0.0237198], -0.785965),
    "日本語 👍 x̄": ([-0.0181165, 0.0439237, 0.1063762, -0.084018, -0.047857, 0.0390108], 0.240605),
}


@pytest.fixture(scope="module")
def embedder() -> TextEmbedder:
    return TextEmbedder()


def test_equals_sentence_transformers(embedder: TextEmbedder) -> None:
    vectors = embedder.embed(list(REFERENCE))
    for vector, (head, total) in zip(vectors, REFERENCE.values(), strict=True):
        np.testing.assert_allclose(vector[:6], head, atol=1e-6)
        assert float(vector.sum()) == pytest.approx(total, abs=2e-5)


def test_shape_type_and_length(embedder: TextEmbedder) -> None:
    vectors = embedder.embed(["one", "two", "three"])
    assert vectors.shape == (3, TextEmbedder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert embedder.embed([]).shape == (0, 384)


def test_a_vector_does_not_depend_on_its_batch(embedder: TextEmbedder) -> None:
    texts = ["A short one.", "x " * 700, "", "The apple is red. " * 20, "A short one."] * 6
    together = embedder.embed(texts)
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_near_meanings_are_near(embedder: TextEmbedder) -> None:
    question, answer, other = embedder.embed(
        ["How do I reset the printer?", "Hold the button for ten seconds to reset it.", "The cat sleeps on the sofa."]
    )
    assert question @ answer > question @ other + 0.2


def test_batches_hold_every_text_once_within_the_bound() -> None:
    lengths = [MAX_TOKENS, 3, 2 * BATCH_TOKENS, 5, BATCH_TOKENS - 5, 1]
    batches = list(_batches(lengths))
    assert [i for batch in batches for i in batch] == list(range(len(lengths)))
    assert all(len(batch) == 1 or sum(lengths[i] for i in batch) <= BATCH_TOKENS for batch in batches)


def test_threads_share_one_load() -> None:
    embedder = TextEmbedder()
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(embedder.embed(["the same text"]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        np.testing.assert_array_equal(result, results[0])


def test_no_socket_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    assert TextEmbedder().embed(["offline"]).shape == (1, 384)


def test_neither_torch_nor_sentence_transformers_is_imported() -> None:
    script = (
        "import sys\n"
        "from hearth.multimodal.text_embedding import TextEmbedder\n"
        "assert 'numpy' in sys.modules and 'tokenizers' not in sys.modules\n"
        "TextEmbedder().embed(['x'])\n"
        "print({'torch', 'sentence_transformers', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_model_id_is_stable_and_tells_weights_apart(embedder: TextEmbedder, tmp_path: Path) -> None:
    assert embedder.model_id == TextEmbedder().model_id
    assert embedder.model_id.startswith("all-MiniLM-L6-v2@")
    shutil.copy(_installed_folder() / "tokenizer.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert TextEmbedder(tmp_path).model_id != embedder.model_id


def test_missing_or_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(PerceptionError, match=r"lacks .*model\.safetensors; install"):
        TextEmbedder(tmp_path).embed(["x"])
    shutil.copy(_installed_folder() / "tokenizer.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(PerceptionError, match="cannot be read as weights"):
        TextEmbedder(tmp_path).embed(["x"])
