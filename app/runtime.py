"""The only place that constructs the parts: store, engine, encoders, embedder. Each is made when first needed."""

from __future__ import annotations

import logging
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

from hearth import assets
from hearth.background import Background
from hearth.chat_engine import ChatEngine, ChatModel, LocalChat, RemoteChat
from hearth.engine_factory import KvFolder
from hearth.held_files import HeldFiles
from hearth.kv_disk import kv_folder, kv_path
from hearth.model_choice import ModelChoice, choose_by, elsewhere
from hearth.model_library import ModelLibrary
from hearth.models.errors import EngineError, HearthError
from hearth.network import close_hub
from hearth.senses import ModelEncoder, PocketEncoder, Senses
from hearth.settings import Settings
from hearth.store.kv_blocks import KvBlockStore
from hearth.store.store import Store

if TYPE_CHECKING:
    from hearth.models.types import Engine
    from hearth.multimodal.picture_encoder import PictureEncoder
    from hearth.multimodal.text_embedding import TextEmbedder
    from hearth.multimodal.transcription import Transcriber

log = logging.getLogger("hearth.runtime")
SAMPLE_RATE = 16_000  # Hz, of recordings as they are read; another one is transcribed instead


class Runtime:
    """Owns the parts of one assistant. Opening it takes the data folder; nothing else is loaded until asked for."""

    def __init__(self, settings: Settings) -> None:
        close_hub()
        self.settings = settings
        self.isolates_engine = bool(settings.isolate_engine)
        self._choice: ModelChoice | None = None
        self.library = ModelLibrary(settings.data_dir)
        self.store = Store.open(settings.data_dir)
        self.files = HeldFiles(self.store.blobs)
        self._kv_path = kv_path(settings)
        self.chat: Background[ChatEngine] = Background("load-chat", self._load_chat)
        self.engine: Background[Engine] = Background("load-model", self._load_engine)
        self.vision: Background[PictureEncoder] = Background("load-vision", self._load_vision)
        self.senses: Background[Senses] = Background("load-senses", self._load_senses)
        self.transcriber: Background[Transcriber] = Background("load-speech", self._load_transcriber)
        self.text_embedder: Background[TextEmbedder] = Background("load-embedder", self._load_text_embedder)
        self._load_fraction: float | None = None
        self._closing = threading.Event()

    @property
    def choice(self) -> ModelChoice:
        """The model in use. Raises ModelFileError."""
        if self._choice is None:
            remote = self.settings.remote_options()
            self._choice = choose_by(self.settings) if remote is None else elsewhere(remote.model or remote.host)
        return self._choice

    @property
    def model_name(self) -> str:
        """As answers are signed with it. Raises ModelFileError."""
        chat = self.chat.peek()
        return chat.model.name if chat is not None and self.is_elsewhere else self.choice.name

    @property
    def is_elsewhere(self) -> bool:
        """Whether a server generates, and no engine of ours."""
        return self.settings.engine_url is not None

    @property
    def sees(self) -> bool:
        """Whether the model takes pictures, as far as is known before it is loaded."""
        if self.is_elsewhere:
            chat = self.chat.peek()
            return chat.model.sees if chat is not None else self.settings.engine_sees is not False
        if self.choice.vision_dir is not None:
            return True
        engine = self.engine.peek()
        if engine is None:
            return self.choice.mmproj is not None
        return engine.info.media is not None and engine.info.media.sees

    @property
    def may_hear(self) -> bool:
        """Whether the model may turn out to take sounds once it is loaded."""
        return self.is_elsewhere or self.choice.mmproj is not None

    @property
    def hears(self) -> bool:
        """Whether the loaded model takes sounds. Call once the engine is ready."""
        return self.chat.get().model.hears

    @property
    def load_fraction(self) -> float | None:
        """How much of the model is loaded, 0..1, or None when unknown."""
        return self._load_fraction

    def close(self) -> None:
        """Ends the engine and gives the data folder back. Idempotent."""
        self._closing.set()
        chat = self.chat.settle()
        if isinstance(chat, RemoteChat):
            chat.close()
        engine = self.engine.settle()
        if engine is not None:
            engine.close()
        self.store.close()

    def kv_folder(self) -> KvFolder | None:
        """Where the engine keeps KV blocks, or None if it is not to."""
        return kv_folder(self.settings)

    def forget_conversation(self, conversation_id: str) -> None:
        """Deletes the KV blocks that only this conversation used. Does not wait for a model that loads.

        The folder is looked into even if the engine keeps nothing there now: an earlier one may have. Raises
        StoreError, EngineError.
        """
        engine = self.engine.peek()
        if engine is not None:  # what it is about to save
            engine.forget(conversation_id)
        if self._kv_path.exists():
            with closing(KvBlockStore(self._kv_path, budget_bytes=0)) as blocks:  # nothing is evicted without a write
                blocks.forget_owner(conversation_id)

    def _load_chat(self) -> ChatEngine:
        remote = self.settings.remote_options()
        if remote is not None:
            from hearth.models.remote.engine import RemoteEngine
            from hearth.sent_media import SentMedia

            connected = RemoteEngine.connect(remote, self._closing.is_set)
            return RemoteChat(connected, SentMedia(self.files, self.store.derived))
        from hearth.models.chat_template import DEFAULT_TEMPLATE, ChatTemplate
        from hearth.prompt import PromptComposer

        engine = self.engine.get(self._closing.is_set)
        info, media = engine.info, engine.info.media
        composer = PromptComposer(
            ChatTemplate(info.chat_template or DEFAULT_TEMPLATE, info.bos_token, info.eos_token),
            engine.tokenize,
            lambda content: self.senses.get().segments(content),
            bos_token=info.bos_token,
            add_bos=info.add_bos,
        )
        model = ChatModel(
            self.choice.name,
            info.n_ctx,
            self.sees,
            media is not None and media.hears and media.sample_rate == SAMPLE_RATE,
            info.fingerprint if media is None else f"{info.fingerprint}.{media.fingerprint}",
        )
        is_pocket = self.choice.vision_dir is not None
        return LocalChat(engine, composer, self.senses.get, model, pictures_first=is_pocket)

    def _load_engine(self) -> Engine:
        from hearth.engine_factory import make_engine

        choice = self.choice
        if choice.path is None:
            raise EngineError(f"the engine is at {self.settings.engine_url}; nothing is loaded on this machine")
        options = self.settings.engine_options(choice.n_ctx, choice.mmproj)

        def progress(fraction: float) -> None:
            self._load_fraction = fraction

        log.info("loading %s", choice.path)
        arguments: dict[str, Any] = {"cancelled": self._closing.is_set, "on_progress": progress, "kv": self.kv_folder()}
        if not self.isolates_engine:
            return make_engine(choice.path, options, **arguments)
        from hearth.models.engine.process import ProcessEngine

        return ProcessEngine.load(choice.path, options, make_engine=make_engine, **arguments)

    def _load_senses(self) -> Senses:
        is_pocket = self.choice.vision_dir is not None
        encoder = PocketEncoder(self.vision.get()) if is_pocket else ModelEncoder(self.engine.get())
        return Senses(encoder, self.files, self.store.derived)

    def _load_vision(self) -> PictureEncoder:
        from hearth.multimodal.picture_encoder import PictureEncoder

        return PictureEncoder.load(assets.pocket_dir())

    def _load_transcriber(self) -> Transcriber:
        from hearth.speech import make_transcriber

        transcriber = make_transcriber(self.settings)
        transcriber.load()
        return transcriber

    def _load_text_embedder(self) -> TextEmbedder:
        from hearth.multimodal.text_embedding import TextEmbedder

        embedder = TextEmbedder()
        embedder.embed(["warm"])
        return embedder


def describe_failure(error: BaseException) -> str:
    """One line for a status display."""
    return str(error) if isinstance(error, HearthError) else f"{type(error).__name__}: {error}"
