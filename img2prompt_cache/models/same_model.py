"""Columns known by what they are: the one that a model has already, wherever it lies now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from img2prompt_cache.cache.manifest import Column, Manifest
from img2prompt_cache.models.backbones.taps import Tap, split_spec
from img2prompt_cache.models.recorded import same_model

if TYPE_CHECKING:
    from img2prompt_cache.models.backbones.base import Backbone
    from img2prompt_cache.models.encoders.base import Encoder


def column_of_backbone(manifest: Manifest, backbone: Backbone) -> Column | None:
    """Find the column of a backbone's pooled feature, in whatever precision it was computed."""
    return next(
        (
            column
            for column in manifest.of_kind("features")
            if split_spec(column.spec)[1] == Tap() and same_model(column.fingerprint, backbone.fingerprint)
        ),
        None,
    )


def column_of_encoder(manifest: Manifest, encoder: Encoder) -> Column | None:
    """Find the column of an encoder's targets, whatever cleaning rule was applied to the prompts."""
    known = manifest.of_kind("targets")
    own = {**encoder.fingerprint, "clean": ""}
    return next((column for column in known if {**column.fingerprint, "clean": ""} == own), None)


def relocated(manifest: Manifest, column: Column, spec: str) -> Manifest:
    """Record by which spec the model of a column is loaded now, for all columns of that model.

    Parameters
    ----------
    manifest : Manifest
    column : Column
        Of a pooled feature, or of targets.
    spec : str
        Without a suffix.
    """
    base = split_spec(column.spec)[0]

    def columns() -> Iterator[Column]:
        for each in manifest.columns:
            if each.kind == "rows" or each.from_prompts != column.from_prompts:
                yield each
            elif each.from_prompts:
                yield _now(each, spec) if each.spec == column.spec else each
            else:
                own, tap = split_spec(each.spec)
                yield _now(each, f"{spec}{tap.suffix}") if own == base else each

    return replace(manifest, columns=tuple(columns()))


def _now(column: Column, spec: str) -> Column:
    return replace(column, current="" if spec == column.spec else spec)
