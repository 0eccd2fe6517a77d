from __future__ import annotations

import inspect

import pytest

from examples import run_examples
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import UsageError
from img2prompt_cache.fitting.fit import fit
from img2prompt_cache.heads.space import Choices, LogUniform
from img2prompt_cache.runs.names import find_runs
from img2prompt_cache.tuning.finished import FinishedStudy, load_study
from img2prompt_cache.tuning.tune import tune
from synthetic import ONE, OTHER, make_cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("tune") / "cache")


def test_the_examples_of_the_docstring(tmp_path, monkeypatch):
    make_cache(tmp_path / "cache" / "default")
    monkeypatch.chdir(tmp_path)
    run_examples(tune)


def test_the_best_settings_are_fitted_as_an_ordinary_run(cache, tmp_path):
    options = {"features": (OTHER, ONE), "split": "random", "holdout": 0.3, "seed": 4}
    file = tmp_path / "study.db"
    run = tune(cache, "knn", trials=6, study=file, run=tmp_path / "run", **options)
    study = load_study(file)
    assert run.folder == tmp_path / "run"
    assert study.best.cosine == max(trial.cosine for trial in study.trials if trial.cosine is not None)
    wanted = fit(cache, "knn", settings=study.best.settings, run=tmp_path / "wanted", **options)
    assert (run.metrics, run.settings, run.split) == (wanted.metrics, wanted.settings, wanted.split)


def test_without_fit_it_gives_the_study(cache, tmp_path):
    before = find_runs(cache)
    study = tune(str(cache), "ridge", trials=3, fit=False, study=str(tmp_path / "study.db"))
    assert isinstance(study, FinishedStudy)
    assert study == load_study(tmp_path / "study.db")
    assert repr(study) == f"FinishedStudy({str(tmp_path / 'study.db')!r}, head='ridge', 3 trials)"
    assert find_runs(cache) == before
    table = study.influence()
    assert [each.setting for each in table] == ["alpha"]
    assert sum(marginal.scored for marginal in table[0].marginals) == 3


def test_a_study_is_found_by_its_name_in_the_cache(cache, tmp_path):
    tune(Cache(cache), "ridge", trials=1, fit=False, features=ONE)
    assert len(load_study("ridge-one", cache).trials) == 1
    assert load_study("ridge-one", Cache(cache)).file == cache / "studies" / "ridge-one.db"
    with pytest.raises(UsageError, match="there is no study ridge-none") as caught:
        load_study("ridge-none", cache)
    assert caught.value.parameter == "study"


@pytest.mark.parametrize(
    "space",
    [
        {"alpha": {"log": (0.1, 10.0)}, "choose": ("cosine", "mse")},
        {"alpha": LogUniform(0.1, 10.0), "choose": ["cosine", "mse"]},
        {"alpha": LogUniform(0.1, 10.0), "choose": Choices(("cosine", "mse"))},
    ],
)
def test_a_space_is_a_mapping_of_values_or_of_ranges(cache, tmp_path, space):
    study = tune(cache, "ridge", trials=2, space=space, fit=False, study=tmp_path / "study.db")
    assert study.space == {"alpha": LogUniform(0.1, 10.0), "choose": Choices(("cosine", "mse"))}


@pytest.mark.parametrize(
    ("options", "parameter", "words"),
    [
        ({"space": {}}, "space", "no search space"),
        ({"space": {"alpha": [{1}]}}, "space", "takes values as in JSON"),
        ({"space": {1: [2]}}, "space", "setting '1' of head 'ridge'"),
        ({"space": "none"}, "space", "there is no file none"),
        ({"space": {"seed": [1]}}, "space", "`seed` gives it"),
        ({"trials": 0}, "trials", "`trials` must be at least 1, not 0"),
        ({"seed": 2**32}, "seed", "`seed` must be from 0"),
        ({"device": "gpu"}, "device", "unknown device 'gpu'"),
        ({"sampler": "grid"}, "sampler", "unknown sampler 'grid'"),
        ({"head": "mean"}, "head", "nothing to search"),
        ({"head": "blend", "space": {"folds": [2]}}, "head", "made of runs"),
        ({"head": "mlp", "space": {"views": [True]}}, "space", "cannot search views"),
    ],
)
def test_errors_name_the_parameter(cache, tmp_path, options, parameter, words):
    with pytest.raises(UsageError, match=words) as caught:
        tune(cache, **{"head": "ridge", "trials": 1, "study": tmp_path / "study.db", **options})
    assert caught.value.parameter == parameter
    assert not (tmp_path / "study.db").exists()


def test_progress_tells_trials_and_fits(cache, tmp_path):
    events = []
    tune(cache, "ridge", trials=2, study=tmp_path / "s.db", run=tmp_path / "run", progress=events.append)
    shown = ("", "trials", "fit", "refit", "leakage gap")
    told = [(event.kind, event.task, event.done) for event in events if event.task in shown]
    assert told == [
        *(("step", "trials", 0), ("trial", "", 0), ("step", "trials", 1), ("trial", "", 0)),
        *(("step", "trials", 2), *(("step", "fit", done) for done in range(2))),
        *(("step", "refit", done) for done in range(2)),
        *(("step", "leakage gap", done) for done in range(6)),
    ]


def test_every_option_is_a_parameter_of_the_same_name():
    from img2prompt_cache.cli.tune import tune as command

    assert {*inspect.signature(command).parameters} - {*inspect.signature(tune).parameters} == {
        "context",
        "json",
    }


def test_a_folder_that_is_taken_is_found_out_before_the_search(cache, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"`run` .*exists") as caught:
        tune(cache, "knn", trials=2, study=tmp_path / "study.db", run=tmp_path / "run")
    assert caught.value.parameter == "run"
    assert not (tmp_path / "study.db").exists()
