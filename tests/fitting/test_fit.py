from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from examples import run_examples
from img2prompt_cache.cache.manifest import column_folder
from img2prompt_cache.cache.manifest_file import load_manifest, save_manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import UsageError
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.fit import fit
from img2prompt_cache.fitting.seeds import fit_seeds
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.runs.run import Run, load_run
from synthetic import ENCODER, ONE, OTHER, Cli, edit_run, make_cache

STUDENT = {"hidden": [8], "epochs": 2}
NOT_PARAMETERS = {"context", "json", "show_settings"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with a ridge and a knn by three folds."""
    folder = make_cache(tmp_path_factory.mktemp("fit") / "cache", fold=[str(row % 5) for row in range(60)])
    for head, settings in (("ridge", {"alpha": 1.0}), ("knn", {"k": 3, "power": 2.0})):
        fit(folder, head, settings=settings, folds=3, run=folder / "runs" / head)
    return folder


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


def test_the_examples_of_the_docstring(tmp_path, monkeypatch):
    make_cache(tmp_path / "cache" / "default")
    monkeypatch.chdir(tmp_path)
    run_examples(fit)


def test_a_fit_is_that_of_the_configuration(cache, tmp_path):
    settings = {"choose": "mse", "folds": 3}
    options = {"encoder": ENCODER, "split": "fold", "holdout": 0.3, "seed": 2, "leakage_gap": True}
    options["refit"] = False
    made = fit(cache, "ridge", settings=settings, features=[ONE], run=tmp_path / "run", **options)
    config = FitConfig("ridge", settings, (ONE,), **options)
    wanted = fit_head(Cache(cache), config, tmp_path / "wanted")
    assert isinstance(made, Run)
    assert made.folder == tmp_path / "run"
    assert (made.metrics, made.settings, made.split) == (wanted.metrics, wanted.settings, wanted.split)
    assert (made.rows, made.refit) == (wanted.rows, False)
    assert load_run(made.folder) == made


@pytest.mark.parametrize("given", [str, Path, Cache])
def test_a_cache_is_a_path_or_an_object(cache, tmp_path, given):
    made = fit(given(cache), "mean", features=OTHER, run=str(tmp_path / "run"))
    assert [use.spec for use in made.features] == [OTHER]


def test_settings_with_a_parameter_of_their_own(cache, tmp_path):
    made = fit(cache, "ridge", inner_folds=3, run=tmp_path / "run")
    assert made.settings["folds"] == 3
    with pytest.raises(UsageError, match=r"`settings`: folds is given twice") as caught:
        fit(cache, "ridge", settings={"folds": 4}, inner_folds=3)
    assert caught.value.parameter == "settings"


def test_only_some_rows(cache, tmp_path):
    table = tmp_path / "kept.csv"
    table.write_text("\n".join(["imgId", *(f"i{row:03d}" for row in range(40))]) + "\n")
    assert fit(cache, "mean", only=str(table), run=tmp_path / "run").rows == 40


def test_extra_pairs_are_fitted_on_and_not_scored_on(cache, tmp_path):
    other = make_cache(tmp_path / "other", 30, seed=3)
    settings = {"gain": 1.0, "alpha": 1.0}
    made = fit(cache, "kernel", settings=settings, extra=other, folds=3, run=tmp_path / "run")
    assert made.metrics["n"] == 60
    assert made.measured["extra"] == {"caches": [str(other)], "rows": 30, "left_out": 0}
    assert len(made.estimator.rows_) == 90
    plain = fit(cache, "kernel", settings=settings, folds=3, run=tmp_path / "plain")
    assert made.split["digest"] == plain.split["digest"]
    assert made.metrics["cosine"] != plain.metrics["cosine"]
    with pytest.raises(UsageError, match="head 'knn' is not fitted on extra pairs") as caught:
        fit(cache, "knn", extra=[other])
    assert caught.value.parameter == "extra"


def test_any_head_can_have_a_soft_bank(cache, tmp_path):
    made = fit(cache, "ridge", settings={"alpha": 1.0}, soften="train", run=tmp_path / "run")
    assert [member["head"] for member in made.settings["members"]] == ["ridge"]
    assert made.settings["weights"] == [1.0]
    assert made.settings["pull"] >= 0
    assert load_run(made.folder).estimator.predict(np.zeros((1, 32), np.float32)).shape == (1, 384)


def test_the_best_head_says_what_each_step_brought(cache, tmp_path, cli):
    said = cli("fit", "--head", "best", "--cache", cache, "--minutes", "0", "--run", tmp_path / "run")
    lines = said.out.splitlines()
    assert said.code == 0, said.err
    assert lines[1].split()[:2] == ["step", "cosine"]
    assert lines[2].split()[0] == "kernel"
    assert "not tried for lack of time" in said.out


def test_members_are_runs_folders_or_names(cache, tmp_path):
    runs = cache / "runs"
    named = (["ridge", "knn"], [runs / "ridge", str(runs / "knn")], [load_run(runs / "ridge"), "knn"])
    blends = [fit(cache, "blend", members=members, run=tmp_path / f"{i}") for i, members in enumerate(named)]
    assert [blend.head for blend in blends] == ["blend"] * 3
    assert blends[0].metrics == blends[1].metrics == blends[2].metrics
    assert blends[0].metrics["n"] == 60


def test_a_blend_of_heads_that_are_fitted_for_it(cache, tmp_path):
    members = [{"head": "ridge"}, {"head": "nearest"}]
    made = fit(cache, "blend", settings={"members": members}, folds=2, run=tmp_path / "run")
    assert [member["head"] for member in made.settings["members"]] == ["ridge", "nearest"]
    assert made.split["folds"] == 2


@pytest.mark.parametrize("teacher", ["ridge", "folder", "run"])
def test_a_teacher_is_a_run_a_folder_or_a_name(cache, tmp_path, teacher):
    folder = cache / "runs" / "ridge"
    given = {"ridge": "ridge", "folder": folder, "run": load_run(folder)}[teacher]
    made = fit(cache, "distil", teacher=given, features=OTHER, settings=STUDENT, run=tmp_path / "run")
    assert made.settings["teacher"] == "ridge"
    assert made.settings["student"]["hidden"] == [8]


@pytest.mark.parametrize(
    ("options", "parameter", "words"),
    [
        ({"holdout": 0.3, "folds": 3}, "holdout", "`holdout` holds out a share once"),
        ({"folds": 3, "refit": False}, "refit", "`refit=False` keeps"),
        ({"folds": 1}, "folds", "`folds=1`: at least 2"),
        ({"holdout": 1.5}, "holdout", "`holdout` must lie between 0 and 1"),
        ({"split": "none"}, "split", 'split="none"'),
        ({"members": ["ridge", "knn"]}, "members", '`members` goes with `head="blend"`, not with'),
        ({"teacher": "ridge"}, "teacher", '`teacher` goes with `head="distil"`'),
        ({"head": "blend"}, "members", "two runs or more"),
        ({"head": "blend", "members": "ridge"}, "members", "two runs or more"),
        (
            {"head": "blend", "members": ["ridge", "kn"]},
            "members",
            "unknown run or head 'kn'; did you mean knn",
        ),
        ({"head": "blend", "members": ["ridge", "knn"], "folds": 3}, "folds", "`folds` does not go with"),
        ({"head": "blend", "members": ["ridge", "knn"], "settings": {"k": 1}}, "settings", "does not go"),
        ({"head": "blend", "members": ["ridge", "knn"], "split": "random"}, "split", "does not go with"),
        ({"head": "distil"}, "teacher", "learns from one run"),
        ({"head": "distil", "teacher": "none"}, "run", "unknown run 'none'"),
        ({"head": "distil", "teacher": "ridge", "holdout": 0.5}, "holdout", "does not go with"),
        ({"head": "distil", "teacher": "ridge", "refit": False}, "refit", "a teacher by folds has several"),
        ({"seed": -1}, "seed", "`seed` must be from 0 to 4294967295, not -1"),
        ({"device": "gpu"}, "device", "unknown device 'gpu'"),
        ({"head": "blend", "members": ["ridge", "knn"], "device": "gpu"}, "device", "unknown device"),
        ({"head": "rigde"}, "head", "unknown head 'rigde'; did you mean ridge"),
        ({"settings": {"alpha": float("nan")}}, "alpha", "alpha must be a finite number"),
    ],
)
def test_errors_name_the_parameter(cache, options, parameter, words):
    before = sorted((cache / "runs").iterdir())
    with pytest.raises(UsageError, match=words) as caught:
        fit(cache, **{"head": "ridge", **options})
    assert caught.value.parameter == parameter
    assert sorted((cache / "runs").iterdir()) == before


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({"leakage_gap": False}, {"fit": 1, "refit": 1}),
        ({"leakage_gap": True}, {"fit": 1, "refit": 1, "leakage gap": 5}),
        ({"refit": False, "leakage_gap": False}, {"fit": 1}),
        ({"split": "random"}, {"fit": 1, "refit": 1}),
        ({"folds": 4, "leakage_gap": True}, {"fit": 5, "leakage gap": 4}),
    ],
)
def test_progress_tells_every_fit(cache, tmp_path, options, fits):
    events = []
    fit(cache, "mean", run=tmp_path / "run", progress=events.append, **options)
    steps = [(event.task, event.done, event.total) for event in events if event.task in ("fit", *fits)]
    assert steps == [(name, done, total) for name, total in fits.items() for done in range(total + 1)]


def test_progress_tells_the_fits_of_a_student(cache, tmp_path):
    events = []
    options = {"features": OTHER, "settings": STUDENT, "run": tmp_path / "run"}
    fit(cache, "distil", teacher="ridge", progress=events.append, **options)
    fits = [(event.task, event.done, event.total) for event in events if event.task == "fit"]
    assert fits == [("fit", n, 4) for n in range(5)]


def test_a_callback_can_end_the_call(cache, tmp_path):
    def stop(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(cache, "mean", run=tmp_path / "run", progress=stop)
    assert not (tmp_path / "run").exists()


def test_a_split_that_leaks_is_noted(tmp_path):
    sides = ["val" if row < 10 else "train" for row in range(40)]
    folder, events = make_cache(tmp_path / "cache", 40, fold=sides), []
    fit(folder, "mean", split="fold", progress=events.append)
    notes = [event.message for event in events if event.kind == "note"]
    assert notes == [
        '`split="fold"`: 10 of 20 groups of near-identical prompts or images have rows on both sides, so the '
        'score is too high; `split="group"` keeps them apart'
    ]


def test_which_of_several_encoders_is_taken_is_said(tmp_path):
    folder, events = make_cache(tmp_path / "cache", 40), []
    manifest = load_manifest(folder)
    (target,) = manifest.of_kind("targets")
    other = replace(target, spec="st:other", folder=column_folder("targets", "st:other"), parts=())
    save_manifest(folder, replace(manifest, columns=(*manifest.columns, other)))
    fit(folder, "mean", progress=events.append)
    told = f"encoder {target.spec}, the first in the cache; `encoder` names another: st:other"
    assert told in [event.message for event in events if event.kind == "note" and not event.warning]
    events.clear()
    fit(folder, "mean", encoder=target.spec, progress=events.append)
    assert not [event for event in events if event.message.startswith("encoder")]


def test_every_option_is_a_parameter_of_the_same_name():
    from img2prompt_cache.cli.fit import _MLP, _OTHER, _TUNED
    from img2prompt_cache.cli.fit import fit as command

    parameters = inspect.signature(command, eval_str=True).parameters
    panels = {
        name: each.annotation.__metadata__[0].rich_help_panel
        for name, each in parameters.items()
        if hasattr(each.annotation, "__metadata__")
    }
    settings = {name for name, panel in panels.items() if panel in (_MLP, _TUNED, _OTHER)}
    options = {*parameters} - NOT_PARAMETERS - settings
    parameters_of = (inspect.signature(verb).parameters for verb in (fit, fit_seeds))
    assert options - {name for names in parameters_of for name in names} == set()
    assert {"alpha", "hidden", "k"} <= settings


def test_the_command_line_and_python_make_the_same_run(cli, cache, tmp_path):
    said = cli(
        *("fit", "--head", "ridge", "--features", ONE, "--inner-folds", "3", "--set", "choose=mse"),
        *("--split", "fold", "--holdout", "0.3", "--seed", "2", "--leakage-gap"),
        *("--cache", cache, "--run", tmp_path / "said", "--json"),
    )
    assert said.code == 0, said.err
    made = fit(
        cache,
        "ridge",
        features=ONE,
        inner_folds=3,
        settings={"choose": "mse"},
        split="fold",
        holdout=0.3,
        seed=2,
        leakage_gap=True,
        run=tmp_path / "made",
    )
    assert said.json["metrics"] == json.loads(json.dumps(made.metrics))
    states = [(tmp_path / name / "head.safetensors").read_bytes() for name in ("said", "made")]
    assert states[0] == states[1]
    predictions = [np.load(tmp_path / name / "validation.npy") for name in ("said", "made")]
    np.testing.assert_array_equal(*predictions)


def test_a_fitted_threshold_of_near_identical_prompts_is_said_and_recorded(tmp_path):
    folder = make_cache(tmp_path / "cache", encoder="st:other")
    events = []
    run = fit(folder, head="mean", progress=events.append)
    notes = [event.message for event in events if event.kind == "note"]
    assert any("near-identical prompts are those with a cosine of at least 0.7" in each for each in notes)
    assert run.split["group_encoder"] == "st:other"
    assert 0.7 < run.split["group_threshold"] < 0.8


def test_the_threshold_of_near_identical_prompts_can_be_given(tmp_path):
    folder = make_cache(tmp_path / "cache")
    runs = [fit(folder, head="mean", folds=3), fit(folder, head="mean", folds=3, group_threshold=0.9999)]
    grouped = [(run.split["group_threshold"], run.metrics["groups"]) for run in runs]
    assert grouped == [(0.8, 20), (0.9999, 60)]
    with pytest.raises(UsageError, match="group_threshold") as caught:
        fit(folder, head="blend", members=runs, group_threshold=0.9)
    assert caught.value.parameter == "group_threshold"


def test_a_run_finds_its_own_split_again_also_one_that_does_not_say_how_prompts_were_grouped(tmp_path):
    """Runs of earlier versions grouped by the first encoder at 0.8."""
    cache = make_cache(tmp_path / "cache")
    first = [fit(cache, head=head, group_threshold=0.9999, folds=3) for head in ("mean", "knn")]
    fit(cache, head="blend", members=first)
    other = [fit(cache, head=head, group_threshold=0.8, folds=3) for head in ("mean", "knn")]
    for run in other:
        edit_run(run.folder, split__group_encoder=KeyError, split__group_threshold=KeyError)
    blend = fit(cache, head="blend", members=[Run.load(run.folder) for run in other])
    assert blend.split["group_threshold"] == 0.8
    assert blend.split["groups"] == 20
