from __future__ import annotations

import pytest

from img2prompt_cache.reporting.reasons import LABELS, Circumstances, reasons_of

PLAIN = Circumstances(
    "a red fox in deep snow", reach=0.7, kind=40, image=0.5, image_prompt=0.6, image_prompts=0.5
)
SCRIPTS = {"Latin": 0.99, "CJK": 0.01}


def keys(**changes):
    from dataclasses import replace

    return [reason.key for reason in reasons_of(replace(PLAIN, **changes), SCRIPTS)]


def test_an_ordinary_row_has_no_reason():
    assert keys() == []


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("far", {"reach": 0.4, "kind": 0, "image_prompt": 0.3, "image_prompts": 0.3}),
        ("few", {"kind": 4}),
        ("near", {"reach": 0.9}),
        ("twin", {"image": 0.95, "image_prompt": 0.2}),
        ("led", {"image_prompt": 0.9}),
        ("misled", {"image_prompts": 0.1}),
        ("long", {"prompt": "word " * 41}),
        ("cut", {"tokens": 300, "limit": 256}),
        ("short", {"prompt": "fox"}),
        ("script", {"prompt": "一只狐狸 在雪地里 冬天 风景"}),
    ],
)
def test_each_reason_holds_where_it_should_and_alone(key, changes):
    assert keys(**changes) == [key]
    (reason,) = reasons_of(Circumstances(**{**vars_of(PLAIN), **changes}), SCRIPTS)
    assert reason.label == LABELS[key]
    assert any(character.isdigit() for character in reason.text) or key == "script"


def vars_of(known: Circumstances) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(known)


def test_every_reason_is_tried():
    assert len(LABELS) == 10


def test_without_features_nothing_is_said_of_images():
    assert keys(image=None, image_prompt=None, image_prompts=None) == []
