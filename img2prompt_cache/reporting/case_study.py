"""Held-out rows of a run looked at one by one: what is near them, which words were found, and reasons."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.reader import REMOVED
from img2prompt_cache.data.columns import used_column
from img2prompt_cache.data.dataset import views_of
from img2prompt_cache.data.splits import PURGED, Split
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.fitting.run_rows import needs_views
from img2prompt_cache.models.backbones.taps import split_spec
from img2prompt_cache.numerics.hubs import corrected_queries
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.standardise import mean_and_scale
from img2prompt_cache.progress import Callback
from img2prompt_cache.reporting.nearest import count_near, nearest_rows
from img2prompt_cache.reporting.reasons import FAR, Circumstances, Reason, reasons_of
from img2prompt_cache.reporting.words import script_counts, words_found
from img2prompt_cache.runs.breakdown import held_out
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.record import SplitRecord, same_split
from img2prompt_cache.runs.used_rows import UsedRows, load_used_rows, row_digest
from img2prompt_cache.tables import shorten

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from img2prompt_cache.cache.manifest import Column
    from img2prompt_cache.cache.mapped import MappedColumn
    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.reporting.material import Material
    from img2prompt_cache.runs.run import Run

    F32 = NDArray[np.float32]
    Rows = NDArray[np.int64]

PROMPTS, IMAGES = 3, 5
DISTINCT = 20
"""Nearest rows that are looked at to find `PROMPTS` different prompts."""
SAMPLE = 4096
"""Rows by which features are standardised, evenly spaced."""
LONGEST = 600


@dataclass(frozen=True, slots=True)
class Near:
    """A training row that is near: its prompt, how near, and the cosine of its prompt with the truth."""

    row: int
    id: str
    prompt: str
    similarity: float
    truth: float


@dataclass(frozen=True, slots=True)
class Composed:
    """A prompt composed of phrases of training prompts: its cosines with the prediction and the truth."""

    prompt: str
    similarity: float
    truth: float


@dataclass(frozen=True, slots=True)
class Case:
    """A held-out row.

    Attributes
    ----------
    row : int
    id, prompt : str
        The prompt is the true one.
    kinds : list of str
        ``"worst"``, ``"best"``, ``"random"``.
    cosine : float
        Of the prediction with the truth.
    nearest : list of Near
        Training prompts nearest to the prediction, corrected for hubs as `predict` does; `similarity` is
        their cosine with it.
    reach : Near or None
        The training prompt nearest to the truth.
    image : Near or None
        The nearest training image; `similarity` is the cosine of the standardised features.
    subject_found, subject_missed, modifiers_found, modifiers_missed : list of str
        Words of the true prompt, before its first comma and after, that are in one of `nearest`, and not.
    reasons : list of Reason
    composed : Composed or None
        Where that was asked for.
    """

    row: int
    id: str
    prompt: str
    kinds: list[str]
    cosine: float
    nearest: list[Near]
    reach: Near | None
    image: Near | None
    subject_found: list[str]
    subject_missed: list[str]
    modifiers_found: list[str]
    modifiers_missed: list[str]
    reasons: list[Reason]
    composed: Composed | None = None


class CaseStudy:
    """A run's held-out rows, and the training rows of each of its folds.

    Parameters
    ----------
    material : Material
    cache : Cache
    run : Run

    Attributes
    ----------
    gone : int
        Held-out rows that are not studied, because they are not in the cache any more, or have changed.

    Raises
    ------
    Img2PromptError
        If the cache no longer holds what the run was scored on, or what it was fitted on. Of a run that
        recorded its rows, those are enough that are as they were.
    """

    def __init__(self, material: Material, cache: Cache, run: Run) -> None:
        self.material, self.cache, self.run = material, cache, run
        self._target = used_column(cache, run.target, "fit the run again", "targets")
        used, validation = load_used_rows(run.folder), load_validation(run.folder, run)
        rows = material.rows
        row_of = {name: row for row, name in enumerate(rows.ids)}
        same = None if used is None else self._unchanged(used)
        if same is None:
            ids = [name for name in held_out([run]).ids if rows.status[row_of[name]] != REMOVED]
        else:
            ids = sorted(same & {*validation.ids})
        if not ids:
            raise Img2PromptError(
                f"{cache.folder} no longer holds any of the rows that {run.name} was scored on; fit it again"
            )
        self.gone = len(validation.ids) - len(ids)
        place = {name: at for at, name in enumerate(validation.ids)}
        order = [place[name] for name in ids]
        self.ids, self.rows = ids, np.array([row_of[name] for name in ids], np.int64)
        self.prompts, self.targets = [rows.prompts[row] for row in self.rows], self._targets(self.rows)
        self.predictions = validation.predictions[order]
        self.mean_prediction = self.predictions.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.cosine, self.fold = validation.cosine[order], validation.fold[order]
        fold_of = np.full(cache.rows, -1, np.int64)
        fold_of[self.rows] = self.fold
        if used is None or same is None:
            self.train = self._fitted_rows(fold_of)
        else:
            fitted = zip(used.ids, used.fold.tolist(), strict=True)
            self.train = np.array(
                sorted(row_of[name] for name, fold in fitted if fold != PURGED and name in same), np.int64
            )
        self.train_fold = fold_of[self.train]
        self.left_out = None if used is None or not used.purges else self._left_out(used, row_of)

    def _left_out(self, used: UsedRows, row_of: Mapping[str, int]) -> NDArray[np.bool_]:
        """Tell which of the training rows each fold left out: shape (folds, rows)."""
        left_out = np.zeros((max(len(used.purges), int(self.fold.max()) + 1), len(self.train)), bool)
        for number, purged in enumerate(used.purges):
            named = [row_of[name] for name in (used.ids[at] for at in purged.tolist()) if name in row_of]
            left_out[number] = np.isin(self.train, named)
        return left_out

    def _unchanged(self, used: UsedRows) -> set[str]:
        """Find the rows of the run that the cache still holds with the prompt and the image that they had."""
        rows = self.material.rows
        here = {
            name: row_digest(prompt, image)
            for name, prompt, image, status in zip(
                rows.ids, rows.prompts, rows.digests, rows.status, strict=True
            )
            if status == "ok"
        }
        known = zip(used.ids, used.contents, strict=True)
        return {name for name, contents in known if here.get(name) == contents}

    def _fitted_rows(self, fold_of: Rows) -> Rows:
        """Find the rows that a run of an older version was fitted on or scored on, ascending.

        By folds every one of them was held out. A hold-out recorded no more of the others than a hash.
        """
        run, rows = self.run, self.material.rows
        if run.split["train"] == 0:
            return np.flatnonzero(fold_of >= 0)
        missing = self.cache.missing(self._columns())
        found = np.array(
            [row for row in rows.prompted if rows.status[row] == "ok" and row not in missing], np.int64
        )
        split = Split(run.split["strategy"], run.split["seed"], fold_of[found], np.zeros_like(found))
        ids, prompts, images = (
            [values[row] for row in found.tolist()] for values in (rows.ids, rows.prompts, rows.digests)
        )
        here: SplitRecord = {
            "digest": split.digest(ids, prompts, images),
            "contents_digest": split.contents_digest(ids, prompts, images, run.target.fingerprint),
        }
        if not same_split(here, run.split):
            raise Img2PromptError(
                f"{run.name} was fitted on other rows than the usable ones of the cache: rows were added or "
                "changed since, or it was fitted with `only`; fit it again, or with `folds`, so that the run "
                "records its rows"
            )
        return found

    def _columns(self) -> list[Column]:
        """Find the columns that rows had to be in to be fitted on."""
        views = needs_views(self.run.head, self.run.settings)
        columns = []
        for use in self.run.features:
            for column in self.cache.manifest.of_kind(split_spec(use.spec)[1].kind):
                if column.spec == use.spec:
                    made = views_of(self.cache, column) if views else None
                    columns += [column] if made is None else [column, made]
        return columns

    @cached_property
    def scripts(self) -> dict[str, float]:
        """Share of the held-out prompts by script."""
        counts = script_counts(self.prompts)
        return {name: count / len(self.prompts) for name, count in counts.items()}

    @cached_property
    def tokens(self) -> dict[int, int] | None:
        """Tokens of the prompt of each row; None where the tokenizer is not here."""
        counts = self.material.tokens
        return None if counts is None else dict(zip(self.material.rows.prompted, counts, strict=True))

    def cases(self, wanted: Rows, kinds: dict[int, list[str]]) -> list[Case]:
        """Describe some of the held-out rows, given by their places."""
        fold = self.fold[wanted]

        known = self.train, self.train_fold

        def search(queries: F32, k: int) -> tuple[Rows, F32]:
            return nearest_rows(queries, fold, *known, self._targets, k, self.left_out)

        near = search(corrected_queries(self.predictions[wanted], self.mean_prediction), DISTINCT)
        reach = search(self.targets[wanted], 1)
        counts = count_near(self.targets[wanted], fold, *known, self._targets, FAR, self.left_out)
        images = self._similar_images(wanted, fold)
        return [
            self._case(
                at, kinds.get(at, []), (near[0][i], near[1][i]), (reach[0][i], reach[1][i]), int(counts[i]),
                None if images is None else (images[0][i], images[1][i]),
            )
            for i, at in enumerate(wanted.tolist())
        ]  # fmt: skip

    def compose(self, wanted: Rows, tell: Callback) -> list[Composed]:
        """Compose a prompt for each of some held-out rows, of phrases of training rows of other folds.

        Raises
        ------
        Img2PromptError
            If the text encoder of the run cannot be loaded, or is another one now.
        """
        from img2prompt_cache.models.recorded import load_recorded_encoder
        from img2prompt_cache.prediction.bank import Bank
        from img2prompt_cache.prediction.compose import Composer

        encoder = load_recorded_encoder(self.run.target)
        found: dict[int, Composed] = {}
        for number in np.unique(self.fold[wanted]).tolist():
            inside = wanted[self.fold[wanted] == number]
            fitted = self.train_fold != number
            if self.left_out is not None:
                fitted &= ~self.left_out[number]
            rows = self.train[fitted]
            prompts = (self.material.rows.prompts[row] for row in rows.tolist())
            composer = Composer([Bank.from_pairs(prompts, self._targets(rows))], encoder, tell=tell)
            texts, cosines = composer.compose(self.predictions[inside])
            truth = np.einsum("ij,ij->i", encoder.encode(texts), self.targets[inside])
            for at, text, one, other in zip(inside.tolist(), texts, cosines, truth, strict=True):
                found[at] = Composed(shorten(text, LONGEST), float(one), float(other))
        return [found[at] for at in wanted.tolist()]

    def _case(
        self,
        at: int,
        kinds: list[str],
        near: tuple[Rows, F32],
        reach: tuple[Rows, F32],
        kind: int,
        images: tuple[Rows, F32] | None,
    ) -> Case:
        prompt = self.prompts[at]
        nearest: dict[str, Near] = {}
        for each in self._near(at, near[0], self._targets(np.maximum(near[0], 0)) @ self.predictions[at]):
            nearest.setdefault(each.prompt, each)
        shown = list(nearest.values())[:PROMPTS]
        nearest_prompt = next(iter(self._near(at, *reach)), None)
        similar = [] if images is None else self._near(at, *images)
        known = Circumstances(
            prompt,
            reach=nearest_prompt.similarity if nearest_prompt else -1.0,
            kind=kind,
            image=similar[0].similarity if similar else None,
            image_prompt=similar[0].truth if similar else None,
            image_prompts=float(np.mean([each.truth for each in similar])) if similar else None,
            tokens=None if self.tokens is None else self.tokens[int(self.rows[at])],
            limit=self.material.token_limit,
        )
        words = [each[:DISTINCT] for each in words_found(prompt, [each.prompt for each in shown])]
        return Case(
            row=int(self.rows[at]),
            id=self.ids[at],
            prompt=shorten(prompt, LONGEST),
            kinds=kinds,
            cosine=float(self.cosine[at]),
            nearest=shown,
            reach=nearest_prompt,
            image=similar[0] if similar else None,
            subject_found=words[0],
            subject_missed=words[1],
            modifiers_found=words[2],
            modifiers_missed=words[3],
            reasons=reasons_of(known, self.scripts),
        )

    def _near(self, at: int, rows: Rows, similarity: F32) -> list[Near]:
        """Describe training rows that are near a held-out one."""
        rows, similarity = rows[rows >= 0], similarity[rows >= 0]
        if not len(rows):
            return []
        truth = self._targets(rows) @ self.targets[at]
        texts = self.material.rows
        return [
            Near(row, texts.ids[row], shorten(texts.prompts[row], LONGEST), alike, near)
            for row, alike, near in zip(rows.tolist(), similarity.tolist(), truth.tolist(), strict=True)
        ]

    def _similar_images(self, wanted: Rows, fold: Rows) -> tuple[Rows, F32] | None:
        """Find the most similar training images by the first pooled features of the run."""
        pooled = (use for use in self.run.features if split_spec(use.spec)[1].kind == "features")
        use = next(pooled, None)
        if use is None or not len(self.train):
            return None
        column = used_column(self.cache, use, "fit the run again")
        self.cache.require_undamaged([column])
        values = self.cache.mapped(column)
        mean, scale = mean_and_scale(values[self.train[:: -(-len(self.train) // SAMPLE)]])

        def read(rows: Rows) -> F32:
            return unit((values[rows] - mean) / scale)

        known = self.train, self.train_fold
        return nearest_rows(read(self.rows[wanted]), fold, *known, read, IMAGES, self.left_out)

    @cached_property
    def _mapped(self) -> MappedColumn:
        self.cache.require_undamaged([self._target])
        return self.cache.mapped(self._target)

    def _targets(self, rows: Rows) -> F32:
        return self._mapped[rows]
