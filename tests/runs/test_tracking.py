"""Entries of runs and trials, read back with each tracker's own library."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from img2prompt_cache.errors import UsageError
from img2prompt_cache.fitting.fit import fit
from img2prompt_cache.runs.tracking import track as tracking
from img2prompt_cache.runs.tracking.entry import run_entry
from img2prompt_cache.runs.tracking.track import TRACKERS, Tracker
from img2prompt_cache.tuning.finished import load_study
from img2prompt_cache.tuning.tune import tune
from synthetic import ONE, Cli, make_cache

BLOCK = 1 << 15
MLP = {"hidden": [16], "max_epochs": 3, "batch_size": 32}
LIBRARY_WARNINGS = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore::ResourceWarning"
)
"""Of the libraries themselves, as their versions come and go."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("tracking") / "cache")


@pytest.fixture
def notes():
    found: list[str] = []
    return found


def listener(notes):
    return lambda event: notes.append(event.message) if event.kind == "note" else None


def test_an_entry_tells_settings_scores_with_intervals_and_curves(cache, tmp_path):
    run = fit(cache, "mlp", settings=MLP, features=ONE, folds=3, run=tmp_path / "run")
    entry = run_entry(run)
    assert entry.settings["hidden"] == "[16]"
    assert entry.settings["features"] == json.dumps([ONE])
    assert entry.settings["folds"] == 3
    assert entry.metrics["cosine"] == run.metrics["cosine"]
    assert [entry.metrics["ci95_low"], entry.metrics["ci95_high"]] == run.metrics["ci95"]
    assert [step["train_loss"] for step in entry.curves] == [step["train_loss"] for step in run.history]
    assert [file.name for file in entry.files] == ["run.json", "history.csv"]


@LIBRARY_WARNINGS
def test_tensorboard_shows_curves_metrics_and_settings(cache, tmp_path, notes):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    home = make_cache(tmp_path / "cache")
    run = fit(home, "mlp", settings=MLP, features=ONE, track="tensorboard", progress=listener(notes))
    place = home / "tracking" / "tensorboard" / run.name
    shown = events.EventAccumulator(str(place)).Reload()
    curve = [event.value for event in shown.Scalars("history/train_loss")]
    assert curve == pytest.approx([step["train_loss"] for step in run.history], rel=1e-6)
    assert shown.Scalars("metrics/cosine")[0].value == pytest.approx(run.metrics["cosine"], rel=1e-6)
    data = shown.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"batch_size" in data
    assert f"tensorboard: {place.parent}" in notes
    again = fit(home, "mean", features=ONE, run=run.folder, overwrite=True, track="tensorboard")
    assert again.name == run.name
    shown = events.EventAccumulator(str(place.with_name(f"{run.name}-2"))).Reload()
    assert "history/train_loss" not in shown.Tags()["scalars"], "events of two runs are not one curve"


@LIBRARY_WARNINGS
def test_mlflow_has_parameters_metrics_by_step_and_the_record(tmp_path, monkeypatch, notes):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = make_cache(tmp_path / "cache")
    run = fit(home, "mlp", settings=MLP, features=ONE, track="mlflow", progress=listener(notes))
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{home / 'tracking' / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("img2prompt-cache").experiment_id])
    assert found.info.run_name == run.name
    assert found.info.status == "FINISHED"
    assert found.data.params["hidden"] == "[16]"
    assert found.data.metrics["cosine"] == run.metrics["cosine"]
    assert found.data.metrics["r_at_1"] == run.metrics["r@1"]
    curve = client.get_metric_history(found.info.run_id, "history/train_loss")
    assert [each.value for each in curve] == [step["train_loss"] for step in run.history]
    files = {each.path for each in client.list_artifacts(found.info.run_id)}
    assert files == {"run.json", "history.csv"}


OFFLINE = """
import os, sys
for name in ("CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST", "MLFLOW_TRACKING_URI"):
    os.environ.pop(name, None)
asked = []
sys.addaudithook(lambda event, given: asked.append(given) if event == "socket.getaddrinfo" else None)
from pathlib import Path
from img2prompt_cache.runs.tracking.entry import Entry
from img2prompt_cache.runs.tracking.track import Tracker
for number in range(3):
    entry = Entry(f"a-{number}", "trial", "a", {"k": 1}, {"cosine": 0.5})
    Tracker("mlflow", Path(sys.argv[1]), print).write(lambda: entry)
import mlflow, time
from mlflow.telemetry.utils import is_telemetry_disabled
assert is_telemetry_disabled()
time.sleep(1)
assert not asked, asked
"""


