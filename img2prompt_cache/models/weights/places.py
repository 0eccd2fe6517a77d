"""Where weights are looked for besides where specs say: folders to search, and paths that have moved."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.specs import Spec
from img2prompt_cache.models.weights.wheels import PACKAGED

ENVIRONMENT = "IMG2PROMPT_WEIGHTS"
"""Environment variable with folders to search, separated as in PATH."""

MOST_FOLDERS = 100_000
"""Folders that are looked into below those to be searched."""
MOST_CONFIG_BYTES = 1 << 20

CONFIG, CLIP_CONFIG, SENTENCE_MODULES = "config.json", "open_clip_config.json", "modules.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True, eq=False)
class Places:
    """Where weights are looked for.

    Attributes
    ----------
    folders : tuple of pathlib.Path
        Searched with all folders below them, but not through links.
    replaced : tuple of (str, str)
        Beginnings of the paths in specs ``FAMILY:local-dir:PATH``, and what stands in their place now.
    """

    folders: tuple[Path, ...] = ()
    replaced: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls,
        weights: str | Path | Iterable[str | Path] | None = None,
        replace: Mapping[str, str] | None = None,
        *,
        own: Iterable[Path] = (),
    ) -> Places:
        """Make it of what a caller named, and of the environment variable `ENVIRONMENT`.

        Parameters
        ----------
        weights : path or iterable of paths, optional
            Folders to search.
        replace : mapping of str to str, optional
            Beginning of a path to what stands in its place.
        own : iterable of pathlib.Path
            Folders that are searched before all others.

        Raises
        ------
        UsageError
            If a folder that was named is not there, or an empty text is to be replaced.
        """
        named = [weights] if isinstance(weights, str | Path) else list(weights or ())
        folders = [Path(each).expanduser() for each in named]
        for folder in folders:
            if not folder.is_dir():
                raise UsageError(f"`weights` {folder}: there is no such folder", parameter="weights")
        if not all((replace or {}).keys()):
            raise UsageError("`replace` names no beginning of a path to be replaced", parameter="replace")
        listed = os.environ.get(ENVIRONMENT, "").split(os.pathsep)
        folders += [Path(each).expanduser() for each in listed if each]
        return cls((*own, *folders), tuple((replace or {}).items()))

    def current(self, spec: Spec) -> Spec:
        """Give a spec with the path that it has now."""
        source, _, path = spec.name.partition(":")
        if source != "local-dir":
            return spec
        for old, new in self.replaced:
            beginning = old.rstrip("/")
            if f"{path}/".startswith(f"{beginning}/"):
                rest = path.removeprefix(beginning)
                return Spec(spec.family, f"local-dir:{new.rstrip('/')}{rest}")
        return spec

    @cached_property
    def _listed(self) -> list[tuple[Path, set[str]]]:
        """Folders with the names of their files, in order of their paths."""
        found = []
        for root in self.folders:
            for path, folders, files in os.walk(root):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                found.append((Path(path), set(files)))
                if len(found) > MOST_FOLDERS:
                    raise UsageError(
                        f"`weights` {root} has more than {MOST_FOLDERS:,} folders; name the one with the "
                        "weights",
                        parameter="weights",
                    )
        return found

    def candidates(self, spec: Spec, fingerprint: Mapping[str, str]) -> Iterator[Path]:
        """Give the folders that may hold the weights of a spec, to be told by the fingerprint once loaded.

        Parameters
        ----------
        spec : Spec
        fingerprint : mapping of str to str
            Of a column made with it: folders that declare another architecture are passed over.
        """
        for folder, files in self._listed:
            if any(name.endswith(_WEIGHTS) for name in files) and _may_be(spec, fingerprint, folder, files):
                yield folder


_ACTIVE: ContextVar[Places | None] = ContextVar("places", default=None)


def active() -> Places:
    """Give the places of this context; those of the environment where none were set."""
    return _ACTIVE.get() or Places.of()


@contextmanager
def looking_in(places: Places) -> Iterator[None]:
    """Let models that are loaded in the block be looked for in some places."""
    token = _ACTIVE.set(places)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def _may_be(spec: Spec, fingerprint: Mapping[str, str], folder: Path, files: set[str]) -> bool:
    """Whether a folder with weights can be that of a spec, by its configuration."""
    architecture = fingerprint.get("architecture", "")
    hub = not spec.name.startswith(("local-dir:", "hf-hub:"))
    if spec.family == "open_clip":
        if CLIP_CONFIG not in files or hub or "vision_cfg" not in architecture:  # a name, or a text tower
            ours = any(name.startswith("open_clip") for name in files)
            return ours or (hub and CONFIG not in files)
        model = _read(folder / CLIP_CONFIG).get("model_cfg")
        known = model if isinstance(model, dict) else {}
        return json.dumps({key: known.get(key) for key in ("embed_dim", "vision_cfg")}, sort_keys=True) == (
            architecture
        )
    if CLIP_CONFIG in files:
        return False
    sentences = spec.family == "st" or (spec.family == "packaged" and not PACKAGED[spec.name].architecture)
    if sentences or SENTENCE_MODULES in files:
        return sentences
    if CONFIG not in files:
        return hub
    return _read(folder / CONFIG).get("architecture") == architecture.partition(" ")[0]


def _read(path: Path) -> dict[str, Any]:
    """Read a configuration; an empty one where it is none."""
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(MOST_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
