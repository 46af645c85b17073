"""``/v1/embeddings``: texts as vectors, by the model that memory is searched with."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from hearth.api.errors import ApiError
from hearth.api.fields import Fields
from hearth.api.jobs import Stop
from hearth.api.models import EMBEDDING_MODEL
from hearth.api.service import Service
from hearth.background import Cancelled

MAX_INPUTS = 2048
BATCH = 32  # texts between two looks whether the client is still there


def embed(service: Service, body: dict[str, Any], stop: Stop) -> dict[str, Any]:
    """Raises ApiError, PerceptionError, Cancelled."""
    fields = Fields(body, ("input", "model", "encoding_format", "dimensions", "user"))
    service.check_model(fields.need("model", "string"), EMBEDDING_MODEL)
    fields.refuse_unless("encoding_format", ("float", "base64"), "take float or base64")
    texts = _texts(fields)
    embedder = service.runtime.text_embedder.get(stop.is_set)
    fields.refuse_unless("dimensions", (embedder.dimension,), f"the vectors have {embedder.dimension}; leave it out")
    from hearth.multimodal.text_embedding import MAX_TOKENS

    counts = embedder.count_tokens(texts)
    for index, count in enumerate(counts):
        if count > MAX_TOKENS:
            raise ApiError(
                f"input[{index}] has {count} tokens, the model reads {MAX_TOKENS}; split it", param=f"input[{index}]"
            )
    vectors = []
    for start in range(0, len(texts), BATCH):
        if stop.is_set():
            raise Cancelled
        vectors.append(embedder.embed(texts[start : start + BATCH]))
    encode = _as_base64 if fields.raw("encoding_format") == "base64" else _as_floats
    listed = [
        {"object": "embedding", "index": index, "embedding": encode(vector)}
        for index, vector in enumerate(np.concatenate(vectors))
    ]
    n_tokens = sum(counts)
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    return {"object": "list", "data": listed, "model": EMBEDDING_MODEL, "usage": usage}


def _texts(fields: Fields) -> list[str]:
    given = fields.raw("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise fields.wrong("input", "must be a string or a list of strings; token ids are not taken")
    if len(texts) > MAX_INPUTS:
        raise fields.wrong("input", f"has {len(texts):,} texts; at most {MAX_INPUTS:,} are taken")
    for index, text in enumerate(texts):
        if not text.strip():
            raise ApiError(f"input[{index}] is empty; leave it out", param=f"input[{index}]")
    return texts


def _as_floats(vector: Any) -> list[float]:
    found: list[float] = vector.tolist()
    return found


def _as_base64(vector: Any) -> str:
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
