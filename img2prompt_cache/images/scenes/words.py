"""Scenes and their prompts: the words, and how they are combined into English sentences."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import NamedTuple

from img2prompt_cache.errors import unknown
from img2prompt_cache.images.scenes.chance import pick, shuffled_cycle


class Subject(NamedTuple):
    """The plural of a subject, what it does, and whether it flies."""

    plural: str
    doing: str
    flies: bool = False


class Place(NamedTuple):
    """The phrases for a place; `sky` says whether it has a time of day and weather."""

    scenery: str
    inside: str
    above: str
    sky: bool = True


class Style(NamedTuple):
    """The phrases for a style: a tag at the end of a prompt, and its beginning."""

    tag: str
    of: str


SUBJECTS = {
    "boat": Subject("boats", "drifting"),
    "house": Subject("houses", "standing"),
    "tree": Subject("trees", "growing"),
    "cat": Subject("cats", "sitting"),
    "fish": Subject("fish", "swimming", flies=True),
    "rocket": Subject("rockets", "taking off", flies=True),
    "mushroom": Subject("mushrooms", "sprouting"),
    "bird": Subject("birds", "flying", flies=True),
    "car": Subject("cars", "parked"),
    "robot": Subject("robots", "waving"),
    "flower": Subject("flowers", "blooming"),
    "castle": Subject("castles", "towering"),
    "hot air balloon": Subject("hot air balloons", "floating", flies=True),
    "snowman": Subject("snowmen", "smiling"),
    "butterfly": Subject("butterflies", "fluttering", flies=True),
    "ghost": Subject("ghosts", "haunting", flies=True),
    "whale": Subject("whales", "resting"),
    "lighthouse": Subject("lighthouses", "shining"),
}

PLACES = {
    "sea": Place("a calm sea", "on a calm sea", "over a calm sea"),
    "snowy hills": Place("snowy hills", "in the snowy hills", "above the snowy hills"),
    "desert": Place("a desert with sand dunes", "in the desert", "above the desert dunes"),
    "forest": Place("a deep forest", "in a deep forest", "over a deep forest"),
    "city street": Place("a city street", "on a city street", "above a city street"),
    "meadow": Place("a green meadow", "in a green meadow", "over a green meadow"),
    "volcano": Place("an erupting volcano", "near an erupting volcano", "above an erupting volcano"),
    "outer space": Place("outer space with planets", "in outer space", "in outer space", sky=False),
    "underwater": Place(
        "a coral reef", "underwater in a coral reef", "underwater above a coral reef", sky=False
    ),
    "room": Place("a cozy living room", "in a cozy living room", "in a cozy living room", sky=False),
}

TIMES = {
    "dawn": ("at dawn", "early in the morning"),
    "noon": ("at noon", "on a sunny day"),
    "sunset": ("at sunset", "in the evening glow"),
    "night": ("at night", "under the stars"),
}

DETAILS = {
    "rain": ("in the rain", "during heavy rain"),
    "snow": ("in falling snow", "during a snowfall"),
    "fog": ("in the fog", "wrapped in mist"),
    "rainbow": ("under a rainbow", "below a bright rainbow"),
    "fireworks": ("with fireworks", "under exploding fireworks"),
    "leaves": ("among falling leaves", "with autumn leaves in the wind"),
    "fireflies": ("with fireflies", "surrounded by glowing fireflies"),
}

STYLES = {
    "illustration": Style("flat vector illustration", "a flat vector illustration of"),
    "pixel art": Style("pixel art", "8-bit pixel art of"),
    "watercolor": Style("watercolor painting", "a soft watercolor painting of"),
    "oil painting": Style("oil painting", "an oil painting of"),
    "pencil sketch": Style("pencil sketch", "a black and white pencil sketch of"),
    "neon": Style("neon glow", "glowing neon lights in the shape of"),
    "low poly": Style("low poly", "a low poly 3d model of"),
    "stained glass": Style("stained glass", "a stained glass window showing"),
    "vintage photo": Style("vintage photo", "a faded sepia photograph of"),
    "blueprint": Style("blueprint", "a technical blueprint of"),
    "comic": Style("comic book halftone", "a comic book panel of"),
}

COLOURS = {
    "red": (214, 48, 49),
    "orange": (240, 132, 34),
    "yellow": (250, 208, 50),
    "green": (60, 168, 78),
    "turquoise": (48, 200, 192),
    "blue": (48, 96, 214),
    "purple": (134, 70, 190),
    "pink": (246, 132, 178),
    "white": (244, 244, 240),
    "black": (48, 48, 56),
}

MODIFIERS = (
    "4k",
    "8k",
    "highly detailed",
    "octane render",
    "trending on artstation",
    "cinematic lighting",
    "masterpiece",
)
NUMBERS = ("a", "two", "three", "four", "five")
WORDINGS = 12
"""Six sentences, each with two choices of words."""


@dataclass(frozen=True)
class Scene:
    """The description of one picture.

    Attributes
    ----------
    subject, colour, place, style : str
        Keys of `SUBJECTS`, `COLOURS`, `PLACES` and `STYLES`.
    count : int
        Number of subjects, 1 to 5.
    time, detail : str
        Keys of `TIMES` and `DETAILS`; both are empty in a place without a sky, and `detail` may be empty
        anywhere.
    wording : int
        Number of the sentence pattern, 0 to `WORDINGS` - 1; it does not change the picture.
    modifiers : tuple of str
        Words at the end of the prompt; they do not change the picture.
    layout : int
        Seed of everything that the prompt does not mention: positions, clouds, texture.

    Raises
    ------
    UsageError
        If the renderer does not know a word, or a time is given for a place without a sky.
    """

    subject: str
    count: int
    colour: str
    place: str
    time: str
    detail: str
    style: str
    wording: int = 0
    modifiers: tuple[str, ...] = ()
    layout: int = 0

    def __post_init__(self) -> None:
        """Refuse a scene that cannot be drawn."""
        sky = self.place in PLACES and PLACES[self.place].sky
        for field, valid in {
            "subject": SUBJECTS,
            "count": range(1, len(NUMBERS) + 1),
            "colour": COLOURS,
            "place": PLACES,
            "time": TIMES if sky else ("",),
            "detail": ("", *DETAILS) if sky else ("",),
            "style": STYLES,
            "wording": range(WORDINGS),
        }.items():
            if getattr(self, field) not in valid:
                raise unknown(f"scene {field}", str(getattr(self, field)), [str(value) for value in valid])

    @property
    def prompt(self) -> str:
        """The prompt, as a person would type it."""
        sentence, variant = divmod(self.wording, 2)
        subject, place, style = SUBJECTS[self.subject], PLACES[self.place], STYLES[self.style]
        things = f"{self.colour} {subject.plural if self.count > 1 else self.subject}"
        if self.count > 1:
            things = f"{NUMBERS[self.count - 1]} {things}"
        else:
            things = f"a single {things}" if variant else f"{article(things)} {things}"
        where = place.above if subject.flies else place.inside
        when = TIMES[self.time][variant] if self.time else ""
        detail = DETAILS[self.detail][variant] if self.detail else ""
        clauses: tuple[tuple[str, ...], ...] = (
            ((things, where, when, detail), (style.tag,)),
            ((style.of, things, where, when, detail),),
            ((place.scenery, when, "and", things), (detail,), (style.tag,)),
            ((things,), (place.scenery,), (when,), (detail,), (style.tag,)),
            ((style.of, things, "and", place.scenery, when), (detail,)),
            ((things, subject.doing, where, when), (detail,), (style.tag,)),
        )[sentence]
        parts = [" ".join(filter(None, clause)) for clause in clauses]
        return ", ".join(filter(None, (*parts, *self.modifiers)))


def article(words: str) -> str:
    """Choose between "a" and "an" for `words`, by the letter they begin with."""
    return "an" if words[0] in "aeiou" else "a"


def sample_scenes(n: int, seed: int) -> list[Scene]:
    """Sample `n` scenes in which every word occurs about equally often.

    About one scene in twelve repeats the words of an earlier one with another layout, as people use a prompt
    several times. The sampling uses only `random.Random.random`, whose sequence Python guarantees.

    Parameters
    ----------
    n : int
        Number of scenes.
    seed : int
        The same seed gives the same scenes, on every platform.

    Returns
    -------
    list of Scene
        `n` scenes.
    """
    rng = random.Random(f"scenes {seed}")  # noqa: S311 (no secret is made here)
    subjects, places, styles = (
        shuffled_cycle(list(SUBJECTS), rng),
        shuffled_cycle(list(PLACES), rng),
        shuffled_cycle(list(STYLES), rng),
    )
    colours, times, details = (
        shuffled_cycle(list(COLOURS), rng),
        shuffled_cycle(list(TIMES), rng),
        shuffled_cycle(list(DETAILS), rng),
    )
    counts, wordings = shuffled_cycle(range(1, len(NUMBERS) + 1), rng), shuffled_cycle(range(WORDINGS), rng)
    scenes: list[Scene] = []
    for layout in range(n):
        if rng.random() < layout / n / 6:
            scenes.append(replace(pick(scenes, rng), layout=layout))
            continue
        place = next(places)
        sky = PLACES[place].sky
        scenes.append(
            Scene(
                subject=next(subjects),
                count=next(counts),
                colour=next(colours),
                place=place,
                time=next(times) if sky else "",
                detail=next(details) if sky and rng.random() < 0.5 else "",
                style=next(styles),
                wording=next(wordings),
                modifiers=tuple(modifier for modifier in MODIFIERS if rng.random() < 0.12),
                layout=layout,
            )
        )
    return scenes
