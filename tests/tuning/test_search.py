from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.heads import make_head
from img2prompt_cache.heads.space import Choices, LogUniform, Uniform, Whole
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.progress import ignore
from img2prompt_cache.tuning import search as module
from img2prompt_cache.tuning.search import TuneConfig, default_file, search
from img2prompt_cache.tuning.spaces import find_space
from img2prompt_cache.tuning.study import COMPLETE, FAILED, PRUNED, reading
from synthetic import ONE, OTHER, make_cache

QUICK = {
    "lr": LogUniform(1e-4, 1e-1),
    "dropout": Uniform(0.0, 0.5),
    "hidden": Choices(([], [8])),
    "max_epochs": Choices((8,)),
    "patience": Whole(2, 8),
}
SPACES = {"mlp": QUICK}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return Cache(
        make_cache(tmp_path_factory.mktemp("tune") / "cache", fold=[str(row % 5) for row in range(60)])
    )


@pytest.fixture
def file(tmp_path):
    return tmp_path / "study.db"


def searched(cache, file, count, head="ridge", tell=ignore, **options):
    config = FitConfig(
        head, **{key: options.pop(key) for key in ("seed", "split", "features") if key in options}
    )
    space = options.pop("space", None) or SPACES.get(head) or find_space(head)
    return search(cache, TuneConfig(config, space, count, **options), file, tell)


def run(*arguments, **options):
    return searched(*arguments, **options).trials


def said(trials):
    return [(trial.settings, trial.cosine, trial.state) for trial in trials]


@pytest.mark.parametrize("head", ["ridge", "kernel", "knn", "mlp"])
def test_a_trial_is_scored_on_grouped_folds_of_the_training_side(cache, file, head):
    trials = run(cache, file, 2, head, prune=False)
    data = load_dataset(cache, choose_features(cache, ()), choose_target(cache, None))
    split = make_split(cache, data, "group", 0.2, 0)
    rows, groups = split.train, split.groups[split.train]
    fold = k_folds(groups, 3, 0)
    for trial in trials:
        made = make_head(head, **trial.settings, **({"seed": 0} if head != "nearest" else {}))
        if head == "mlp":  # its folds are trained together, which the tests of the head look at
            held = [fold == number for number in range(3)]
            wanted = made.validate(data.X[rows], data.y[rows], held, groups=groups, widths=data.widths)
        else:
            cosines = []
            for number in range(3):
                ours, theirs = rows[fold != number], rows[fold == number]
                assert not {*split.groups[ours]} & {*split.groups[theirs]}
                known = {"groups": split.groups[ours], "widths": data.widths}
                fitted = clone(made).fit(data.X[ours], data.y[ours], **known)
                cosines.extend(cosine(fitted.predict(data.X[theirs]), data.y[theirs]))
            wanted = np.mean(cosines)
        assert trial.cosine == pytest.approx(wanted, abs=1e-7)
        assert 0 < abs(trial.cosine) < 1


@pytest.mark.parametrize("head", ["ridge", "mlp"])
def test_the_hold_out_has_no_say(cache, file, tmp_path, monkeypatch, head):
    clean = run(cache, file, 3, head, prune=False)

    def poisoned(cache, data, *rest):
        split = make_split(cache, data, *rest)
        data.y[split.validation] = np.nan
        data.X[split.validation] = np.nan
        return split

    monkeypatch.setattr(module, "make_split", poisoned)
    assert said(run(cache, tmp_path / "poisoned.db", 3, head, prune=False)) == said(clean)


def test_training_rows_have_a_say(cache, file, tmp_path, monkeypatch):
    clean = run(cache, file, 1)

    def shuffled(cache, data, *rest):
        split = make_split(cache, data, *rest)
        data.y[split.train] = data.y[np.roll(split.train, 1)]
        return split

    monkeypatch.setattr(module, "make_split", shuffled)
    assert abs(run(cache, tmp_path / "other.db", 1)[0].cosine - clean[0].cosine) > 1e-4


def test_the_best_setting_fitted_is_an_ordinary_run(cache, file, tmp_path):
    top = searched(cache, file, 4, "mlp").best
    made = fit_head(cache, FitConfig("mlp", top.settings), tmp_path / "run")
    assert {name: made.settings[name] for name in top.settings} == top.settings


@pytest.mark.parametrize("sampler", ["random", "tpe"])
@pytest.mark.parametrize("prune", [True, False])
def test_going_on_gives_the_trials_of_a_search_that_never_stopped(cache, file, tmp_path, sampler, prune):
    options = {"head": "mlp", "sampler": sampler, "prune": prune}
    whole = run(cache, tmp_path / "whole.db", 12, **options)
    for count in (1, 7, 12):
        parts = run(cache, file, count, **options)
    assert said(parts) == said(whole)
    assert len({str(trial.settings) for trial in whole}) == 12
    assert said(run(cache, tmp_path / "other.db", 2, "mlp", seed=1)) != said(whole[:2])


def test_every_finished_trial_is_told_those_of_earlier_calls_first(cache, file):
    events = []
    run(cache, file, 2)
    trials = run(cache, file, 4, tell=events.append)
    assert [event.value for event in events if event.kind == "trial"] == trials
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    steps = [(event.task, event.done, event.total) for event in events if event.kind == "step"]
    assert steps == [("trials", done, 4) for done in range(5)]


def test_an_interrupt_keeps_what_is_finished(cache, file, tmp_path):
    told = []

    def stop(event):
        if event.kind == "trial":
            told.append(event.value)
            if len(told) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(cache, file, 5, "mlp", tell=stop)
    with reading(file) as study:
        assert study.trials == told
    assert said(run(cache, file, 5, "mlp")) == said(run(cache, tmp_path / "whole.db", 5, "mlp"))


