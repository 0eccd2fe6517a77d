"""Reasons why a prediction is good or bad: each is computed from the cache, none is guessed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from img2prompt_cache.reporting.words import script_of, words_of

if TYPE_CHECKING:
    from collections.abc import Mapping

FAR, NEAR = 0.5, 0.85
"""Cosine of two prompts below which they are of different kinds, and from which they say nearly the same."""
ALIKE = 0.9
"""Cosine of two images, by standardised features, from which they are near-identical."""
FEW = 5
LONG, SHORT = 40, 2
"""Words of a prompt above which an image shows little of it, and up to which it says little of an image."""
RARE = 0.05
"""Share of the prompts below which a script is rare."""

LABELS = {
    "far": "no training prompt is near",
    "few": "few training prompts of its kind",
    "misled": "similar images have other prompts",
    "twin": "a near-identical image has another prompt",
    "long": "long prompt",
    "cut": "longer than the encoder reads",
    "short": "short prompt",
    "script": "rare script",
    "near": "a training prompt says nearly the same",
    "led": "a similar image has nearly its prompt",
}
"""Short names of the reasons, by their keys."""

HELPS = ("near", "led")


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason: its key in `LABELS`, and the figures behind it in a sentence."""

    key: str
    text: str

    @property
    def label(self) -> str:
        """Its short name."""
        return LABELS[self.key]

    @property
    def helps(self) -> bool:
        """Whether it makes a prediction better."""
        return self.key in HELPS


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known of a held-out row.

    Attributes
    ----------
    prompt : str
        The true one.
    reach : float
        Cosine of the true prompt with the nearest training prompt.
    kind : int
        How many training prompts have a cosine of at least `FAR` with it.
    image : float or None
        Cosine of the image with the nearest training image; None without features.
    image_prompt : float or None
        Cosine of the true prompt with that of the nearest training image.
    image_prompts : float or None
        The same, the mean of the nearest few images.
    tokens, limit : int or None
        Tokens of the prompt, and how many the encoder reads.
    """

    prompt: str
    reach: float
    kind: int
    image: float | None = None
    image_prompt: float | None = None
    image_prompts: float | None = None
    tokens: int | None = None
    limit: int | None = None


def reasons_of(known: Circumstances, scripts: Mapping[str, float]) -> list[Reason]:
    """Find the reasons that hold for a row.

    Parameters
    ----------
    known : Circumstances
    scripts : mapping of str to float
        Share of the prompts by script.
    """
    found = [*_of_prompts(known), *_of_images(known)]
    words = len(words_of(known.prompt))
    if known.tokens is not None and known.limit is not None and known.tokens > known.limit:
        found.append(Reason("cut", f"the prompt has {known.tokens} tokens, the encoder reads {known.limit}"))
    elif words > LONG:
        found.append(Reason("long", f"the prompt has {words} words, and no image shows so many"))
    if words <= SHORT:
        found.append(Reason("short", f"the prompt has {words} words, so most of the image is not in it"))
    script = script_of(known.prompt)
    if script != "none" and scripts.get(script, 0.0) < RARE:
        found.append(
            Reason(
                "script", f"the prompt is in {script} letters, as {100 * scripts.get(script, 0):.1f} % are"
            )
        )
    return found


def _of_prompts(known: Circumstances) -> list[Reason]:
    if known.reach < FAR:
        return [Reason("far", f"the nearest training prompt has a cosine of only {known.reach:.2f} with it")]
    found = []
    if known.kind < FEW:
        found.append(
            Reason("few", f"only {known.kind} training prompts have a cosine of {FAR:g} or more with it")
        )
    if known.reach >= NEAR:
        found.append(Reason("near", f"a training prompt has a cosine of {known.reach:.2f} with it"))
    return found


def _of_images(known: Circumstances) -> list[Reason]:
    if known.image is None or known.image_prompt is None or known.image_prompts is None:
        return []
    if known.image >= ALIKE and known.image_prompt < FAR:
        return [
            Reason(
                "twin",
                f"a training image with a cosine of {known.image:.2f} has a prompt whose cosine with this "
                f"one is {known.image_prompt:.2f}",
            )
        ]
    if known.image_prompt >= NEAR:
        return [Reason("led", f"the nearest image's prompt has a cosine of {known.image_prompt:.2f} with it")]
    if known.image_prompts < FAR / 2 < known.reach:
        return [
            Reason(
                "misled",
                f"the prompts of the most similar images have a mean cosine of {known.image_prompts:.2f} "
                f"with it, though there is one of {known.reach:.2f}",
            )
        ]
    return []
