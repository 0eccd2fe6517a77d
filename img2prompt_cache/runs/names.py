"""Runs: what they are called and where they are found."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from img2prompt_cache.cache.manifest_file import NAME as MANIFEST
from img2prompt_cache.cache.opening import folder_of
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError, unknown
from img2prompt_cache.files import restore, restore_all
from img2prompt_cache.models.backbones.taps import split_spec
from img2prompt_cache.runs.bundled import is_bundle
from img2prompt_cache.runs.folder import remove_empty, reserve
from img2prompt_cache.runs.run import AnyRun, Run, load_run
from img2prompt_cache.runs.run_file import INFO
from img2prompt_cache.runs.shared import is_address

FOLDER = "runs"


class NoRunError(UsageError):
    """No run is named, and the cache has none."""


@contextmanager
def reserve_run(
    folder: Path | None, cache: Path, head: str, specs: list[str], *, overwrite: bool = False
) -> Iterator[Path]:
    """Hold the folder of a run while it is made: the one named, or one with a readable name in the cache.

    Raises
    ------
    UsageError, Img2PromptError
        As `reserve`.
    """
    remove_empty(cache / FOLDER)
    with ExitStack() as stack:
        if folder is None:
            folder = new_folder(cache, head, specs, stack)
        elif folder.resolve() == Path.cwd():
            raise UsageError(f"`run` {folder} is the current folder; name another", parameter="run")
        else:
            stack.enter_context(reserve(folder, overwrite=overwrite))
        yield folder


def new_folder(cache: Path, head: str, specs: list[str], stack: ExitStack) -> Path:
    """Reserve a folder with a readable name, such as ``ridge-resnet50+vit_base-01``."""
    base = f"{head}-{joined_name(specs)}"[:100]
    for number in itertools.count(1):
        folder = cache / FOLDER / f"{base}-{number:02d}"
        with suppress(UsageError):
            stack.enter_context(reserve(folder))
            break
    return folder


def joined_name(specs: Sequence[str]) -> str:
    """Join the short names of columns with ``+``; of several columns of a backbone only the backbone."""
    backbones = [split_spec(spec)[0] for spec in specs]
    names = [
        short_name(spec if backbones.count(backbone) == 1 else backbone)
        for spec, backbone in zip(specs, backbones, strict=True)
    ]
    return "+".join(dict.fromkeys(names))


def short_name(spec: str) -> str:
    """Shorten a spec to what a person calls it: ``timm:resnet50.a1_in1k`` → ``resnet50``."""
    if ":" not in spec:  # an alias
        return spec
    name = spec.partition(":")[2].partition("@")[0].rstrip("/")
    name = name.rpartition("/")[2] if "-dir:" in name or "-hub:" in name else name.partition("/")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name.partition(".")[0]).strip("-") or "model"


def find_runs(cache: Path) -> list[Path]:
    """List the runs of a cache, oldest first."""
    runs = cache / FOLDER
    if not runs.is_dir():
        return []
    restore_all(runs)
    found = [path for path in runs.iterdir() if (path / INFO).is_file() and not path.name.startswith(".")]
    return sorted(found, key=lambda path: (_created(path), path.name))


def _created(folder: Path) -> str:
    # Not the file's time: copying a cache to another machine changes that.
    try:
        return load_run(folder).created
    except Img2PromptError:
        return ""


def find_series(name: str, cache: Path) -> list[Run]:
    """Open the runs of the newest fit with several seeds of this name, but for damaged ones."""
    found: dict[str, list[Run]] = {}
    for folder in find_runs(cache):
        with suppress(Img2PromptError):
            run = load_run(folder)
            if run.series.partition("@")[0] == name:
                found.setdefault(run.series, []).append(run)
    return found[max(found, key=lambda series: series.partition("@")[2])] if found else []


def resolve_run(name: str, cache: Path) -> Path:
    """Find a run by its folder or bundle, or by its name inside a cache.

    Raises
    ------
    UsageError
        If there is no such run.
    """
    for folder in (Path(name), cache / FOLDER / name):
        restore(folder)
        if (folder / INFO).is_file() or is_bundle(folder):
            return folder
    names = [path.name for path in find_runs(cache)]
    if not names:
        raise UsageError(
            f"no run {name!r}, and none in {cache / FOLDER}; make one with `fit()`", parameter="run"
        )
    raise unknown("run", name, names, parameter="run")


def open_run(run: AnyRun | None, cache: str | Path | Cache) -> Run:
    """Open a run that is named in any way; the newest of a cache if None.

    Raises
    ------
    UsageError
        If there is no such run.
    Img2PromptError
        If it is damaged.
    """
    if isinstance(run, Run):
        return run
    if run is not None and not isinstance(run, str | Path):
        raise UsageError(
            f"`run` takes a Run, a folder or a name, not a {type(run).__name__}", parameter="run"
        )
    if run is not None and is_address(run):
        return load_run(run)
    folder = folder_of(cache)
    if run is not None:
        return load_run(resolve_run(str(run), folder))
    runs = find_runs(folder)
    if not runs and not (folder / MANIFEST).is_file():
        raise NoRunError(
            f"there is no cache in {folder}, and so no run; make them with `extract()` and `fit()`, or name "
            "a run with `run`",
            parameter="run",
        )
    if not runs:
        raise NoRunError(
            f"no run in {folder / FOLDER}; make one with `fit()`, or name one with `run`", parameter="run"
        )
    return load_run(runs[-1])