def test_pruned_trials_are_counted_and_are_never_the_best(cache, file):
    # Of 32 rows to learn from, 25 neighbours say nearly what the mean of all does.
    space = {"k": Choices((2, 25)), "power": Choices((2.0,))}
    found = searched(cache, file, 24, "knn", space=space)
    trials = found.trials
    assert len(trials) == 24
    scored = {trial.settings["k"]: trial.cosine for trial in trials if trial.state == COMPLETE}
    pruned = [trial for trial in trials if trial.state == PRUNED]
    assert pruned
    assert {trial.settings["k"] for trial in pruned} == {min(scored, key=scored.get)}
    assert all(trial.cosine is None for trial in pruned)
    assert found.best.settings["k"] == max(scored, key=scored.get)


def test_what_diverges_is_told_and_the_search_goes_on(cache, file):
    space = {"lr": Choices((1e-2, 1e38)), "optimizer": Choices(("sgd",)), "max_epochs": Choices((8,))}
    events = []
    found = searched(cache, file, 8, "mlp", space=space, tell=events.append)
    failed = [trial for trial in found.trials if trial.state == FAILED]
    assert {trial.settings["lr"] for trial in failed} == {1e38}
    assert all("diverged" in trial.reason for trial in failed)
    notes = [event.message for event in events if event.kind == "note"]
    assert notes == [f"trial {trial.number} failed: {trial.reason}" for trial in failed]
    assert found.best.settings["lr"] == 1e-2


def test_where_nothing_could_be_fitted_it_is_told(cache, file):
    space = {"lr": Choices((1e38,)), "optimizer": Choices(("sgd",))}
    found = searched(cache, file, 2, "mlp", space=space)
    with pytest.raises(Img2PromptError, match=r"none of 2 trials has a score: .*diverged"):
        _ = found.best


def test_a_setting_out_of_range_ends_the_search(cache, file):
    with pytest.raises(UsageError, match="'dropout' of head 'mlp' must be below 1"):
        run(cache, file, 2, "mlp", space={"dropout": Choices((1.5,))})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"head": "kernel", "space": {"alpha": LogUniform(1e-3, 1e5)}},
            'another head: "ridge", not "kernel"',
        ),
        ({"space": {"alpha": LogUniform(1.0, 2.0)}}, "another space alpha log"),
        ({"features": (ONE,)}, "another features"),
        ({"seed": 1}, "another seed: 0, not 1"),
        ({"split": "fold"}, 'another split strategy: "group", not "fold"'),
    ],
)
def test_a_study_of_something_else_is_refused(cache, file, options, words):
    run(cache, file, 1)
    with pytest.raises(UsageError, match=words):
        run(cache, file, 2, **options)


def test_a_cache_that_grew_is_another_split(cache, file, tmp_path):
    run(cache, file, 1)
    grown = Cache(make_cache(tmp_path / "grown", 70))
    with pytest.raises(UsageError, match="another split digest"):
        run(grown, file, 2)


def test_a_random_split_has_random_folds(cache, file, tmp_path):
    leaking = run(cache, file, 1, "knn", split="random")
    grouped = run(cache, tmp_path / "grouped.db", 1, "knn")
    assert leaking[0].settings == grouped[0].settings
    assert leaking[0].cosine > grouped[0].cosine


def test_wrong_names(cache, file):
    with pytest.raises(UsageError, match="unknown sampler 'tep'; did you mean tpe"):
        run(cache, file, 1, sampler="tep")
    assert not file.exists()


def test_a_study_without_a_name_is_told_apart_by_what_it_searches(cache):
    names = [
        default_file(cache, FitConfig("mlp", features=features), space).name
        for features in ((), (OTHER,))
        for space in (None, "seed", "/some/where/mine.json", {"lr": [1e-3]})
    ]
    assert names == [
        *("mlp-one+other.db", "mlp-one+other-seed.db", "mlp-one+other-mine.db", "mlp-one+other-custom.db"),
        *("mlp-other.db", "mlp-other-seed.db", "mlp-other-mine.db", "mlp-other-custom.db"),
    ]


def test_the_settings_of_a_tuned_tail_are_searched_on_its_trunk(tiny, tuned, tmp_path):
    file = tmp_path / "study.db"
    space = {"lr": LogUniform(1e-3, 1e-1), "max_epochs": Choices((1,)), "alpha": Choices((1.0,))}
    options = {"space": space, "split": "random", "features": (f"{tiny.vit}#k2",)}
    trials = run(Cache(tuned), file, 2, "finetune", **options)
    assert [trial.state for trial in trials] == [COMPLETE] * 2
    assert all(0 < trial.cosine < 1 for trial in trials)
    with reading(file) as study:
        assert study.identity["features"][0]["spec"] == f"{tiny.vit}#k2"
    config = FitConfig("finetune", features=options["features"])
    assert "#" not in default_file(Cache(tuned), config, None).name


@pytest.mark.parametrize(
    ("head", "space", "words"),
    [
        ("distil", {"share": Uniform(0.1, 0.5)}, "distil is made of runs"),
        ("blend", {"folds": Whole(2, 5)}, "blend is made of runs"),
        ("mlp", {"views": Choices((False, True))}, "cannot search views"),
    ],
)
def test_what_would_not_change_a_trial_is_refused(cache, file, head, space, words):
    with pytest.raises(UsageError, match=words):
        run(cache, file, 1, head, space=space)
    assert not file.exists()
