from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from img2prompt_cache.heads.space import Choices, LogUniform, Uniform, Whole
from img2prompt_cache.tuning import importance as module
from img2prompt_cache.tuning.importance import (
    FEWEST,
    influence,
    interactions,
    main_effects,
    marginals,
    name_of,
)
from img2prompt_cache.tuning.study import COMPLETE, FAILED, PRUNED, FinishedTrial

SPACE = {
    "idle": Uniform(0.0, 1.0),
    "lr": LogUniform(1e-6, 1.0),
    "k": Whole(1, 9),
    "kind": Choices(("x", [1, 2], None)),
}


def made(score, count=60, seed=0, state=lambda settings: COMPLETE):
    rng = np.random.default_rng(seed)
    trials = []
    for number in range(count):
        settings = {
            "idle": rng.uniform(),
            "lr": 10 ** rng.uniform(-6, 0),
            "k": int(rng.integers(1, 10)),
            "kind": SPACE["kind"].values[rng.integers(3)],
        }
        ended = state(settings)
        cosine = score(settings) if ended == COMPLETE else None
        trials.append(FinishedTrial(number, ended, settings, cosine, 1.0))
    return trials


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "PERMUTATIONS", 3)


@pytest.mark.parametrize(
    ("setting", "score"),
    [
        ("idle", lambda s: s["idle"] ** 2),
        ("lr", lambda s: np.log10(s["lr"])),
        ("k", lambda s: abs(s["k"] - 5)),
        ("kind", lambda s: 0.1 + 0.3 * (s["kind"] == [1, 2])),
    ],
)
def test_where_one_setting_does_everything_it_has_all_of_the_variance(quick, setting, score):
    table = influence(SPACE, made(score))
    assert table[0].setting == setting
    assert table[0].main_effect > 0.8 > table[0].chance
    assert interactions(table) == pytest.approx(1 - sum(each.main_effect for each in table))
    assert {each.setting for each in table} == {*SPACE}


def test_a_main_effect_is_over_the_space_that_was_drawn_from(quick):
    # A step low in the logarithm's range: on a linear axis it would be next to nothing of the space.
    effects = main_effects(SPACE, made(lambda s: float(s["lr"] > 1e-3) + float(s["idle"] > 0.5), count=120))
    assert effects["lr"][0] == pytest.approx(0.5, abs=0.1)
    assert effects["idle"][0] == pytest.approx(0.5, abs=0.1)


def test_what_two_settings_do_together_is_not_in_their_main_effects(quick):
    table = influence(SPACE, made(lambda s: float((s["lr"] > 1e-3) == (s["idle"] > 0.5)), count=120))
    assert interactions(table) > 0.5
    assert all(each.main_effect < 0.3 for each in table)


def test_main_effects_of_noise_are_those_of_chance():
    noise = np.random.default_rng(3)
    table = influence(SPACE, made(lambda s: float(noise.normal()), FEWEST))
    # One setting always has the largest share of a noise that the forest took up.
    assert table[0].main_effect > 0.1
    # A setting is above chance, the highest of 20 tries, in one of 21 studies of noise.
    assert sum(each.main_effect > each.chance for each in table) <= 1


def test_the_same_trials_give_the_same_main_effects(quick):
    trials = made(lambda s: s["idle"] + s["k"])
    assert main_effects(SPACE, trials) == main_effects(SPACE, trials)


@pytest.mark.parametrize("count", [0, 1, 2, 3, FEWEST - 1])
def test_of_few_trials_there_are_means_but_no_main_effects(count):
    table = influence(SPACE, made(lambda s: s["idle"], count))
    assert len(table) == 4
    assert interactions(table) is None
    for each in table:
        assert each.main_effect is each.chance is None
        assert sum(marginal.scored for marginal in each.marginals) == count


def test_means_have_the_interval_of_students_t():
    trials = made(lambda s: s["idle"], 24)
    for marginal in influence(SPACE, trials)[0].marginals:
        assert marginal.ci95[0] < marginal.mean < marginal.ci95[1]
        reach = t.ppf(0.975, marginal.scored - 1) * marginal.sd / np.sqrt(marginal.scored)
        assert marginal.ci95 == pytest.approx((marginal.mean - reach, marginal.mean + reach))


def test_scores_that_are_all_the_same_have_no_main_effects():
    assert main_effects(SPACE, made(lambda s: 0.5)) == {}


def test_a_setting_that_could_not_vary(quick):
    trials = [FinishedTrial(n, COMPLETE, {"a": 1, "b": n / 59}, n / 59, 1.0) for n in range(60)]
    table = influence({"a": Choices((1,)), "b": Uniform(0.0, 1.0)}, trials)
    assert [each.setting for each in table] == ["b", "a"]
    assert [each.main_effect for each in table] == pytest.approx([1.0, 0.0])


def test_marginals_of_choices():
    def state(settings):
        return {1: PRUNED, 2: FAILED}.get(settings["k"], COMPLETE)

    trials = made(lambda s: s["idle"], state=state)
    found = marginals(SPACE["kind"], "kind", trials)
    assert [each.value for each in found] == ["x", "1, 2", "null"]
    for each, value in zip(found, SPACE["kind"].values, strict=True):
        mine = [trial for trial in trials if trial.settings["kind"] == value]
        scores = [trial.cosine for trial in mine if trial.cosine is not None]
        assert each.scored == len(scores) > 2
        assert each.mean == pytest.approx(np.mean(scores))
        assert each.sd == pytest.approx(np.std(scores, ddof=1))
        assert each.best == max(scores)
        assert each.pruned == sum(trial.state == PRUNED for trial in mine)
        assert each.failed == sum(trial.state == FAILED for trial in mine)
    assert sum(each.pruned + each.failed for each in found) > 5


def test_a_choice_that_was_never_scored_is_there():
    trials = made(lambda s: 0.5, state=lambda s: PRUNED if s["kind"] == "x" else COMPLETE)
    (first, *_) = marginals(SPACE["kind"], "kind", trials)
    assert (first.scored, first.mean, first.sd, first.best) == (0, None, None, None)
    assert first.pruned > 0


@pytest.mark.parametrize("setting", ["idle", "lr"])
def test_ranges_are_put_together_by_quartile(setting):
    trials = made(lambda s: s[setting], 61)
    found = marginals(SPACE[setting], setting, trials)
    values = np.sort([trial.settings[setting] for trial in trials])
    assert sorted(each.scored for each in found) == [15, 15, 15, 16]
    assert found[0].value == f"{values[0]:.3g}…{values[14]:.3g}"
    assert found[-1].best == values[-1]
    assert [each.best for each in found] == sorted(each.best for each in found)
    assert found[0].mean == pytest.approx(values[:15].mean())


def test_whole_numbers_that_are_equal_share_a_bin():
    trials = [
        FinishedTrial(n, COMPLETE, {"k": k}, float(n), 1.0)
        for n, k in enumerate([1, 1, 1, 1, 1, 2, 3, 4, 5, 9])
    ]
    found = marginals(Whole(1, 9), "k", trials)
    assert sum(each.scored for each in found) == 10
    assert found[0].scored >= 5
    few = marginals(Whole(1, 9), "k", trials[:7])
    assert [(each.value, each.scored) for each in few] == [("1", 5), ("2", 1), ("3", 1)]


def test_values_are_written_for_people():
    written = [name_of(v) for v in (1.23456e-4, 0.0, 16, "adam", None, True, [], (512, 256), [0.5])]
    assert written == ["0.000123", "0", "16", "adam", "null", "true", "none", "512, 256", "0.5"]
