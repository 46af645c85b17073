"""What is read of a speech model's file without loading it, and what of a bad one is told."""

from __future__ import annotations

import importlib.resources
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hearth.models.errors import ModelFileError
from hearth.multimodal.speech_header import MOST_INDEX_BYTES, read_checkpoint_header, read_converted_header

POCKET = Path(str(importlib.resources.files("hearth.assets"))) / "pocket" / "speech.pt"
DIMS = {
    f"n_{name}": 4
    for name in (
        *("mels", "audio_ctx", "audio_state", "audio_head", "audio_layer"),
        *("text_ctx", "text_state", "text_head", "text_layer"),
    )
}


def write_checkpoint(path: Path, content: Any) -> Path:
    import torch

    torch.save(content, path)
    return path


def write_converted(folder: Path, *, name: str = "WhisperSpec", version: int = 6) -> Path:
    folder.mkdir()

    def text(words: str) -> bytes:
        return struct.pack("<H", len(words) + 1) + words.encode() + b"\0"

    variables = [("encoder/scale", struct.pack("<BI", 1, 2), bytes(8)), ("decoder/count", b"\0", bytes(4))]
    data = struct.pack("<I", version) + text(name) + struct.pack("<II", 3, len(variables))
    for named, shape, values in variables:
        data += text(named) + shape + struct.pack("<BI", 0, len(values)) + values
    (folder / "model.bin").write_bytes(data + struct.pack("<I", 0))
    for beside in ("tokenizer.json", "vocabulary.json"):
        (folder / beside).write_text("{}")
    return folder


def test_the_embedded_checkpoint_is_known_by_its_header() -> None:
    header = read_checkpoint_header(POCKET)
    assert header.size_bytes == POCKET.stat().st_size
    assert header.knows_languages is False


@pytest.mark.parametrize(("n_vocab", "knows"), [(51864, False), (51865, True), (51866, True)])
def test_languages_are_told_by_the_vocabulary(tmp_path: Path, n_vocab: int, knows: bool) -> None:
    import torch

    content = {"dims": {**DIMS, "n_vocab": n_vocab}, "model_state_dict": {"a": torch.zeros(3)}}
    assert read_checkpoint_header(write_checkpoint(tmp_path / "a.pt", content)).knows_languages is knows


def test_a_checkpoint_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    data = POCKET.read_bytes()
    path = tmp_path / "cut.pt"
    for n_bytes in (0, 1, 1000, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:n_bytes])
        with pytest.raises(ModelFileError, match=r"cut\.pt is not a Whisper checkpoint or is cut off"):
            read_checkpoint_header(path)


def test_other_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    import torch

    other = write_checkpoint(tmp_path / "other.pt", {"weights": torch.zeros(2)})
    with pytest.raises(ModelFileError, match="no dimensions of Whisper"):
        read_checkpoint_header(other)
    with zipfile.ZipFile(tmp_path / "book.pt", "w") as archive:
        archive.writestr("page.txt", "words")
    with pytest.raises(ModelFileError, match="a zip without a table of tensors"):
        read_checkpoint_header(tmp_path / "book.pt")
    with zipfile.ZipFile(tmp_path / "large.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(MOST_INDEX_BYTES + 1))
    with pytest.raises(ModelFileError, match="at most 8388608"):
        read_checkpoint_header(tmp_path / "large.pt")
    with pytest.raises(ModelFileError, match=r"none\.pt: cannot be read: No such file"):
        read_checkpoint_header(tmp_path / "none.pt")


def test_tensors_that_are_missing_are_counted(tmp_path: Path) -> None:
    import torch

    content = {"dims": {**DIMS, "n_vocab": 9}, "model_state_dict": {"a": torch.zeros(3), "b": torch.ones(3)}}
    whole = write_checkpoint(tmp_path / "whole.pt", content)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "part.pt", "w") as target:
        for name in source.namelist():
            if not name.endswith("data/1"):
                target.writestr(name, source.read(name))
    with pytest.raises(ModelFileError, match="1 of 2 tensors are missing"):
        read_checkpoint_header(tmp_path / "part.pt")


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    class Command:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "made"),)

    with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"dims": Command()}))
    with pytest.raises(ModelFileError, match=r"it names (posix|nt)\.mkdir"):
        read_checkpoint_header(tmp_path / "bad.pt")
    assert not (tmp_path / "made").exists()


def test_the_old_format_is_known_by_its_beginning(tmp_path: Path) -> None:
    import torch

    torch.save({"dims": {}}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert read_checkpoint_header(tmp_path / "old.pt").knows_languages is None


def test_a_converted_model_is_walked_to_its_end(tmp_path: Path) -> None:
    folder = write_converted(tmp_path / "model")
    path = folder / "model.bin"
    data = path.read_bytes()
    assert read_converted_header(folder).size_bytes == len(data)
    for n_bytes in (0, 3, 10, 30, len(data) - 5):
        path.write_bytes(data[:n_bytes])
        with pytest.raises(ModelFileError, match=r"model\.bin is not a model of CTranslate2 or is cut off"):
            read_converted_header(folder)


def test_a_converted_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="it holds a 'BertSpec'"):
        read_converted_header(write_converted(tmp_path / "bert", name="BertSpec"))
    with pytest.raises(ModelFileError, match="its binary version is 99"):
        read_converted_header(write_converted(tmp_path / "new", version=99))
    alone = write_converted(tmp_path / "alone")
    (alone / "vocabulary.json").rename(alone / "vocabulary.txt")
    assert read_converted_header(alone).size_bytes
    (alone / "tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match=r"has no tokenizer\.json"):
        read_converted_header(alone)
