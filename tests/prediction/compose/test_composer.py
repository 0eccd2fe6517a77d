from __future__ import annotations

import numpy as np
import pytest

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.encoders.base import load_encoder
from img2prompt_cache.numerics.metrics import cosine, unit
from img2prompt_cache.prediction.bank import Bank
from img2prompt_cache.prediction.compose import Composer, search
from img2prompt_cache.progress import Event
from kit import save_clip

PROMPTS = [
    f"{article} {colour} {thing} {place}, {style}, {style} light, by someone"
    for article, colour, thing, place, style in zip(
        ["a", "the", "two"] * 4,
        ["red", "green", "blue", "old"] * 3,
        ["boat", "house", "tree", "fox", "lamp", "bird"] * 2,
        ["in the snow", "by the sea", "on a hill"] * 4,
        ["oil", "neon", "chalk", "gold"] * 3,
        strict=True,
    )
]


@pytest.fixture(scope="module")
def encoder(tiny):
    return load_encoder(tiny.encoder)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("IMG2PROMPT_HOME", str(tmp_path))
    return tmp_path


def bank_of(prompts, encoder):
    return Bank.from_pairs(prompts, encoder.encode(prompts))


def goals(encoder, count=5):
    rng = np.random.default_rng(0)
    return unit((encoder.encode(PROMPTS[:count]) + 0.1 * rng.standard_normal((count, 16))).astype(np.float32))


def test_prompts_come_with_their_own_cosine_and_are_no_worse_than_known_ones(encoder):
    bank, wanted = bank_of(PROMPTS, encoder), goals(encoder)
    prompts, cosines = Composer([bank], encoder).compose(wanted)
    np.testing.assert_allclose(cosine(encoder.encode(prompts), wanted), cosines, atol=1e-5)
    assert cosines.dtype == np.float32
    nearest = bank.nearest(wanted, 1)[1][:, 0]
    # Known prompts are among the choices, less what their phrases cost.
    assert (cosines > nearest - 0.03).all()


def test_the_same_is_composed_again_and_phrases_are_kept(encoder, home):
    events: list[Event] = []
    bank, wanted = bank_of(PROMPTS, encoder), goals(encoder)
    once = Composer([bank], encoder, tell=events.append).compose(wanted)
    assert any(event.task == "encode phrases" for event in events)
    kept = len([*home.rglob("*.npy")])
    events.clear()
    again = Composer([bank], encoder, tell=events.append).compose(wanted)
    assert again[0] == once[0]
    assert kept == 1
    assert events == []


def test_a_known_prompt_with_more_modifiers_than_most_is_begun_with_too(encoder, monkeypatch):
    monkeypatch.setattr(search, "PRICE", 0.0)
    long = "a violin, ruby, jade, onyx, opal, pearl, amber"
    composer = Composer([bank_of([*PROMPTS, long], encoder)], encoder)
    assert composer.compose(encoder.encode([long]))[1] > 0.999


def test_the_text_tower_of_a_clip_model_composes_as_well(tmp_path):
    tower = load_encoder(f"open_clip:local-dir:{save_clip(tmp_path / 'clip')}")
    wanted = tower.encode(PROMPTS[:2])
    prompts, cosines = Composer([bank_of(PROMPTS, tower)], tower).compose(wanted)
    np.testing.assert_allclose(cosine(tower.encode(prompts), wanted), cosines, atol=1e-5)


def test_phrases_of_a_second_bank_are_used(encoder):
    other = [f"a violin, {word} glaze, velvet" for word in ("ruby", "jade", "onyx")]
    composer = Composer([bank_of(PROMPTS, encoder), bank_of(other, encoder)], encoder)
    assert composer.compose(encoder.encode(["a violin"]))[0] == ["a violin"]


def test_hostile_prompts_give_short_printable_ones(encoder):
    hostile = [
        "\x1b[31mred\x1b[0m boat, \u202eevil",
        "<script>alert(1)</script>, =cmd()|x, a boat",
        "a boat" + ", 8k" * 20_000,
        "a " * 100_000,
        "x" * 300_000,
        "a red boat\n\n\ton a hill",
        "((((((((((a boat))))))))))" * 50,
    ]
    prompts, _ = Composer([bank_of(hostile, encoder)], encoder).compose(encoder.encode(hostile))
    for prompt in prompts:
        assert prompt.isprintable()
        assert len(prompt) < 600
        assert "<" not in prompt
        assert "\u202e" not in prompt


@pytest.mark.parametrize("prompts", [["12", "==="], ["of, oil painting", "is, oil painting"]])
def test_where_no_prompt_has_a_subject_nothing_is_composed(encoder, prompts):
    with pytest.raises(UsageError, match=r"no readable subject.*`bank`") as caught:
        Composer([bank_of(prompts, encoder)], encoder)
    assert caught.value.parameter == "compose"


def test_a_prediction_that_is_not_finite_is_refused(encoder):
    wanted = goals(encoder)
    wanted[1, 0] = np.nan
    with pytest.raises(Img2PromptError, match="not finite"):
        Composer([bank_of(PROMPTS, encoder)], encoder).compose(wanted)


def test_nothing_is_composed_of_nothing(encoder):
    prompts, cosines = Composer([bank_of(PROMPTS, encoder)], encoder).compose(np.empty((0, 16), np.float32))
    assert prompts == []
    assert cosines.shape == (0,)
