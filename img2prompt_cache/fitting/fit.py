"""The verb `fit`: every head, those made of other runs among them, through one entry point."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from img2prompt_cache.cache.opening import open_cache
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.fitting import again
from img2prompt_cache.fitting.blend import fit_blend
from img2prompt_cache.fitting.distil import fit_distil
from img2prompt_cache.fitting.engine import require_shared
from img2prompt_cache.fitting.members import open_members
from img2prompt_cache.fitting.oof import open_oof, save_oof
from img2prompt_cache.fitting.options import (
    fit_config,
    is_made_of_runs,
    require_consistent,
    require_valid,
    several,
    with_shorthands,
)
from img2prompt_cache.fitting.outside import OutsideMember
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.numerics.workers import computing_on
from img2prompt_cache.progress import Callback, listening
from img2prompt_cache.runs.names import open_run
from img2prompt_cache.runs.run import AnyRun, Run
from img2prompt_cache.runs.tracking.entry import run_entry
from img2prompt_cache.runs.tracking.track import Tracker, require_tracker

AnyMember: TypeAlias = AnyRun | OutsideMember
"""What a blend may have as a member."""


def fit(
    cache: str | Path | Cache,
    head: str = "best",
    *,
    settings: Mapping[str, Any] | None = None,
    features: str | Sequence[str] = (),
    members: AnyMember | Sequence[AnyMember] = (),
    refit_members: bool = False,
    teacher: AnyRun | None = None,
    encoder: str | None = None,
    split: str = "group",
    test: str | None = None,
    holdout: float | None = None,
    folds: int | None = None,
    group_threshold: float | None = None,
    inner_folds: int | None = None,
    blocks: int | None = None,
    extra: str | Path | Sequence[str | Path] = (),
    soften: str | Path | None = None,
    minutes: float | None = None,
    train_on: str = "mean",
    only: str | Path | None = None,
    memory: str | int | None = None,
    seed: int = 0,
    refit: bool = True,
    leakage_gap: bool | None = None,
    run: str | Path | None = None,
    oof: str | Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    engine: str = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    track: str | None = None,
    progress: bool | Callback = False,
) -> Run:
    """Fit a head on a cache, score it on held-out rows, and keep it as a run.

    The score is that of a head that was fitted on the training side only, or, by folds, of one head for each
    fold. Training and tuning never use the scored rows: settings that a head chooses itself (a penalty, the
    number of epochs) are chosen on inner folds of the training side.

    Parameters
    ----------
    cache : path or Cache
        A folder that `extract` made.
    head : str
        A name from `img2prompt_cache.heads.HEADS`, such as ``"ridge"`` or ``"mlp"``. ``"best"`` tries several
        heads and keeps what pays, which takes minutes. ``"blend"`` mixes the predictions of other runs, its
        `members`; ``"distil"`` is a small mlp that learns from a run, its `teacher`.
    settings : mapping, optional
        Settings of the head that differ from its defaults, such as ``{"alpha": 0.1}``; see
        `img2prompt_cache.heads.settings_of`.
    features : str or sequence of str
        Backbones whose features are concatenated. If empty: every cached one, or the one that the head is
        made for.
    members : sequence of Run, path, str or OutsideMember
        The runs to blend, two or more, of one split: as objects, folders, or names in the cache's `runs`; the
        name of a head, such as ``"knn"``, is its newest run; ``"NAME=OOF:TEST"`` is a model of another
        program, by its predictions for held-out rows and for the images to predict. Only for
        ``head="blend"``.
    refit_members : bool
        Fit members again whose rows have changed since, on the cache as it is.
    teacher : Run, path or str, optional
        The run to learn from. Only for ``head="distil"``.
    encoder : str, optional
        Target column; the first one if None.
    split : str
        ``"group"``: rows with near-identical prompts or images are never on both sides. ``"random"``, or the
        name of a column of your own table.
    test : str, optional
        A test set in place of a split: ``"source=external"`` holds out all rows with that value in that
        column, fits on the others, and leaves out those of them that are near-identical to a row of the test
        set. The saved head is the one that was scored: it is not fitted again on the test set.
    holdout : float, optional
        Share of the rows that is held out; 0.2 if None.
    folds : int, optional
        Hold out every row once, in this many folds, instead of a share of the rows. The saved head is then
        fitted on all rows.
    group_threshold : float, optional
        Smallest cosine of prompts that count as near-identical, which never sit on both sides of a split. If
        None: 0.8 by MiniLM, where the cache has its embeddings; otherwise fitted to the cosines of the
        prompts by the first encoder of the cache, and said.
    inner_folds : int, optional
        Folds of the rows fitted on, for what the head chooses itself; in place of its setting ``folds``.
    blocks : int, optional
        For ``head="finetune"``: how many of the backbone's last blocks are trained; in place of its setting
        ``blocks``.
    extra : path or sequence of path
        Other caches, of the same backbones and encoder, whose pairs are fitted on, too, but never scored on:
        pairs of another kind, such as photos with captions. Only for heads that can weigh them. Pairs
        that are near-identical to one of this cache are left out.
    soften : str or path, optional
        Draw predictions towards near prompts of a soft bank: ``"train"`` for the training prompts, or a file
        of further prompts, as for `predict`'s `bank`.
    minutes : float, optional
        For ``head="best"``: time for each fit; in place of its setting ``minutes``.
    train_on : str
        Of rows with several prompts: ``"mean"`` to fit on the mean of their embeddings, ``"first"`` on the
        first prompt alone. They are scored on the first; `metrics` also has the score on the mean.
    only : path, optional
        A table whose column ``imgId`` names the rows to use, as `dedup` writes it.
    memory : str or int, optional
        How much memory rows may take: bytes, or ``"8GB"``; half of what is free, if None. Rows that take more
        are read when they are used, by heads that can do so, with the same result.
    seed : int
        Of the split, and of the head unless `settings` has another ``seed``. See `fit_seeds` for several.
    refit : bool
        Fit the saved head again on all rows, with the settings that were chosen on the training side; never
        where `test` names a test set.
    leakage_gap : bool, optional
        Also score on a random split, to measure how much higher the same head scores where near-identical
        rows are on both sides. If None: unless fitting the head is slow.
    run : path, optional
        Folder of the run; a readable name in the cache's `runs` if None.
    oof : path, optional
        Also write the predictions for held-out rows to this file, as `predict` writes its own: ``.npy``,
        ``.csv``, ``.parquet`` or ``.jsonl``. With `folds` these are the out-of-fold predictions of all rows.
    overwrite : bool
        Replace the run in that folder, once the new one is complete, and the file.
    device : str
        Where heads that compute with torch are fitted: ``"auto"``, the first GPU or else the CPU, ``"cpu"``,
        ``"cuda"`` or ``"cuda:N"``. Runs do not record it.
    engine : {"local", "ray"}
        What computes: this machine, or a Ray cluster, whose machines read parts of the rows and sum them up;
        for ``"mean"``, ``"ridge"`` and ``"kernel"``, with the same result but for rounding.
    workers : int, optional
        Parts that the cluster computes at once; one for each machine if None.
    ray_address : str, optional
        The Ray cluster: ``"auto"``, ``"host:port"`` or ``"ray://host:port"``. If None, the session that is
        open, or else one of this machine.
    track : str, optional
        Also log the run to ``"tensorboard"``, ``"wandb"`` or ``"mlflow"``: settings, metrics with their
        intervals, what was recorded while fitting, and `run.json`. Only told if that fails.
    progress : bool or callable
        False: silent. True: notes, and a line with what is under way. A callable gets every `Event`: notes,
        a step of the task ``"fit"`` for each fit that chooses settings, of ``"refit"`` and ``"leakage gap"``
        for others, and the steps of what fits take long for, such as the epochs of an mlp.

    Returns
    -------
    Run
        With the scores in `metrics`, saved in `folder`.

    Raises
    ------
    UsageError
        If a name or setting is unknown, parameters contradict each other, the rows are too few to split, or
        the folder is taken. Its `parameter` is the one to change.
    Img2PromptError
        If the cache or a run is damaged, a prediction is not finite, or the run cannot be written.

    Examples
    --------
    >>> import img2prompt_cache as ipc
    >>> run = ipc.fit("cache/default", head="ridge", folds=5)
    >>> run.metrics["n"]
    60
    >>> run.metrics["cosine"] > run.metrics["floor"]
    True
    >>> knn = ipc.fit("cache/default", head="knn", settings={"k": 3}, folds=5)
    >>> blend = ipc.fit("cache/default", head="blend", members=[run, knn])
    >>> blend.folder.name
    'blend-one+other-01'
    """
    specs, named, more = several(features), several(members), several(extra)
    own = with_shorthands(settings, folds=inner_folds, blocks=blocks, minutes=minutes)
    given = _given(
        settings=settings or None,
        features=specs,
        members=named,
        refit_members=refit_members,
        teacher=teacher,
        encoder=encoder,
        split=split,
        test=test,
        holdout=holdout,
        folds=folds,
        group_threshold=group_threshold,
        inner_folds=inner_folds,
        blocks=blocks,
        extra=more,
        soften=soften,
        minutes=minutes,
        train_on=train_on,
        only=only,
        memory=memory,
        refit=refit,
        leakage_gap=leakage_gap,
    )
    require_consistent(head, given, own)
    require_valid(seed, device)
    require_shared(engine, workers, ray_address, head, extra=bool(more), soften=soften)
    require_tracker(track)
    opened = open_cache(cache)
    folder = None if run is None else Path(run)
    if oof is not None:
        open_oof(oof, 1, overwrite=overwrite)  # now, before the work is done
    with listening(progress) as tell:
        if not is_made_of_runs(head, own):
            config = fit_config(
                head,
                settings=own,
                features=specs,
                encoder=encoder,
                split=split,
                test=test,
                holdout=holdout,
                folds=folds,
                group_threshold=group_threshold,
                extra=more,
                soften=soften,
                train_on=train_on,
                only=only,
                memory=memory,
                seed=seed,
                refit=refit,
                leakage_gap=leakage_gap,
                device=device,
            )
            with computing_on(engine, workers, ray_address):
                made = fit_head(opened, config, folder, overwrite=overwrite, tell=tell)
        elif teacher is None:
            runs, outside = open_members(opened, named, tell)
            if refit_members:
                runs = again.refit_members(opened, runs, device, tell, memory)
            made = fit_blend(
                opened,
                runs,
                folder,
                outside=outside,
                seed=seed,
                memory=memory,
                overwrite=overwrite,
                tell=tell,
            )
        else:
            made = fit_distil(
                opened,
                open_run(teacher, opened),
                folder,
                features=specs,
                settings=own,
                seed=seed,
                refit=refit,
                memory=memory,
                overwrite=overwrite,
                device=device,
                tell=tell,
            )
        if oof is not None:
            save_oof(made, oof, overwrite=overwrite)
        Tracker(track, opened.folder, tell).write(lambda: run_entry(made))
        return made


def _given(**values: Any) -> set[str]:
    """Name the parameters of `fit` that differ from their defaults."""
    parameters = inspect.signature(fit).parameters
    return {name for name, value in values.items() if value != parameters[name].default}
