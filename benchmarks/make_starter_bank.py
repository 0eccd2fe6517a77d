"""Write the starter bank of prompts from the word lists in `starter_words.txt`.

    python benchmarks/make_starter_bank.py img2prompt_cache/prediction/starter.txt

Every entry of the lists of subjects stands in as many prompts as there are patterns; what is put around it
is drawn with a fixed seed, so that the same words give the same file. A test compares the two.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

WORDS = Path(__file__).parent / "starter_words.txt"
SUBJECTS = (
    *("people", "animals", "creatures", "landscapes", "buildings"),
    *("vehicles", "objects", "food", "plants", "abstract"),
)
STILL = {"landscapes", "buildings", "abstract"}
"""Subjects that are places, or nowhere: they are not put anywhere."""
SEED = 0


def word_lists(path: Path = WORDS) -> dict[str, list[str]]:
    """Read the lists by name."""
    lists: dict[str, list[str]] = {}
    name = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            name = line.strip("[]")
            lists[name] = []
        elif line and not line.startswith("#"):
            lists[name].append(line)
    return lists


def prompts(lists: dict[str, list[str]]) -> Iterator[str]:
    """Give the prompts, in the order of the subjects."""
    rng = random.Random(SEED)

    def draw(name: str) -> str:
        return rng.choice(lists[name])

    def some(name: str, most: int) -> str:
        return "".join(f", {each}" for each in rng.sample(lists[name], rng.randint(1, most)))

    for kind in SUBJECTS:
        deeds = lists.get(f"deeds of {kind}")

        def where(kind: str = kind, deeds: list[str] | None = deeds) -> str:
            deed = f" {rng.choice(deeds)}" if deeds else ""
            return deed if kind in STILL else f"{deed} {draw('places')}"

        patterns: tuple[Callable[[str], str], ...] = (
            lambda subject: subject,
            lambda subject: f"{subject}{where()}",
            lambda subject: f"{subject}{where()}, {draw('light')}",
            lambda subject: f"{draw('media')} of {subject}",
            lambda subject: f"{draw('media')} of {subject}{where()}, {draw('styles')}{some('details', 3)}",
            lambda subject: f"{subject}, {draw('styles')}, {draw('light')}{some('details', 4)}",
            lambda subject: f"{subject}, {draw('cameras')}, {draw('light')}, {draw('colours')}",
            lambda subject: (
                f"{draw('moods')} {draw('media').split(' ', 1)[1]} of {subject}{some('styles', 2)}"
            ),
        )
        for subject in lists[kind]:
            for pattern in patterns:
                yield pattern(subject)


def text(path: Path = WORDS) -> str:
    """Give the whole file, one prompt a line, each once."""
    return "".join(f"{prompt}\n" for prompt in dict.fromkeys(prompts(word_lists(path))))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), encoding="utf-8")
