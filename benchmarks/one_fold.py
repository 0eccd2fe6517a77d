"""One fold of one head, fitted and scored in a process of its own: what `recipe.py` is made of."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import Dataset, load_dataset
from img2prompt_cache.data.feature_blocks import block_ranges
from img2prompt_cache.data.splits import Split
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.fitting.additions import add_extra_pairs, add_soft_bank
from img2prompt_cache.fitting.columns import choose_columns
from img2prompt_cache.fitting.distil import cheapest
from img2prompt_cache.fitting.evaluate import fit_rows, require_finite
from img2prompt_cache.fitting.scores import ranked
from img2prompt_cache.fitting.teacher import TeacherData
from img2prompt_cache.heads import make_head
from img2prompt_cache.heads.best import Best
from img2prompt_cache.heads.blend import Blend
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.progress import ignore

FOLDS = 5
MEMBERS = ("knn", "ridge", "kernel", "mlp")
"""What `blend` mixes."""
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "mean": ("mean", {}),
    "nearest": ("nearest", {}),
    "knn": ("knn", {}),
    "ridge": ("ridge", {}),
    "banded-ridge": ("ridge", {}),
    "linear": ("linear", {}),
    "mlp": ("mlp", {}),
    "wide-mlp": ("wide-mlp", {"expand": 2}),
    "seed-resnet50": ("seed-resnet50", {}),
    "seed-vit": ("seed-vit", {}),
    "seed-tuned-resnet": ("seed-tuned-resnet", {}),
    "kernel-pooled": ("kernel", {}),
    "blend": ("blend", {}),
    "distil": ("distil", {}),
    "kernel-unwhitened": ("kernel", {"whiten": False}),
    "kernel": ("kernel", {}),
    "best": ("best", {"minutes": 1e6}),
}
"""What each row of the table fits, with settings. `ridge` has one penalty for all backbones, as one block.
Wide-mlp's 16 times as many units take too long on a processor. Best is to try every step, however busy the
machine is."""
POOLED = ("kernel-pooled",)
"""Rows of heads that would take every block by themselves, but are fitted on pooled features."""
STUDENT = "packaged:efficientnet-lite0"
"""What distil's student sees, where it is cached; the teacher is a kernel on all blocks."""


@dataclass(frozen=True, slots=True)
class Job:
    """A fold to fit a head on; `cache` and `extra` are folders, `bank` a file, `head` is a key of `HEADS`."""

    cache: Path
    extra: Path | None
    bank: Path | None
    seed: int
    head: str
    fold: int
    device: str


class Stepwise(Best):
    """The best head, which after each of its steps also predicts the rows `watched`, into `after`."""

    def _stand(self, climb: Any, widths: tuple[int, ...]) -> None:
        super()._stand(climb, widths)
        self.after.append(self._predict(self.watched))


@lru_cache(maxsize=1)
def load(
    cache: Path, specs: tuple[str, ...], extra: Path | None, bank: Path | None, seed: int
) -> tuple[Dataset, Split]:
    """Read the rows with the columns named, and split them; a process keeps what it read last."""
    opened = Cache(cache)
    target = choose_target(opened, None)
    data = load_dataset(opened, choose_features(opened, specs), target)
    data = add_extra_pairs(opened, data, [extra] if extra else [], target, ignore)
    data = add_soft_bank(opened, data, bank, target, "cpu", ignore)
    return data, make_split(opened, data, "group", 0.2, seed, FOLDS)


def fit_fold(job: Job) -> dict[str, Any]:
    """Fit a head on all folds but one, and score it on that.

    Returns a record of JSON values: what was fitted, how long it took with its predictions, and the cosine of
    each row that was held out; of best also the cosines after each step of its recipe.
    """
    name, settings = HEADS[job.head]
    head = (Stepwise(**settings) if name == "best" else make_head(name, **settings)).use_device(job.device)
    cache = Cache(job.cache)
    columns, _ = choose_columns(cache, make_head("ridge") if job.head in POOLED else head, ())
    if name == "distil":
        columns, _ = choose_columns(cache, make_head("kernel"), ())
    specs = tuple(column.spec for column in columns)
    extra, bank = (job.extra, job.bank) if name == "best" else (None, None)
    data, split = load(job.cache, specs, extra, bank, job.seed)
    train, held = list(split.sides)[job.fold]
    if "seed" in head.get_params():
        head.set_params(seed=job.seed)
    clock = time.process_time if job.device == "cpu" else time.perf_counter
    started = clock()
    steps: list[dict[str, Any]] = []
    if name == "distil":
        predictions, specs = taught(head, data, split, train, held, cache)
    elif job.head == "ridge":
        fitted = head.fit(data.X[train], data.training_targets[train], groups=split.inner_groups(train))
        predictions = fitted.predict(data.X[held])
    else:
        if name == "blend":  # as of runs: each member chooses its settings once for a fold
            heads = [make_head(member).use_device(job.device) for member in MEMBERS]
            chosen = [fit_rows(member, data, split, train).chosen for member in heads]
            pairs = zip(MEMBERS, chosen, strict=True)
            head.set_params(members=[{"head": member, "settings": settings} for member, settings in pairs])
        if isinstance(head, Stepwise):
            head.watched, head.after = data.X[held], []
        predictions = fit_rows(head, data, split, train).predict(data.X[held])
    seconds = clock() - started
    require_finite(name, predictions)
    if isinstance(head, Stepwise):
        steps = [
            {**told, "held": rounded(cosine(after, data.y[held]))}
            for told, after in zip(head.history, head.after, strict=True)
        ]
    return {
        "head": job.head,
        "fold": job.fold,
        "seconds": round(seconds, 2),
        "features": list(specs),
        "extra": 0 if data.extra is None else len(data.extra.y),
        "soft_bank": 0 if data.bank is None else len(data.bank),
        "chosen": head.chosen if name in ("kernel", "ridge", "knn") else {},
        "steps": steps,
        "rows": held.tolist(),
        "cosines": rounded(cosine(predictions, data.y[held])),
        **ranked(predictions, data.y[held], np.zeros(len(held), np.int64)),
    }


def taught(
    head: Any, data: Dataset, split: Split, train: Any, held: Any, cache: Cache
) -> tuple[Any, tuple[str, ...]]:
    """Let a kernel on all blocks teach the student, as `fit --head distil` does, and predict some rows."""
    place = block_ranges((column.spec, column.shape[0]) for column in data.features)
    specs = (STUDENT,) if STUDENT in place else cheapest(cache)
    lessons = TeacherData(data, data.X[:0], [place[spec] for spec in specs], list(place.values()))
    chosen = fit_rows(make_head("kernel"), data, split, train).chosen
    teacher = Blend([{"head": "kernel", "settings": chosen}], seed=split.seed)
    student, _ = lessons.fit_pair(head, teacher, split, train)
    (start, stop), *_ = lessons.student
    return student.predict(data.X[held][:, start:stop]), specs


def rounded(values: Any) -> list[float]:
    """Give numbers that take little room in a file."""
    return [round(float(value), 6) for value in values]
