"""Checks of the data: images, prompts, features and parts of a cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.reporting.checks.base import Finding, NotCheckedError
from img2prompt_cache.reporting.rows import CHANGED
from img2prompt_cache.reporting.words import script_counts
from img2prompt_cache.tables import counted, shorten

if TYPE_CHECKING:
    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.reporting.material import Material
    from img2prompt_cache.runs.board import Leaderboard

MANY_FAILED, MANY_CUT, MANY_REPEATED = 0.02, 0.02, 0.3
FOREIGN = 0.05
MIXED = 0.05
"""Share of the prompts from which a second program counts."""
CONSTANT, MANY_CONSTANT = 1e-3, 0.05
"""Standard deviation below which a feature is near-constant, as a share of the median one of its column."""
SAMPLE = 2048
"""Rows by which features are examined, evenly spaced."""


def failed_images(material: Material) -> Iterator[Finding]:
    """Images that could not be read."""
    rows = material.rows
    failed = [reason for status, reason in zip(rows.status, rows.reasons, strict=True) if status == "failed"]
    if failed:
        share = len(failed) / max(1, len(rows.present))
        reason, count = Counter(failed).most_common(1)[0]
        yield Finding(
            "problem" if share > MANY_FAILED else "caution",
            f"{counted(len(failed), 'image', 'images')} of {len(rows.present)} could not be read, most often "
            f"({count}) because: {shorten(reason, 120)}",
            "Mend or remove these files"
            + ("." if material.cache is None else "; `extract()` with `retry_failed` tries them again."),
        )


def changed_images(material: Material) -> Iterator[Finding]:
    """Images that are gone from their source, or have other bytes than were cached."""
    _cache(material)
    found = [material.pictures[row] for row in material.measured]
    if not found:
        raise NotCheckedError("there is no good image")
    changed = sum(each == CHANGED for each in found)
    gone = sum(isinstance(each, str) for each in found) - changed
    if changed:
        yield Finding(
            "problem",
            f"{changed} of {counted(len(found), 'image', 'images')} {'has' if changed == 1 else 'have'} "
            "changed since they were cached",
            "`extract()` with `update` computes their features again; then fit again.",
        )
    if gone:
        yield Finding(
            "remark" if gone == len(found) else "caution",
            f"{gone} of {len(found)} images cannot be read now, so the report has no pictures of them",
            "Bring the source back to where the cache was made from; fitting does not need it.",
        )


def changed_rows(material: Material) -> Iterator[Finding]:
    """Runs that were fitted before rows of their cache changed."""
    board = _board(material)
    for run in (*board.runs, *board.others):
        if run.folder in board.outdated:
            yield Finding(
                "problem",
                f"{run.name} was fitted on other rows than the cache has now: {board.outdated[run.folder]}",
                "Fit it again.",
            )


def missing_prompts(material: Material) -> Iterator[Finding]:
    """Rows without a prompt."""
    missing = len(material.rows.present) - len(material.rows.prompted)
    if missing:
        yield Finding(
            "caution" if missing > len(material.rows.prompted) else "remark",
            f"{counted(missing, 'row has', 'rows have')} no prompt, of {len(material.rows.present)}",
            "No head learns from them; "
            + (
                "`prompts` names a table that has them."
                if material.cache is None
                else "`predict()` without a source predicts their prompts."
            ),
        )


def cut_prompts(material: Material) -> Iterator[Finding]:
    """Prompts of which the encoder reads only the beginning."""
    tokens, limit = material.tokens, material.token_limit
    if tokens is None or limit is None:
        raise NotCheckedError("the tokenizer of the encoder is not on this machine")
    cut = sum(count > limit for count in tokens)
    if cut:
        yield Finding(
            "caution" if cut > MANY_CUT * len(tokens) else "remark",
            f"{cut} of {counted(len(tokens), 'prompt', 'prompts')} {'has' if cut == 1 else 'have'} more "
            f"tokens than the {limit} that the encoder reads",
            "Their ends do not count in the score. `extract()` with `clean` removes what only controls "
            "a generator, in a cache of its own.",
        )


def repeated_prompts(material: Material) -> Iterator[Finding]:
    """Prompts that stand more than once."""
    prompted = material.rows.prompted
    if not prompted:
        raise NotCheckedError("no row has a prompt")
    repeated = len(prompted) - len({material.rows.prompts[row] for row in prompted})
    if repeated:
        yield Finding(
            "caution" if repeated > MANY_REPEATED * len(prompted) else "remark",
            f"{repeated} of {counted(len(prompted), 'row', 'rows')} "
            f"{'repeats' if repeated == 1 else 'repeat'} the prompt of an earlier one",
            "A split keeps them on one side. `dedup()` marks near-identical rows, and `fit()` with `only` "
            "leaves them out.",
        )


def foreign_scripts(material: Material) -> Iterator[Finding]:
    """Prompts in scripts that an English encoder does not know."""
    if "MiniLM" not in material.encoder:
        raise NotCheckedError("it is not known which languages the encoder was trained on")
    counts = script_counts([material.rows.prompts[row] for row in material.rows.prompted])
    total = sum(counts.values())
    other = total - counts["Latin"] - counts["none"]
    if other > FOREIGN * total:
        yield Finding(
            "caution",
            f"{other} of {counted(total, 'prompt', 'prompts')} {'is' if other == 1 else 'are'} not in "
            f"Latin letters, and {material.encoder} was trained on "
            "English",
            "Their embeddings tell little. An encoder of many languages goes into a cache of its own with "
            "`extract()` and `encoder`.",
        )


def mixed_programs(material: Material) -> Iterator[Finding]:
    """Prompts that several programs wrote."""
    counts = Counter(filter(None, (material.rows.found_in[row] for row in material.rows.prompted)))
    if not counts:
        raise NotCheckedError("the source does not say where its prompts were found")
    many = [name for name, count in counts.most_common() if count >= MIXED * sum(counts.values())]
    if len(many) > 1:
        told = ", ".join(f"{name} {counts[name]}" for name in many)
        yield Finding(
            "remark",
            f"prompts were found in several ways: {told}",
            "They may be written in different styles; the report's scores by program show whether heads "
            "predict one of them worse.",
        )


def damaged_parts(material: Material) -> Iterator[Finding]:
    """Parts that are missing or have another size than was recorded."""
    damaged = _cache(material).check_sizes()
    if damaged:
        yield Finding(
            "problem",
            f"{counted(len(damaged), 'part is', 'parts are')} damaged, first {damaged[0].file}: "
            f"{damaged[0].reason}",
            "`repair()` computes them again.",
        )


def incomplete_columns(material: Material) -> Iterator[Finding]:
    """Columns that lack rows."""
    cache = _cache(material)
    for folder, count in cache.lacking().items():
        yield Finding(
            "caution",
            f"{folder} lacks {counted(count, 'image', 'images')} that could not be read again",
            "`extract()` with `retry_failed` tries them.",
        )
    for column in cache.manifest.columns:
        if column.rows < cache.rows:
            yield Finding(
                "problem",
                f"{column.folder} holds {column.rows} of {counted(cache.rows, 'row', 'rows')}",
                "`extract()` finishes it.",
            )


def features(material: Material) -> Iterator[Finding]:
    """Features that are not finite or tell nothing."""
    cache = _cache(material)
    columns = [c for c in cache.manifest.of_kind("features") if c.rows == cache.rows]
    missing = cache.missing(columns)
    good = np.array([row for row in material.rows.good if row not in missing], np.int64)
    if not columns or not len(good):
        raise NotCheckedError("there are no features")
    rows = good[:: -(-len(good) // SAMPLE)]
    for column in columns:
        values = cache.mapped(column)[rows]
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            yield Finding(
                "problem",
                f"{column.folder} holds NaN or infinity in {int((~finite).sum())} of {len(rows)} rows",
                "`verify()` tells whether a part was changed; if none was, extract in fp32 (`precision`).",
            )
        spread = values[finite].std(axis=0, dtype=np.float64)
        constant = int((spread <= CONSTANT * np.median(spread)).sum()) if finite.sum() > 2 else 0
        if constant > MANY_CONSTANT * len(spread):
            yield Finding(
                "remark",
                f"{constant} of {len(spread)} features of {column.folder} hardly vary",
                "They take room and tell nothing; another backbone may suit these images better.",
            )


def precision(material: Material) -> Iterator[Finding]:
    """Columns that were computed or are stored with few digits."""
    cache = _cache(material)
    found: dict[str, list[str]] = {}
    for column in cache.manifest.columns:
        computed = column.fingerprint.get("precision", "fp32")
        if column.kind != "targets" and column.kind != "rows" and computed != "fp32":
            found.setdefault(f"computed in {computed}", []).append(column.folder)
        if column.dtype == "int8":
            found.setdefault("stored in int8", []).append(column.folder)
    for how, folders in found.items():
        yield Finding(
            "remark",
            f"{', '.join(folders)}: {how}",
            "Their scores can differ a little from those of fp32; compare only runs on columns of one "
            "precision, or extract with `precision` fp32.",
        )


def _cache(material: Material) -> Cache:
    if material.cache is None:
        raise NotCheckedError("nothing is extracted yet")
    return material.cache


def _board(material: Material) -> Leaderboard:
    if material.board is None:
        raise NotCheckedError("there is no run")
    return material.board
