"""Rendering: from a scene to its picture."""

from __future__ import annotations

import random

from PIL import Image, ImageChops, ImageFilter

from img2prompt_cache.images.scenes.chance import between
from img2prompt_cache.images.scenes.pen import Colour, Pen, gradient, lit, mix
from img2prompt_cache.images.scenes.places import LIGHT, backdrop
from img2prompt_cache.images.scenes.styles import STYLE
from img2prompt_cache.images.scenes.subjects import DRAW
from img2prompt_cache.images.scenes.weather import weather
from img2prompt_cache.images.scenes.words import COLOURS, SUBJECTS, Scene

FINER = 2
"""Everything is drawn larger by this factor and then reduced, which smooths the edges."""

SPOTS = {
    1: ((0.5, 0.88, 0.29),),
    2: ((0.27, 0.86, 0.21), (0.73, 0.9, 0.21)),
    3: ((0.18, 0.82, 0.145), (0.82, 0.82, 0.145), (0.5, 0.92, 0.145)),
    4: ((0.3, 0.56, 0.13), (0.7, 0.57, 0.13), (0.27, 0.92, 0.15), (0.73, 0.93, 0.15)),
    5: ((0.33, 0.56, 0.12), (0.67, 0.56, 0.12), (0.17, 0.92, 0.142), (0.5, 0.94, 0.142), (0.83, 0.92, 0.142)),
}
"""Where the subjects stand, by their count, from back to front: x of the middle, y of the foot, half side.

All are shares of the picture's side.
"""


def render(scene: Scene, size: int = 256) -> Image.Image:
    """Draw a scene.

    The same scene and size give the same pixels with the same release of Pillow.

    Parameters
    ----------
    scene : Scene
        What to draw.
    size : int
        The side of the picture in pixels.

    Returns
    -------
    PIL.Image.Image
        RGB, `size` by `size`.
    """
    rng = random.Random(f"layout {scene.layout}")  # noqa: S311 (no secret is made here)
    pixels = size * FINER
    picture = backdrop(scene, pixels, rng)
    sprite = _sprite(scene, round(2 * SPOTS[scene.count][0][2] * pixels * 1.2))
    flies = SUBJECTS[scene.subject].flies
    sway = 0.12 if scene.count == 1 else 0.012
    for x, foot, half in SPOTS[scene.count]:
        side = round(2 * half * pixels * between(rng, 0.88, 1))
        left = round(x * pixels - side / 2 + between(rng, -sway, sway) * pixels)
        top = round((foot - (0.1 if flies else 0)) * pixels - side + between(rng, -0.02, 0.02) * pixels)
        copy = sprite.resize((side, side), Image.Resampling.LANCZOS, reducing_gap=2)
        if rng.random() < 0.5:
            copy = copy.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if not flies:
            _shadow(picture, left, top, side)
        picture.paste(copy, (left, top), copy)
    picture = weather(picture, scene.detail, rng).reduce(FINER)
    return STYLE[scene.style](picture, rng)


def _sprite(scene: Scene, pixels: int) -> Image.Image:
    """Draw one subject with shading and an outline that contrasts with its colour."""
    colour = COLOURS[scene.colour]
    pen = Pen(pixels)
    DRAW[scene.subject](pen, colour)
    inside = pen.image.getchannel("A")
    bright = gradient(pixels, (255, 255, 255), (246, 246, 246), (206, 206, 214))
    body = ImageChops.multiply(pen.image.convert("RGB"), bright)
    # At night the subjects are dimmed less than the ground, so that their colour can be recognised.
    body = lit(body, mix(LIGHT[scene.time], (255, 255, 255), 0.55))
    outline: Colour = (30, 26, 44) if sum(colour) > 230 else (226, 230, 240)
    spread = inside.filter(ImageFilter.GaussianBlur(pixels / 90)).point(lambda value: min(255, value * 6))
    sprite = Image.new("RGBA", pen.image.size, outline)
    sprite.paste(body, mask=inside)
    sprite.putalpha(spread)
    return sprite


def _shadow(picture: Image.Image, left: int, top: int, side: int) -> None:
    pen = Pen(side)
    pen.oval(0, 0, 0.9, 0.14, (0, 0, 0))
    soft = pen.image.getchannel("A").filter(ImageFilter.GaussianBlur(side / 40))
    picture.paste((24, 26, 44), (left, top + round(side * 0.49)), soft.point(lambda value: value * 0.35))
