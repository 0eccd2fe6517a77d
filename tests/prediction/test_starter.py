"""The bank that ships with the package is what its generator writes, and is found by its name."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path

from img2prompt_cache.prediction.bank import Bank
from img2prompt_cache.prediction.starter import find_bank

ROOT = Path(__file__).parents[2]
FILE = ROOT / "img2prompt_cache" / "prediction" / "starter.txt"


def generator():
    spec = importlib.util.spec_from_file_location(
        "make_starter_bank", ROOT / "benchmarks" / "make_starter_bank.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_is_what_the_generator_writes():
    assert FILE.read_text(encoding="utf-8") == generator().text()


def test_it_has_a_few_thousand_distinct_lines_with_every_subject():
    lines = FILE.read_text(encoding="utf-8").splitlines()
    assert len({*lines}) == len(lines) > 3000
    lists = generator().word_lists()
    subjects = {subject for kind in generator().SUBJECTS for subject in lists[kind]}
    assert subjects <= {*lines}
    assert all(len({*words}) == len(words) for words in lists.values())


def test_it_is_package_data():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert FILE.name in data["img2prompt_cache.prediction"]


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_bank(Path("starter")) == FILE
    assert find_bank(tmp_path / "starter") == tmp_path / "starter"
    (tmp_path / "starter").write_text("mine")
    assert find_bank(Path("starter")) == Path("starter")


def test_it_is_a_bank(tmp_path, monkeypatch):
    class Words:
        """As many letters as a prompt has, for an embedding."""

        dim, fingerprint, longest, spec = 2, {"a": "b"}, 999, "st:words"

        def overlong(self, prompts):
            return 0

        def encode(self, prompts, batch_tokens=None):
            return [[len(prompt), 1] for prompt in prompts]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMG2PROMPT_HOME", str(tmp_path))
    bank = Bank.from_file(Path("starter"), Words())
    assert bank.prompts == FILE.read_text(encoding="utf-8").splitlines()
    assert bank.vectors.shape == (len(bank), 2)
