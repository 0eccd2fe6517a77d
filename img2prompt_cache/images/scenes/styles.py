"""Styles: filters that turn the plain drawing into pixel art, a painting, a print."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

Array = NDArray[np.float32]


def illustration(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Leave the drawing as it is."""
    del rng
    return picture


def pixel_art(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Reduce the picture to 64 × 64 large pixels in 24 colours."""
    del rng
    small = ImageEnhance.Color(picture).enhance(1.25).resize((64, 64), Image.Resampling.BOX)
    few = small.quantize(24, dither=Image.Dither.NONE).convert("RGB")
    return few.resize(picture.size, Image.Resampling.NEAREST)


def watercolor(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Make thin colours flow into each other on rough white paper."""
    size = picture.width
    soft = picture.filter(ImageFilter.MedianFilter(5))
    shift = (_clouds(size, 24, rng), _clouds(size, 24, rng))
    rows, columns = np.indices((size, size))
    reach = size / 42
    rows = np.clip(rows + (shift[0] - 0.5) * reach, 0, size - 1).astype(np.intp)
    columns = np.clip(columns + (shift[1] - 0.5) * reach, 0, size - 1).astype(np.intp)
    paint = _array(soft)[rows, columns]
    # Pigment collects at the border of a wet area, so colours are darker just inside an edge.
    blurred = _array(_image(paint).filter(ImageFilter.GaussianBlur(size / 64)))
    paint = paint + 0.55 * np.minimum(paint - blurred, 0)
    wash = 0.5 + 0.35 * _clouds(size, 6, rng) + 0.1 * _clouds(size, 40, rng)
    edge = np.minimum(np.minimum(rows, size - 1 - rows), np.minimum(columns, size - 1 - columns)) / size
    cover = np.clip((edge - 0.02 - 0.06 * _clouds(size, 14, rng)) * 40, 0, 1).astype(np.float32)
    ink = (255 - paint) * (wash * cover)[..., None] * 1.05
    return _image(252 - ink - 10 * _noise(size, rng)[..., None])


def oil_painting(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Draw brush strokes, broad ones first, and shade their relief."""
    size, scale = picture.width, 2
    vivid = ImageEnhance.Color(picture).enhance(1.3)
    canvas = vivid.filter(ImageFilter.BoxBlur(size / 128)).resize((size * scale, size * scale))
    draw = ImageDraw.Draw(canvas)
    for wide, count in ((0.05, 260), (0.028, 700), (0.015, 1300)):
        x, y = (np.array([int(rng.random() * size) for _ in range(count)]) for _ in range(2))
        colours = _array(vivid.filter(ImageFilter.GaussianBlur(wide * size / 5)))[y, x]
        lift = np.array([14 * (rng.random() - 0.5) for _ in range(count)])
        fills = np.clip(np.rint(colours + lift[:, None]), 0, 255).astype(int).tolist()
        grey = picture.convert("L").filter(ImageFilter.GaussianBlur(wide * size / 2))
        down, right = _slopes(_array(grey))
        places = zip(x.tolist(), y.tolist(), (-down[y, x]).tolist(), right[y, x].tolist(), fills, strict=True)
        for u, v, dx, dy, fill in places:
            # Strokes follow edges instead of crossing them, so that shapes keep their outline.
            steep = math.hypot(dx, dy)
            dx, dy = (dx / steep, dy / steep) if steep > 0.4 else (0.9, rng.random() - 0.5)
            reach = wide * size * (0.6 + rng.random())
            ends = [((u + sign * dx * reach) * scale, (v + sign * dy * reach) * scale) for sign in (-1, 1)]
            draw.line(ends, fill=tuple(fill), width=max(1, round(wide * size * scale * 0.6)))
    painted = canvas.reduce(scale)
    ridges = painted.convert("L").filter(ImageFilter.Kernel((3, 3), (-1, -1, 0, -1, 0, 1, 0, 1, 1), 2, 128))
    return _image(_array(painted) + 0.5 * (_array(ridges)[..., None] - 128))


def pencil_sketch(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Draw outlines and hatching in graphite on paper."""
    size = picture.width
    tone = _array(ImageOps.autocontrast(picture.convert("L"), cutoff=1))
    rows, columns = np.indices((size, size))
    grain = _noise(size, rng)
    period = max(3, size // 50)
    fallen = ((rows + columns) % period < period / 2) & (tone < 150)
    crossed = ((rows - columns) % period < period / 2) & (tone < 75)
    strokes = (fallen * 46 + crossed * 46) * (0.4 + 0.9 * grain)
    sheet = 206 + 0.22 * tone - strokes - 200 * _edges(picture) * (0.7 + 0.3 * grain) - 16 * grain
    return ImageOps.colorize(_image(sheet), (44, 44, 50), (250, 249, 245))


def neon(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Keep only the outlines, as glowing tubes on a dark background."""
    del rng
    size = picture.width
    paint = _array(picture.filter(ImageFilter.GaussianBlur(size / 200)))
    vivid = paint - 0.75 * paint.min(axis=2, keepdims=True)
    vivid = vivid / np.maximum(30, vivid.max(axis=2, keepdims=True)) * 255
    tubes = _image(vivid * _edges(picture)[..., None] * 1.3)
    glow = _array(tubes.filter(ImageFilter.GaussianBlur(size / 42))) * 1.25
    haze = _array(tubes.filter(ImageFilter.GaussianBlur(size / 14))) * 0.7
    dark = np.array((10, 5, 24), np.float32) + 0.12 * vivid
    return _image(dark + haze + glow + _array(tubes))


def low_poly(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Divide the picture into triangles of a single colour each."""
    size, cells, scale = picture.width, 32, 2
    colours = _array(ImageEnhance.Color(picture).enhance(1.25).filter(ImageFilter.GaussianBlur(size / 110)))
    step = size / (cells - 2)
    strength = _edges(picture)

    def corner(row: int, column: int) -> tuple[float, float]:
        # Of a few random points the one with the strongest edge, so that triangles follow the shapes.
        jitters = [(0.8 * rng.random() - 0.9, 0.8 * rng.random() - 0.9) for _ in range(5)]
        tries = [((column + dx) * step, (row + dy) * step) for dx, dy in jitters]
        last = size - 1
        return max(tries, key=lambda p: strength[min(last, max(0, int(p[1]))), min(last, max(0, int(p[0])))])

    points = [[corner(row, column) for column in range(cells)] for row in range(cells)]
    canvas = Image.new("RGB", (size * scale, size * scale))
    draw = ImageDraw.Draw(canvas)
    for r in range(cells - 1):
        for c in range(cells - 1):
            a, b, d, e = points[r][c], points[r][c + 1], points[r + 1][c], points[r + 1][c + 1]
            for corners in ((a, b, e), (a, d, e)) if rng.random() < 0.5 else ((a, b, d), (b, d, e)):
                x = min(size - 1, max(0, int(sum(p[0] for p in corners) / 3)))
                y = min(size - 1, max(0, int(sum(p[1] for p in corners) / 3)))
                light = 26 * (rng.random() - 0.5)
                fill = tuple(max(0, min(255, round(float(value) + light))) for value in colours[y, x])
                draw.polygon([(p[0] * scale, p[1] * scale) for p in corners], fill=fill)
    return canvas.reduce(scale)


def stained_glass(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Divide the picture into panes of bright glass with lead between them."""
    size, cells = picture.width, 19
    grid = _noise(cells + 2, rng), _noise(cells + 2, rng)
    rows, columns = np.indices((size, size)) * (cells / size)
    row, column = rows.astype(np.intp), columns.astype(np.intp)
    nearest = np.full((size, size), np.inf)
    pane = np.zeros((size, size), np.intp)
    for dr in (0, 1, 2):
        for dc in (0, 1, 2):
            r, c = row + dr, column + dc
            away = (rows - (r - 1 + grid[0][r, c])) ** 2 + (columns - (c - 1 + grid[1][r, c])) ** 2
            pane = np.where(away < nearest, r * (cells + 2) + c, pane)
            nearest = np.minimum(nearest, away)
    area = np.bincount(pane.ravel(), minlength=(cells + 2) ** 2)
    vivid = _array(ImageEnhance.Color(picture).enhance(1.7))
    mean = [
        np.bincount(pane.ravel(), vivid[..., k].ravel(), (cells + 2) ** 2) / np.maximum(1, area)
        for k in range(3)
    ]
    glass = np.stack(mean, axis=-1)[pane] * 0.6 + vivid * 0.55 + 24 - 36 * nearest[..., None]
    lead = np.zeros((size, size), bool)
    lead[1:] |= pane[1:] != pane[:-1]
    lead[:, 1:] |= pane[:, 1:] != pane[:, :-1]
    lead |= _edges(picture) > 0.85
    leaded = Image.fromarray(lead).convert("L").filter(ImageFilter.GaussianBlur(size / 400))
    return _image(glass * (1 - 0.85 * _array(leaded)[..., None] / 255))


def vintage_photo(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Fade the picture to sepia, with grain, scratches and a paper border."""
    size = picture.width
    sepia = ImageOps.colorize(
        ImageOps.autocontrast(picture.convert("L"), cutoff=1), (52, 32, 16), (250, 232, 196), (168, 128, 88)
    )
    photo = Image.blend(sepia, picture, 0.14)
    draw = ImageDraw.Draw(photo)
    for _ in range(7):
        x, y = rng.random() * size, rng.random() * size
        draw.line(
            [(x, y), (x + 6 * (rng.random() - 0.5), y + size * 0.3 * rng.random())], fill=(236, 222, 196)
        )
    corner = _array(Image.radial_gradient("L").resize(picture.size))
    aged = _array(photo) * (1.06 - 0.0022 * corner)[..., None] + 34 * (_noise(size, rng) - 0.5)[..., None]
    border = max(2, round(size * 0.04))
    return ImageOps.expand(
        _image(aged).crop((border, border, size - border, size - border)), border, (240, 230, 208)
    )


def blueprint(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Draw white outlines on blue squared paper."""
    size = picture.width
    paper = Image.new("RGB", picture.size, (24, 66, 140))
    draw = ImageDraw.Draw(paper)
    for step in range(0, size, max(2, size // 32)):
        fill = (58, 104, 178) if step % (size // 8) == 0 else (38, 82, 156)
        draw.line([(step, 0), (step, size)], fill=fill)
        draw.line([(0, step), (size, step)], fill=fill)
    lines = (_edges(picture) * (0.8 + 0.2 * _noise(size, rng)))[..., None]
    drawn = _array(paper) * (1 - lines) + np.array((236, 244, 255), np.float32) * lines
    plan = _image(drawn)
    edge = round(size * 0.02)
    ImageDraw.Draw(plan).rectangle(
        (edge, edge, size - edge, size - edge), outline=(220, 232, 250), width=max(1, size // 128)
    )
    return plan


def comic(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Reduce the picture to few strong colours, with halftone dots, ink outlines and a frame."""
    del rng
    size = picture.width
    bold = (
        ImageEnhance.Color(ImageOps.autocontrast(picture, cutoff=1))
        .enhance(1.5)
        .filter(ImageFilter.MedianFilter(3))
    )
    paint = np.round(_array(bold) / 64) * 64
    rows, columns = np.indices((size, size))
    period = size / 42
    u, v = ((rows + columns) / period) % 1 - 0.5, ((rows - columns) / period) % 1 - 0.5
    shadow = 1 - _array(bold.convert("L").filter(ImageFilter.GaussianBlur(size / 64))) / 255
    dots = np.clip((shadow * 0.26 - (u * u + v * v)) * 14, 0, 1)
    paint = paint * 1.1 + 34 - dots[..., None] * 74
    panel = _image(paint * (1 - np.clip(_edges(picture) * 1.3 - 0.25, 0, 1))[..., None])
    frame = max(2, round(size * 0.018))
    inner = panel.crop((2 * frame, 2 * frame, size - 2 * frame, size - 2 * frame))
    return ImageOps.expand(ImageOps.expand(inner, frame, (16, 14, 20)), frame, (255, 255, 255))


STYLE: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "illustration": illustration,
    "pixel art": pixel_art,
    "watercolor": watercolor,
    "oil painting": oil_painting,
    "pencil sketch": pencil_sketch,
    "neon": neon,
    "low poly": low_poly,
    "stained glass": stained_glass,
    "vintage photo": vintage_photo,
    "blueprint": blueprint,
    "comic": comic,
}


def _array(picture: Image.Image) -> Array:
    return np.asarray(picture, np.float32)


def _image(values: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _noise(size: int, rng: random.Random) -> Array:
    """Make (size, size) independent values in [0, 1] from a hash, whose bytes never change."""
    raw = hashlib.shake_256(repr(rng.random()).encode()).digest(size * size)
    return np.frombuffer(raw, np.uint8).reshape(size, size).astype(np.float32) / np.float32(255)


def _clouds(size: int, cells: int, rng: random.Random) -> Array:
    """Make (size, size) smooth values in [0, 1] that vary over 1/`cells` of the side."""
    coarse = Image.fromarray((_noise(cells, rng) * 255).astype(np.uint8))
    return _array(coarse.resize((size, size), Image.Resampling.BICUBIC)) / np.float32(255)


def _slopes(values: Array) -> tuple[Array, Array]:
    """Compute the differences downwards and to the right, each of the shape of `values`."""
    return np.asarray(np.gradient(values, axis=0)), np.asarray(np.gradient(values, axis=1))


def _edges(picture: Image.Image) -> Array:
    """Compute the strength of the edges between colours, (size, size) values in [0, 1]."""
    size = picture.width
    paint = _array(ImageOps.autocontrast(picture, cutoff=1).filter(ImageFilter.GaussianBlur(size / 300)))
    down, right = _slopes(paint)
    steep: Array = np.sqrt(down**2 + right**2).max(axis=2)
    return np.clip(steep / 42 - 0.12, 0, 1)
