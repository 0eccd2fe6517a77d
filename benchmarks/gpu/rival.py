"""clip-retrieval 2.45's own inference on the same files and checkpoints, against `extract`.

Its reader, mapper and writer run as they are, with the libraries of this machine rather than those it pins,
which have no build for it; only its server, which its package imports first, is left out.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from setting import Notes, Setting

from img2prompt_cache.models.devices import cores
from img2prompt_cache.numerics.metrics import cosine

THEIRS = """
from clip_retrieval.clip_inference.worker import worker
if __name__ == "__main__":
    import open_clip
    open_clip.add_model_config({architectures!r})
    worker(
        tasks=[0], input_dataset={images!r}, output_folder={out!r}, output_partition_count=1,
        enable_text=False, enable_image=True, clip_model={model!r}, num_prepro_workers={workers},
        batch_size=256, use_jit=False, clip_cache_path={work!r},
    )
"""
OURS = """
import json, time
import img2prompt_cache as ipc
found = {{}}
def tell(event):
    if event.kind == "step":
        found.setdefault("began", time.perf_counter())
    if event.kind == "report":
        found.update(loop_s=time.perf_counter() - found.pop("began"), stages=event.value.stages)
ipc.extract({images!r}, {out!r}, backbones={spec!r}, encoder={encoder!r}, format="folder", batch_size={batch},
            progress=tell)
print(json.dumps(found))
"""


def run(program: str, place: Path) -> tuple[float, str]:
    """Run a whole program from a file; its seconds and what it printed."""
    path = place.with_suffix(".py")
    path.write_text(program)
    started = time.perf_counter()
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    wall = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return wall, done.stdout


def compare(setting: Setting, name: str) -> dict[str, Any]:
    """Both sides on one checkpoint."""
    images, found = setting.source / "images", {}
    count = setting.images
    theirs, ours = setting.work / "theirs", setting.work / "ours"
    for folder in (theirs, ours):
        shutil.rmtree(folder, ignore_errors=True)
    wall, _ = run(
        THEIRS.format(
            images=str(images),
            out=str(theirs),
            model=f"open_clip:{name}/{setting.work / name}.pt",
            architectures=str(setting.work / "architectures"),
            workers=cores(),
            work=str(setting.work),
        ),
        theirs,
    )
    stats = json.loads((theirs / "stats" / "0.json").read_text())
    batches = stats["total_duration"]
    found["clip-retrieval"] = {"whole_s": wall, "images_s_in_its_loop": count / batches, **stats}
    for batch in (32, 256):
        shutil.rmtree(ours, ignore_errors=True)
        wall, said = run(
            OURS.format(
                images=str(images),
                out=str(ours),
                spec=setting.backbones[name],
                encoder=setting.encoder,
                batch=batch,
            ),
            ours,
        )
        report = json.loads(said.splitlines()[-1])
        rate = count / report["loop_s"]
        found[f"extract, batches of {batch}"] = {"whole_s": wall, "images_s_in_its_loop": rate, **report}
    from img2prompt_cache import Cache
    from img2prompt_cache.cache.mapped import MappedColumn

    cache = Cache(ours)
    (column,) = cache.manifest.of_kind("features")
    mine = np.asarray(MappedColumn(cache.folder, column)[np.arange(cache.rows)], np.float32)
    other = np.load(next((theirs / "img_emb").glob("*.npy"))).astype(np.float32)
    between = cosine(mine, other)
    found["cosine of the embeddings"] = {"mean": float(between.mean()), "least": float(between.min())}
    return found


def measure(setting: Setting, notes: Notes) -> None:
    """ViT-B/32 first, then ViT-L/14."""
    for name in ("clip_b_32", "clip_l_14"):
        notes.add(name, compare(setting, name))
