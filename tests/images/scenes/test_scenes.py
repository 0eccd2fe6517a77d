import csv
import hashlib
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import label

from img2prompt_cache.errors import UsageError
from img2prompt_cache.images.scenes import Scene, render, sample_scenes, write_demo
from img2prompt_cache.images.scenes.demo import held_out_scenes
from img2prompt_cache.images.scenes.grounds import GROUNDS
from img2prompt_cache.images.scenes.picture import SPOTS
from img2prompt_cache.images.scenes.places import backdrop
from img2prompt_cache.images.scenes.skies import SKIES
from img2prompt_cache.images.scenes.styles import STYLE
from img2prompt_cache.images.scenes.subjects import DRAW
from img2prompt_cache.images.scenes.words import (
    COLOURS,
    DETAILS,
    MODIFIERS,
    NUMBERS,
    PLACES,
    STYLES,
    SUBJECTS,
    TIMES,
    WORDINGS,
    article,
)

BOATS = Scene("boat", 2, "red", "sea", "night", "", "pixel art")
CATS = Scene("cat", 1, "orange", "meadow", "noon", "", "illustration")


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    place = draw(st.sampled_from(list(PLACES)))
    sky = PLACES[place].sky
    return Scene(
        subject=draw(st.sampled_from(list(SUBJECTS))),
        count=draw(st.integers(1, 5)),
        colour=draw(st.sampled_from(list(COLOURS))),
        place=place,
        time=draw(st.sampled_from(list(TIMES))) if sky else "",
        detail=draw(st.sampled_from(["", *DETAILS])) if sky else "",
        style=draw(st.sampled_from(list(STYLES))),
        wording=draw(st.integers(0, WORDINGS - 1)),
        modifiers=tuple(draw(st.lists(st.sampled_from(MODIFIERS), unique=True))),
        layout=draw(st.integers(0, 10**6)),
    )


def pixels(scene: Scene, size: int = 96) -> np.ndarray:
    return np.asarray(render(scene, size), np.int16)


def fingerprint(drawn: list[Scene]) -> str:
    return hashlib.sha256(b"".join(render(scene, 64).tobytes() for scene in drawn)).hexdigest()


# --- words -----------------------------------------------------------------------------------------------


def test_the_prompt_reads_as_in_the_readme() -> None:
    assert BOATS.prompt == "two red boats on a calm sea at night, pixel art"


@given(scenes())
def test_every_prompt_names_what_is_drawn(scene: Scene) -> None:
    prompt = scene.prompt
    subject = SUBJECTS[scene.subject].plural if scene.count > 1 else scene.subject
    number = NUMBERS[scene.count - 1] if scene.count > 1 else "(a|an|a single)"
    assert re.search(rf"\b{number} {scene.colour} {subject}\b", prompt)
    place, style = PLACES[scene.place], STYLES[scene.style]
    assert any(name in prompt for name in (place.scenery, place.inside, place.above))
    assert style.tag in prompt or style.of in prompt
    assert not scene.time or any(words in prompt for words in TIMES[scene.time])
    assert not scene.detail or any(words in prompt for words in DETAILS[scene.detail])
    assert all(modifier in prompt for modifier in scene.modifiers)


@given(scenes())
def test_every_prompt_is_well_formed(scene: Scene) -> None:
    prompt = scene.prompt
    assert prompt == " ".join(prompt.split())
    assert not re.search(r" ,|,,|,$|^,|,\S", prompt)
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", prompt.replace("a 8", ""))
    assert scene == replace(scene)
    assert prompt.isascii()
    assert len(prompt.split()) >= 5


@given(scenes(), st.integers(0, 10**6))
def test_the_layout_is_not_said(scene: Scene, layout: int) -> None:
    assert replace(scene, layout=layout).prompt == scene.prompt


def test_wordings_are_different_sentences() -> None:
    assert len({replace(BOATS, wording=wording).prompt for wording in range(WORDINGS)}) == WORDINGS


