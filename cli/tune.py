"""``img2prompt-cache tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console
from .influence import counts, layout, summary, values
from .parsing import read_names
from .run_output import caution_lines, run_line, run_values

if TYPE_CHECKING:
    from img2prompt_cache.tuning.study import FinishedTrial

SHOWN = 5


def tune(
    context: typer.Context,
    head: Annotated[str, typer.Option(help="The head whose settings are searched.")] = "mlp",
    trials: Annotated[
        int,
        typer.Option(
            min=1, help="Number of trials in total, including those of earlier calls on this study."
        ),
    ] = 30,
    space: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What to search: seed (the random search of the student project) or a JSON file, as in "
            '{"lr": {"log": [1e-5, 1e-2]}, "dropout": {"uniform": [0, 0.5]}, "k": {"int": [1, 99]}, '
            '"hidden": [[512], [512, 512]]}. Default: the head\'s own space.',
            show_default=False,
        ),
    ] = None,
    sampler: Annotated[
        str,
        typer.Option(
            help="random, or tpe (tree-structured Parzen estimator, which favours settings that scored well)."
        ),
    ] = "random",
    prune: Annotated[
        bool,
        typer.Option(
            "--prune/--no-prune",
            help="Stop a trial early if it does worse than half of the trials before it.",
        ),
    ] = True,
    study: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="SQLite file of the trials; an existing one is continued. Default: in the cache's "
            "`studies`, named after the head, the backbones and the space.",
            show_default=False,
        ),
    ] = None,
    cache: console.CacheOption = console.DEFAULT_CACHE,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC,SPEC", help="Backbones whose features are used together. Default: all in the cache."
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Text encoder whose embeddings are the targets. Default: the first in the cache.",
        ),
    ] = None,
    split: console.SplitOption = "group",
    test: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN=VALUE",
            help="Instead of --split: hold out the rows with this value, such as source=external, as a test "
            "set. The search sees neither them nor rows near-identical to them.",
        ),
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=0.9, help="Fraction of the rows that the search never sees. Default: 0.2."
        ),
    ] = None,
    group_threshold: console.GroupThresholdOption = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Random seed of the split, the head and the search.")
    ] = 0,
    fit: Annotated[
        bool, typer.Option("--fit/--no-fit", help="Fit the best settings and save them as a run.")
    ] = True,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the new run. Default: a readable name in the cache's `runs`."
        ),
    ] = None,
    device: console.DeviceOption = "auto",
    track: console.TrackOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")] = False,
    json: console.Json = False,
) -> None:
    """Search the settings of a head, fit the best, and show what each setting did.

    A trial is scored on grouped inner folds of the training side, or on one inner hold-out where there are
    5,000 rows or more. The search never uses the rows that score the run. The same command continues a search
    that was interrupted.
    """
    from img2prompt_cache.fitting.fit import fit as fit_run
    from img2prompt_cache.fitting.options import require_one_test
    from img2prompt_cache.tuning.tune import tune as search

    require_one_test(console.given(context))
    shared: dict[str, Any] = {
        "features": read_names("--features", features),
        "encoder": encoder,
        "split": split,
        "test": test,
        "holdout": holdout,
        "group_threshold": group_threshold,
        "seed": seed,
        "device": device,
        "track": track,
    }
    with console.telling() as tell:
        found = search(
            cache,
            head,
            trials=trials,
            space=space,
            sampler=sampler,
            prune=prune,
            study=study,
            fit=False,
            run=run,
            overwrite=overwrite,
            progress=tell,
            **shared,
        )
    top = found.best
    made = None
    if fit:
        with console.telling() as tell:
            made = fit_run(
                cache, head, settings=top.settings, run=run, overwrite=overwrite, progress=tell, **shared
            )
    table = found.influence()
    if json:
        console.result_json(
            {
                "study": str(found.file),
                "head": head,
                **counts(found.trials),
                "best": {"trial": top.number, "cosine": top.cosine, "settings": top.settings},
                "influence": values(table),
                "run": run_values(made) if made else None,
            }
        )
        return
    lines = [run_line(made)] if made else []
    told = f"{found.file}: {summary(found.trials)}"
    caution = caution_lines(made) if made else []
    console.result("\n".join([*lines, told, _best(found.trials), "", layout(table), *caution]))


def _best(trials: list[FinishedTrial]) -> str:
    """Lay out the trials with the best scores."""
    from img2prompt_cache.tuning.importance import name_of

    scored = sorted((t for t in trials if t.cosine is not None), key=lambda t: (-(t.cosine or 0), t.number))
    names = list(scored[0].settings)
    rows: list[list[Any]] = [
        [t.number, t.cosine, f"{t.seconds:.1f}", *(name_of(t.settings[name]) for name in names)]
        for t in scored[:SHOWN]
    ]
    return console.table(["trial", "inner cosine", "seconds", *names], rows)
