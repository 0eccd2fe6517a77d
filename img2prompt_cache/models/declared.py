"""Columns of a manifest as models declare them: found by name, new, or further ones of the same encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from img2prompt_cache.cache.manifest import Column, Kind, Manifest, column_folder
from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.specs import split_alias
from img2prompt_cache.progress import Callback, warn


def named_column(manifest: Manifest, kind: Kind, text: str) -> Column | None:
    """Find a column by its name, or by a spec if it is the one that its model is loaded by.

    A column whose model was loaded from elsewhere last is not found by an older spec: what lies there now is
    to be looked at first.
    """
    name, spec = split_alias(text)
    cached = manifest.column(kind, name)
    if cached is None or ":" not in text:
        return cached
    return cached if spec == (cached.current or cached.spec) else None


def require_new_name(manifest: Manifest, kind: Kind, name: str) -> None:
    """Refuse a name that another model has."""
    if manifest.column(kind, name) is not None:
        raise UsageError(
            f"{name} is the name of another model in this cache; choose another name",
            parameter="backbones" if kind == "features" else "encoder",
        )


def names_encoder(manifest: Manifest, encoders: Sequence[str]) -> str:
    """Give the encoder in whose space class names are: the first, towers of CLIP models coming last."""
    known = (column for column in manifest.of_kind("targets") if not column.for_grouping)
    specs = [column.current or column.spec for column in known]
    specs += [split_alias(text)[1] for text in encoders if manifest.column("targets", text) is None]
    return min(specs, key=lambda spec: spec.startswith("open_clip:"), default="")


def with_further(manifest: Manifest, further: int, tell: Callback) -> Manifest:
    """Add a column of further prompts beside every target column, if a row has any.

    How many a row can have is settled when the column is made.
    """
    for target in manifest.of_kind("targets") if further else ():
        known = manifest.column("more_targets", target.spec)
        if known is None:
            shape = target.shape if target.shape == (0,) else (further, *target.shape)
            folder = column_folder("more_targets", target.spec)
            column = replace(
                target, kind="more_targets", folder=folder, shape=shape, parts=(), for_grouping=False
            )
            manifest = manifest.with_column(column)
        elif known.shape[0] < further:
            warn(
                tell,
                f"{target.spec} has room for {known.shape[0] + 1} prompts of an image, the most that one had "
                f"when the column was made; of an image that has more (up to {further + 1}), the first count",
            )
    return manifest


def new_column(
    kind: Kind, name: str, width: int, dtype: str, fingerprint: dict[str, str], spec: str = ""
) -> Column:
    """Make a column without parts, whose model is loaded by a spec, if that is not its name."""
    folder = column_folder(kind, name)
    current = spec if spec != name else ""
    return Column(kind, name, folder, (width,), dtype, fingerprint, current=current)
