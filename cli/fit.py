"""``img2prompt-cache fit``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from . import console
from .parsing import read_names, read_numbers, read_settings, read_widths
from .run_output import caution_lines, expected_lines, members_values, run_line, run_values, source_lines
from .series_output import fit_several
from .settings_table import list_settings

_RUNS = "Made of runs: blend and distil"
_SEVERAL = "Several seeds"
_MLP = "Settings of linear, mlp, wide-mlp and seed-…"
_TUNED = "Fine-tuning"
_OTHER = "Settings of ridge, kernel and knn"


def fit(
    context: typer.Context,
    head: Annotated[
        str,
        typer.Option(
            help="best tries several heads and keeps what pays, in minutes. One alone: mean, nearest, knn, "
            "clip, ridge, kernel, linear, mlp, wide-mlp, finetune, seed-resnet50, seed-vit, "
            "seed-tuned-resnet. Made of runs: blend, distil."
        ),
    ] = "best",
    cache: console.CacheOption = console.DEFAULT_CACHE,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC,SPEC",
            help="Backbones whose features are used together. Default: all in the cache; for seed-… its own.",
        ),
    ] = None,
    members: Annotated[
        str | None,
        typer.Option(
            metavar="RUN,RUN",
            help="For blend: two or more runs of one split and target. A head's name is its newest run. "
            "NAME=OOF:TEST is another program's model, by two files of its predictions.",
            rich_help_panel=_RUNS,
        ),
    ] = None,
    refit_members: Annotated[
        bool,
        typer.Option(
            "--refit-members", help="Fit members again whose rows have changed since.", rich_help_panel=_RUNS
        ),
    ] = False,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="For distil: the run to learn from, such as a blend.", rich_help_panel=_RUNS
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Text encoder whose embeddings are the targets. Default: the first in the cache.",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the new run. Default: a readable name in the cache's `runs`."
        ),
    ] = None,
    oof: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the predictions for held-out rows (with --folds: all) to .csv, .npy, .parquet "
            "or .jsonl.",
        ),
    ] = None,
    split: console.SplitOption = "group",
    test: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN=VALUE",
            help="Instead of --split: hold out the rows with this value, such as source=external, as a test "
            "set. Rows near-identical to it are not fitted on.",
        ),
    ] = None,
    holdout: Annotated[
        float | None, typer.Option(min=0.01, max=0.9, help="Fraction of the rows to hold out. Default: 0.2.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Instead of --holdout: hold out every row once, in K folds. The saved head is fitted on "
            "all rows.",
        ),
    ] = None,
    group_threshold: console.GroupThresholdOption = None,
    extra: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Another cache of the same backbones, whose pairs are fitted on, too, but never scored on. "
            "For best, kernel and blends. Repeatable.",
            show_default=False,
        ),
    ] = None,
    soften: Annotated[
        str | None,
        typer.Option(
            metavar="train|FILE",
            help="Draw predictions towards near prompts: those fitted on, and those of a text file or table.",
        ),
    ] = None,
    train_on: Annotated[
        str,
        typer.Option(
            metavar="mean|first",
            help="Where images have several prompts: fit on the mean of all, or on the first alone.",
        ),
    ] = "mean",
    only: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Use only the rows whose imgId is in this table (with keep = 1, if it has such a column); "
            "`dedup` writes one.",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="8GB",
            help="How much memory rows may take; rows that take more are read as they are used. Default: "
            "half of what is free.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Random seed of the split and of the head.")
    ] = 0,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="0-4",
            help="Fit once for each of these seeds of the head, on the split of --seed: one row of compare.",
            rich_help_panel=_SEVERAL,
        ),
    ] = None,
    split_seeds: Annotated[
        str | None,
        typer.Option(
            metavar="0-4",
            help="Fit on a split by each of these seeds. With --seeds: all pairs.",
            rich_help_panel=_SEVERAL,
        ),
    ] = None,
    refit: Annotated[
        bool,
        typer.Option(
            "--refit/--no-refit",
            help="Fit the saved head again on all rows, with the settings that were chosen.",
        ),
    ] = True,
    leakage_gap: Annotated[
        bool | None,
        typer.Option(
            "--leakage-gap/--no-leakage-gap",
            help="Also score on a random split, to measure how much higher the score is where near-identical "
            "rows are on both sides. Default: only if fitting is fast.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")] = False,
    device: console.DeviceOption = "auto",
    engine: console.EngineOption = "local",
    workers: console.WorkersOption = None,
    ray_address: console.RayAddressOption = None,
    track: console.TrackOption = None,
    loss: Annotated[
        str | None,
        typer.Option(help="mse, cosine, angular, infonce, or a mix: mse:1,cosine:0.5.", rich_help_panel=_MLP),
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam, adamw or sgd.", rich_help_panel=_MLP)] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.", rich_help_panel=_MLP)] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(help="L2 penalty on the weights, as torch defines it.", rich_help_panel=_MLP),
    ] = None,
    dropout: Annotated[
        float | None,
        typer.Option(help="Fraction of each layer's inputs that is dropped.", rich_help_panel=_MLP),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows in one step of the optimizer.", rich_help_panel=_MLP)
    ] = None,
    hidden: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="Widths of the hidden layers; 0 for none.", rich_help_panel=_MLP),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Train for exactly this many epochs, without early stopping.", rich_help_panel=_MLP
        ),
    ] = None,
    max_epochs: Annotated[
        int | None,
        typer.Option(
            help="Most epochs, if early stopping does not end training before.", rich_help_panel=_MLP
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after this many epochs without improvement.", rich_help_panel=_MLP),
    ] = None,
    blocks: Annotated[
        int | None,
        typer.Option(
            help="For finetune: how many of the backbone's last blocks to train. Default: "
            "all blocks behind the trunk.",
            rich_help_panel=_TUNED,
        ),
    ] = None,
    alpha: Annotated[
        str | None,
        typer.Option(
            metavar="X,X",
            help="For ridge and kernel: the penalty; for ridge also one per backbone. Default: chosen by "
            "validation.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    gain: Annotated[
        str | None,
        typer.Option(
            metavar="X,X",
            help="For kernel: its decay with cosine distance, or one per backbone. Default: chosen by "
            "validation.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    landmarks: Annotated[
        int | None,
        typer.Option(
            help="For kernel: number of landmarks, used beyond 10,000 rows. Default: 4096.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(
            "--k",
            help="For knn: number of neighbours. Default: chosen by validation.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    power: Annotated[
        float | None,
        typer.Option(
            help="For knn: p in the weights 1/distance^p. Default: chosen by validation.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    inner_folds: Annotated[
        int | None,
        typer.Option(
            help="Number of grouped folds used to choose settings. Default: 5.", rich_help_panel=_OTHER
        ),
    ] = None,
    choose: Annotated[
        str | None,
        typer.Option(
            help="For ridge: choose the penalty by cosine (default) or mse.", rich_help_panel=_OTHER
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="For best: leave out a step of its ladder that would end later. Default: 10.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any setting of the head, with its value as JSON: --set ema=0.99 --set norm=batch. "
            "Repeatable.",
            show_default=False,
        ),
    ] = None,
    show_settings: Annotated[
        str | None,
        typer.Option(
            "--settings",
            metavar="HEAD",
            help="List the settings of a head with their types, defaults and meanings, and fit nothing.",
            show_default=False,
        ),
    ] = None,
    json: console.Json = False,
) -> None:
    """Fit a head on a cache, score it on held-out rows or by folds, and save it as a run."""
    if show_settings is not None:
        list_settings(show_settings, json)
        return
    from img2prompt_cache.fitting.fit import fit as fit_run

    own = read_settings(settings or [], _shorthands(context))
    _require_consistent(context, own)
    parameters: dict[str, Any] = {
        "settings": own,
        "features": read_names("--features", features),
        "members": read_names("--members", members),
        "refit_members": refit_members,
        "teacher": teacher,
        "encoder": encoder,
        "split": split,
        "test": test,
        "holdout": holdout,
        "folds": folds,
        "group_threshold": group_threshold,
        "inner_folds": inner_folds,
        "blocks": blocks,
        "extra": extra or (),
        "soften": soften,
        "minutes": minutes,
        "train_on": train_on,
        "only": only,
        "memory": memory,
        "seed": seed,
        "refit": refit,
        "leakage_gap": leakage_gap,
        "run": run,
        "oof": oof,
        "overwrite": overwrite,
        "device": device,
        "engine": engine,
        "workers": workers,
        "ray_address": ray_address,
        "track": track,
    }
    with console.telling() as tell:
        if seeds is not None or split_seeds is not None:
            fit_several(cache, head, seeds, split_seeds, json, {**parameters, "progress": tell})
            return
        made = fit_run(cache, head, progress=tell, **parameters)
    if json:
        console.result_json({**run_values(made), **members_values(made)})
        return
    lines = [*source_lines(made), *caution_lines(made), *expected_lines(made)]
    console.result("\n".join([run_line(made), *lines]))


def _shorthands(context: typer.Context) -> dict[str, Any]:
    """Give the settings of the head that have an option of their own, as far as they were given."""
    found = {}
    for name in _shorthand_names(context):
        value = context.params[name]
        if value is not None and name not in _PARAMETERS:
            found[name] = _READ[name](name, value) if name in _READ else value
    return found


def _shorthand_names(context: typer.Context) -> set[str]:
    """Name the options that are settings of the head: they stand in panels of their own."""
    panels = (_MLP, _TUNED, _OTHER)
    options = context.command.params
    return {each.name for each in options if each.name and getattr(each, "rich_help_panel", "") in panels}


def _require_consistent(context: typer.Context, own: Mapping[str, Any]) -> None:
    """Refuse options that do not go together, also where they repeat a default."""
    from img2prompt_cache.fitting.options import MADE_OF_RUNS, require_consistent

    given = console.given(context) - {"head", "cache", "json"}
    head = context.params["head"]
    if "settings" in MADE_OF_RUNS.get(head, ()):
        given -= _shorthand_names(context) - _PARAMETERS
    require_consistent(head, given, own)


_READ: dict[str, Callable[[str, str], Any]] = {
    "hidden": read_widths,
    "alpha": read_numbers,
    "gain": read_numbers,
}
"""How the text of an option becomes a setting, where it is several numbers."""

_PARAMETERS = {"inner_folds", "blocks", "minutes"}
"""Settings that are parameters of `fit` in Python, too."""
