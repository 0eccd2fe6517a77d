"""What a pass can be asked for, and which columns a new cache gets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.errors import UsageError
from img2prompt_cache.extraction.execute import run_pass
from img2prompt_cache.extraction.request import (
    ExtractConfig,
    check_config,
    choose_columns,
    describe_choice,
    require_within,
)
from img2prompt_cache.models.backbones.taps import PRESET_TAPS, Tap, choose_taps
from img2prompt_cache.models.specs import PRESETS
from img2prompt_cache.sources import open_source
from kit import Tiny


def test_a_preset_gives_what_is_not_named() -> None:
    backbones, encoder = PRESETS["packaged"]
    reason = {"name": "packaged", "reason": "asked for"}
    assert choose_columns(ExtractConfig(preset="packaged")) == (backbones, encoder, reason)
    assert choose_columns(ExtractConfig(preset="packaged", encoder="st:x")) == (backbones, "st:x", reason)
    assert choose_columns(ExtractConfig(preset="packaged", backbones=("timm:x",))) == (
        ("timm:x",),
        encoder,
        reason,
    )
    assert choose_columns(ExtractConfig(backbones=("timm:x",), encoder="st:x")) == (("timm:x",), "st:x", None)


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({}, "preset packaged: asked for; backbones a, b, encoder st:x"),
        (
            {"backbones": ("a", "b")},
            "encoder st:x, of the preset packaged: asked for; `encoder` names another",
        ),
        ({"encoder": "st:x"}, "backbones a, b, of the preset packaged: asked for; `backbones` names others"),
    ],
)
def test_what_a_preset_chose_is_told_and_nothing_of_what_was_named(named: dict[str, Any], told: str) -> None:
    preset = {"name": "packaged", "reason": "asked for"}
    assert describe_choice(ExtractConfig(**named), ("a", "b"), "st:x", preset) == told


@pytest.mark.parametrize(
    ("options", "suffixes"),
    [
        ({}, ("", "#multi", "#squash")),
        ({"plain": True}, ("",)),
        ({"taps": choose_taps(trunk=1)}, ("", "#multi", "#squash", "#k1")),
        ({"plain": True, "taps": choose_taps(levels="multi")}, ("", "#multi")),
    ],
)
def test_a_new_cache_of_a_preset_keeps_what_the_preset_does(
    options: dict[str, Any],
    suffixes: tuple[str, ...],
    tiny: Tiny,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    taps = {tiny.vit: (Tap("multi"), Tap(squash=True))}
    monkeypatch.setitem(PRESETS, "packaged", ((tiny.cnn, tiny.vit), tiny.encoder))
    monkeypatch.setattr("img2prompt_cache.extraction.request.PRESET_TAPS", taps)

    def columns(folder: Path, **more: Any) -> list[str]:
        config = ExtractConfig(preset="packaged", precision="fp32", part_rows=64, **more)
        run_pass(folder, open_source(pairs), config)
        kept = [column.spec for column in load_manifest(folder).columns if column.kind != "targets"][1:]
        assert all(column.parts for column in load_manifest(folder).columns)
        return [spec for spec in kept if not spec.startswith(tiny.cnn)]

    expected = [f"{tiny.vit}{suffix}" for suffix in suffixes]
    assert columns(tmp_path / "cache", **options) == expected
    assert columns(tmp_path / "cache") == expected  # a cache that is there gets no more
    assert columns(tmp_path / "named", backbones=(tiny.vit,)) == [tiny.vit]


def test_presets_keep_more_of_their_own_backbones_only() -> None:
    known = {spec for backbones, _ in PRESETS.values() for spec in backbones}
    assert known == set(PRESET_TAPS)
    assert all(len({tap.suffix for tap in taps}) == len(taps) for taps in PRESET_TAPS.values())


def test_auto_is_decided_with_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    backbones, encoder, preset = choose_columns(ExtractConfig())
    assert preset["name"] == "packaged"
    assert preset["reason"] not in ("", "asked for")
    assert (backbones, encoder) == PRESETS["packaged"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "standart"}, "unknown `preset` 'standart'; did you mean standard"),
        ({"precision": "fp64"}, "unknown `precision` 'fp64'; did you mean"),
        ({"clean": "lihgt"}, "unknown `clean` 'lihgt'; did you mean light"),
        ({"part_rows": 0}, "`part_rows` must be a whole number from 1 to 1048576, not 0"),
        ({"part_rows": 8.5}, "`part_rows` must be a whole number from 1 to 1048576, not 8.5"),
        ({"batch_size": 65537}, "`batch_size` must be a whole number from 1 to 65536, not 65537"),
        ({"batch_size": "8"}, "`batch_size` must be a whole number from 1 to 65536, not '8'"),
    ],
)
def test_a_wrong_value_is_told_even_where_it_would_not_be_used(
    options: dict[str, Any], message: str, made: Path, tmp_path: Path
) -> None:
    for folder in (made, tmp_path / "none"):
        with pytest.raises(UsageError, match=re.escape(message)) as caught:
            check_config(ExtractConfig(backbones=("timm:x",), encoder="st:x", **options), folder)
        assert [caught.value.parameter] == [*options]


@pytest.mark.parametrize("option", ["update", "check"])
def test_failed_images_are_tried_again_without_looking_for_changes(option: str, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="`retry_failed` cannot be combined with `update` or `check`"
    ) as caught:
        check_config(ExtractConfig(retry_failed=True, **{option: True}), tmp_path)
    assert caught.value.parameter == "retry_failed"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part_rows": 9}, "`part_rows=9`: "),
        ({"batch_size": 5}, "`batch_size=5`: "),
    ],
)
def test_what_a_cache_was_made_with_stays(options: dict[str, Any], message: str, made: Path) -> None:
    with pytest.raises(UsageError, match=message + ".* was made with .*, which stays; make a new cache"):
        check_config(ExtractConfig(**options), made)
    check_config(ExtractConfig(part_rows=8, batch_size=4, preset="packaged"), made)


def test_numbers_are_whole_and_at_least_one() -> None:
    for value in (None, 1, 7, np.int64(3)):
        require_within("trunk", value)
    for wrong in (0, -1, 1.0, "2"):
        with pytest.raises(UsageError, match="`trunk` must be a whole number of at least 1, not"):
            require_within("trunk", wrong)
