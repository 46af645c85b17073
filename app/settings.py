"""Settings: arguments > environment ``HEARTH_*`` > ``hearth.toml`` > defaults. A mistake is named with its place."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_config_path, user_data_path
from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from hearth.models.engine.options import EngineOptions, LoraAdapter
from hearth.models.errors import HearthError, RequestError
from hearth.models.remote.options import FIRST_BYTE_S, RemoteOptions
from hearth.multimodal.languages import language_code

ENV_PREFIX = "HEARTH_"
FILE_NAME = "hearth.toml"
# read by the command line and the logging, not settings of the assistant
ENGINE_KEY_VARIABLE = "HEARTH_ENGINE_KEY"  # of the server at engine_url; the other key is of clients of our own API
_OTHER_VARIABLES = {"HEARTH_DEBUG", "HEARTH_LOG_LEVEL", "HEARTH_CONFIG", ENGINE_KEY_VARIABLE, "HEARTH_API_KEY"}


class SettingsError(HearthError):
    """A setting is unknown or has a bad value; the message says where it stands."""

    http_status = 400


class _Fields(BaseModel):
    """The settings themselves, apart from where they come from."""

    data_dir: Path = Field(default_factory=lambda: user_data_path("hearth", appauthor=False))
    model: str = "pocket"
    mmproj: Path | None = None  # the model's encoder of pictures and sounds
    n_ctx: int | None = Field(
        default=None, ge=64, le=1_048_576
    )  # tokens; None: what the model suits and fits, at most 8,192
    n_gpu_layers: int = Field(default=-1, ge=-1)  # -1: as many as the build takes and the device holds
    n_threads: int | None = Field(default=None, ge=1, le=1024)  # None: the physical cores
    kv_type: Literal["f16", "q8_0", "q4_0"] = "f16"
    flash_attention: bool = True
    kv_unified: bool = True  # all chats share the n_ctx cells; False: each of n_parallel has as many of its own
    kv_disk_gib: float | None = Field(default=None, ge=0.0, le=1_000_000)  # None: a tenth of the free, at most 8
    kv_daily_write_gib: float = Field(default=64.0, gt=0.0, le=1_000_000)  # spares the disk
    kv_resume: bool = True  # load the chat used last at the start, before anybody asks
    n_parallel: int = Field(default=4, ge=1, le=64)  # chats that are answered side by side
    prompt_lookup: bool = True  # guess tokens from what stood before
    draft_model: Path | None = None  # a small GGUF of the same vocabulary, which guesses where nothing stood before
    lora: Annotated[list[str], NoDecode] = Field(default_factory=list)  # adapters: PATH, PATH:SCALE or PATH=SCALE
    rope_scaling: Literal["none", "linear", "yarn"] | None = None  # None: the model's own; yarn: reads up to n_ctx
    rope_freq_base: float | None = None  # this and what follows: None is the model's own, or what n_ctx needs
    rope_freq_scale: float | None = None  # 0.25 makes the context four times as long
    yarn_orig_ctx: int | None = None  # tokens
    yarn_ext_factor: float | None = None
    yarn_attn_factor: float | None = None
    yarn_beta_fast: float | None = None
    yarn_beta_slow: float | None = None
    check_fit: bool = True  # look before loading whether memory suffices; False loads anyway
    speech_model: str | None = None  # a size of Whisper or a path; None: the embedded one
    speech_language: str | None = None  # of recordings, a code or an English name; None: detected
    speech_task: Literal["transcribe", "translate"] = "transcribe"  # translate: to English
    speech_backend: Literal["auto", "whisper", "faster-whisper"] = "auto"
    speech_carry_text: bool = False  # tell each window of a recording the words before it
    engine_url: str | None = None  # an OpenAI-compatible server that generates in place of an engine here
    engine_model: str | None = Field(default=None, min_length=1, max_length=512)  # None: the server's only one
    engine_sees: bool | None = None  # whether it takes pictures; None: as the server says, else yes
    engine_hears: bool | None = None  # whether it takes recordings; None: as the server says, else their words are sent
    engine_timeout_s: float = Field(default=FIRST_BYTE_S, gt=0.0, le=86_400)  # until an answer begins
    isolate_engine: bool | None = None  # run the model in a process of its own; None: the page does, scripts do not
    system: str | None = None  # system prompt; None: the model's own default
    temperature: float | None = Field(default=None, ge=0.0, le=5.0)  # None: the model's own default
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    max_tokens: int = Field(default=512, ge=1, le=1_048_576)
    memory_passages: int = Field(default=6, ge=1, le=32)  # passages retrieved for a turn, at most
    offline: bool = False  # true: nothing is ever fetched. Models never are unless asked for, by `hearth models pull`

    @field_validator("data_dir", "mmproj", "draft_model", mode="after")
    @classmethod
    def _expand(cls, path: Path | None) -> Path | None:
        return path.expanduser() if path is not None else None

    @field_validator("speech_language", mode="after")
    @classmethod
    def _name_language(cls, language: str | None) -> str | None:
        try:
            return None if language is None else language_code(language)
        except RequestError as error:
            raise ValueError(str(error)) from None

    @field_validator("lora", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        """One adapter may be given without a list; the environment has lists in JSON."""
        if isinstance(given, str):
            return json.loads(given) if given.lstrip().startswith("[") else [given]
        return [str(path) if isinstance(path, Path) else path for path in given] if isinstance(given, list) else given

    @field_validator("lora", mode="after")
    @classmethod
    def _name_adapters(cls, adapters: list[str]) -> list[str]:
        try:
            for adapter in adapters:
                LoraAdapter.parse(adapter)
        except RequestError as error:
            raise ValueError(str(error)) from None
        return adapters


class Settings(BaseSettings, _Fields):
    """All settings of an assistant. Raises SettingsError naming the setting, its place and what would be right."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", frozen=True, protected_namespaces=(), validate_default=False
    )

    def __init__(self, **arguments: Any) -> None:
        given = {key: value for key, value in arguments.items() if value is not None}
        _refuse_unknown(given, place="argument")
        _refuse_unknown_variables()
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise SettingsError(_explain(error, given)) from None
        try:
            self.engine_options()
            remote = self.remote_options()
        except RequestError as error:
            raise SettingsError(str(error)) from None
        if remote is not None and not remote.is_loopback and self.offline and "offline" in self.model_fields_set:
            raise SettingsError(
                f"engine_url {remote.url} is not on this machine, and offline is set; leave out one of them"
            )
        if remote is None:
            self._refuse_without_url()

    def engine_options(self, n_ctx: int | None = None, mmproj: Path | None = None) -> EngineOptions:
        """What concerns the engine, with ``n_ctx`` and ``mmproj`` if the settings do not say. Raises RequestError for a
        conflict."""
        same = (
            "n_gpu_layers",
            "kv_type",
            "flash_attention",
            "kv_unified",
            "n_threads",
            "n_parallel",
            "kv_resume",
            "prompt_lookup",
            "draft_model",
            "check_fit",
        )
        rope = [name for name in EngineOptions.__dataclass_fields__ if name.startswith(("rope_", "yarn_"))]
        return EngineOptions(
            n_ctx=self.n_ctx or n_ctx,
            mmproj=self.mmproj or mmproj,
            lora=tuple(LoraAdapter.parse(text) for text in self.lora),
            **{name: getattr(self, name) for name in (*same, *rope)},
        )

    @property
    def names_model(self) -> bool:
        """Whether the model was given, by argument, environment or file, and is not the default."""
        return "model" in self.model_fields_set

    def remote_options(self) -> RemoteOptions | None:
        """The server that generates, with its key from the environment; None if an engine here does. Raises
        RequestError."""
        if self.engine_url is None:
            return None
        return RemoteOptions(
            url=self.engine_url,
            model=self.engine_model,
            key=os.environ.get(ENGINE_KEY_VARIABLE) or None,
            sees=self.engine_sees,
            hears=self.engine_hears,
            n_ctx=self.n_ctx,
            first_byte_s=self.engine_timeout_s,
        )

    def _refuse_without_url(self) -> None:
        for name in self.model_fields_set & {"engine_model", "engine_sees", "engine_hears", "engine_timeout_s"}:
            raise SettingsError(f"{name} is set without engine_url, which names the server; set it or leave {name} out")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, _TomlFile(settings_cls))


