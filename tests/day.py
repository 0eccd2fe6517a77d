"""A day as somebody spends it: the command line alone, in a folder with data, on a machine without network.

The days are those of `docs/recipes.md`, read by `benchmarks/days.py`, which also draws their data. Each
command is run by a fresh interpreter with another home; small models with random weights stand in for the
packaged ones. What the page shows of the output is compared: numbers and prompts are other ones with these
models, all the rest is the same.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from img2prompt_cache.images.scenes.demo import held_out_scenes
from img2prompt_cache.images.scenes.words import sample_scenes

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = ("efficientnet-lite0", "efficientnet-lite2", "vit-small-saliency", "all-MiniLM-L6-v2")
"""Folders of the models, named like those that they stand in for."""
IMAGES, EXTERNAL, SIDE, WIDTH = 48, 24, 40, 64
OFFLINE = """
import socket

def refuse(*_, **__):
    raise OSError("this day has no network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""
"""`sitecustomize.py` of every interpreter of a day."""
NUMBER = re.compile(r"[-+−]?\d[\d,]*(\.\d+)?(e[-+]\d+)?")
PAGE = "recipes.md"
SHORTEST = 12
"""Characters of a prompt that the page cuts off with an ellipsis."""


@cache
def script() -> ModuleType:
    """The benchmark, which reads the page and draws the data."""
    spec = importlib.util.spec_from_file_location("days_of_recipes", BENCHMARKS / "days.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def measured() -> Any:
    """What the benchmark measured."""
    return json.loads((BENCHMARKS / "results" / "days.json").read_text(encoding="utf-8"))["figures"]


@cache
def prompts(images: int, external: int) -> list[str]:
    """Every prompt of the drawn data, the longest first."""
    known, other = sample_scenes(images, 0), sample_scenes(external, 1)
    scenes = [*known, *other, *held_out_scenes([*known, *other], 6, 2)]
    return sorted({scene.prompt for scene in scenes}, key=len, reverse=True)


class Day:
    """One person's day: the steps of a section of the page, run one after the other.

    Attributes
    ----------
    folder : pathlib.Path
        Where the person works: at first with the data of the page.
    """

    def __init__(self, name: str, models: Path, home: Path) -> None:
        self._steps = list(script().days()[name])
        self._models = shutil.copytree(models, home / "models")
        self._offline = home / "offline"
        self._offline.mkdir()
        (self._offline / "sitecustomize.py").write_text(OFFLINE)
        self._home = home
        self.folder = home / "work"
        script().draw(self.folder, IMAGES, EXTERNAL, side=SIDE, width=WIDTH)

    def follow(self, until: str = "") -> None:
        """Run the next steps as the page has them: all, or up to the first of this command."""
        while self._steps:
            step = self._steps.pop(0)
            self._require_shown(step, self._run(step.words, f"{PAGE}:{step.line}"))
            if until and step.text.startswith(f"{script().PROGRAM}{until} "):
                return
        assert not until, f"{PAGE} has no more {until}"

    def run(self, command: str) -> list[str]:
        """Run a command that is not on the page; give the lines that it prints."""
        return self._run(["-m", "img2prompt_cache.cli", *shlex.split(command)], command)

    def leave(self, *taken: str) -> None:
        """Go to another machine: with these files and folders alone, and neither caches nor weights."""
        machine = self._home / "machine"
        machine.mkdir()
        for name in taken:
            shutil.move(self.folder / name, machine / name)
        for gone in (self.folder, self._models, self._home / "user"):
            shutil.rmtree(gone)
        self.folder = machine

    def _run(self, words: list[str], where: str) -> list[str]:
        user = self._home / "user"
        user.mkdir(exist_ok=True)
        ours = ("IMG2PROMPT", "HF_", "XDG", "TORCH", "PYTHON")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment |= {"HOME": str(user), "PYTHONPATH": str(self._offline), "OMP_NUM_THREADS": "1"}
        if "--preset" in words:
            at = words.index("--preset")
            words = [*words[:at], *self._columns(), *words[at + 2 :]]
        code, lines, _ = script().run(words, self.folder, environment)
        assert code == 0, "\n".join([where, *lines])
        return lines

    def _columns(self) -> list[str]:
        *backbones, encoder = (self._models / name for name in NAMES)
        chosen = [word for path in backbones for word in ("--backbone", f"timm:local-dir:{path}")]
        return [*chosen, "--encoder", f"st:local-dir:{encoder}"]

    def _require_shown(self, step: Any, lines: list[str]) -> None:
        """Compare what a command printed with what the page shows of it."""
        if not step.shown:
            return
        packaged = re.compile(rf"(?:timm|st):local-dir:{re.escape(str(self._models))}/")
        printed = [_form(packaged.sub("packaged:", line), prompts(IMAGES, EXTERNAL)) for line in lines]
        known = prompts(measured()["images"], measured()["external"])
        for line in step.shown:
            wanted = matching(_form(line, known))
            assert any(re.fullmatch(wanted, each) for each in printed), "\n".join(
                [f"{PAGE}:{step.line} shows", line, "and there is", *lines]
            )


def matching(shown: str) -> str:
    """Make a regular expression of a line of the page, where an ellipsis stands for any text."""
    return ".*".join(map(re.escape, shown.split("…")))


def _form(line: str, known: list[str]) -> str:
    """Put a sign for each number and prompt, also for one that is cut off, and one space for several."""
    start, cut, rest = line.partition("…")
    for prompt in known:
        start = start.replace(prompt, "PROMPT")
        for length in range(min(len(prompt), len(start)), SHORTEST, -1) if cut else ():
            if start.endswith(prompt[:length]):
                start = f"{start[:-length]}PROMPT"
                break
    return " ".join(NUMBER.sub("#", start + cut + rest).split())
