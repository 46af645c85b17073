"""The files that ship with Hearth: pocket models, samples, styles. Paths only, nothing is loaded here."""

from __future__ import annotations

from pathlib import Path

# Resolved, because in a development install this file is a link into the source tree, and the others are not linked.
_HERE = Path(__file__).resolve().parent


def pocket_dir() -> Path:
    """The folder of the embedded models; ``pocket.toml`` in it names the files."""
    return _HERE / "pocket"


def samples_dir() -> Path:
    """The folder of the sample picture, recording and document."""
    return _HERE / "samples"


def sample_text() -> Path:
    """A page of plain English prose."""
    return samples_dir() / "prose.txt"


def ui_dir() -> Path:
    """The folder of style sheets and scripts of the web page."""
    return _HERE / "ui"


def catalogue_file() -> Path:
    """The catalogue of models that can be fetched by name."""
    return _HERE / "catalogue.toml"
