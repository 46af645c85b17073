"""The empty chat: what Hearth is, and three questions to try with the files that ship with it."""

from __future__ import annotations

import html
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_OFFERED = (
    ("picture", ("picture.png",), "Ask about a picture", "What is this?"),
    ("aloud", ("question.wav",), "Ask aloud", ""),
    ("document", ("note.txt",), "Ask a document", "What is the door code?"),
)
_ABOUT = (
    "The embedded models are small: they know a little world of everyday things, and they say so when you ask "
    "beyond it. For more, choose a bigger model under <b>Models</b>."
)

_STAYS = "Everything stays on this machine."


@dataclass(frozen=True, slots=True)
class Sample:
    """Files to try and the question that goes with them; the question may be in a recording among them."""

    key: str
    paths: tuple[Path, ...]
    label: str
    question: str


def find_samples(folder: Path, uploads_dir: Path) -> tuple[Sample, ...]:
    """The samples whose files are all there, copied to where uploads lie."""
    found = []
    for key, names, label, question in _OFFERED:
        if not all((folder / name).is_file() for name in names):
            continue
        target = uploads_dir / "samples"
        target.mkdir(parents=True, exist_ok=True)
        paths = tuple(Path(shutil.copyfile(folder / name, target / name)) for name in names)
        found.append(Sample(key, paths, label, question))
    return tuple(found)


def welcome(samples: Sequence[Sample], *, stays: bool = True, engine: str = "") -> str:
    """HTML shown while a chat is empty. ``stays``: nothing leaves this machine; ``engine`` names a server that
    generates."""
    links = "".join(
        f'<a class="hearth-sample {sample.key}" href="#sample/{sample.key}">{html.escape(sample.label)}</a>'
        for sample in samples
    )
    buttons = f'<div class="hearth-samples">{links}</div>' if links else ""
    return (
        '<div class="hearth-welcome"><div class="hearth-greeting">What would you like to know?</div>'
        f"<p>Drop a picture, ask aloud, or add a document. {_STAYS if stays else ''}</p>"
        f'{buttons}<p class="hearth-about">{_elsewhere(engine) if engine else _ABOUT}</p></div>'
    )


def _elsewhere(engine: str) -> str:
    return f"Answers come from the server {html.escape(engine)}. Memory is kept and searched on this machine."
