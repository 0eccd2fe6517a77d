"""``img2prompt-cache fit``."""

from __future__ import annotations

import json as json_values
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console, ensemble

if TYPE_CHECKING:
    from img2prompt_cache.runs.run import Run

_MLP = "Settings of linear, mlp, wide-mlp and seed-…"
_TUNED = "Fine-tuning"
_OTHER = "Settings of ridge, kernel and knn"


def fit(
    context: typer.Context,
    head: Annotated[
        str,
        typer.Option(
            help="mean, nearest, knn, clip, ridge, kernel, linear, mlp, wide-mlp, seed-resnet50, seed-vit, "
            "seed-tuned-resnet, finetune, blend or distil."
        ),
    ] = "mlp",
    cache: console.CacheOption = console.DEFAULT_CACHE,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC,SPEC",
            help="Backbones to join. Absent: every cached one; for seed-… the one it is made for.",
        ),
    ] = None,
    members: Annotated[
        str | None,
        typer.Option(metavar="RUN,RUN", help="Blend: runs of one split and target, two or more."),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="RUN", help="Distil: the run to learn from, a blend for instance.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Target column. Absent: the first.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where the run goes. Absent: a readable name in the cache's `runs`."
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            help="group: near-identical prompts stay on one side; random; or a column of your table."
        ),
    ] = "group",
    holdout: Annotated[
        float | None, typer.Option(min=0.01, max=0.9, help="Share of the rows held out; 0.2 if absent.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Instead: hold out every row once, in K folds. The saved head is fitted on all rows after.",
        ),
    ] = None,
    only: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Use only rows that this table names by imgId, with keep = 1 where it has that column; "
            "`dedup` writes one.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the split and of the head.")] = 0,
    refit: Annotated[
        bool,
        typer.Option(
            "--refit/--no-refit", help="Fit the saved head again on all rows, with what was chosen."
        ),
    ] = True,
    optimism: Annotated[
        bool | None,
        typer.Option(
            "--optimism/--no-optimism",
            help="Also score on a random split, to tell how much that flatters. Absent: if fitting is fast.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is there.")] = False,
    loss: Annotated[
        str | None,
        typer.Option(help="mse, cosine, angular, infonce, or a mix: mse:1,cosine:0.5.", rich_help_panel=_MLP),
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam, adamw or sgd.", rich_help_panel=_MLP)] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.", rich_help_panel=_MLP)] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="L2 penalty on the weights, as torch takes it.", rich_help_panel=_MLP)
    ] = None,
    dropout: Annotated[
        float | None, typer.Option(help="Share of each layer's inputs dropped.", rich_help_panel=_MLP)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows in one step of the optimizer.", rich_help_panel=_MLP)
    ] = None,
    hidden: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="Widths of the hidden layers; 0 for none.", rich_help_panel=_MLP),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Exactly so many, no early stopping.", rich_help_panel=_MLP)
    ] = None,
    max_epochs: Annotated[
        int | None, typer.Option(help="Bound on early stopping.", rich_help_panel=_MLP)
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Epochs without improvement.", rich_help_panel=_MLP)
    ] = None,
    blocks: Annotated[
        int | None,
        typer.Option(
            help="Finetune: how many of the backbone's last blocks are trained, from its trunk. Absent: "
            "all that were left off the trunk.",
            rich_help_panel=_TUNED,
        ),
    ] = None,
    alpha: Annotated[
        str | None,
        typer.Option(
            metavar="X,X",
            help="Ridge and kernel: the penalty; for ridge also one for each backbone. Absent: chosen.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    gain: Annotated[
        str | None,
        typer.Option(
            metavar="X,X",
            help="Kernel: how fast it falls with cosine distance, or one for each backbone. Absent: chosen.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    landmarks: Annotated[
        int | None,
        typer.Option(help="Kernel: how many, beyond 10,000 rows; 4096 if absent.", rich_help_panel=_OTHER),
    ] = None,
    k: Annotated[
        int | None, typer.Option("--k", help="knn: neighbours. Absent: chosen.", rich_help_panel=_OTHER)
    ] = None,
    power: Annotated[
        float | None, typer.Option(help="knn: weights 1/distance^p. Absent: chosen.", rich_help_panel=_OTHER)
    ] = None,
    inner_folds: Annotated[
        int | None,
        typer.Option(
            help="Grouped folds of the rows fitted on, to choose on; 5 if absent.", rich_help_panel=_OTHER
        ),
    ] = None,
    choose: Annotated[
        str | None,
        typer.Option(help="Ridge: choose the penalty by cosine (default) or mse.", rich_help_panel=_OTHER),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any setting of the head by name, its value as JSON: --set ema=0.99 --set norm=batch. "
            "Repeatable.",
            show_default=False,
        ),
    ] = None,
    json: console.Json = False,
) -> None:
    """Fit a head on a cache, score it on a hold-out or by folds, keep it as a run."""
    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.errors import UsageError
    from img2prompt_cache.fitting.columns import stands_in
    from img2prompt_cache.fitting.fit import Choice
    from img2prompt_cache.fitting.fit import fit as fit_head
    from img2prompt_cache.heads import make_head

    if holdout is not None and folds is not None:
        raise UsageError("--holdout holds out a share once, --folds every row once; leave one out")
    given: dict[str, Any] = {
        "loss": loss,
        "optimizer": optimizer,
        "lr": lr,
        "weight_decay": weight_decay,
        "dropout": dropout,
        "batch_size": batch_size,
        "hidden": None if hidden is None else _widths(hidden),
        "epochs": epochs,
        "max_epochs": max_epochs,
        "patience": patience,
        "blocks": blocks,
        "alpha": None if alpha is None else _numbers("--alpha", alpha),
        "gain": None if gain is None else _numbers("--gain", gain),
        "landmarks": landmarks,
        "k": k,
        "power": power,
        "folds": inner_folds,
        "choose": choose,
    }
    given = {name: value for name, value in given.items() if value is not None}
    given |= _settings(settings or [], given)
    choice = Choice(
        head=head,
        settings=given,
        features=() if features is None else read_specs(features),
        encoder=encoder,
        split=split,
        fraction=0.2 if holdout is None else holdout,
        seed=seed,
        refit=refit,
        folds=folds,
        optimism=optimism,
        only=only,
    )
    opened = Cache(Path(cache))
    fitted = ensemble.fit_on_runs(
        context, opened, members=members, teacher=teacher, features=choice.features, settings=given
    )
    folder, made = fitted or fit_head(opened, choice, run, overwrite=overwrite)
    if features is None and (wanted := stands_in(make_head(head), made.features[0].spec)):
        console.note(f"{head} is made for {wanted}, which is not cached: {made.features[0].spec} stands in")
    note_straddling(made)
    if json:
        console.result_json({**run_values(folder, made), **ensemble.values(made)})
        return
    console.result("\n".join([run_line(folder, made), *ensemble.lines(made)]))


