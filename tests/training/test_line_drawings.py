"""Things drawn by another hand, from a font that this test makes."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

from training import fonts
from training.line_drawings import find_font, line_drawings, main_colours

RED = (220, 30, 30)


def ring() -> object:
    """A square outline, open inside."""
    pen = TTGlyphPen(None)
    for low, high, turned in ((100, 900, False), (200, 800, True)):
        corners = [(low, low), (low, high), (high, high), (high, low)]
        first, *others = reversed(corners) if turned else corners
        pen.moveTo(first)
        for corner in others:
            pen.lineTo(corner)
        pen.closePath()
    return pen.glyph()


@pytest.fixture
def font(tmp_path: Path) -> Path:
    """A font that draws a red apple (U+1F34E) as a ring, and nothing else."""
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "apple"])
    builder.setupCharacterMap({0x1F34E: "apple"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "apple": ring()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "apple": (1000, 100)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Symbola", "styleName": "Regular"})
    builder.setupPost()
    path = tmp_path / "Symbola_test.ttf"
    builder.save(path)
    return path


def test_a_font_is_found_in_a_folder(font: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "FOLDERS", (str(tmp_path / "none"),))
    assert find_font(str(font.parent)) == font
    monkeypatch.delenv("POCKET_FONTS", raising=False)
    assert find_font() is None


def test_a_drawing_comes_as_lines_and_filled_with_the_colours_of_the_thing(font: Path) -> None:
    drawings = line_drawings(font, {"apple": [RED], "frog": [RED]}, random.Random(1))
    assert [drawing.name for drawing in drawings] == ["apple"] * 4
    alone, filled, thick, other = (np.asarray(drawing.image) for drawing in drawings)
    middle = tuple(side // 2 for side in alone.shape[:2])
    assert alone[middle][3] == 0
    assert tuple(filled[middle]) == (*RED, 255)
    assert tuple(thick[middle]) == (*RED, 255)
    assert tuple(other[middle]) != (*RED, 255)
    assert max(filled[middle[0], 3, :3]) <= 60
    assert drawings[1].colour == "red"


def test_without_the_font_there_are_none_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert line_drawings(None, {"apple": [RED]}, random.Random(1)) == []
    assert "fonts-symbola" in caplog.text


def test_main_colours_are_those_that_cover_most() -> None:
    image = Image.new("RGBA", (40, 40), (*RED, 255))
    image.paste((20, 200, 40, 255), (0, 0, 40, 10))
    image.paste((0, 0, 0, 0), (0, 30, 40, 40))
    first, second = main_colours(image)
    assert np.abs(np.subtract(first, RED)).max() < 40
    assert np.abs(np.subtract(second, (20, 200, 40))).max() < 40
    assert main_colours(Image.new("RGBA", (8, 8))) == []
