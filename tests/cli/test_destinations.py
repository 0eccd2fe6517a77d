"""No command writes over, or among, the files of a cache or a run, whatever path it is given."""

from __future__ import annotations

import inspect
import os
import shutil
from pathlib import Path
from typing import Any, get_args

import h5py
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

from img2prompt_cache.cli.main import app
from synthetic import Cli, make_cache

RUN = "ridge-one+other-01"
OUTPUTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("extract", "cache"): ("IMAGES", "--cache", "PATH", "--preset", "packaged"),
    ("fit", "run"): ("--head", "mean", "--run", "PATH", "--overwrite"),
    ("fit", "oof"): ("--head", "mean", "--oof", "PATH", "--overwrite", "--run", "RUNS/oof"),
    ("tune", "run"): ("--head", "knn", "--trials", "1", "--run", "PATH", "--overwrite"),
    ("tune", "study"): ("--head", "knn", "--trials", "1", "--no-fit", "--study", "PATH"),
    ("influence", "out"): ("STUDY", "--out", "PATH"),
    ("compare", "out"): ("--out", "PATH", "--overwrite"),
    ("predict", "out"): ("CACHE", "--run", RUN, "--out", "PATH", "--overwrite"),
    ("dedup", "out"): ("--out", "PATH", "--overwrite"),
    ("watch", "out"): ("CACHE", "--once", "--run", RUN, "--out", "PATH"),
    ("dedup", "move"): ("--move", "PATH", "--yes"),
    ("dedup", "link"): ("--link", "PATH"),
    ("report", "out"): ("--out", "PATH", "--overwrite"),
    ("report", "atlas"): ("--json", "--atlas", "PATH", "--overwrite"),
    ("explore", "out"): ("CACHE", "--out", "PATH", "--overwrite"),
    ("pack", "out"): ("PATH", "--overwrite"),
    ("bundle", "out"): (RUN, "--out", "PATH", "--overwrite"),
    ("export", "out"): (RUN, "--out", "PATH", "--overwrite"),
    ("demo", "folder"): ("--dir", "PATH", "--overwrite"),
}
"""Options that name what is written, each with a command line that writes to PATH."""

INPUTS = {
    *((command, name) for command in ("extract", "explore") for name in ("source", "prompts")),
    *(("fit", name) for name in ("cache", "only", "members", "teacher", "extra", "soften")),
    *(("tune", "cache"), ("influence", "cache"), ("compare", "cache"), ("dedup", "cache")),
    *(("predict", name) for name in ("paths", "run", "bank", "cache", "weights", "like")),
    *(("bundle", name) for name in ("run", "bank", "cache", "weights")),
    *(("card", name) for name in ("run", "cache")),
    *(("push", name) for name in ("run", "cache", "onnx")),
    *(("export", name) for name in ("run", "cache", "weights")),
    *(("app", name) for name in ("run", "bank", "cache")),
    *((command, name) for command in ("search", "top", "watch") for name in ("run", "cache")),
    *(("watch", name) for name in ("folder", "bank", "weights")),
    *(("compare", "runs"), ("compare", "against"), ("report", "runs"), ("report", "cache")),
    *((name, "cache") for name in ("info", "verify", "repair", "pack")),
}
"""Options that name what is read. `repair`, `fit` and `tune` write into the cache that they read."""

FILES = {
    ("influence", "out"): (".csv",),
    ("fit", "oof"): (".csv", ".npy", ".parquet", ".jsonl"),
    ("compare", "out"): (".csv", ".md", ".tex"),
    ("predict", "out"): (".csv", ".npy", ".parquet", ".jsonl", ".prompts.csv"),
    ("dedup", "out"): (".csv",),
    ("report", "out"): (".html",),
    ("report", "atlas"): (".parquet",),
    ("explore", "out"): (".html",),
    ("pack", "out"): (".h5", ".hdf5"),
    ("export", "out"): (".onnx",),
}
"""Of these, the ones that name a file, with the extensions that it may have."""

PATH_METAVARS = ("DIR", "FILE", "PATH", "OUT.h5", "SOURCE", "RUN", "RUN,RUN", "train|FILE")

