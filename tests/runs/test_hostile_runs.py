"""Runs that anybody may have written: whatever their files hold, each is read, or refused in plain words."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.files import hash_file
from img2prompt_cache.fitting.blend import fit_blend
from img2prompt_cache.fitting.fit import fit
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.leaderboard import compare
from img2prompt_cache.runs.names import find_runs, open_run
from img2prompt_cache.runs.run import load_run
from synthetic import ONE, Cli

WORDS = ["", "x", "ridge", "/", "..", "é\u202e", "\0", "\ud800", "9" * 400, "timm:one", "a" * 5000]
NUMBERS = [0, -1, 1, True, False, 0.5, -0.0, 1e308, 1e-320, 1 << 62, 1 << 70, -(1 << 63), 384]
HOSTILE = st.one_of(
    st.sampled_from([None, [], {}, [[]], [None], {"": {}}, {"width": 1}, *WORDS, *NUMBERS]),
    st.sampled_from(WORDS).flatmap(lambda word: st.sampled_from([[word], {word: word}, [[word] * 3]])),
    st.integers(1, 200).map(lambda depth: json.loads("[" * depth + "]" * depth)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS[:4]), inner, max_size=2)
        ),
        max_leaves=4,
    ),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside one, its own first."""
    yield path
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(each, (*path, key))


@st.composite
def changed(draw: st.DrawFn, whole: Any) -> str:
    """JSON text of a document in which one to three values are replaced, removed or added."""
    document = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from([path for path in places(document) if path] or [("schema",)]))
        inside = document
        for key in above:
            inside = inside[key]
        what = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if what == "remove":
            del inside[last]
        elif what == "add" and isinstance(inside, dict):
            inside[draw(st.sampled_from(WORDS))] = draw(HOSTILE)
        elif what == "add":
            inside.append(draw(HOSTILE))
        else:
            inside[last] = draw(HOSTILE)
    return json.dumps(document)


