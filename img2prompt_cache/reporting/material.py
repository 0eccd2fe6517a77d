"""Material of a report: the rows, pictures, embeddings and runs that its sections are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from img2prompt_cache.cache.reader import FAILED, Cache
from img2prompt_cache.data.columns import choose_target
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.models.encoders.tokens import count_tokens, read_limit
from img2prompt_cache.models.specs import PRESETS
from img2prompt_cache.progress import Callback, ignore
from img2prompt_cache.reporting.pictures import Pictures, sample
from img2prompt_cache.reporting.rows import Rows
from img2prompt_cache.runs.board import Leaderboard
from img2prompt_cache.runs.leaderboard import rank_runs
from img2prompt_cache.runs.names import find_runs
from img2prompt_cache.sources import list_source
from img2prompt_cache.tuning.finished import FinishedStudy, load_study
from img2prompt_cache.tuning.study import FOLDER as STUDIES

if TYPE_CHECKING:
    from img2prompt_cache.cache.manifest import Column
    from img2prompt_cache.runs.run import AnyRun
    from img2prompt_cache.sources.base import Source

MOST_DECODED = 1000
"""Images that are decoded to measure them."""
ENCODER = PRESETS["packaged"][1]
"""The text encoder that is assumed for a source; the other preset has the same one from elsewhere."""


@dataclass(eq=False)
class Material:
    """What the sections of a report are made of.

    Attributes
    ----------
    rows : Rows
    pictures : Pictures
    cache : Cache or None
        None for a source that is not extracted yet.
    board : Leaderboard or None
        The runs that are reported, best first; None where there is none.
    seed : int
        Of whatever is drawn at random.
    everything : bool
        Whether all rows are shown, instead of some.
    compose : bool
        Whether a prompt is composed for each case, which takes the text encoder.
    problems : list of str
        What could not be read, and why.
    notes : list of str
        What there is to say about the listing of a source.
    source : Source or None
        What was listed, where there is no cache.
    without_runs : bool
        Whether only the data are looked at, whatever runs there are.
    """

    rows: Rows
    pictures: Pictures
    cache: Cache | None = None
    board: Leaderboard | None = None
    seed: int = 0
    everything: bool = False
    compose: bool = False
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    source: Source | None = None
    without_runs: bool = False

    @classmethod
    def of_cache(
        cls,
        cache: Cache,
        runs: Sequence[AnyRun] | None = None,
        *,
        seed: int = 0,
        everything: bool = False,
        compose: bool = False,
    ) -> Self:
        """Take the material of a cache.

        Parameters
        ----------
        cache : Cache
        runs : sequence of Run, str or pathlib.Path, optional
            Those to report; every run of the cache if None.
        seed : int
        everything, compose : bool
            See `Material`.

        Raises
        ------
        UsageError
            If a run that is named is not there.
        Img2PromptError
            If the rows of the cache, or a run that is named, are damaged.
        """
        rows = Rows.of_cache(cache)
        problems: list[str] = []
        board = None
        if runs or find_runs(cache.folder):
            try:
                board = rank_runs(cache, runs or None, apart=True)
            except Img2PromptError as error:
                if runs:
                    raise
                problems.append(str(error))
        return cls(rows, Pictures(rows), cache, board, seed, everything, compose, problems)

    @classmethod
    def of_data(cls, cache: Cache, *, seed: int = 0) -> Self:
        """Take the material of a cache, without its runs."""
        rows = Rows.of_cache(cache)
        return cls(rows, Pictures(rows), cache, seed=seed, without_runs=True)

    @classmethod
    def of_source(cls, source: Source, *, seed: int = 0, tell: Callback = ignore) -> Self:
        """Take the material of a source that is not extracted yet.

        Every image file is read once. Of some, the pixels are decoded, too; where that fails, the image has
        failed.

        Raises
        ------
        UsageError
            As `Source.list`.
        """
        source, listing = list_source(source)
        rows = Rows.of_source(source, listing.table, tell)
        notes = [*listing.summary.notes]
        if listing.summary.without_image:
            notes.append(f"prompts without an image: {listing.summary.without_image}")
        made = cls(rows, Pictures(rows), seed=seed, notes=notes, source=source, without_runs=True)
        made.pictures.load(made.measured, tell)
        for row in made.measured:
            reason = made.pictures[row]
            if isinstance(reason, str):
                rows.status[row], rows.reasons[row] = FAILED, reason
        made.measured = [row for row in made.measured if rows.status[row] != FAILED]
        return made

    @cached_property
    def target(self) -> Column | None:
        """The embeddings of prompts that the runs predict, or the first of the cache; None without any."""
        if self.cache is None or not self.cache.manifest.of_kind("targets"):
            return None
        if self.board is not None and self.board.runs:
            spec = self.board.best.target.spec
            if self.cache.manifest.column("targets", spec) is not None:
                return self.cache.column("targets", spec)
        return choose_target(self.cache, None)

    @property
    def encoder(self) -> str:
        """Spec of the text encoder of the target; for a source, of the one that is assumed."""
        if self.cache is None:
            return ENCODER
        return "" if self.target is None else self.target.spec

    @cached_property
    def token_limit(self) -> int | None:
        """How many tokens of a prompt the encoder reads; None where that is not known."""
        if self.cache is None:
            return read_limit(ENCODER)
        text = "" if self.target is None else self.target.fingerprint.get("max_seq_length", "")
        return int(text) if text.isdecimal() else None

    @cached_property
    def tokens(self) -> list[int] | None:
        """Tokens of each prompt of `rows.prompted`; None where the tokenizer is not on this machine."""
        if self.token_limit is None:
            return None
        prompts = [self.rows.prompts[row] for row in self.rows.prompted]
        if self.target is None:
            return count_tokens(ENCODER, prompts)
        return count_tokens(
            self.target.spec,
            prompts,
            clean=self.target.fingerprint.get("clean", "none"),
            revision=self.target.revision,
        )

    @cached_property
    def measured(self) -> list[int]:
        """Good rows whose images are decoded to measure them: all, or some drawn at random."""
        return sample(self.rows.good, MOST_DECODED, self.seed)

    @cached_property
    def studies(self) -> list[FinishedStudy]:
        """The studies of the cache that can be read; none where optuna is not installed."""
        found = []
        if self.cache is not None:
            for file in sorted((self.cache.folder / STUDIES).glob("*.db")):
                try:
                    found.append(load_study(file))
                except Img2PromptError as error:
                    self.problems.append(str(error))
        return found

    @property
    def name(self) -> str:
        """What is reported, as a person calls it."""
        if self.cache is None:
            return "source" if self.source is None else self.source.root.resolve().name or "source"
        folder = Path(self.cache.folder).resolve()
        return (
            folder.name if folder.name not in ("cache", "default") else f"{folder.parent.name}/{folder.name}"
        )
