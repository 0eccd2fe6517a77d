"""The days of `docs/recipes.md`, run as they are written: what each command prints, and its seconds.

    python benchmarks/days.py FOLDER [--day NAME]

In FOLDER, which must be empty, scenes are drawn as the recipes need them: `images/` and `external/`, each
with a table of prompts inside, six more in `new/`, `prompts.txt` and `sample_submission.csv`. Every command
is a process of its own; packaged weights that were fetched before are not fetched again. Prints what each
command prints, and writes `results/days.json`; with `--day`, that day anew and the others as they are there.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "recipes.md"
MARK = "<!-- test -->"
IMAGES, EXTERNAL = 160, 40
"""Scenes drawn into `images/` and `external/`."""
WIDTH = 384
"""Values of an embedding, and rows of a submission for each image."""
PROGRAM = "img2prompt-cache "


@dataclass(frozen=True)
class Step:
    """A command of the page, or Python code.

    Attributes
    ----------
    line : int
        Where it is on the page, from 1.
    text : str
        The command without the prompt, or the code.
    shown : tuple of str
        What the page shows of its output. A line ``…`` stands for any lines, ``…`` in a line for any text.
    """

    line: int
    text: str
    shown: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """How it is run: the arguments of Python."""
        if self.text.startswith(PROGRAM):
            return ["-m", "img2prompt_cache.cli", *shlex.split(self.text, comments=True)[1:]]
        return ["-c", self.text]


def days(page: Path = PAGE) -> dict[str, list[Step]]:
    """Give the steps below each heading of a page: the fenced blocks that are marked as run by tests."""
    found: dict[str, list[Step]] = {}
    heading, marked, block = "", False, None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if block is None:
            if line.startswith("## "):
                heading = line[3:].strip()
            elif line.startswith("```") and marked:
                block, language, first = [], line[3:], number + 1
            marked = line == MARK
        elif line == "```":
            found.setdefault(heading, []).extend(_steps(language, block, first))
            block = None
        else:
            block.append(line)
    return found


def _steps(language: str, lines: list[str], first: int) -> Iterator[Step]:
    """Divide a block into commands with their output; code is one step."""
    if language == "python":
        yield Step(first, "\n".join(lines), ())
        return
    starts = [at for at, line in enumerate(lines) if line.startswith("$ ")]
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        shown = lines[start + 1 : stop]
        while shown and not shown[-1]:
            shown = shown[:-1]
        yield Step(first + start, lines[start][2:], tuple(shown))


def draw(folder: Path, images: int, external: int, *, side: int = 256, width: int = WIDTH) -> None:
    """Draw the data of the recipes, where the same numbers give the same files."""
    from img2prompt_cache.images.scenes.demo import held_out_scenes
    from img2prompt_cache.images.scenes.picture import render
    from img2prompt_cache.images.scenes.words import sample_scenes

    known, other = sample_scenes(images, 0), sample_scenes(external, 1)
    fresh = held_out_scenes([*known, *other], 6, 2)
    names = {
        "images": [f"img{number:03d}" for number in range(images)],
        "external": [f"ext{number:03d}" for number in range(external)],
        "new": list("abcdef"),
    }
    for (name, stems), scenes in zip(names.items(), (known, other, fresh), strict=True):
        (folder / name).mkdir(parents=True)
        for stem, scene in zip(stems, scenes, strict=True):
            render(scene, side).save(folder / name / f"{stem}.png")
        if name != "new":
            rows = [f'{stem},"{scene.prompt}"' for stem, scene in zip(stems, scenes, strict=True)]
            (folder / name / "prompts.csv").write_text("\n".join(["imgId,prompt", *rows, ""]))
    (folder / "prompts.txt").write_text("\n".join([*(scene.prompt for scene in known), ""]))
    sample = [f"{stem}_{value},0.0" for stem in "fedcba" for value in range(width)]
    (folder / "sample_submission.csv").write_text("\n".join(["imgId_eId,val", *sample, ""]))


def run(
    words: list[str], folder: Path, environment: Mapping[str, str] | None = None
) -> tuple[int, list[str], float]:
    """Run Python in a folder: its exit code, what it prints with paths below the folder, and seconds."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**(os.environ if environment is None else environment), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        check=False,
    )
    lines = [line.replace(f"{folder.resolve()}/", "") for line in done.stdout.splitlines()]
    return done.returncode, lines, time.perf_counter() - started


def _processor_seconds() -> float:
    """Give the time that finished processes took on all cores; other work on the machine is not in it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run every day in a folder of its own."""
    from system import load, save

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--day", choices=[*days()])
    asked = parser.parse_args()
    kept = {day["day"]: day for day in (load("days") or {"days": []})["days"]}
    for name, steps in days().items():
        if asked.day not in (None, name):
            continue
        folder = asked.folder / re.sub(r"\W+", "-", name.lower())
        draw(folder, IMAGES, EXTERNAL)
        commands = []
        for step in steps:
            before = _processor_seconds()
            code, lines, seconds = run(step.words, folder)
            spent = _processor_seconds() - before
            print("\n".join([f"\n$ {step.text}", *lines, f"[{seconds:.1f} s, {spent:.1f} s]"]), flush=True)
            if code:
                sys.exit(f"{PAGE.name}:{step.line}: exit code {code}")
            times = {"seconds": round(seconds, 1), "processor_seconds": round(spent, 1)}
            commands.append({"command": step.text, **times, "output": lines})
        kept[name] = {"day": name, "commands": commands}
        found = [kept[name] for name in days() if name in kept]
        print(save("days", {"images": IMAGES, "external": EXTERNAL, "days": found}))


if __name__ == "__main__":
    main()