PLACES = (
    *("cache.json", "cache.h5", "new.h5", "features/new", "features/timm-one/new.npy", "rows/new.csv"),
    *("targets/new.csv", "targets/new.parquet", "runs/new.npy", "studies/new.jsonl"),
    *(f"runs/{RUN}/{name}" for name in ("run.json", "validation.npy", "validation.csv", "new", "new.db")),
)
"""Places in a cache where nothing but its own parts, or those of a run, may be."""

OWN = {
    ("fit", "run"): {"runs"},
    ("tune", "run"): {"runs"},
    ("tune", "study"): {"studies"},
}


def path_options() -> set[tuple[str, str]]:
    """Every option and argument of every command that takes a path."""
    found = set()
    for command in app.registered_commands:
        assert command.callback is not None
        for parameter in inspect.signature(command.callback, eval_str=True).parameters.values():
            kind, *notes = get_args(parameter.annotation) or (parameter.annotation,)
            info: Any = next((n for n in notes if isinstance(n, typer.models.ParameterInfo)), None)
            if info is None:
                continue
            is_path = Path in (kind, *get_args(kind)) or info.metavar in PATH_METAVARS
            if is_path:
                found.add((command.callback.__name__, parameter.name))
    return found


@pytest.fixture(scope="module")
def whole(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(fitted, tmp_path_factory.mktemp("whole") / "cache")
    from img2prompt_cache.tuning.tune import tune

    tune(folder, "knn", trials=2, fit=False)
    return folder


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


def arguments(key: tuple[str, str], cache: Path, path: Path) -> list[object]:
    known = {
        "PATH": path,
        "CACHE": cache,
        "RUNS/oof": cache.parent / "oof",
        "IMAGES": cache.parent / "images",
        "STUDY": cache / "studies" / "knn-one+other.db",
    }
    words: list[object] = [key[0], *(known.get(word, word) for word in OUTPUTS[key])]
    takes_cache = (key[0], "cache") in INPUTS
    return [*words, "--cache", cache] if takes_cache else words


def test_every_option_that_takes_a_path_is_known_to_be_read_or_written() -> None:
    assert path_options() - {("tune", "space")} == INPUTS | OUTPUTS.keys()
    assert not INPUTS & OUTPUTS.keys()


@pytest.mark.parametrize("key", OUTPUTS, ids="-".join)
def test_no_command_writes_among_the_files_of_a_cache_or_run(
    cli: Cli, whole: Path, tmp_path: Path, key: tuple[str, str]
) -> None:
    if "tune" in key or key[0] == "influence":
        pytest.importorskip("optuna", reason="needs the extra: pip install 'img2prompt-cache[tune]'")
    before = contents(whole)
    (whole.parent / "images").mkdir(exist_ok=True)
    link = tmp_path / "link"
    link.symlink_to(whole)
    for place in PLACES:
        if place.split("/")[0] in OWN.get(key, set()) and RUN not in place:
            continue
        if key in {("predict", "out"), ("fit", "oof")} and Path(place).suffix not in (".npy", ".csv"):
            continue
        for base in (whole, link if "run" in place else whole / "runs" / ".."):
            said = cli(*arguments(key, whole, base / place))
            assert (said.code, said.out) == (2, ""), (place, said)
            assert "(unexpected" not in said.err
            assert contents(whole) == before, place


def test_outputs_have_their_place_in_a_cache(cli: Cli, whole: Path, tmp_path: Path) -> None:
    cache = shutil.copytree(whole, tmp_path / "cache")
    assert cli("dedup", "--cache", cache, "--out", cache / "strict.csv").code == 0
    assert cli("fit", "--head", "mean", "--cache", cache, "--run", cache / "runs" / "deep" / "er").code == 0
    assert cli("fit", "--head", "mean", "--cache", cache, "--run", tmp_path / "apart").code == 0


def test_what_is_read_is_not_replaced(cli: Cli, whole: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "bank.csv"
    prompts.write_text("prompt\na red boat\n")
    os.link(prompts, tmp_path / "same.csv")
    (tmp_path / "also.csv").symlink_to(prompts)
    for name in ("bank.csv", "same.csv", "also.csv"):
        said = cli(
            *("predict", whole, "--cache", whole, "--run", RUN, "--bank", prompts),
            *("--out", tmp_path / name, "--overwrite"),
        )
        said.refused(2, "--out", "is the same file as", "name another file")
    assert prompts.read_text() == "prompt\na red boat\n"


@pytest.mark.parametrize("extension", [".csv", ".npy", ".parquet", ".jsonl", ".h5", ".png"])
@pytest.mark.parametrize("key", FILES, ids="-".join)
def test_a_file_that_is_no_earlier_output_is_not_replaced(
    cli: Cli, whole: Path, tmp_path: Path, key: tuple[str, str], extension: str
) -> None:
    if key[0] == "influence":
        pytest.importorskip("optuna", reason="needs the extra: pip install 'img2prompt-cache[tune]'")
    prompts = tmp_path / f"prompts{extension}"
    for content in (
        b"imgId,prompt\na,a red boat\n",
        b'{"imgId": "a", "prompt": "a red boat"}\n',
        b"\x89PNG\r\n\x1a\n" + bytes(40),
        b"PAR1" + bytes(40) + b"PAR1",
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }",
        b"\x89HDF\r\n\x1a\n" + bytes(80),
    ):
        prompts.write_bytes(content)
        cli(*arguments(key, whole, prompts)).refused(2, str(prompts))
        assert prompts.read_bytes() == content
        assert list(tmp_path.iterdir()) == [prompts]


def test_a_table_or_array_beside_the_output_is_not_replaced(cli: Cli, whole: Path, tmp_path: Path) -> None:
    beside = tmp_path / "x.ids.csv"
    beside.write_text("imgId,prompt\na,a red boat\n")
    said = cli(*arguments(("predict", "out"), whole, tmp_path / "x.npy"))
    said.refused(2, "x.ids.csv is there and was not made by `img2prompt-cache predict`", "name another file")
    assert beside.read_text() == "imgId,prompt\na,a red boat\n"


def test_parquet_and_hdf5_files_of_the_user_are_not_replaced(cli: Cli, whole: Path, tmp_path: Path) -> None:
    table, features = tmp_path / "prompts.parquet", tmp_path / "features.h5"
    pq.write_table(pa.table({"imgId": ["a"], "prompt": ["a red boat"]}), table)
    with h5py.File(features, "w") as file:
        file["mine"] = [1, 2]
    before = contents(tmp_path)
    for key, path in ((("predict", "out"), table), (("pack", "out"), features)):
        cli(*arguments(key, whole, path)).refused(
            2, f"{path} is there and was not made by", "remove it first"
        )
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "key", [key for key in FILES if key[0] != "export"], ids="-".join
)  # the backbones of these runs are not there to be exported; tests/exporting does it with one that is
def test_an_earlier_output_and_an_empty_file_are_replaced(
    cli: Cli, whole: Path, tmp_path: Path, key: tuple[str, str]
) -> None:
    if key[0] == "influence":
        pytest.importorskip("optuna", reason="needs the extra: pip install 'img2prompt-cache[tune]'")
    for extension in FILES[key]:
        path = tmp_path / f"x{extension}"
        path.touch()
        assert cli(*arguments(key, whole, path)).code == 0
        before = contents(tmp_path)
        path.touch()
        assert cli(*arguments(key, whole, path)).code == 0
        assert contents(tmp_path).keys() == before.keys()


def test_a_lost_or_broken_manifest_does_not_open_a_cache(cli: Cli, whole: Path, tmp_path: Path) -> None:
    cache = shutil.copytree(whole, tmp_path / "cache")
    (cache / "cache.json").write_text("")
    (cache / "runs" / RUN / "run.json").write_text("{")
    for place in (f"runs/{RUN}/new.csv", "features/new.csv"):
        cli("dedup", "--cache", whole, "--out", cache / place).refused(2, "--out", "lies among the files")


def test_a_file_of_another_program_is_no_cache(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_text('{"version": 1, "rows": []}')
    (tmp_path / "run.json").write_text("{}")
    cache = make_cache(tmp_path / "mine", 20)
    assert cli("pack", tmp_path / "all.h5", "--cache", cache).code == 0


def test_a_device_is_not_replaced(cli: Cli, whole: Path) -> None:
    for path in ("/dev/null",):
        cli("dedup", "--cache", whole, "--out", path, "--overwrite").refused(2, "--out", "device")
    assert Path("/dev/null").is_char_device()