def note_straddling(made: Run) -> None:
    """Warn where the user's own split leaks."""
    straddling, split = made.split["straddling"], made.split["strategy"]
    if straddling and split != "random":
        console.note(
            f"--split {split}: {straddling} of {made.split['groups']} groups of near-identical prompts or "
            "images have rows on both sides, so the score is too high; --split group keeps them apart"
        )


def run_values(folder: Path, made: Run) -> dict[str, Any]:
    """What is said of a run as JSON values."""
    return {
        "run": str(folder),
        "head": made.head,
        "features": [use.spec for use in made.features],
        "metrics": made.metrics,
        "seconds": round(made.seconds, 3),
    }


def run_line(folder: Path, made: Run) -> str:
    """What is said of a run in one line."""
    metrics, split = made.metrics, made.split
    inside = metrics["ci95"]
    ranks = ((1, metrics["r@1"]), (5, metrics["r@5"]), (10, metrics["r@10"]))
    interval = f" ({inside[0]:.4f} to {inside[1]:.4f})" if inside else ""
    retrieved = ", ".join(f"R@{k} {share or 0:.3f}" for k, share in ranks)
    rows = f"{metrics['n']} held-out rows"
    if made.fold_metrics:
        rows = f"{metrics['n']} rows in {split['folds']} folds"
    more = "" if metrics["leakage_gap"] is None else f"; a random split says {metrics['leakage_gap']:+.4f}"
    return (
        f"{folder}: cosine {metrics['cosine']:.4f}{interval}, floor {metrics['floor']:.4f}, "
        f"mse {metrics['mse']:.6f}, {retrieved} on {rows} ({split['strategy']} split{more}); "
        f"{made.seconds:.1f} s"
    )


def read_specs(text: str) -> tuple[str, ...]:
    """Read the specs of `--features`."""
    from img2prompt_cache.errors import UsageError

    specs = tuple(spec.strip() for spec in text.split(","))
    if not all(specs):
        raise UsageError(f"--features {text!r}: write specs with commas between; leave it out for all")
    return specs


def _settings(pairs: list[str], given: Mapping[str, object]) -> dict[str, Any]:
    """Read ``NAME=VALUE`` pairs; a value that is no JSON is text."""
    from img2prompt_cache.errors import UsageError

    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise UsageError(f"--set {pair!r}: write NAME=VALUE, e.g. --set lr=0.001")
        if name in found or name in given:
            raise UsageError(f"--set {pair!r}: {name} is given twice")
        try:
            found[name] = json_values.loads(text)
        except ValueError:
            found[name] = text
    return found


def _numbers(option: str, text: str) -> float | list[float]:
    """Read one number, or one for each backbone."""
    import math

    from img2prompt_cache.errors import UsageError

    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise UsageError(f"{option} {text!r}: write a number, or one for each backbone with commas between")
    return values if len(values) > 1 else values[0]


def _widths(text: str) -> tuple[int, ...]:
    from img2prompt_cache.errors import UsageError

    try:
        widths = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--hidden {text!r}: write whole numbers with commas between, e.g. 1024,512"
        ) from None
    return tuple(width for width in widths if width)
