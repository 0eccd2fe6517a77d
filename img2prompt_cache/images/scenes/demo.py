"""The demo's data set, in the layout of the Kaggle competition."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from img2prompt_cache.destination import require_free_place
from img2prompt_cache.errors import UsageError
from img2prompt_cache.images.scenes.picture import render
from img2prompt_cache.images.scenes.words import Scene, sample_scenes


def write_demo(folder: Path, n: int = 400, seed: int = 0, held_out: int = 6) -> None:
    """Write rendered scenes with their prompts, and a few more whose prompts are in a separate file.

    Writes ``images/<imgId>.png`` and ``prompts.csv`` (header ``imgId,prompt``), the layout of the Kaggle
    competition, then ``new/<imgId>.png`` and ``new/truth.csv`` for the held-out scenes. No held-out
    combination of subject, place and style occurs among the others, though each of its words does.

    Parameters
    ----------
    folder : Path
        Created if necessary; must be empty.
    n : int
        Number of scenes to learn from.
    seed : int
        The same seed gives the same files.
    held_out : int
        Number of held-out scenes.

    Raises
    ------
    UsageError
        If `folder` is not empty, or lies in a cache or run.
    """
    require_free_place(folder, "folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not an empty folder; name one that does not exist yet for the demo")
    scenes = sample_scenes(n, seed)
    _write(folder / "images", folder / "prompts.csv", scenes, f"{seed} images")
    new = held_out_scenes(scenes, held_out, seed)
    _write(folder / "new", folder / "new" / "truth.csv", new, f"{seed} new")


def held_out_scenes(scenes: Sequence[Scene], n: int, seed: int) -> list[Scene]:
    """Sample `n` more scenes with combinations of subject, place and style that none of `scenes` has."""
    known = {_theme(scene) for scene in scenes}
    fresh: dict[tuple[str, str, str], Scene] = {}
    # There are 1,980 combinations: fifty samples for each scene contain enough new ones.
    for scene in sample_scenes(50 * n, seed + 1):
        if _theme(scene) not in known:
            fresh.setdefault(_theme(scene), scene)
    return list(fresh.values())[:n]


def _theme(scene: Scene) -> tuple[str, str, str]:
    return scene.subject, scene.place, scene.style


def _write(images: Path, table: Path, scenes: Iterable[Scene], salt: str) -> None:
    images.mkdir(parents=True)
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["imgId", "prompt"])
        for number, scene in enumerate(scenes):
            # Names without meaning or order, as in the competition.
            name = hashlib.sha256(f"{salt} {number}".encode()).hexdigest()[:9]
            render(scene).save(images / f"{name}.png")
            rows.writerow([name, scene.prompt])
