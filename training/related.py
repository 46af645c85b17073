"""Pictures that belong together: of one thing each, sharing the thing, its colour, the background or nothing."""

from __future__ import annotations

from training.pictures import Painter
from training.scenes import Scene, Sprite
from training.world import COLOURS, SHAPES

SHARED = ("name", "colour", "background", "nothing", "nothing")


def related(painter: Painter) -> tuple[Scene, ...]:
    """Two pictures, or three in one case of four."""
    rng = painter.rng
    number = 3 if rng.random() < 0.25 else 2
    shared = rng.choice(SHARED)
    if shared == "name":
        return _same_thing(painter, number)
    sprites = _of_one_colour(painter, number) if shared == "colour" else _different(painter, number)
    ground = painter.ground(*(sprite.colour for sprite in sprites)) if shared == "background" else None
    return tuple(painter.single(sprite=sprite, ground=ground) for sprite in sprites)


def _different(painter: Painter, number: int) -> list[Sprite]:
    chosen: list[Sprite] = []
    while len(chosen) < number:
        sprite = painter.sprite()
        if sprite.name not in {other.name for other in chosen}:
            chosen.append(sprite)
    return chosen


def _of_one_colour(painter: Painter, number: int) -> list[Sprite]:
    colour = painter.rng.choice(tuple(COLOURS))
    chosen: list[Sprite] = [painter.shape(painter.rng.choice(SHAPES), colour)]
    for _ in range(60):
        sprite = painter.sprite(coloured=True, shape_share=0.15)
        if sprite.colour == colour and sprite.name not in {other.name for other in chosen}:
            chosen.append(sprite)
            break
    while len(chosen) < number:
        shape = painter.rng.choice([s for s in SHAPES if s not in {other.name for other in chosen}])
        chosen.append(painter.shape(shape, colour))
    painter.rng.shuffle(chosen)
    return chosen[:number]


def _same_thing(painter: Painter, number: int) -> tuple[Scene, ...]:
    """The same thing, in another colour or at another place."""
    rng = painter.rng
    if rng.random() < 0.5:
        shape = rng.choice(SHAPES)
        return tuple(painter.single(sprite=painter.shape(shape, c)) for c in rng.sample(tuple(COLOURS), number))
    sprite = painter.sprite(shape_share=0.0)
    scenes = [painter.single(sprite=sprite)]
    while len(scenes) < number:
        scene = painter.single(sprite=sprite)
        if scene.things[0].cell not in {other.things[0].cell for other in scenes}:
            scenes.append(scene)
    return tuple(scenes)
