"""``/v1/models``: what is served here, and for what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearth.models.errors import HearthError

if TYPE_CHECKING:
    from hearth.runtime import Runtime

EMBEDDING_MODEL = "all-MiniLM-L6-v2"
POCKET_SPEECH = "pocket-speech"


def list_models(runtime: Runtime, created: int) -> list[dict[str, Any]]:
    """The chat model first. ``type``, ``max_model_len`` and ``architecture`` are as other servers have them."""
    return [
        *_chat_model(runtime, created),
        _entry(EMBEDDING_MODEL, created, "embeddings"),
        _entry(speech_model(runtime), created, "stt"),
    ]


def speech_model(runtime: Runtime) -> str:
    """The name of what transcribes: the embedded model, a size of Whisper, or a file's name."""
    name = runtime.settings.speech_model
    if name is None:
        return POCKET_SPEECH
    path = Path(name)
    return path.stem if path.name != name or path.suffix == ".pt" else f"whisper-{name}"


def _chat_model(runtime: Runtime, created: int) -> list[dict[str, Any]]:
    try:
        name, sees = runtime.model_name, runtime.sees
    except HearthError:  # its file is not there; who asks it is told why
        return []
    chat = runtime.chat.peek()
    entry = _entry(name, created, "vlm" if sees else "llm")
    takes = ["text", *(["image"] if sees else []), "audio"]  # sounds are transcribed for a model that does not hear
    entry["architecture"] = {"input_modalities": takes, "output_modalities": ["text"]}
    if chat is not None and chat.model.n_ctx is not None:
        entry["max_model_len"] = chat.model.n_ctx
    return [entry]


def _entry(name: str, created: int, kind: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "hearth", "type": kind}