def leaving(remote: RemoteOptions | None) -> str:
    """What leaves this machine, in a sentence for people; "" if nothing does."""
    if remote is None or remote.is_loopback:
        return ""
    return (
        f"Words, pictures, recordings and what is found in memory leave this machine: {remote.host} writes the answers."
    )


class _TomlFile(PydanticBaseSettingsSource):
    """The first ``hearth.toml`` found: the one named by HEARTH_CONFIG, here, or in the user's configuration folder."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        path = settings_file()
        if path is None:
            return {}
        try:
            values = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: not valid TOML: {error}") from error
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
        _refuse_unknown(values, place=str(path))
        return values


def settings_file() -> Path | None:
    """The settings file in force, or None. Raises SettingsError if HEARTH_CONFIG names a file that is not there."""
    named = os.environ.get("HEARTH_CONFIG")
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise SettingsError(f"HEARTH_CONFIG names {path}, which is not a file; correct or unset it")
        return path
    for folder in (Path.cwd(), user_config_path("hearth", appauthor=False)):
        path = folder / FILE_NAME
        if path.is_file():
            return path
    return None


def _refuse_unknown(values: dict[str, Any], place: str) -> None:
    for key in values:
        if key not in _Fields.model_fields:
            raise SettingsError(f"{place}: unknown setting {key!r}{_suggest(key)}")


def _refuse_unknown_variables() -> None:
    for variable in os.environ:
        if variable.startswith(ENV_PREFIX) and variable not in _OTHER_VARIABLES:
            key = variable.removeprefix(ENV_PREFIX).lower()
            if key not in _Fields.model_fields:
                raise SettingsError(f"environment: unknown setting {variable}{_suggest(key, ENV_PREFIX)}")


def _suggest(key: str, prefix: str = "") -> str:
    close = difflib.get_close_matches(key, _Fields.model_fields, n=1)
    if close:
        return f"; did you mean {prefix + (close[0].upper() if prefix else close[0])}?"
    return f"; known are {', '.join(_Fields.model_fields)}"


def _explain(error: ValidationError, given: dict[str, Any]) -> str:
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else "settings"
    if key in given:
        place = f"argument {key}"
    elif f"{ENV_PREFIX}{key.upper()}" in os.environ:
        place = f"environment {ENV_PREFIX}{key.upper()}"
    else:
        place = f"{settings_file()}: {key}"
    reason = first["msg"].removeprefix("Value error, ")
    return f"{place} = {first.get('input')!r}: {reason[:1].lower()}{reason[1:]}"
