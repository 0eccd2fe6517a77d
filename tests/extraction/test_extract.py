"""`extract` as it is called from Python."""

from __future__ import annotations

import doctest
import inspect
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from img2prompt_cache import extract, open_source
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.cli.extract import extract as command
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.extraction import Plan, Report, ShardReport
from img2prompt_cache.models.specs import PRESETS
from img2prompt_cache.progress import Event
from kit import Tiny, make_source, paint, parts_of


@pytest.fixture
def options(tiny: Tiny) -> dict[str, Any]:
    """Those `made` was made with."""
    return {
        "backbones": [tiny.cnn],
        "encoder": tiny.encoder,
        "precision": "fp32",
        "part_rows": 8,
        "batch_size": 4,
    }


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events if event.kind != "step"]


def test_every_option_of_the_command_line_is_a_parameter() -> None:
    parameters = inspect.signature(extract).parameters
    options = {"backbones" if name == "backbone" else name for name in inspect.signature(command).parameters}
    assert parameters.keys() == options - {"json", "dry_run"} | {"progress"}
    defaults = {name: p.default for name, p in inspect.signature(command).parameters.items()}
    for name, parameter in parameters.items():
        if name in defaults and name != "backbones":
            assert parameter.default == defaults[name], name
        assert name in (extract.__doc__ or "")


def test_the_example_of_the_docstring_runs(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_source(tmp_path / "images", 6)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "packaged", ((tiny.cnn,), tiny.encoder))
    example = doctest.DocTestParser().get_doctest(extract.__doc__ or "", {}, "extract", None, None)
    runner = doctest.DocTestRunner(verbose=False)
    assert len(example.examples) > 2
    assert runner.run(example).failed == 0


