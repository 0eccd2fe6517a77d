"""A model card of a run: Markdown with the metadata that the Hugging Face Hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.cache.manifest_file import DEFAULT_CACHE
from img2prompt_cache.errors import UsageError
from img2prompt_cache.exporting.anonymous import shared_spec
from img2prompt_cache.exporting.card_usage import USAGE, shared_usage
from img2prompt_cache.numerics.bootstrap import FEW_GROUPS
from img2prompt_cache.prediction.known_prompts import BANK
from img2prompt_cache.runs.names import open_run
from img2prompt_cache.runs.shared import parse_address
from img2prompt_cache.tables import counted, printable

if TYPE_CHECKING:
    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.data.columns import UsedColumn
    from img2prompt_cache.runs.run import AnyRun, Run

TASK, METRIC = "feature-extraction", "cosine_similarity"
"""What the Hub calls them."""
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def card(
    run: AnyRun | None = None,
    *,
    cache: str | Path | Cache | None = None,
    license: str | None = None,
    name: str | None = None,
) -> str:
    """Write a model card of a run: what it was fitted on, how well it predicts, and where it fails.

    Nothing in it names a path of this machine, an image or a prompt.

    Parameters
    ----------
    run : Run, str or pathlib.Path, optional
        A run, its folder, or its name in the cache's `runs`. The newest run of the cache if None.
    cache : str, pathlib.Path or Cache, optional
        To find a run by its name; ``cache/default`` if None.
    license : str, optional
        Under what licence you share the run: an identifier that the Hub knows, such as ``"mit"``. The card
        says that none is stated, if None.
    name : str, optional
        Of the model; the run's name if None.

    Returns
    -------
    str
        Markdown that begins with metadata in YAML.

    Raises
    ------
    UsageError
        If there is no such run, or a text has line breaks.
    Img2PromptError
        If the run is damaged.

    Examples
    --------
    >>> import img2prompt_cache as ipc
    >>> text = ipc.card(run, license="mit")  # doctest: +SKIP
    """
    require_line("license", license)
    require_line("name", name)
    found = open_run(run, cache or DEFAULT_CACHE)
    on_hub = parse_address(found.path)[0] if isinstance(found.path, str) else ""
    prompts = found.carried is not None and (found.carried / BANK).is_dir()
    return write_card(found, name or printable(found.name), license, repository=on_hub, prompts=prompts)


def require_line(parameter: str, value: str | None) -> None:
    """Refuse a text that would not stay on its line of the card.

    Raises
    ------
    UsageError
        Naming the parameter.
    """
    if value is not None and (not value.strip() or not value.isprintable()):
        raise UsageError(f"`{parameter}` must be a line of text, not {value!r}", parameter=parameter)


def write_card(
    run: Run,
    title: str,
    license: str | None,
    *,
    repository: str = "",
    prompts: bool = False,
    onnx: str = "",
    golden: bool = False,
) -> str:
    """Write the card of a run that is open.

    Parameters
    ----------
    run : Run
    title : str
    license : str, optional
    repository : str
        ``owner/name`` on the Hub, where it is shared there.
    onnx : str
        The precision of an exported graph; empty where there is none.
    prompts, golden : bool
        Whether that has prompts, and a golden set for the graph.

    Raises
    ------
    Img2PromptError
        If the run is damaged.
    """
    usage = shared_usage(repository, prompts=prompts, onnx=onnx, golden=golden) if repository else USAGE
    sections = (
        f"# {title}",
        _purpose(run),
        "## How to use it\n\n" + usage,
        "## Training data\n\n" + _data(run),
        "## Results\n\n" + _results(run),
        "## Where it fails\n\n" + _failures(run),
        "## Models and licence\n\n" + _models(run, license),
    )
    return _metadata(run, title, license) + "\n" + "\n\n".join(sections) + "\n"


def _metadata(run: Run, name: str, license: str | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    value = round(run.metrics["cosine"], 4)
    result = EvalResult(
        task_type=TASK,
        task_name="Embedding of the prompt of an image",
        dataset_type="custom",
        dataset_name="held-out rows of the training cache",
        metric_type=METRIC,
        metric_name="Mean cosine similarity",
        metric_value=value,
    )
    data = ModelCardData(
        language="en",
        license=license,
        library_name="img2prompt-cache",
        pipeline_tag=TASK,
        tags=["prompt-inversion", "text-to-image", run.head],
        metrics=[METRIC],
        model_name=name,
        eval_results=[result],
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _purpose(run: Run) -> str:
    return (
        f"This model predicts the {run.target.width}-d embedding by `{shared_spec(run.target.spec)}` of the "
        f"prompt that made an image. It is a head of the kind `{run.head}` on image features by "
        f"{_listed(run.features)}, made with img2prompt-cache {run.versions.get('img2prompt-cache', '')}."
    )


def _data(run: Run) -> str:
    split = run.split
    kind = {"group": "grouped", "random": "random"}.get(split["strategy"], "by a column of the data")
    rows = split["train"] + split["validation"]
    text = (
        f"{rows:,} pairs of an image and its prompt, in {counted(split['groups'], 'group', 'groups', ',')} "
        f"of near-identical prompts or images; the largest group has {split.get('largest_group', 0):,}. "
    )
    if run.fold_metrics:
        text += f"Every pair was held out once, in {split['folds']} folds ({kind} split). "
    else:
        text += f"{split['validation']:,} of them were held out ({kind} split). "
    if split.get("straddling"):
        text += f"{split['straddling']:,} groups have pairs on both sides, so the score is too high. "
    again = "again on all of them" if run.refit else "on the others alone"
    return text + f"The head that is shared was fitted {again}: {run.rows:,} pairs."


def _results(run: Run) -> str:
    metrics, expected = run.metrics, run.expected or {}
    interval = metrics["ci95"]
    between = f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
    lines = [
        (
            "mean cosine similarity, 95 % interval over groups",
            f"{metrics['cosine']:.4f}{between}",
        ),
        ("the same for a constant prediction, the mean target", _number(metrics.get("floor"))),
        ("mean squared error", f"{metrics['mse']:.6f}"),
        (f"true prompt is the nearest of {metrics.get('bank') or 0:,.0f}", f"{metrics['r@1']:.1%}"),
        ("… among the 5 nearest", f"{metrics['r@5']:.1%}"),
        ("leakage gap: what a random split would add", _number(metrics.get("leakage_gap"), "+.4f")),
        ("held-out pairs", f"{metrics['n']:,}"),
        ("groups, and as many of equal size", f"{metrics['groups']:,}, {metrics['effective_groups']:.1f}"),
        (
            "rank correlation of expected and true cosine",
            _number(expected.get("spearman"), ".3f"),
        ),
    ]
    table = "\n".join(f"| {what} | {value} |" for what, value in lines)
    text = f"| On held-out pairs | |\n|---|---|\n{table}"
    if metrics["effective_groups"] < FEW_GROUPS:
        text += (
            f"\n\nThe held-out pairs are as good as {metrics['effective_groups']:.1f} groups of equal size; "
            f"with fewer than {FEW_GROUPS} the interval is too narrow."
        )
    return text


def _failures(run: Run) -> str:
    cosines = run.held_cosines
    values = np.quantile(cosines, _QUANTILES)
    shown = ", ".join(f"{share:.0%}: {value:.3f}" for share, value in zip(_QUANTILES, values, strict=True))
    floor = run.metrics.get("floor")
    text = f"Quantiles of the cosine of held-out pairs: {shown}."
    if floor is not None:
        text += f" For {np.mean(cosines < floor):.1%} of them it is below {floor:.3f}, the constant's mean."
    return text + (
        " These figures hold for pairs like those it was fitted on; expect less for images of another "
        "generator and prompts of another kind. A prompt that is shown is a guess at what "
        "the image was made of, not a record of it."
    )


def _models(run: Run, license: str | None) -> str:
    stated = f"`{license}`" if license else "not stated by whoever shares it"
    lines = [
        f"| `{shared_spec(use.spec)}` | {architecture_of(use)} | "
        f"`{use.fingerprint.get('weights', '')[:23]}` |"
        for use in (*run.features, run.target)
    ]
    table = "\n".join(["| model | architecture | weights |", "|---|---|---|", *lines])
    return f"Licence of this run: {stated}. The models it is used with have licences of their own:\n\n{table}"


def _listed(columns: Iterable[UsedColumn]) -> str:
    return ", ".join(f"`{shared_spec(use.spec)}`" for use in columns)


def architecture_of(use: UsedColumn) -> str:
    """Name an architecture; that of an encoder is recorded as JSON, which begins with the name."""
    found = re.search(r"\w[\w./-]*", use.fingerprint.get("architecture", ""))
    return found[0] if found else ""


def _number(value: Any, form: str = ".4f") -> str:
    return "not measured" if value is None else format(value, form)