@pytest.fixture(scope="module")
def home(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with runs of six heads, a blend and a distilled one among them."""
    cache = shutil.copytree(fitted, tmp_path_factory.mktemp("hostile") / "cache")
    members = [open_run(f"{head}-one+other-01", cache) for head in ("ridge", "knn")]
    fit_blend(Cache(cache), members, cache / "runs" / "blend")
    student = {"settings": {"epochs": 1, "hidden": [4]}, "features": ONE, "run": cache / "runs" / "distil"}
    fit(cache, "distil", teacher="ridge-one+other-01", **student)
    return cache


def uses(run: Path) -> dict[str, Callable[[], object]]:
    """Everything that reads a run."""
    cache = run.parents[1]
    healthy = cache / "runs" / "mean-one+other-01"
    rows = np.zeros((2, 32), np.float32)
    return {
        "compare": lambda: (repr(board := compare(cache)), board._repr_html_(), board.title),
        "compare by": lambda: compare(cache, by="length"),
        "compare against": lambda: compare(cache, against=healthy),
        "compare against it": lambda: compare(cache, against=run),
        "find": lambda: find_runs(cache),
        "show": lambda: (repr(made := load_run(run)), made._repr_html_(), made.home, made.history),
        "predict": lambda: load_run(run).predict(rows),
        "predict cached": lambda: load_run(run).predict(cache, top_k=1),
        "blend": lambda: fit(
            cache, "blend", members=[run, healthy], run=cache.parent / "new", overwrite=True
        ),
    }


def require_plain_words(run: Path) -> None:
    for use in uses(run).values():
        with suppress(Img2PromptError):
            use()


NAMES = [*(f"{head}-one+other-01" for head in ("ridge", "knn", "mlp")), "blend", "distil"]


@pytest.mark.parametrize("name", NAMES)
def test_any_changed_record_is_read_or_refused(home: Path, name: str) -> None:
    run = home / "runs" / name
    whole = (run / "run.json").read_text()

    @settings(max_examples=12, deadline=None, database=None, derandomize=True)
    @given(changed(json.loads(whole)))
    def check(text: str) -> None:
        (run / "run.json").write_text(text)
        require_plain_words(run)

    try:
        check()
    finally:
        (run / "run.json").write_text(whole)


def npy(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


FILES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "a long field": ("validation.csv", lambda data: data + b'"' + b"x" * 200_000 + b'",0,0.5,0\n'),
    "no table": ("validation.csv", lambda data: bytes(range(256))),
    "an open quote": ("validation.csv", lambda data: data.replace(b"\n", b'\n"', 2)),
    "a number too large": ("validation.csv", lambda data: data.replace(b",0\n", b"," + b"9" * 30 + b"\n", 1)),
    "a cosine too large": ("validation.csv", lambda data: data.replace(b"0.", b"1e300", 1)),
    "fields missing": ("validation.csv", lambda data: data.replace(b",", b" ")),
    "fields too many": ("validation.csv", lambda data: data.replace(b"\n", b",,,\n")),
    "empty": ("validation.npy", lambda data: b""),
    "cut": ("validation.npy", lambda data: data[:-100]),
    "a zip": ("validation.npy", lambda data: b"PK\x05\x06" + b"\0" * 18),
    "a pickle": ("validation.npy", lambda data: b"\x80\x04N."),
    "terabytes": (
        "validation.npy",
        lambda data: npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 384)}"),
    ),
    "objects": (
        "validation.npy",
        lambda data: npy("{'descr': '|O', 'fortran_order': False, 'shape': (12, 384)}"),
    ),
    "texts": ("validation.npy", lambda data: data.replace(b"'<f4'", b"'<U1'")),
    "whole numbers": ("validation.npy", lambda data: data.replace(b"'<f4'", b"'<i4'")),
    "brackets": ("validation.npy", lambda data: npy("(" * 9000)),
    "no header": ("validation.npy", lambda data: npy("{'descr': '<f4'")),
    "code": ("validation.npy", lambda data: npy("__import__('os').getcwd()")),
    "a name of nothing": (
        "validation.npy",
        lambda data: npy("{'descr': 'nothing', 'fortran_order': 0, 'shape': 3}"),
    ),
    "a cut head": ("head.safetensors", lambda data: data[:100]),
    "a long header": ("head.safetensors", lambda data: (1 << 60).to_bytes(8, "little") + data[8:]),
    "no tensors": ("head.safetensors", lambda data: b"\2\0\0\0\0\0\0\0{}"),
    "other types": ("head.safetensors", lambda data: data.replace(b'"F32"', b'"I32"')),
    "half types": ("head.safetensors", lambda data: data.replace(b'"F32"', b'"BF1"')),
    "a torn history": ("history.csv", lambda data: b'"' + b"x" * 200_000),
}


@pytest.mark.parametrize("damage", FILES)
def test_damaged_files_are_told_as_damage(home: Path, damage: str) -> None:
    file, change = FILES[damage]
    for name in NAMES[:3] if file == "head.safetensors" else NAMES[:1]:
        run = home / "runs" / name
        whole, record = (run / file).read_bytes(), (run / "run.json").read_text()
        (run / file).write_bytes(change(whole))
        if file == "head.safetensors":  # whoever changed it can write its hash, too
            forged = {**json.loads(record), "head_sha256": hash_file(run / file)}
            (run / "run.json").write_text(json.dumps(forged))
        try:
            require_plain_words(run)
        finally:
            (run / file).write_bytes(whole)
            (run / "run.json").write_text(record)


@pytest.mark.parametrize("damage", ["a long field", "terabytes", "brackets", "a zip", "a cosine too large"])
def test_held_out_predictions_that_are_damaged_are_named(home: Path, tmp_path: Path, damage: str) -> None:
    run = shutil.copytree(home / "runs" / NAMES[0], tmp_path / "run")
    file, change = FILES[damage]
    (run / file).write_bytes(change((run / file).read_bytes()))
    with pytest.raises(Img2PromptError, match=r"validation predictions of .* cannot be read: .*fit it again"):
        load_validation(run, load_run(run))


@settings(max_examples=50, deadline=None, database=None, derandomize=True)
@given(st.data())
def test_any_bytes_are_read_or_refused(
    home: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["validation.npy", "validation.csv", "run.json", "history.csv"]))
    source = home / "runs" / NAMES[0]
    run = tmp_path_factory.mktemp("bytes") / "run"
    shutil.copytree(source, run)
    whole = bytearray((run / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(whole), 400)))
        whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    (run / name).write_bytes(whole)
    with suppress(Img2PromptError):
        made = load_run(run)
        repr((made, made.history, made._repr_html_()))
        load_validation(run, made)
    shutil.rmtree(run)


def test_compare_goes_on_without_what_is_damaged(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = shutil.copytree(home, tmp_path / "cache")
    (cache / "runs" / NAMES[0] / "run.json").write_text('{"schema": 1, "split": {"folds": "x"}}')
    table = cache / "runs" / NAMES[1] / "validation.csv"
    table.write_text(table.read_text().replace("0.", "x", 1))
    cli = Cli(capsys)
    said = cli("compare", "--cache", cache, "--json")
    assert said.code == 0
    assert len(said.json["runs"]) == 6
    assert said.err.count("left out: ") == 1
    assert f"{NAMES[0]}/run.json does not describe a run: " in said.err
    said = cli("compare", "--cache", cache, "--by", "length", "--against", NAMES[2], "--json")
    assert said.code == 0
    assert len(said.json["runs"]) == 5
    assert f"the validation predictions of {table.parent} cannot be read" in said.err