@pytest.mark.slow
def test_mlflow_asks_no_server_for_its_usage_statistics(tmp_path):
    pytest.importorskip("mlflow.telemetry")
    pytest.importorskip("alembic")
    done = subprocess.run([sys.executable, "-c", OFFLINE, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tracking" / "mlflow.db").is_file()


def log_records(data: bytes) -> Iterator[bytes]:
    """Read a file in the log format of LevelDB, as wandb writes it after seven bytes of its own."""
    at, record = 7, b""
    while at + 7 <= len(data):
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""
        if -at % BLOCK < 7:
            at += -at % BLOCK


@LIBRARY_WARNINGS
def test_wandb_keeps_an_offline_run_in_the_cache(tmp_path, monkeypatch, notes):
    wandb = pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2 as proto

    monkeypatch.delenv("WANDB_MODE", raising=False)  # offline unless it says otherwise
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "artifacts"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    home = make_cache(tmp_path / "cache")
    run = fit(home, "mlp", settings=MLP, features=ONE, track="wandb", progress=listener(notes))
    wandb.teardown()
    (file,) = home.glob("tracking/wandb/offline-run-*/*.wandb")
    config, summary, losses = {}, {}, []
    for data in log_records(file.read_bytes()):
        record = proto.Record()
        record.ParseFromString(data)
        config |= {each.key: json.loads(each.value_json) for each in record.run.config.update}
        summary |= {
            each.key or each.nested_key[-1]: json.loads(each.value_json) for each in record.summary.update
        }
        items = {each.key or each.nested_key[-1]: each.value_json for each in record.history.item}
        losses += [json.loads(items["history/train_loss"])] if "history/train_loss" in items else []
    assert config["hidden"] == "[16]"
    assert summary["cosine"] == pytest.approx(run.metrics["cosine"])
    assert losses == pytest.approx([step["train_loss"] for step in run.history])


@LIBRARY_WARNINGS
def test_tune_logs_every_trial_and_the_run(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    home = make_cache(tmp_path / "cache")
    run = tune(home, "knn", trials=2, features=ONE, track="tensorboard")
    study = load_study("knn-one", home)
    for trial in study.trials:
        place = home / "tracking" / "tensorboard" / "knn-one" / f"knn-one-{trial.number}"
        shown = events.EventAccumulator(str(place)).Reload()
        assert shown.Scalars("metrics/cosine")[0].value == pytest.approx(trial.cosine, rel=1e-6)
    assert (home / "tracking" / "tensorboard" / run.name).is_dir()
    tune(home, "knn", trials=3, features=ONE, track="tensorboard", fit=False)
    logged = {path.name for path in (home / "tracking" / "tensorboard" / "knn-one").iterdir()}
    assert logged == {f"knn-one-{number}" for number in range(3)}, "none is logged twice"


def test_a_tracker_that_fails_in_the_middle_is_told_once_and_nothing_is_lost(tmp_path, monkeypatch, notes):
    written: list[str] = []

    def write(entry, home):
        if written:
            raise ConnectionError("the server\nis gone")
        written.append(entry.name)
        return "there"

    monkeypatch.setitem(TRACKERS, "tensorboard", write)
    monkeypatch.setattr(tracking, "find_spec", lambda name: SimpleNamespace(origin="x"))
    home = make_cache(tmp_path / "cache")
    run = tune(home, "knn", trials=4, features=ONE, track="tensorboard", progress=listener(notes))
    assert (run.folder / "run.json").is_file()
    assert len(load_study("knn-one", home).trials) == 4
    told = [line for line in notes if "tensorboard" in line]
    assert told == [
        "tensorboard: there",
        "tensorboard failed: the server is gone; nothing that was fitted is lost, but nothing more is logged",
    ]
    assert written == ["knn-one-0"]


def test_a_cache_that_cannot_be_written_to_loses_no_run(cache, tmp_path, monkeypatch, notes):
    pytest.importorskip("tensorboard")
    home = make_cache(tmp_path / "cache")
    (home / "tracking").write_text("in the way")
    run = fit(home, "mean", run=tmp_path / "run", track="tensorboard", progress=listener(notes))
    assert (run.folder / "run.json").is_file()
    assert [line for line in notes if line.startswith("tensorboard failed: ")]


def test_nothing_is_tracked_unless_asked_for(tmp_path):
    Tracker(None, tmp_path, print).write(lambda: pytest.fail("nobody reads it"))
    assert not [*tmp_path.iterdir()]


def test_unknown_and_missing_trackers_stop_before_the_fit(cache, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="unknown tracker 'tensorbord'; did you mean tensorboard") as caught:
        fit(cache, "mean", run=tmp_path / "run", track="tensorbord")
    assert caught.value.parameter == "track"
    for found in (None, SimpleNamespace(origin=None)):  # a folder of that name is no library
        monkeypatch.setattr(tracking, "find_spec", lambda name, found=found: found)
        with pytest.raises(UsageError, match=r"pip install 'img2prompt-cache\[track\]'"):
            tune(cache, "knn", track="wandb", run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@LIBRARY_WARNINGS
def test_the_command_line_tracks(tmp_path, capsys):
    pytest.importorskip("tensorboard")
    home = make_cache(tmp_path / "cache")
    done = Cli(capsys)("fit", "--head", "ridge", "--cache", home, "--track", "tensorboard")
    assert done.code == 0
    assert f"tensorboard: {home / 'tracking' / 'tensorboard'}" in done.err
    assert [*(home / "tracking" / "tensorboard").rglob("events*")]
