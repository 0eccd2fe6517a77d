"""Very long prompts: only what the encoder's window can hold is tokenized, and the vectors are the same."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.encoders.base import Encoder, load_encoder
from img2prompt_cache.models.encoders.prompts import longest_text
from img2prompt_cache.prediction.bank import Bank
from kit import WORDS, Log, Tiny, paint, save_clip, save_encoder, write_prompts

READ = """
import resource, sys
from img2prompt_cache.models.encoders.base import load_encoder
from img2prompt_cache.prediction.bank import Bank
from pathlib import Path

encoder = load_encoder(sys.argv[1])
encoder.encode(["a"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
vectors = encoder.encode(["a boat at sea, " * 2_000_000])
assert (vectors == encoder.encode(["a boat at sea, " * 100])).all()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"st:local-dir:{save_encoder(tmp_path_factory.mktemp('models') / 'tiny')}"


@pytest.fixture(scope="module")
def encoder(spec: str) -> Encoder:
    return load_encoder(spec)


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return load_encoder(f"open_clip:local-dir:{save_clip(tmp_path_factory.mktemp('models') / 'clip')}")


@pytest.mark.slow
def test_a_prompt_of_30_million_characters_needs_little_memory(spec: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ, spec], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) < 200


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 30), count=st.integers(1, 1500), longest=st.integers(1, 30))
def test_what_is_cut_off_changes_no_bit(
    seed: int, count: int, longest: int, encoder: Encoder, tower: Encoder
) -> None:
    draw = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyzé船4,.()!"
    words = [
        draw.choice(WORDS)
        if draw.random() < 0.5
        else "".join(draw.choices(letters, k=draw.randint(1, longest)))
        for _ in range(count)
    ]
    text = " ".join(words)
    for model in (encoder, tower):
        whole = model.model.encode([text], 1)
        np.testing.assert_array_equal(model.encode([text]), whole)


def test_the_window_of_a_model_decides(encoder: Encoder, tower: Encoder) -> None:
    assert encoder.longest == 32 * 64
    assert tower.longest == 77 * 64 or tower.longest == 16 * 64
    assert longest_text(256) == 16_384
    for unknown in (None, 10**30, 0, -1, 3.5):
        assert longest_text(unknown) == 8192 * 64


def test_a_long_word_takes_no_quadratic_time(tower: Encoder, encoder: Encoder) -> None:
    for model in (tower, encoder):
        assert np.isfinite(model.encode(["x" * 3_000_000, "船" * 3_000_000])).all()


def test_cleaning_a_very_long_prompt_is_bounded(spec: str) -> None:
    cleaning = load_encoder(spec, clean="light")
    np.testing.assert_array_equal(
        cleaning.encode(["(two:1.2) boats " * 1_000_000]), cleaning.encode(["(two:1.2) boats " * 1000])
    )


def test_a_pass_says_how_many_prompts_were_too_long(tiny: Tiny, tmp_path: Path) -> None:
    for number in range(3):
        paint(tmp_path / f"img{number}.png", number)
    prompts = {"img0": "a boat, " * 2000, "img1": "sea", "img2": "x" * ((1 << 20) + 1)}
    write_prompts(tmp_path, prompts)
    log = Log()
    tiny.extract(tmp_path, tmp_path / "cache", log)
    assert log.plans[0].summary.notes == ("1 prompt of more than 1048576 characters left out",)
    assert log.plans[0].summary.pairs == 2
    (told,) = [line for line in log.notes if "longer than" in line]
    assert told.startswith("1 prompt is longer than 2048 characters, far more than st:local-dir:")


def test_a_bank_of_long_prompts(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMG2PROMPT_HOME", str(tmp_path / "home"))
    path = tmp_path / "bank.txt"
    path.write_text("a boat, " * 2000 + "\nsea\n")
    log = Log()
    assert len(Bank.from_file(path, encoder, log)) == 2
    assert any("only the beginning was encoded" in line for line in log.notes)
    path.write_text("a boat, " * 200_000)
    with pytest.raises(UsageError, match="has a prompt of 1599999 characters, more than the 1048576 allowed"):
        Bank.from_file(path, encoder)
