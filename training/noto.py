"""The same things in a style that is never trained on: Noto Color Emoji, from Debian's fonts-noto-color-emoji."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from training.scenes import Sprite
from training.sprites import dominant_colour
from training.vocabulary import character_of, picture_names

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
_STRIKE_PX = 109  # the only size that the font has
_CANVAS_PX = 160


def noto_sprites(font: Path = FONT) -> list[Sprite]:
    """Every named thing that the font draws. Raises FileNotFoundError naming the package that brings the font."""
    if not font.is_file():
        raise FileNotFoundError(f"no {font}: install Debian's fonts-noto-color-emoji to evaluate an unseen style")
    face = ImageFont.truetype(str(font), _STRIKE_PX)
    sprites = []
    for unicode_name, everyday in sorted(picture_names().items()):
        character = character_of(unicode_name)
        if character is None:
            continue
        canvas = Image.new("RGBA", (_CANVAS_PX, _CANVAS_PX))
        ImageDraw.Draw(canvas).text((4, 4), character, font=face, embedded_color=True)
        box = canvas.getchannel("A").point(lambda alpha: 255 if alpha > 16 else 0).getbbox()
        if box is not None and box[2] - box[0] > _STRIKE_PX // 4:
            image = canvas.crop(box)
            sprites.append(Sprite(everyday, image, dominant_colour(image)))
    return sprites
