"""Passes and predictions with OpenVINO: which columns it computes, and with which it may be exchanged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.extraction.extract import extract
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.models.backbones.taps import choose_taps
from img2prompt_cache.models.loader import Models
from img2prompt_cache.models.runtimes import runtime_of
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.prediction.predict import predict
from img2prompt_cache.prediction.stream import load_backbones
from img2prompt_cache.runs.run import Run, load_run
from kit import Log, Stopping, Tiny, make_source, parts_of
from synthetic import Cli

pytest.importorskip("openvino")

from img2prompt_cache.models.backbones import acceleration

INSTALL = r"openvino is not installed; run `pip install 'img2prompt-cache\[cpu\]'`"
FASTER = "openvino computes faster than torch here"


@pytest.fixture(autouse=True, scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A user's folder of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMG2PROMPT_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO is not installed."""
    monkeypatch.setattr("img2prompt_cache.models.runtimes.has_openvino", lambda: False)


LEVELS = choose_taps(levels="multi", views=2)


@pytest.fixture(scope="module")
def made(tiny: Tiny, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with features, levels and views by OpenVINO."""
    folder = tmp_path_factory.mktemp("made") / "cache"
    tiny.extract(pairs, folder, runtime="openvino", taps=LEVELS)
    return folder


@pytest.fixture(scope="module")
def plain(tiny: Tiny, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by torch."""
    folder = tmp_path_factory.mktemp("plain") / "cache"
    tiny.extract(pairs, folder, taps=LEVELS)
    return folder


def runtimes(folder: Path) -> dict[str, str]:
    """The runtime of each column of images, by the end of its spec."""
    columns = [
        column for column in load_manifest(folder).columns if column.kind in ("features", "views", "trunk")
    ]
    return {column.spec.partition("#")[2]: runtime_of(column.fingerprint) for column in columns}


def test_openvino_computes_what_torch_does(made: Path, plain: Path) -> None:
    assert set(runtimes(made).values()) == {"openvino"}
    assert set(runtimes(plain).values()) == {"torch"}
    one, other = Cache(made), Cache(plain)
    for column in one.manifest.columns:
        if column.kind not in ("features", "views"):
            continue
        values, wanted = (each.values(each.column(column.kind, column.spec)) for each in (one, other))
        assert np.array_equal(np.isnan(values), np.isnan(wanted))
        np.testing.assert_allclose(values, wanted, atol=2e-3, rtol=2e-3)


def test_stopped_anywhere_it_goes_on_to_the_same_bytes(
    made: Path, tiny: Tiny, pairs: Path, tmp_path: Path
) -> None:
    folder, stops = tmp_path / "cache", 0
    for left, runtime in ((2, "openvino"), (3, "auto"), (100, "auto")):
        log = Stopping(left=left)
        try:
            tiny.extract(pairs, folder, log, runtime=runtime, taps=LEVELS)
        except KeyboardInterrupt:
            stops += 1
    assert stops == 2
    assert parts_of(folder) == parts_of(made)


def test_a_column_is_continued_with_the_runtime_that_it_was_made_with(
    made: Path, plain: Path, tiny: Tiny, pairs: Path
) -> None:
    log = Log()
    tiny.extract(pairs, made, log, runtime="auto")
    assert log.plans[0].work == 0
    for folder, asked, was in ((made, "torch", "openvino"), (plain, "openvino", "torch")):
        with pytest.raises(Img2PromptError, match=f"runtime was {was}, is now {asked}"):
            tiny.extract(pairs, folder, runtime=asked)
    manifest = load_manifest(made)
    backbone = Models().backbone(manifest.of_kind("features")[0])
    assert backbone.runtime == "openvino"


def test_without_openvino_its_columns_are_not_continued(
    made: Path, tiny: Tiny, pairs: Path, tmp_path: Path, without: None
) -> None:
    column = load_manifest(made).of_kind("features")[0]
    with pytest.raises(Img2PromptError, match=rf"made with `runtime=\"openvino\"`: {INSTALL}"):
        Models().backbone(column)
    with pytest.raises(UsageError, match=INSTALL) as raised:
        tiny.extract(pairs, tmp_path / "cache", runtime="openvino")
    assert raised.value.parameter == "runtime"
    tiny.extract(pairs, tmp_path / "cache", runtime="auto")
    assert runtimes(tmp_path / "cache") == {"": "torch"}


@pytest.mark.parametrize(("gain", "runtime"), [(2.5, "openvino"), (0.9, "torch")])
def test_auto_takes_the_faster_one_where_there_are_many_images(
    gain: float, runtime: str, tiny: Tiny, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceleration, "race", lambda *_: gain)
    tiny.extract(pairs, tmp_path / "few", few := Log())
    assert runtimes(tmp_path / "few") == {"": "torch"}
    monkeypatch.setattr("img2prompt_cache.models.new_backbones.RACE_FROM", 23)
    tiny.extract(pairs, tmp_path / "many", many := Log())
    assert runtimes(tmp_path / "many") == {"": runtime}
    assert not [line for line in few.notes if FASTER in line]
    told = [line for line in many.notes if FASTER in line]
    assert told == (
        [f'{FASTER}, and is used: {tiny.cnn} (2.5 times); `runtime="torch"` does without'] if gain > 1 else []
    )


def test_auto_stays_with_torch_where_openvino_computes_something_else(
    tiny: Tiny, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Img2PromptError("it does not")

    monkeypatch.setattr(acceleration, "Graph", fail)
    monkeypatch.setattr("img2prompt_cache.models.new_backbones.RACE_FROM", 1)
    tiny.extract(pairs, tmp_path / "cache", log := Log())
    assert runtimes(tmp_path / "cache") == {"": "torch"}
    assert "it does not. So torch computes it" in log.notes


def test_no_race_decides_for_other_machines(
    tiny: Tiny, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceleration, "race", lambda *_: 2.0)
    monkeypatch.setattr("img2prompt_cache.models.new_backbones.RACE_FROM", 1)
    cache = tmp_path / "cache"
    extract(pairs, cache, backbones=tiny.cnn, encoder=tiny.encoder, shard="1/1")
    extract(cache=cache, finish=True)
    assert runtimes(cache) == {"": "torch"}


def test_trunks_stay_with_torch(
    tiny: Tiny, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceleration, "race", lambda *_: 2.0)
    monkeypatch.setattr("img2prompt_cache.models.new_backbones.RACE_FROM", 1)
    trunk = choose_taps(trunk=1, views=1)
    with_trunk = {"": "torch", "k1": "torch", "v1": "torch", "k1-v1": "torch"}
    tiny.extract(pairs, tmp_path / "auto", taps=trunk)
    assert runtimes(tmp_path / "auto") == with_trunk
    tiny.extract(pairs, tmp_path / "added")
    tiny.extract(pairs, tmp_path / "added", taps=trunk)
    assert runtimes(tmp_path / "added") == {**with_trunk, "": "openvino", "v1": "openvino"}
    one, other = Cache(tmp_path / "auto"), Cache(tmp_path / "added")
    for spec in ("#k1", "#k1-v1"):
        kind = "views" if "-" in spec else "trunk"
        values = [each.values(each.column(kind, f"{tiny.cnn}{spec}")) for each in (one, other)]
        assert np.array_equal(*values, equal_nan=True)


@pytest.mark.parametrize("asked", ["fastest", "onnx", ""])
def test_an_unknown_runtime_is_refused(asked: str, tiny: Tiny, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="runtime") as raised:
        extract(pairs, tmp_path / "cache", backbones=tiny.cnn, encoder=tiny.encoder, runtime=asked)
    assert raised.value.parameter == "runtime"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("precision", "device"), [("fp16", "cpu")])
def test_what_openvino_does_not_compute_is_refused(
    precision: str, device: str, tiny: Tiny, pairs: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="openvino computes in fp32 or bf16, not in fp16"):
        tiny.extract(pairs, tmp_path / "cache", runtime="openvino", precision=precision, device=device)


@pytest.fixture(scope="module")
def run_of(made: Path, plain: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run on features by either runtime."""
    found = {}
    for name, folder in (("openvino", made), ("torch", plain)):
        config = FitConfig("ridge", {"alpha": 0.1}, split="random", features=())
        found[name] = load_run(fit_head(Cache(folder), config, folder / "runs" / "it").folder)
    return found


@pytest.mark.parametrize("made_with", ["torch", "openvino"])
@pytest.mark.parametrize("asked", ["auto", "torch", "openvino"])
def test_either_runtime_predicts_from_the_others_features(
    asked: str, made_with: str, run_of: dict[str, Run], tmp_path: Path
) -> None:
    images = make_source(tmp_path / "new", 3, first=40)
    run = run_of[made_with]
    wanted = predict(run, images, runtime="torch").vectors
    assert cosine(predict(run, images, runtime=asked).vectors, wanted).min() > 0.9999
    used = {backbone.runtime for backbone in load_backbones(run.features, runtime=asked).values()}
    assert used == {made_with if asked == "auto" else asked}


def test_without_openvino_torch_predicts_in_its_place(
    run_of: dict[str, Run], tmp_path: Path, without: None
) -> None:
    images = make_source(tmp_path / "new", 3, first=40)
    log = Log()
    found = predict(run_of["openvino"], images, progress=log)
    assert np.array_equal(found.vectors, predict(run_of["openvino"], images, runtime="torch").vectors)
    (told,) = [line for line in log.notes if "openvino" in line]
    assert "torch computes it here" in told
    with pytest.raises(UsageError, match=INSTALL) as raised:
        predict(run_of["torch"], images, runtime="openvino")
    assert raised.value.parameter == "runtime"
    with pytest.raises(UsageError, match="runtime"):
        predict(run_of["torch"], images, runtime="onnx")


def test_what_openvino_cannot_compute_here_torch_predicts(
    run_of: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Img2PromptError("openvino does not compute in bf16 on this processor")

    images = make_source(tmp_path / "new", 3, first=40)
    wanted = predict(run_of["openvino"], images, runtime="torch")
    monkeypatch.setattr(acceleration, "accelerate", fail)
    found = predict(run_of["openvino"], images, progress=(log := Log()))
    assert np.array_equal(found.vectors, wanted.vectors)
    assert [line for line in log.notes if line.endswith("on this processor. So torch computes it")]
    with pytest.raises(Img2PromptError, match="on this processor"):
        predict(run_of["openvino"], images, runtime="openvino")


def test_a_fingerprint_that_differs_in_more_is_refused(run_of: dict[str, Run], tmp_path: Path) -> None:
    column = run_of["openvino"].features[0]
    changed = replace(column, fingerprint={**column.fingerprint, "weights": "sha256:0"})
    with pytest.raises(Img2PromptError, match="weights was sha256:0"):
        load_backbones([changed], runtime="torch")


def test_the_command_line(
    tiny: Tiny, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli, cache = Cli(capsys), tmp_path / "cache"
    base = ["extract", pairs, "--cache", cache, "--backbone", tiny.cnn, "--encoder", tiny.encoder]
    said = cli(*base, "--runtime", "openvino", "--precision", "fp32")
    assert said.code == 0, said.err
    assert runtimes(cache) == {"": "openvino"}
    cli(*base, "--runtime", "torch").refused(1, "runtime was openvino, is now torch")
    cli(*base, "--runtime", "fast").refused(2, "unknown --runtime 'fast'")
    assert cli("fit", "--head", "mean", "--cache", cache, "--split", "random").code == 0
    image = next(pairs.glob("img*.png"))
    for runtime in ("auto", "torch", "openvino"):
        assert cli("predict", image, "--cache", cache, "--runtime", runtime, "--top-k", 1).code == 0
    cli("predict", image, "--cache", cache, "--runtime", "fast").refused(2, "unknown --runtime 'fast'")
