"""The weights of a run: looked for where the caller says, where the run came with them, where they were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.backbones.taps import model_of
from img2prompt_cache.models.specs import Spec
from img2prompt_cache.models.weights.places import Places, looking_in
from img2prompt_cache.prediction.outside import of_images

if TYPE_CHECKING:
    from img2prompt_cache.models.backbones.taps import Described
    from img2prompt_cache.prediction.fitted import Fitted

WEIGHTS = "weights"
"""Folder with the weights that a run came with."""
Weights = str | Path | Iterable[str | Path] | None
"""Folders to search for weights."""


@contextmanager
def weights_of(
    fitted: Fitted, weights: Weights = None, replace: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Let the models of a run be found in the block.

    Parameters
    ----------
    fitted : Fitted
        A run.
    weights : path or iterable of paths, optional
        Folders that are searched, with all below them, for weights with the fingerprints that the run
        recorded. The environment variable `IMG2PROMPT_WEIGHTS` names more.
    replace : mapping of str to str, optional
        Beginnings of paths in the run's specs, and what stands in their place now.

    Raises
    ------
    UsageError
        If a folder is not there, or no path in the run's specs begins so.
    """
    own = _known_places(fitted) if fitted.carried is None else [fitted.carried / WEIGHTS]
    places = Places.of(weights, replace, own=own)
    specs = [model_of(column) for column in (*of_images(fitted.features), fitted.target)]
    specs += [column.fingerprint.get("encoder", "") for column in fitted.features]
    named = [Spec(*spec.split(":", 1)) for spec in dict.fromkeys(specs) if ":local-dir:" in spec]
    for old, new in places.replaced:
        only = Places(replaced=((old, new),))
        if all(only.current(spec) == spec for spec in named):
            raise UsageError(
                f"`replace`: no path in the run's specs begins with {old}; they are "
                f"{', '.join(map(str, named)) or 'no folders'}",
                parameter="replace",
            )
    with looking_in(places):
        yield


def _known_places(fitted: Fitted) -> list[Path]:
    """List the folders from which the cache of a run loads models now, where those of the run are gone."""
    used = (*fitted.features, fitted.target)
    if fitted.home is None or all(map(_is_there, used)):
        return []
    try:
        columns = load_manifest(fitted.home).columns
    except Img2PromptError:
        return []
    gone = [column.fingerprint for column in used if not _is_there(column)]
    found = (_folder(column) for column in columns if column.fingerprint in gone)
    return list(dict.fromkeys(folder for folder in found if folder is not None))


def _is_there(column: Described) -> bool:
    folder = _folder(column)
    return folder is None or folder.is_dir()


def _folder(column: Described) -> Path | None:
    """Give the folder of a model that is loaded from one."""
    _, source, path = model_of(column).partition(":local-dir:")
    return Path(path).expanduser() if source else None
