"""The section on data: rows, images and prompts, and what is twice among them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.progress import Callback, warn
from img2prompt_cache.reporting.charts import Cloud, Histogram, histogram
from img2prompt_cache.reporting.duplicates import Duplicated, find_duplicated
from img2prompt_cache.reporting.pictures import Picture, Pictures, sample
from img2prompt_cache.reporting.rows import Rows
from img2prompt_cache.reporting.words import (
    artist_counts,
    bigram_counts,
    modifier_counts,
    script_counts,
    word_counts,
    words_of,
)
from img2prompt_cache.tables import shorten

if TYPE_CHECKING:
    from img2prompt_cache.reporting.material import Material

NAME = "data"
TITLE = "Data"

MOST_COUNTED = 50_000
"""Prompts whose words are counted."""
TOP, CLOUD, GALLERY, COLOURS = 15, 80, 24, 240
LONGEST = 400

SHAPES = {
    "9:16": 9 / 16, "2:3": 2 / 3, "3:4": 3 / 4, "1:1": 1.0, "4:3": 4 / 3, "3:2": 3 / 2, "16:9": 16 / 9,
}  # fmt: skip
TOLERANCE = 0.04


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """What some images look like.

    Attributes
    ----------
    measured, of : int
        How many were decoded, and of how many.
    formats, sizes, shapes : dict of str to int
        Counts, most frequent first; shapes are aspect ratios of width and height.
    brightness, colourfulness : Histogram
    mean_bytes : float
        Of a file.
    colours : list of str
        Mean colours of images, from dark to light, as ``#rrggbb``.
    unavailable : dict of str to int
        Why images could not be looked at now.
    """

    measured: int
    of: int
    formats: dict[str, int]
    sizes: dict[str, int]
    shapes: dict[str, int]
    brightness: Histogram
    colourfulness: Histogram
    mean_bytes: float
    colours: list[str]
    unavailable: dict[str, int]


@dataclass(frozen=True, slots=True)
class PromptSummary:
    """What prompts are like.

    Attributes
    ----------
    total, distinct, empty, counted : int
        Prompts, different ones, rows without one, and how many were looked at for words.
    lengths : dict of str to float
        Words in a prompt: mean, median, min, max.
    words : Histogram
    tokens : Histogram or None
        None where the encoder's tokenizer is not on this machine.
    limit : int or None
        Tokens that the encoder reads of a prompt.
    cut : int or None
        Prompts that are longer.
    cloud : Cloud
    frequent, bigrams, modifiers, artists : dict of str to int
        In how many prompts they occur, most frequent first.
    vocabulary : int
        How many different words there are.
    scripts, found_in : dict of str to int
        By script, and by the program that wrote the prompt.
    """

    total: int
    distinct: int
    empty: int
    counted: int
    lengths: dict[str, float]
    words: Histogram
    tokens: Histogram | None
    limit: int | None
    cut: int | None
    cloud: Cloud
    frequent: dict[str, int]
    bigrams: dict[str, int]
    modifiers: dict[str, int]
    artists: dict[str, int]
    vocabulary: int
    scripts: dict[str, int]
    found_in: dict[str, int]


@dataclass(frozen=True, slots=True)
class Shown:
    """A row that is shown with its picture."""

    row: int
    id: str
    prompt: str


@dataclass(frozen=True, slots=True)
class DataSection:
    """What a cache or a source holds.

    Attributes
    ----------
    counts : dict of str to int
        `rows`, `ok`, `failed`, `removed`, `without_prompt`.
    reasons : dict of str to int
        Why images failed, most frequent first.
    columns : list of dict
        What is cached: `name`, `kind`, `shape`, `dtype`, `bytes`.
    sources : list of dict of str to str
        Where the rows are from.
    images : Images or None
    prompts : Prompts or None
    duplicated : Duplicated or None
    gallery : list of Shown
        Some rows, drawn at random.
    notes : list of str
        What could not be told, and why.
    """

    counts: dict[str, int]
    reasons: dict[str, int]
    columns: list[dict[str, Any]]
    sources: list[dict[str, str]]
    images: ImageSummary | None
    prompts: PromptSummary | None
    duplicated: Duplicated | None
    gallery: list[Shown]
    notes: list[str] = field(default_factory=list)

    @property
    def shown(self) -> list[int]:
        """Rows whose pictures are shown."""
        groups = self.duplicated.shown if self.duplicated else []
        return [*(each.row for each in self.gallery), *groups]


def gather(material: Material, tell: Callback) -> DataSection:
    """Make the data of the section."""
    rows, cache, notes = material.rows, material.cache, [*material.notes]
    material.pictures.load(material.measured, tell)
    duplicated = None
    try:
        duplicated = find_duplicated(material)
    except Img2PromptError as error:
        notes.append(f"near-identical rows were not searched: {error}")
        warn(tell, notes[-1])
    status = Counter(rows.status)
    return DataSection(
        counts={
            "rows": len(rows) - status["removed"],
            "ok": status["ok"],
            "failed": status["failed"],
            "removed": status["removed"],
            "without_prompt": len(rows.present) - len(rows.prompted),
        },
        reasons=dict(
            Counter(r for s, r in zip(rows.status, rows.reasons, strict=True) if s == "failed").most_common(
                TOP
            )
        ),
        columns=[*cache.columns] if cache else [],
        sources=_sources(material),
        images=summarise_images(material.pictures, material.measured, len(rows.good)),
        prompts=summarise_prompts(rows, material.tokens, material.token_limit, seed=material.seed),
        duplicated=duplicated,
        gallery=_gallery(material),
        notes=notes,
    )


def summarise_images(pictures: Pictures, rows: list[int], of: int) -> ImageSummary | None:
    """Summarise images that were decoded; None where none could be."""
    found = [pictures[row] for row in rows]
    seen = [each for each in found if isinstance(each, Picture)]
    missing = Counter(each for each in found if isinstance(each, str))
    if not found:
        return None
    return ImageSummary(
        measured=len(seen),
        of=of,
        formats=dict(Counter(each.format for each in seen).most_common()),
        sizes=dict(Counter(f"{each.width}×{each.height}" for each in seen).most_common(10)),
        shapes=dict(Counter(shape_of(each.width, each.height) for each in seen).most_common()),
        brightness=histogram(
            "Brightness", "mean brightness, 0 black to 1 white", [each.brightness for each in seen],
            of="images", bins=[i / 20 for i in range(21)],
        ),
        colourfulness=histogram(
            "Colourfulness", "0 grey, 33 moderate, 109 extreme", [each.colourfulness for each in seen],
            of="images", bins=20,
        ),
        mean_bytes=fmean(each.file_bytes for each in seen) if seen else 0.0,
        colours=["#{:02x}{:02x}{:02x}".format(*each.colour) for each in _by_hue(seen)[:: _step(len(seen))]],
        unavailable=dict(missing.most_common(TOP)),
    )  # fmt: skip


def _sources(material: Material) -> list[dict[str, str]]:
    if material.cache is not None:
        return [dict(source) for source in material.cache.manifest.sources]
    return [{"root": str(material.source.root), **material.source.settings}] if material.source else []


def _step(n: int) -> int:
    """Every how many colours to take, so that there are about `COLOURS`."""
    return max(1, n // COLOURS)


def _by_hue(pictures: list[Picture]) -> list[Picture]:
    """Sort pictures by the hue of their mean colour; greys come first."""
    from colorsys import rgb_to_hsv

    def key(each: Picture) -> tuple[int, float]:
        hue, saturation, value = rgb_to_hsv(*(channel / 255 for channel in each.colour))
        return (-1, value) if saturation < 0.12 else (int(hue * 12), value)

    return sorted(pictures, key=key)


def shape_of(width: int, height: int) -> str:
    """Name the aspect ratio of an image: the common one that it is near, else whether it is wide or tall."""
    ratio = width / height
    name, nearest = min(SHAPES.items(), key=lambda each: abs(ratio / each[1] - 1))
    if abs(ratio / nearest - 1) <= TOLERANCE:
        return name
    return "other, wide" if ratio > 1 else "other, tall"


def summarise_prompts(
    rows: Rows, tokens: list[int] | None = None, limit: int | None = None, *, seed: int = 0
) -> PromptSummary | None:
    """Summarise the prompts of rows; None where there is none.

    Parameters
    ----------
    rows : Rows
    tokens : list of int, optional
        Of each prompt of `rows.prompted`.
    limit : int, optional
        How many the encoder reads.
    seed : int
        Of the sample whose words are counted, if there are very many.
    """
    prompted = rows.prompted
    if not prompted:
        return None
    prompts = [rows.prompts[row] for row in prompted]
    looked = [rows.prompts[row] for row in sample(prompted, MOST_COUNTED, seed)]
    lengths = [len(words_of(prompt)) for prompt in prompts]
    frequent = word_counts(looked)
    over = None if tokens is None or limit is None else sum(count > limit for count in tokens)
    return PromptSummary(
        total=len(prompts),
        distinct=len({*prompts}),
        empty=len(rows.present) - len(prompts),
        counted=len(looked),
        lengths={
            "mean": fmean(lengths), "median": median(lengths), "min": min(lengths), "max": max(lengths),
        },
        words=histogram("Words in a prompt", "words", _most(lengths), of="prompts"),
        tokens=None if tokens is None else histogram(
            "Tokens in a prompt", "tokens of the text encoder", _most(tokens, limit), of="prompts",
            marks={"read": limit} if limit and over else {},
        ),
        limit=limit,
        cut=over,
        cloud=Cloud("Frequent words", dict(frequent.most_common(CLOUD))),
        frequent=dict(frequent.most_common(TOP)),
        bigrams=_top(bigram_counts(looked)),
        modifiers=_top(modifier_counts(looked)),
        artists=_top(artist_counts(looked)),
        vocabulary=len(frequent),
        scripts=dict(script_counts(looked).most_common(TOP)),
        found_in=dict(Counter(filter(None, (rows.found_in[row] for row in prompted))).most_common(TOP)),
    )  # fmt: skip


def _top(counts: Counter[str]) -> dict[str, int]:
    """Take the most frequent of those that occur more than once."""
    return {name: count for name, count in counts.most_common(TOP) if count > 1}


def _most(counts: list[int], keep: int | None = None) -> list[int]:
    """Cut the longest hundredth, so that one long prompt does not squeeze all others into one bin."""
    longest = max(sorted(counts)[int(0.99 * (len(counts) - 1))], keep if keep and max(counts) > keep else 0)
    return [min(count, longest) for count in counts]


def _gallery(material: Material) -> list[Shown]:
    rows = material.rows
    drawn = rows.good if material.everything else sample(rows.good, GALLERY, material.seed + 1)
    return [Shown(row, rows.ids[row], shorten(rows.prompts[row], LONGEST)) for row in drawn]
