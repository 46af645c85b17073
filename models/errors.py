"""The one error tree of Hearth.

    HearthError                    base: a message for people, an HTTP status for the API
    ├── ModelError                 a model file or the engine (this module)
    │   ├── ModelFileError         missing, truncated, or not a GGUF
    │   ├── TemplateError          the model's chat template is broken, hostile or too slow
    │   ├── PullError              a model cannot be fetched, or not checked
    │   │   └── PullStoppedError   the user stopped it; what was fetched is kept
    │   ├── ContextOverflowError   the prompt is longer than the context
    │   └── EngineError            the engine failed or is closed
    │       └── WontFitError       the model needs more memory than there is
    ├── RequestError               a parameter of a request is out of range (this module)
    ├── PerceptionError            an attachment that cannot be read (hearth.multimodal.errors)
    ├── StoreError                 the data folder (hearth.store.errors)
    └── SettingsError              a setting (hearth.settings)

A message names the value, the limit and the remedy, on one line.
"""

from __future__ import annotations


class HearthError(Exception):
    """Base of every error that Hearth raises on purpose."""

    http_status: int = 500


class ModelError(HearthError):
    """A model or the engine that runs it cannot do what was asked."""


class ModelFileError(ModelError):
    """A model file is missing, truncated, or not what it should be."""

    http_status = 422


class TemplateError(ModelError):
    """A chat template is broken, refuses the messages, or exceeds its bounds."""

    http_status = 422


class PullError(ModelError):
    """A model cannot be fetched, or what came is not what was announced."""

    http_status = 502


class PullStoppedError(PullError):
    """A pull was stopped on purpose. What was fetched so far is kept, and the next pull goes on from there."""

    http_status = 409


class ContextOverflowError(ModelError):
    """A prompt does not fit into the context. Nothing was cut."""

    http_status = 413


class EngineError(ModelError):
    """The engine failed, or was closed while a request was waiting."""

    http_status = 503


class WontFitError(EngineError):
    """A model, with the context that was asked for, needs more memory than this machine has free."""

    http_status = 507


class RequestError(HearthError):
    """A parameter of a request is of the wrong kind or out of its range."""

    http_status = 400