@pytest.mark.parametrize(("words", "expected"), [("orange cat", "an"), ("red boat", "a")])
def test_article(words: str, expected: str) -> None:
    assert article(words) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subject": "bot"}, "unknown scene subject 'bot'; did you mean .*boat"),
        ({"count": 6}, "unknown scene count"),
        ({"count": 0}, "unknown scene count"),
        ({"place": "see"}, "unknown scene place 'see'; did you mean .*sea"),
        ({"style": "pixel"}, "unknown scene style"),
        ({"colour": "rd"}, "unknown scene colour"),
        ({"time": ""}, "unknown scene time"),
        ({"detail": "hail"}, "unknown scene detail"),
        ({"wording": WORDINGS}, "unknown scene wording"),
        ({"place": "outer space"}, "unknown scene time 'night'"),
    ],
)
def test_unknown_words_are_refused(change: dict[str, str | int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(BOATS, **change)  # type: ignore[arg-type]


# --- sampling --------------------------------------------------------------------------------------------


def test_samples_are_the_same_on_every_platform() -> None:
    drawn = "\n".join(scene.prompt for scene in sample_scenes(400, seed=0))
    assert hashlib.sha256(drawn.encode()).hexdigest()[:16] == "a017812e950c091d"


def test_seeds_differ_and_more_scenes_are_only_more() -> None:
    assert sample_scenes(20, 0) != sample_scenes(20, 1)
    assert sample_scenes(0, 0) == []
    assert len(sample_scenes(7, 3)) == 7


@pytest.mark.parametrize("field", ["subject", "count", "colour", "place", "style"])
def test_words_come_up_about_equally_often(field: str) -> None:
    counts = Counter(getattr(scene, field) for scene in sample_scenes(400, 0))
    valid = {"subject": SUBJECTS, "count": range(1, 6), "colour": COLOURS, "place": PLACES, "style": STYLES}
    assert set(counts) == set(valid[field])
    assert max(counts.values()) <= 2 * min(counts.values())


def test_prompts_are_mostly_distinct_and_some_are_run_again() -> None:
    drawn = sample_scenes(400, 0)
    prompts = Counter(scene.prompt for scene in drawn)
    assert 340 <= len(prompts) <= 390
    assert max(prompts.values()) <= 4
    assert len({scene.layout for scene in drawn}) == 400


# --- pictures --------------------------------------------------------------------------------------------


def test_every_word_has_a_drawing() -> None:
    assert set(DRAW) == set(SUBJECTS)
    assert set(GROUNDS) == set(PLACES)
    assert set(STYLE) == set(STYLES)
    assert set(SKIES) == set(TIMES)
    assert set(SPOTS) == set(range(1, len(NUMBERS) + 1))


@pytest.mark.parametrize("size", [64, 100, 256])
@pytest.mark.parametrize("style", STYLES)
def test_pictures_are_square_rgb_of_the_size_asked_for(style: str, size: int) -> None:
    picture = render(replace(CATS, style=style), size)
    assert (picture.mode, picture.size) == ("RGB", (size, size))


def test_pixels_are_the_same_again_and_in_another_process() -> None:
    # One of each style, so that no filter keeps a state or looks at a clock.
    code = (
        "import hashlib\n"
        "from img2prompt_cache.images.scenes import render, sample_scenes\n"
        "data = b''.join(render(scene, 64).tobytes() for scene in sample_scenes(22, 1))\n"
        "print(hashlib.sha256(data).hexdigest())\n"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    drawn = sample_scenes(22, 1)
    assert {scene.style for scene in drawn} == set(STYLES)
    assert fingerprint(drawn) == fingerprint(drawn) == other.stdout.strip()


def test_wording_and_modifiers_do_not_change_the_picture() -> None:
    assert np.array_equal(pixels(BOATS), pixels(replace(BOATS, wording=5, modifiers=("4k",))))


@pytest.mark.parametrize("place", PLACES)
def test_layout_changes_the_picture(place: str) -> None:
    time = "noon" if PLACES[place].sky else ""
    scene = replace(CATS, place=place, time=time)
    assert np.mean(np.any(pixels(scene) != pixels(replace(scene, layout=1)), axis=2)) > 0.05


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_subject_shows_its_colour(subject: str) -> None:
    # Against each other, the red and the blue version differ in hue over a fair part of the picture.
    red, blue = (pixels(replace(CATS, subject=subject, colour=colour)) for colour in ("red", "blue"))
    redder = (red[..., 0] - blue[..., 0] > 60) & (blue[..., 2] - red[..., 2] > 60)
    assert redder.mean() > 0.015


@pytest.mark.parametrize("count", range(1, 6))
@pytest.mark.parametrize("subject", SUBJECTS)
def test_as_many_subjects_as_the_prompt_says(subject: str, count: int) -> None:
    scene = Scene(subject, count, "red", "room", "", "", "illustration", layout=count)
    behind = backdrop(scene, 384, random.Random(f"layout {count}")).reduce(2)
    drawn = np.abs(pixels(scene, 192) - np.asarray(behind, np.int16)).max(axis=2) > 16
    marks, _ = label(drawn)
    areas = np.bincount(marks.ravel())[1:]
    assert (areas > 0.3 * areas.max()).sum() == count


def test_no_two_subjects_share_a_spot() -> None:
    for spots in SPOTS.values():
        for index, (x, foot, half) in enumerate(spots):
            assert x - half > -0.02
            assert x + half < 1.02
            for other_x, other_foot, other_half in spots[:index]:
                apart = max(abs(x - other_x), abs((foot - half) - (other_foot - other_half)))
                assert apart > 0.95 * (half + other_half)


def test_styles_look_different() -> None:
    drawn = {style: pixels(replace(BOATS, time="noon", style=style)) for style in STYLES}
    names = list(drawn)
    for index, first in enumerate(names):
        for second in names[:index]:
            assert np.abs(drawn[first] - drawn[second]).mean() > 4, (first, second)


def test_times_and_details_look_different() -> None:
    base = pixels(replace(CATS, layout=2))
    others = [{"time": time} for time in TIMES if time != "noon"] + [{"detail": detail} for detail in DETAILS]
    for other in others:
        changed = np.abs(pixels(replace(CATS, layout=2, **other)) - base).max(axis=2) > 20  # type: ignore[arg-type]
        assert changed.mean() > 0.01, other


def test_what_a_style_is_known_by() -> None:
    pixel_art = pixels(replace(CATS, style="pixel art"), 256)
    assert np.array_equal(pixel_art, np.kron(pixel_art[::4, ::4], np.ones((4, 4, 1), np.int16)))
    assert len(np.unique(pixel_art.reshape(-1, 3), axis=0)) <= 24
    sketch, blueprint, neon = (
        pixels(replace(CATS, style=style), 256) for style in ("pencil sketch", "blueprint", "neon")
    )
    assert np.ptp(sketch, axis=2).max() < 10
    assert np.mean(blueprint[..., 2] > blueprint[..., 0] + 30) > 0.6
    assert np.median(neon) < 0.5 * np.median(pixels(CATS, 256))


# --- the demo's files ------------------------------------------------------------------------------------


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_write_demo(tmp_path: Path) -> None:
    write_demo(tmp_path / "demo", n=30, seed=4, held_out=5)
    train, new = table(tmp_path / "demo" / "prompts.csv"), table(tmp_path / "demo" / "new" / "truth.csv")
    assert list(train[0]) == list(new[0]) == ["imgId", "prompt"]
    assert (len(train), len(new)) == (30, 5)
    assert [row["prompt"] for row in train] == [scene.prompt for scene in sample_scenes(30, 4)]
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in new}
    assert len({row["imgId"] for row in train + new}) == 35
    assert all(re.fullmatch(r"[0-9a-f]{9}", row["imgId"]) for row in train + new)
    for folder, rows in (("images", train), ("new", new)):
        found = sorted((tmp_path / "demo" / folder).glob("*.png"))
        assert [path.stem for path in found] == sorted(row["imgId"] for row in rows)
    with Image.open(tmp_path / "demo" / "images" / f"{train[3]['imgId']}.png") as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(render(sample_scenes(30, 4)[3])))


def test_write_demo_writes_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_demo(tmp_path / name, n=4, held_out=1)
    first, second = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*.*")}
        for root in (tmp_path / "one", tmp_path / "two")
    )
    assert len(first) == 7
    assert first == second


def test_held_out_words_were_all_seen_but_not_together() -> None:
    # The words of the default demo, without drawing it.
    train = sample_scenes(400, 0)
    themes = {(scene.subject, scene.place, scene.style) for scene in train}
    new = held_out_scenes(train, 6, 0)
    assert len(new) == 6
    for scene in new:
        for field in ("subject", "count", "colour", "place", "style"):
            assert any(getattr(scene, field) == getattr(other, field) for other in train)
        assert (scene.subject, scene.place, scene.style) not in themes


def test_write_demo_keeps_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not an empty folder"):
        write_demo(tmp_path, n=1)
    with pytest.raises(UsageError, match="not an empty folder"):
        write_demo(tmp_path / "mine.txt", n=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
