"""The manifest: columns found, added and replaced."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.cache.manifest import ROW_COLUMNS, folder_name
from img2prompt_cache.errors import UsageError
from manifests import MANIFEST, SPECS, column


def test_columns_are_found_added_and_replaced() -> None:
    features = MANIFEST.of_kind("features")
    assert [c.spec for c in features] == list(SPECS)
    assert MANIFEST.column("features", SPECS[1]) is features[1]
    assert MANIFEST.column("features", "timm:other") is None
    assert (features[0].rows, features[1].rows, features[0].bytes) == (24, 8, 30_000)
    longer = column("features", SPECS[1], (16,), "float16", 2)
    changed = MANIFEST.with_column(longer)
    assert changed.columns == (*MANIFEST.columns[:2], longer, MANIFEST.columns[3])
    new = column("features", "timm:other", (4,), "float16", 0)
    assert MANIFEST.with_column(new).columns[-1] == new
    with pytest.raises(UsageError, match="would share the folder features/timm-other"):
        MANIFEST.with_column(new).with_column(replace(new, spec="timm/other"))


def test_each_text_column_has_a_dataset_of_its_own() -> None:
    manifest = replace(MANIFEST, extra=("artist", "extra.artist", "status of it"))
    assert list(manifest.row_datasets) == [*ROW_COLUMNS, *manifest.extra]
    assert manifest.row_datasets["prompt"] == "prompt"
    assert manifest.row_datasets["artist"] == "extra.artist"
    assert len({*manifest.row_datasets.values()}) == len(manifest.row_datasets)


@given(st.text())
def test_a_folder_name_is_safe_whatever_the_spec(text: str) -> None:
    name = folder_name(text)
    assert len(name) <= 120
    assert re.fullmatch(r"([A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?)?", name)


def test_long_specs_that_begin_alike_have_folders_of_their_own() -> None:
    long = "timm:local-dir:" + "/folder" * 30
    assert len({folder_name(long + end) for end in "ab"} | {folder_name(long)}) == 3
    assert folder_name("open_clip:ViT-B-32/laion2b_s34b_b79k") == "open_clip-ViT-B-32-laion2b_s34b_b79k"
