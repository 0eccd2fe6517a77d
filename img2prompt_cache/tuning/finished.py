"""A finished study: what was searched, its trials, and what each setting did to the score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from img2prompt_cache.cache.opening import folder_of
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.heads.space import Space
from img2prompt_cache.runs.tracking.entry import Entry, plain_settings
from img2prompt_cache.tables import counted
from img2prompt_cache.tuning.importance import Influence, influence
from img2prompt_cache.tuning.study import COMPLETE, FAILED, FOLDER, FinishedTrial, reading


@dataclass(frozen=True, slots=True, repr=False)
class FinishedStudy:
    """The trials of a search, as its file has them.

    Attributes
    ----------
    file : pathlib.Path
    head : str
    space : mapping of str to Range
        The settings that were searched.
    trials : list of FinishedTrial
        In order.
    """

    file: Path
    head: str
    space: Space
    trials: list[FinishedTrial]

    @property
    def best(self) -> FinishedTrial:
        """The trial with the highest score, the first of equals.

        Raises
        ------
        Img2PromptError
            If no trial has a score.
        """
        complete = [trial for trial in self.trials if trial.state == COMPLETE]
        if not complete:
            why = next((f": {trial.reason}" for trial in self.trials if trial.state == FAILED), "")
            raise Img2PromptError(
                f"none of {counted(len(self.trials), 'trial', 'trials')} has a score{why}; search another "
                "space"
            )
        return max(complete, key=lambda trial: (trial.cosine, -trial.number))

    def influence(self) -> list[Influence]:
        """What each setting did to the score, the most important first; see `importance.influence`."""
        return influence(self.space, self.trials)

    def __repr__(self) -> str:
        return (
            f"FinishedStudy({str(self.file)!r}, head={self.head!r}, "
            f"{counted(len(self.trials), 'trial', 'trials')})"
        )


def trial_entry(file: Path, head: str, trial: FinishedTrial) -> Entry:
    """Tell a tracker of a trial of the study in a file: its settings, its score, and how it ended."""
    scores = {} if trial.cosine is None else {"cosine": trial.cosine}
    return Entry(
        name=f"{file.stem}-{trial.number}",
        kind="trial",
        group=file.stem,
        settings=plain_settings({"head": head, "state": trial.state, **trial.settings}),
        metrics={**scores, "seconds": trial.seconds},
    )


def load_study(study: str | Path, cache: str | Path | Cache | None = None) -> FinishedStudy:
    """Read a study.

    Parameters
    ----------
    study : path or str
        A file that `tune` made, or its name in a cache's `studies`, without the ``.db``.
    cache : path or Cache, optional
        The cache to look in; needed for a name.

    Raises
    ------
    UsageError
        If there is no such study.
    Img2PromptError
        If it is damaged.
    """
    file = Path(study)
    if cache is not None and not file.is_file():
        folder = folder_of(cache)
        inside = folder / FOLDER / f"{study}.db"
        file = inside if inside.is_file() else file
    with reading(file) as found:
        return FinishedStudy(file, found.head, found.space, found.trials)
