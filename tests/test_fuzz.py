"""A slice of benchmarks/fuzz.py, and the hostile files that once went wrong."""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from hearth import documents_apart, model_report
from hearth.documents_apart import page_png, read_document
from hearth.models.engine.options import EngineOptions
from hearth.models.engine.process import ProcessEngine
from hearth.models.errors import EngineError
from hearth.models.tasks import Limits
from hearth.multimodal.documents_types import DocumentText, Page
from hearth.multimodal.errors import MediaTooLargeError, PerceptionCancelled, PerceptionError
from hearth.multimodal.passages import split_passages
from hearth.multimodal.pictures import read_picture

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import fuzz
import fuzz_documents
import fuzz_media
from fuzz_worker import Outcomes, names_of, read, read_header

SEED = 20
SLICE = {"models": range(29), "templates": range(100, 106), "pictures": range(60, 70), "recordings": range(70, 76)}


@pytest.mark.parametrize("kind", SLICE)
def test_a_slice_of_hostile_files(kind: str, tmp_path: Path) -> None:
    problems = []
    for number in SLICE[kind]:
        hostile = fuzz.make(kind, number, SEED)
        path = tmp_path / hostile.file_name
        path.write_bytes(hostile.data)
        outcomes = Outcomes(names_of(kind, path))
        if kind == "models":
            read_header(outcomes, path)
        else:
            read(kind, path, hostile.role, outcomes, {})
        problems += [(hostile.what, *found) for found in outcomes.found if found[1].startswith("wrong")]
        assert outcomes.found
    assert not problems


def test_equal_seeds_make_equal_files() -> None:
    for kind in fuzz.KINDS:
        assert fuzz.make(kind, 150, SEED) == fuzz.make(kind, 150, SEED)


def test_a_pdf_that_fills_memory_or_breaks_pdfium_costs_that_file_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_apart, "MEMORY_BYTES", 300 << 20)
    itself = next(make for what, make in fuzz_documents._PDFS if what == "form that draws itself")()
    with pytest.raises(MediaTooLargeError, match=r"a\.pdf takes more than"):
        read_document(itself, "a.pdf")


def test_drawing_a_page_without_an_end_can_be_stopped() -> None:
    endless = next(make for what, make in fuzz_documents._PDFS if what.startswith("shading"))()
    ends_s = time.monotonic() + 1
    with pytest.raises(PerceptionCancelled, match=r"a\.pdf"):
        page_png(endless, 1, name="a.pdf", cancelled=lambda: time.monotonic() > ends_s)


def test_errors_and_texts_come_back_from_the_process_as_they_were() -> None:
    with pytest.raises(PerceptionError, match="has no text"):
        read_document(b"   ", "blank.txt")
    text = read_document("# Ä\n\nwörds \ud7ff".encode(), "a.md")
    assert [(page.text, page.section) for page in text.pages] == [("# Ä\n\nwörds \ud7ff", "Ä")]


@pytest.mark.parametrize(
    "what",
    ["4 million chunks", "10 million comments", "GIF of 5 million comments", "TIFF of 10 million strips"],
)
def test_pictures_of_millions_of_parts_are_refused_at_once(what: str) -> None:
    name, data = dict(fuzz_media._PICTURES)[what]()[-2:]
    with pytest.raises(MediaTooLargeError, match=f"{name} is .* more than 100,000 parts"):
        read_picture(data, name)


def test_a_jpeg_of_thousands_of_passes_is_refused() -> None:
    with pytest.raises(MediaTooLargeError, match=r"a\.jpg is a JPEG of .* passes"):
        read_picture(fuzz_media.many_scans(500, 2_000), "a.jpg")
    assert read_picture(fuzz_media.many_scans(500, 20), "a.jpg").width == 500


def test_a_webp_may_have_fewer_pixels_because_its_decoder_holds_more_copies() -> None:
    out = io.BytesIO()
    Image.new("L", (8_200, 8_000)).save(out, "WEBP", lossless=True, method=0, quality=0)
    with pytest.raises(MediaTooLargeError, match="limit of 64,000,000"):
        read_picture(out.getvalue(), "a.webp")


def test_a_word_without_an_end_is_split_in_time() -> None:
    text = "a" * 1_000_000
    passages = split_passages(DocumentText("t", "text/plain", "", (Page(None, text),)))
    assert all(text[one.start : one.end] == one.text for one in passages)
    assert passages[-1].end == len(text)


def test_a_model_file_that_cannot_be_inspected_within_the_limits_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_report, "HEADER_LIMITS", Limits(seconds=0.0))
    with pytest.raises(EngineError, match=r"no\.gguf: inspect: not done"):
        model_report.examine(tmp_path / "no.gguf")


def test_an_encoder_that_ends_the_engine_process_is_named(tmp_path: Path) -> None:
    options = EngineOptions(mmproj=tmp_path / "encoder.gguf")
    with pytest.raises(EngineError, match=r"while it loaded model\.gguf, encoder\.gguf"):
        ProcessEngine.load(tmp_path / "model.gguf", options, make_engine=_die)


def _die(*_: object, **__: object) -> None:
    os.abort()
