"""Identifies a model file and how it is run, in milliseconds, so that saved KV is never used with another model."""

from __future__ import annotations

import hashlib

from hearth.models.gguf_header import GgufHeader

N_SAMPLES = 64
SAMPLE_BYTES = 64 * 1024


def model_fingerprint(header: GgufHeader, *settings: str) -> str:
    """Hash (32 hex digits) of the file's whole header (metadata, vocabulary, tensor list), its size, samples spread
    evenly over its weights, and ``settings``: all that KV contents depend on besides the tokens.

    Reads at most 4 MiB of weights: two files that differ only between the samples look alike, which no retraining,
    merge or quantization produces. Raises OSError.
    """
    digest = hashlib.sha256()
    with header.path.open("rb") as file:
        digest.update(file.read(header.data_offset))
        n_data_bytes = max(header.size_bytes - header.data_offset, 0)
        stride = max(n_data_bytes // N_SAMPLES, SAMPLE_BYTES)
        for offset in range(0, n_data_bytes, stride):
            file.seek(header.data_offset + offset)
            digest.update(file.read(SAMPLE_BYTES))
        file.seek(max(header.size_bytes - SAMPLE_BYTES, 0))
        digest.update(file.read(SAMPLE_BYTES))
    digest.update("\0".join((str(header.size_bytes), *settings)).encode())
    return digest.hexdigest()[:32]
