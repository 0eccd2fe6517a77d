"""This machine: what it computes with, which weights and libraries it has, how much room is left."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from img2prompt_cache.files import user_folder
from img2prompt_cache.models.devices import choose_device, has_bf16
from img2prompt_cache.models.weights.hub import choose_preset
from img2prompt_cache.models.weights.packaged import list_packaged
from img2prompt_cache.models.weights.wheels import PACKAGED

INDEX_TIMEOUT_S = 20
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
"""The libraries that results depend on."""


def examine(*, online: bool = True) -> dict[str, dict[str, object]]:
    """Examine this machine.

    Parameters
    ----------
    online : bool
        Also ask the model hub and the package index, which takes up to half a minute if they do not answer.

    Returns
    -------
    dict
        Sections `machine`, `compute`, `weights`, `disk`, `versions`, each with its findings as JSON values.
    """
    import torch

    device = choose_device("auto")
    found: dict[str, dict[str, object]] = {
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "python": sys.executable},
        "compute": {
            "device": device,
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
            "bf16": has_bf16(device),
            "threads": torch.get_num_threads(),
        },
        "weights": {row.spec: "here" if row.present else "to be fetched" for row in list_packaged()},
        "disk": {
            str(folder): f"{shutil.disk_usage(folder).free / 1e9:.1f} GB free"
            for folder in dict.fromkeys([Path.cwd(), _existing(user_folder())])
        },
        "versions": dict(library_versions()),
    }
    if online:
        preset, reason = choose_preset()
        found["weights"]["preset auto"] = f"{preset}: {reason}"
        found["weights"]["package index"] = _index()
    return found


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _index() -> str:
    wheel = next(iter(PACKAGED.values()))
    command = [sys.executable, "-m", "pip", "index", "versions", "--retries", "0", wheel.distribution]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INDEX_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "does not answer"
    return "answers" if done.returncode == 0 and wheel.version in done.stdout else "does not answer"


def library_versions() -> dict[str, str]:
    """Give the version of Python and of every library in `LIBRARIES` that is installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
