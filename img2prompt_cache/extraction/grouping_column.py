"""The column of MiniLM that a new cache gets beside targets of another encoder, to compare prompts by."""

from __future__ import annotations

from dataclasses import replace

from img2prompt_cache.cache.manifest import Manifest
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.models.loader import Models
from img2prompt_cache.models.minilm import MINILM, find_minilm, is_minilm
from img2prompt_cache.models.specs import split_alias
from img2prompt_cache.progress import Callback, note, warn


def add_grouping_column(
    manifest: Manifest, models: Models, tell: Callback, *, further: int, load: bool
) -> Manifest:
    """Add a column of MiniLM to a new cache whose targets are of another encoder, or say why there is none.

    Only to a new one: in a cache with runs it would change how rows are grouped, and so their splits.

    Parameters
    ----------
    manifest : Manifest
        With its targets declared.
    models : Models
    tell : callable
    further : int
        Most prompts of a row beside its first.
    load : bool
        Whether MiniLM is loaded, without which only the name of the column is known.
    """
    targets = manifest.of_kind("targets")
    if not targets or any(map(is_minilm, targets)):
        return manifest
    spec = find_minilm()
    if spec is None:
        note(
            tell,
            f"{MINILM} is not on this machine, so near-identical prompts are found by {targets[0].spec}, "
            "with a threshold fitted to its cosines; "
            f'`encoder="packaged:{MINILM}"` adds a column of {MINILM}',
        )
        return manifest
    declare = models.declare if load else models.outline
    try:
        manifest = declare(manifest, (), (spec,), further=further)
    except Img2PromptError as error:
        warn(tell, f"no column of {MINILM} for finding near-identical prompts: {error}")
        return manifest
    column = manifest.column("targets", spec)
    if column is None:
        return manifest
    unless = "" if load or not _in_a_folder(targets[0].spec) else f", unless that is {MINILM} itself"
    note(
        tell,
        f"near-identical prompts are found by {column.spec}, which gets a column, too; what heads predict is "
        f"{targets[0].spec}{unless}",
    )
    return manifest.with_column(replace(column, for_grouping=True))


def as_target(manifest: Manifest, encoder: str) -> Manifest:
    """Make the column of an encoder that is asked for by name a target like others."""
    column = manifest.column("targets", split_alias(encoder)[1])
    if column is None or not column.for_grouping:
        return manifest
    return manifest.with_column(replace(column, for_grouping=False))


def _in_a_folder(spec: str) -> bool:
    return not spec.startswith(("packaged:", "open_clip:")) and (":" not in spec or "local-dir:" in spec)
