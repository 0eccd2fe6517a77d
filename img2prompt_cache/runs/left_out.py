"""Why a run is not in a leaderboard: what its score differs in from those that are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from img2prompt_cache.runs.seeds import seeds_text
from img2prompt_cache.tables import counted

if TYPE_CHECKING:
    from img2prompt_cache.runs.entries import Entry
    from img2prompt_cache.runs.record import SplitRecord


_AGAIN = "fit again what is to be compared"


def why_left_out(entry: Entry, wanted: Entry) -> str:
    """Say what an entry differs in from one that it cannot be compared with: the first thing that counts.

    Parameters
    ----------
    entry : Entry
        The one that is left out.
    wanted : Entry
        One of those that are compared.
    """
    mine, other = entry.run, wanted.run
    if mine.target.fingerprint != other.target.fingerprint:
        if mine.target.spec == other.target.spec:
            return f"targets by {mine.target.spec} that were made differently"
        return f"predicts {mine.target.spec}, not {other.target.spec}"
    same_way = mine.split["strategy"] == other.split["strategy"]
    if same_way and entry.split_seeds != wanted.split_seeds:
        plural = "s" * (len(entry.split_seeds) > 1)
        return f"split seed{plural} {seeds_text(entry.split_seeds)}, not {seeds_text(wanted.split_seeds)}"
    return _difference(mine.split, other.split)


def _difference(mine: SplitRecord, other: SplitRecord) -> str:
    if mine["strategy"] != other["strategy"]:
        return f"split {mine['strategy']}, not {other['strategy']}"
    folds, others = mine.get("folds", 1), other.get("folds", 1)
    if folds != others:
        return f"{_way(folds)}, not {_way(others)}"
    rows, wanted = _rows(mine), _rows(other)
    if rows != wanted:
        return (
            f"scored on {counted(rows, 'row', 'rows')}, not {wanted}: the cache has other rows since, or "
            f"some were left out; {_AGAIN}"
        )
    told = (mine.get("group_encoder"), mine.get("group_threshold"))
    if told != (other.get("group_encoder"), other.get("group_threshold")):
        return f"near-identical prompts found by {_by(mine)}, not by {_by(other)}; {_AGAIN}"
    if mine["validation"] != other["validation"]:
        return f"{mine['validation']} rows held out, not {other['validation']}"
    return f"as many rows, but other ones, or other images, prompts or embeddings; {_AGAIN}"


def _rows(split: SplitRecord) -> int:
    return split["train"] + split["validation"] + split.get("purged", 0)


def _way(folds: int) -> str:
    return f"by {folds} folds" if folds > 1 else "by one hold-out"


def _by(split: SplitRecord) -> str:
    encoder = split.get("group_encoder", "the first encoder")
    return f"{encoder} from {split.get('group_threshold', 0.8):.6g} on"
