"""Places: everything behind the subjects of a scene."""

from __future__ import annotations

import random

from PIL import Image

from img2prompt_cache.images.scenes.chance import between
from img2prompt_cache.images.scenes.grounds import GROUNDS
from img2prompt_cache.images.scenes.pen import Colour, Pen, gradient, lit
from img2prompt_cache.images.scenes.skies import HORIZON, SKIES, sky
from img2prompt_cache.images.scenes.words import PLACES, Scene

LIGHT: dict[str, Colour] = {
    "": (255, 255, 255),
    "dawn": (250, 226, 236),
    "noon": (255, 255, 255),
    "sunset": (255, 204, 170),
    "night": (96, 110, 178),
}
"""Colour of the light at each time; white where there is no sky."""
INDOORS: dict[str, tuple[Colour, Colour, Colour]] = {
    "outer space": ((8, 6, 26), (22, 14, 50), (14, 10, 38)),
    "underwater": ((110, 214, 230), (34, 132, 186), (12, 62, 120)),
    "room": ((246, 228, 200), (244, 222, 192), (240, 214, 180)),
}
"""Colours of places without a sky: top, middle and bottom."""


def backdrop(scene: Scene, pixels: int, rng: random.Random) -> Image.Image:
    """Draw everything behind the subjects: an RGB square of `pixels`."""
    if PLACES[scene.place].sky:
        picture = sky(scene, pixels, rng)
        ground = Pen(pixels)
        GROUNDS[scene.place](ground, rng)
        picture.paste(lit(ground.image, LIGHT[scene.time]), mask=ground.image.getchannel("A"))
        # Lava, windows and lamps emit light; only they are drawn with so much red.
        shining = ground.image.getchannel("R").point(lambda red: 255 if red >= 250 else 0)
        picture.paste(ground.image.convert("RGB"), mask=shining)
        if scene.place == "sea":
            _glitter(picture, SKIES[scene.time][2], rng)
        return picture
    top, middle, bottom = INDOORS[scene.place]
    pen = Pen(pixels)
    pen.image.paste(gradient(pixels, top, middle, bottom))
    GROUNDS[scene.place](pen, rng)
    return pen.image.convert("RGB")


def _glitter(picture: Image.Image, colour: Colour, rng: random.Random) -> None:
    pen = Pen(picture.width)
    for _ in range(18):
        x, y = between(rng, -1, 1), between(rng, HORIZON + 0.03, 0.6)
        pen.line([(x - 0.08, y), (x + 0.08, y)], 0.012, colour)
    picture.paste(pen.image, mask=pen.image.getchannel("A"))