def test_it_makes_the_cache_that_the_command_line_makes(
    made: Path, pairs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    events: list[Event] = []
    cache = extract(str(pairs), str(tmp_path / "cache"), **options, progress=events.append)
    assert isinstance(cache, Cache)
    assert (cache.folder, cache.rows) == (tmp_path / "cache", 23)
    assert parts_of(tmp_path / "cache") == parts_of(made)
    assert kinds(events) == ["plan", "report"]
    plan, report = (event.value for event in events if event.kind in ("plan", "report"))
    assert isinstance(plan, Plan)
    assert isinstance(report, Report)
    assert (plan.work, report.ok, report.failed) == (23, 20, 3)
    assert events[-1].value is report
    steps = [event for event in events if event.kind == "step"]
    assert {(step.task, step.total) for step in steps} == {("extract", 23)}
    assert [step.done for step in steps] == [0, 4, 8, 12, 16, 20, 23]
    # A cache that is open may be given for its folder, and an open source for its path.
    events.clear()
    assert extract(open_source(pairs), cache, progress=events.append).rows == 23
    assert kinds(events) == ["plan", "report"]
    assert not [event for event in events if event.kind == "step"]


def test_it_is_silent_unless_asked(
    pairs: Path, options: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    extract(pairs, tmp_path / "cache", **options)
    assert capfd.readouterr() == ("", "")
    paint(shutil.copytree(pairs, tmp_path / "images") / "zz.png", 3)
    extract(tmp_path / "images", tmp_path / "other", **options, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "source: 22 pairs, 2 images without prompt, 0 prompts without image" in err
    assert "plan: 24 of 24 rows (24 new)" in err
    assert "24/24" not in err  # the line that shows what is under way is for terminals


def test_without_a_source_it_takes_what_is_there(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = make_source(tmp_path / "images", 5)
    (images / "prompts.csv").rename(tmp_path / "prompts.csv")
    monkeypatch.chdir(tmp_path)
    cache = extract(**options)
    assert (cache.folder, cache.rows) == (Path("cache/default"), 5)
    paint(images / "img005.png", 5)
    (tmp_path / "empty").mkdir()
    os.chdir(tmp_path / "empty")
    assert extract(cache=tmp_path / "cache" / "default").rows == 6
    with pytest.raises(UsageError, match="nothing to extract in"):
        extract()


def test_a_single_backbone_need_not_be_a_list(pairs: Path, options: dict[str, Any], tmp_path: Path) -> None:
    extract(pairs, tmp_path / "cache", **{**options, "backbones": options["backbones"][0]})
    specs = [column.spec for column in Cache(tmp_path / "cache").manifest.of_kind("features")]
    assert specs == options["backbones"]


def test_trunks_levels_and_views(pairs: Path, tiny: Tiny, options: dict[str, Any], tmp_path: Path) -> None:
    kept = {"trunk": 2, "trunk_dtype": "int8", "levels": "multi", "views": 2, "flip": True}
    cache = extract(pairs, tmp_path / "cache", **{**options, "backbones": tiny.vit}, **kept)
    specs = {column.spec.removeprefix(tiny.vit) for column in cache.manifest.columns[1:-1]}
    assert specs == {"", "#multi", "#k2-int8", "#v2f", "#multi-v2f", "#k2-int8-v2f"}


def test_shards_and_finish(made: Path, pairs: Path, options: dict[str, Any], tmp_path: Path) -> None:
    folder, events = tmp_path / "cache", list[Event]()
    assert extract(pairs, folder, **options, shard="2/2", progress=events.append).rows == 0
    assert isinstance(events[-1].value, ShardReport)
    assert (events[-1].value.parts, events[-1].value.left) == (1, 2)
    with pytest.raises(Img2PromptError, match="2 parts are not computed yet"):
        extract(cache=folder, finish=True)
    extract(pairs, folder, **options, shard="1/2")
    cache = extract(cache=folder, finish=True, progress=events.append)
    assert cache.rows == 23
    assert isinstance(events[-1].value, Report)
    assert parts_of(folder) == parts_of(made)


@pytest.mark.parametrize(
    "wrong", [{"shard": "1/2"}, {"engine": "local", "workers": 2}, {"retry_failed": True}]
)
def test_finish_goes_alone(wrong: dict[str, Any], cache: Path) -> None:
    with pytest.raises(UsageError, match="`shard` and `finish` cannot be combined"):
        extract(cache=cache, finish=True, **wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"preset": "standart"}, "unknown `preset` 'standart'"),
        ({"precision": "fp64"}, "unknown `precision` 'fp64'"),
        ({"clean": "lihgt"}, "unknown `clean` 'lihgt'"),
        ({"engine": "spark"}, "unknown `engine` 'spark'"),
        ({"ray_address": "auto"}, "`ray_address` has no meaning for"),
        ({"part_rows": 0}, "`part_rows` must be a whole number"),
        ({"batch_size": 1 << 17}, "`batch_size` must be a whole number"),
        ({"trunk": 0}, "`trunk` must be a whole number"),
        ({"views": 0}, "`views` must be a whole number"),
        ({"workers": 0}, "`workers` must be a whole number"),
        ({"shard": ""}, '`shard=""`: write i/n'),
        ({"shard": "3/2"}, '`shard="3/2"`: write i/n'),
    ],
)
def test_a_wrong_value_names_its_parameter_and_leaves_no_cache(
    wrong: dict[str, Any], message: str, pairs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        extract(pairs, tmp_path / "cache", **{**options, **wrong})
    assert str(caught.value).startswith(message)
    assert caught.value.parameter == next(iter(wrong))
    assert not (tmp_path / "cache").exists()


def test_an_open_source_takes_no_options_of_a_path(pairs: Path, tmp_path: Path) -> None:
    for wrong in ({"prompts": "x.csv"}, {"format": "table"}, {"id_column": "a"}, {"prompt_column": "b"}):
        with pytest.raises(UsageError, match="go with a source named by its path"):
            extract(open_source(pairs), tmp_path / "cache", **wrong)  # type: ignore[arg-type]
