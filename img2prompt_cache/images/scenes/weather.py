"""Weather: what falls, floats or glows in front of the subjects."""

from __future__ import annotations

import random

from PIL import Image, ImageFilter

from img2prompt_cache.images.scenes.chance import between, pick
from img2prompt_cache.images.scenes.pen import Pen


def weather(picture: Image.Image, detail: str, rng: random.Random) -> Image.Image:
    """Draw the weather over an RGB picture; details behind the subjects, as a rainbow, change nothing."""
    pixels = picture.width
    pen = Pen(pixels)
    opacity = 1.0
    if detail == "rain":
        picture = Image.blend(picture, Image.new("RGB", picture.size, (84, 96, 116)), 0.35)
        for _ in range(70):
            x, y = between(rng, -1, 1.1), between(rng, -1.1, 1)
            pen.line([(x, y), (x - 0.05, y + 0.16)], 0.012, (206, 226, 244))
        opacity = 0.75
    elif detail == "snow":
        for _ in range(130):
            r = between(rng, 0.01, 0.03)
            pen.oval(between(rng, -1, 1), between(rng, -1, 1), r, r, (255, 255, 255))
    elif detail == "leaves":
        for _ in range(46):
            x, y, turn = between(rng, -1, 1), between(rng, -1, 1), between(rng, 0, 180)
            fill = pick(((220, 110, 40), (196, 70, 40), (236, 170, 60), (160, 96, 48)), rng)
            pen.oval(x, y, 0.045, 0.02, fill, turn)
    elif detail == "fireflies":
        for _ in range(46):
            r = between(rng, 0.014, 0.026)
            pen.oval(between(rng, -1, 1), between(rng, -0.7, 1), r, r, (250, 255, 150))
        halo = pen.image.filter(ImageFilter.GaussianBlur(pixels / 50))
        picture.paste((240, 250, 110), mask=halo.getchannel("A").point(lambda value: min(255, value * 2)))
    elif detail == "fog":
        for _ in range(9):
            pen.oval(
                between(rng, -1, 1),
                between(rng, -0.2, 0.9),
                between(rng, 0.5, 0.9),
                between(rng, 0.08, 0.2),
                (236, 240, 246),
            )
        banks = pen.image.getchannel("A").filter(ImageFilter.GaussianBlur(pixels / 24))
        picture = Image.blend(picture, Image.new("RGB", picture.size, (222, 228, 236)), 0.26)
        picture.paste((236, 240, 246), mask=banks.point(lambda value: value * 0.3))
        return picture
    picture.paste(pen.image, mask=pen.image.getchannel("A").point(lambda value: value * opacity))
    return picture
