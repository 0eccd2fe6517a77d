"""Versions of the libraries a result depends on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = (
    "img2prompt-cache",
    "torch",
    "torchvision",
    "timm",
    "open_clip_torch",
    "sentence-transformers",
    "numpy",
    "h5py",
    "scikit-learn",
    "faiss-cpu",
    "pillow",
)


def library_versions() -> dict[str, str]:
    """Give the version of Python and of every library in `LIBRARIES` that is installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
