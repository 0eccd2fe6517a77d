"""Members of a blend that another program fitted: their predictions read, joined by imgId and checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.data.columns import OUTSIDE, UsedColumn
from img2prompt_cache.errors import UsageError
from img2prompt_cache.files import hash_file
from img2prompt_cache.heads.outside import Outside
from img2prompt_cache.numerics.bootstrap import standard_error
from img2prompt_cache.numerics.metrics import cosine, unit
from img2prompt_cache.prediction.outputs.reading import READERS, read_predictions
from img2prompt_cache.tables import preview

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

TOO_GOOD, EXACT, MOST_EXACT = 0.95, 0.99, 0.25
"""A mean cosine, or a share of rows beyond a cosine, that predictions for unseen rows do not reach."""

NEARER = 0.05
"""How much nearer to a prompt out-of-fold predictions may be than those for test images, at the least."""

FEWEST = 20
"""Predictions for test images below which their nearness is not compared."""

SAMPLE = 2000
"""Predictions of each kind whose nearness to the prompts is computed."""

LENGTHS = 0.01
"""How far from 1 the length of a prediction may be before it is told."""


@dataclass(frozen=True, slots=True)
class OutsideMember:
    """A member of a blend that another program fitted, by the files of its predictions.

    Attributes
    ----------
    name : str
    oof : pathlib.Path
        Predictions for held-out rows, each by a model that had not seen the row or one of its group.
    test : pathlib.Path or None
        Predictions for the images that the blend will be asked for. Without them it can only be scored.
    """

    name: str
    oof: Path
    test: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ReadMember:
    """An outside member whose files were read.

    Attributes
    ----------
    column : UsedColumn
        What stands for its predictions among the features of the blend.
    head : Outside
        Its predictions for test images.
    predictions : numpy.ndarray, float32, shape (n, t)
        Out of fold, of length 1, in the order of the held-out rows.
    record : dict
        What the run says of it: its files and their digests, and `doubts`, why its score may be too high.
    """

    column: UsedColumn
    head: Outside
    predictions: F32
    record: dict[str, Any]


def parse_outside(text: str) -> OutsideMember | None:
    """Read ``NAME=OOF`` or ``NAME=OOF:TEST``; None for a text without an equals sign.

    Raises
    ------
    UsageError
        If the name or an extension does not fit.
    """
    name, equals, paths = text.partition("=")
    if not equals:
        return None
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise _refused(f"{name!r} is no name for predictions of another program: letters, digits, . _ -")
    extension = "|".join(map(re.escape, READERS))
    found = re.fullmatch(rf"(.+?(?:{extension}))(?::(.+(?:{extension})))?", paths, re.IGNORECASE)
    if found is None:
        raise _refused(
            f"{text!r}: write NAME=OOF:TEST, two files of predictions ({', '.join(READERS)}); OOF for the "
            "held-out rows, TEST for the images to predict"
        )
    return OutsideMember(name, Path(found[1]), None if found[2] is None else Path(found[2]))


def read_outside(
    member: OutsideMember, ids: Sequence[str], targets: F32, groups: NDArray[np.int64]
) -> ReadMember:
    """Read the predictions of an outside member, join them by imgId, and check what can be checked.

    Parameters
    ----------
    member : OutsideMember
    ids : sequence of str
        Names of the held-out rows.
    targets : numpy.ndarray, float32, shape (n, t)
        Unit embeddings of their prompts.
    groups : numpy.ndarray, int64, shape (n,)
        Of these rows.

    Raises
    ------
    UsageError
        If a held-out row has no prediction.
    Img2PromptError
        If a file cannot be read; see `read_predictions`.
    """
    width = targets.shape[1]
    names, vectors = read_predictions(member.oof, width, ids)
    row_of = {name: row for row, name in enumerate(names)}
    missing = [name for name in ids if name not in row_of]
    if missing:
        raise _refused(
            f"{member.oof} has no prediction for {len(missing)} of the {len(ids)} held-out rows: "
            f"{preview(missing, len(missing))}"
        )
    held = unit(vectors[[row_of[name] for name in ids]])
    test_names: list[str] = []
    test = np.empty((0, width), np.float32)
    if member.test is not None:
        test_names, test = read_predictions(member.test, width)
    files = [{"name": path.name, "sha256": hash_file(path)} for path in (member.oof, member.test) if path]
    record = {
        "run": member.name,
        "head": Outside.name,
        "settings": {},
        "files": files,
        "rows": len(test_names),
        "doubts": [*_lengths([vectors, test]), *_doubts(held, targets, groups, unit(test))],
    }
    fingerprint = {"sha256": " ".join(each["sha256"] for each in files)}
    column = UsedColumn(f"{OUTSIDE}{member.name}", width, fingerprint, shape=(width,))
    return ReadMember(column, Outside.of(test_names, unit(test)), held, record)


def _lengths(told: Sequence[F32]) -> list[str]:
    lengths = np.concatenate([np.linalg.norm(each, axis=1) for each in told])
    if np.abs(lengths - 1).max() <= LENGTHS:
        return []
    return [f"its predictions have lengths from {lengths.min():.3g} to {lengths.max():.3g}, scaled to 1"]


def _doubts(held: F32, targets: F32, groups: NDArray[np.int64], test: F32) -> list[str]:
    """Say what speaks against predictions being out of fold, or in the order of their names."""
    cosines, found = cosine(held, targets), []
    mean, exact = float(cosines.mean()), float((cosines > EXACT).mean())
    if mean > TOO_GOOD or exact > MOST_EXACT:
        found.append(
            f"its predictions for held-out rows have a mean cosine of {mean:.3f}, {exact:.0%} of them beyond "
            f"{EXACT}: a model that was fitted on these rows makes such, and the score is then worth nothing"
        )
    elif len(test) >= FEWEST:
        one, other = _nearness(held, targets), _nearness(test, targets)
        here, there = float(one.mean()), float(other.mean())
        error = float(np.hypot(one.std() / np.sqrt(len(one)), other.std() / np.sqrt(len(other))))
        if here - there > max(NEARER, 3 * error):
            found.append(
                f"its predictions for held-out rows are nearer to a prompt (a cosine of {here:.3f}) than "
                f"those for test images are ({there:.3f}): they may be by a model that was fitted on these "
                "rows, and the score is then too high"
            )
    shuffled = float(held.mean(axis=0, dtype=np.float64) @ targets.mean(axis=0, dtype=np.float64))
    error = standard_error(cosines, groups)
    if mean - shuffled <= 2 * error and float(np.linalg.norm(held.mean(axis=0))) < 0.99:
        found.append(
            f"its predictions for held-out rows have a mean cosine of {mean:.3f}, and {shuffled:.3f} if they "
            "are shuffled: see whether its names and rows are in the same order"
        )
    return found


def _nearness(vectors: F32, targets: F32) -> F32:
    """Give the cosine of predictions, of many only some, with the prompt that is nearest to each."""
    rng = np.random.default_rng(0)
    some = vectors if len(vectors) <= SAMPLE else vectors[rng.choice(len(vectors), SAMPLE, replace=False)]
    bank = targets if len(targets) <= SAMPLE else targets[rng.choice(len(targets), SAMPLE, replace=False)]
    nearest: F32 = (some @ bank.T).max(axis=1)
    return nearest


def _refused(why: str) -> UsageError:
    return UsageError(f"`members`: {why}", parameter="members")
