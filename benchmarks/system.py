"""What a benchmark ran on, and where its figures go."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from img2prompt_cache.environment import library_versions

TWO_BACKBONES = (
    *("--backbone", "packaged:efficientnet-lite0", "--backbone", "packaged:vit-small-saliency"),
    *("--encoder", "packaged:all-MiniLM-L6-v2"),
)
"""Options of `extract` that give what the preset `packaged` was when the tables of heads were measured."""
RESULTS = Path(__file__).parent / "results"


def system() -> dict[str, Any]:
    """Describe this machine: processor, cores, memory, versions."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**30, 1),
        "system": platform.system(),
        "versions": library_versions(),
    }


def extracted(data: Path, caches: Path) -> Path:
    """Find the cache of a folder of images in `caches`; make it with the packaged preset if there is none."""
    folder = caches / data.name
    if not (folder / "cache.json").exists():
        command = [sys.executable, "-m", "img2prompt_cache.cli", "extract", str(data)]
        subprocess.run([*command, "--cache", str(folder), "--preset", "packaged"], check=True)
    return folder


def save(name: str, figures: Any) -> Path:
    """Write figures with the system they were measured on to ``results/<name>.json``."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    data = {"date": datetime.now(UTC).date().isoformat(), "system": system(), "figures": figures}
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def load(name: str) -> Any:
    """Read the figures of an earlier call, so that a long benchmark can be run in pieces; None if none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["figures"] if path.exists() else None
