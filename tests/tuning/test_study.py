"""Searches of an objective that is an arithmetic expression, on real files."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.heads.space import Choices, LogUniform, Uniform, Whole, to_json
from img2prompt_cache.tuning.study import COMPLETE, FAILED, PRUNED, START, reading, searching

SPACE = {
    "a": Uniform(-1.0, 1.0),
    "b": LogUniform(1e-4, 1.0),
    "c": Whole(1, 9),
    "d": Choices(("x", None, (1, 2), 0.5)),
}
IDENTITY = {"head": "h", "space": to_json(SPACE), "split": {"digest": "0", "seed": 0}, "features": ["f"]}


def value(settings, report=None):
    return settings["a"] - settings["b"] + settings["c"] / 9


def search(file, count, *, identity=IDENTITY, score=value, sampler="random", prune=False, warm_up=0):
    with searching(file, identity, warm_up=warm_up) as study:
        while (done := len(study.trials)) < count:
            study.attempt(sampler, done, score, prune=prune)
        return study.trials


def told(trials):
    return [(trial.settings, trial.cosine, trial.state) for trial in trials]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "50% ? #1.db"


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_what_is_drawn_lies_in_the_space_and_is_kept(file, sampler):
    trials = search(file, 30, sampler=sampler)
    assert [trial.number for trial in trials] == [*range(30)]
    for trial in trials:
        settings = trial.settings
        assert -1 <= settings["a"] <= 1
        assert 1e-4 <= settings["b"] <= 1
        assert type(settings["c"]) is int
        assert 1 <= settings["c"] <= 9
        assert settings["d"] in ("x", None, [1, 2], 0.5)
        assert trial.cosine == value(settings)
        assert trial.state == COMPLETE
        assert trial.seconds >= 0
    assert len({trial.settings["a"] for trial in trials}) == 30
    assert {str(trial.settings["d"]) for trial in trials} == {"x", "None", "[1, 2]", "0.5"}
    assert sum(trial.settings["b"] < 1e-2 for trial in trials) > 5  # by its logarithm
    with reading(file) as study:
        assert study.trials == trials
        assert (study.head, study.identity) == ("h", IDENTITY)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_going_on_is_as_if_it_had_not_stopped(tmp_path, sampler):
    whole = search(tmp_path / "whole.db", 14, sampler=sampler)
    for count in (3, 11, 14):
        parts = search(tmp_path / "parts.db", count, sampler=sampler)
    assert told(parts) == told(whole)
    assert told(search(tmp_path / "parts.db", 5, sampler=sampler)) == told(whole)


def test_tpe_looks_where_scores_were_good(tmp_path):
    found = {
        sampler: max(trial.cosine for trial in search(tmp_path / f"{sampler}.db", 60, sampler=sampler))
        for sampler in ("random", "tpe")
    }
    assert found["tpe"] > found["random"]


def test_a_trial_that_was_cut_off_is_tried_again(tmp_path):
    def interrupt(settings, report):
        raise KeyboardInterrupt

    file = tmp_path / "study.db"
    search(file, 2)
    with pytest.raises(KeyboardInterrupt):
        search(file, 3, score=interrupt)
    with reading(file) as study:
        assert len(study.trials) == 2
    trials = search(file, 4)
    assert told(trials) == told(search(tmp_path / "whole.db", 4))
    assert [trial.number for trial in trials] == [0, 1, 3, 4]
    with closing(sqlite3.connect(file)) as connection:
        states = [state for (state,) in connection.execute("SELECT state FROM trials ORDER BY number")]
    assert states == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]


def test_what_cannot_be_fitted_counts_and_says_why(file):
    def fail(settings, report):
        if settings["c"] > 4:
            raise Img2PromptError("it diverged")
        return 0.5

    trials = search(file, 12, score=fail)
    failed = [trial for trial in trials if trial.settings["c"] > 4]
    assert 0 < len(failed) < 12
    assert all((trial.state, trial.cosine, trial.reason) == (FAILED, None, "it diverged") for trial in failed)
    assert all(trial.cosine == 0.5 for trial in trials if trial not in failed)


def test_wrong_use_ends_the_search(file):
    def refuse(settings, report):
        raise UsageError("dropout < 1")

    with pytest.raises(UsageError, match="dropout < 1"):
        search(file, 3, score=refuse)
    assert len(search(file, 1)) == 1


def test_trials_below_the_median_on_the_way_are_pruned(file):
    seen = []

    def stepwise(settings, report):
        seen.append(0)
        for step in range(6):
            seen[-1] = step
            report(step, settings["a"])
        return settings["a"]

    trials = search(file, 25, score=stepwise, prune=True, warm_up=3)
    pruned = [trial.state == PRUNED for trial in trials]
    assert not any(pruned[:START])
    assert 3 < sum(pruned) < 20
    for number, trial in enumerate(trials):
        before = sorted(t.settings["a"] for t in trials[:number] if t.state == COMPLETE)
        middle = (before[(len(before) - 1) // 2] + before[len(before) // 2]) / 2 if before else 0
        assert pruned[number] == (number >= START and trial.settings["a"] < middle)
        assert seen[number] == (3 if pruned[number] else 5)
        assert (trial.cosine is None) == pruned[number]


def test_without_pruning_nothing_is_reported(file):
    def check(settings, report):
        assert report is None
        return 0.0

    assert len(search(file, 2, score=check)) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"head": "other"}, r'another head: "h", not "other"'),
        ({"space": {**to_json(SPACE), "c": {"int": [1, 8]}}}, r"another space c int: \[1, 9\], not \[1, 8\]"),
        ({"space": to_json({"a": SPACE["a"]})}, r"another space b: .*, not null"),
        ({"split": {"digest": "1", "seed": 0}}, r'another split digest: "0", not "1"'),
        ({"features": ["f", "g"]}, r'another features: \["f"\], not \["f", "g"\]'),
        ({"more": 1}, r"another more: null, not 1"),
    ],
)
def test_a_study_of_something_else_is_refused(file, change, words):
    search(file, 1)
    before = file.read_bytes()
    with pytest.raises(UsageError, match=words):
        search(file, 2, identity={**IDENTITY, **change})
    assert file.read_bytes() == before


def test_the_order_in_which_a_space_is_written_does_not_matter(tmp_path):
    turned = {**IDENTITY, "space": dict(reversed(IDENTITY["space"].items()))}
    assert told(search(tmp_path / "a.db", 3)) == told(search(tmp_path / "b.db", 3, identity=turned))
    assert len(search(tmp_path / "a.db", 4, identity=turned)) == 4


def test_one_search_at_a_time(file):
    with searching(file, IDENTITY, warm_up=0) as study:
        study.attempt("random", 0, value, prune=False)
        with pytest.raises(Img2PromptError, match="another process is searching in"):
            search(file, 1)
        with reading(file) as other:
            assert len(other.trials) == 1
    assert len(search(file, 2)) == 2


def test_no_study(tmp_path):
    with pytest.raises(UsageError, match=r"there is no study .*none\.db; make one with"):
        reading(tmp_path / "none.db").__enter__()
    assert not list(tmp_path.iterdir())
    (tmp_path / "plain").write_text("")
    with pytest.raises(Img2PromptError, match=r"cannot be written: "):
        search(tmp_path / "plain" / "study.db", 1)


@pytest.mark.parametrize("content", [b"", b"prompts\n" * 99, b"SQLite format 3\0" + b"\xff" * 500])
def test_files_that_are_no_study(file, content):
    file.write_bytes(content)
    for work in (lambda: search(file, 1), lambda: reading(file).__enter__()):
        with pytest.raises(UsageError, match="is no study"):
            work()
    assert file.read_bytes() == content


def change(file, *statements):
    with closing(sqlite3.connect(file)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_another_database_is_left_alone(file):
    change(file, "CREATE TABLE mine (a)")
    before = file.read_bytes()
    for work in (lambda: search(file, 1), lambda: reading(file).__enter__()):
        with pytest.raises(UsageError, match="is no study made by"):
            work()
    assert file.read_bytes() == before


def test_a_study_with_code_in_it_is_refused(file):
    search(file, 1)
    change(file, "CREATE TRIGGER t AFTER INSERT ON trials BEGIN UPDATE trial_values SET value = 1; END")
    with pytest.raises(UsageError, match="is no study made by"):
        search(file, 2)


def open_and_read(file):
    with reading(file) as study:
        return study.trials


DEEP = "[" * 20_000 + "]" * 20_000


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE alembic_version SET version_num = 'v99'",
        "DELETE FROM alembic_version",
        "DELETE FROM studies",
        "UPDATE studies SET study_name = 'other'",
        "UPDATE study_directions SET direction = 'MINIMIZE'",
        "DELETE FROM study_user_attributes",
        "UPDATE study_user_attributes SET value_json = '{'",
        "UPDATE study_user_attributes SET value_json = '[]'",
        """UPDATE study_user_attributes SET value_json = '{"head": "h"}'""",
        """UPDATE study_user_attributes SET value_json = '{"head": "h", "space": {"a": [1]}}'""",
        """UPDATE study_user_attributes SET value_json = '{"head": "h", "space": {"a": {"log": [9, 1]}}}'""",
        "UPDATE trials SET state = 'DONE'",
        "DELETE FROM trial_values",
        "UPDATE trial_values SET value_type = 'INF_POS'",
        "UPDATE trial_params SET distribution_json = '{}'",
        "UPDATE trial_params SET distribution_json = '[' WHERE param_name = 'a'",
        "UPDATE trial_params SET param_value = 7 WHERE param_name = 'a'",
        "UPDATE trial_params SET param_value = 99 WHERE param_name = 'd'",
        "DELETE FROM trial_params WHERE param_name = 'c'",
        "UPDATE trial_params SET param_name = 'e' WHERE param_name = 'c'",
        "DROP TABLE trial_intermediate_values",
        "UPDATE trials SET datetime_start = 'x'",
        "UPDATE trials SET state = 'EVIL'",
        "UPDATE trial_values SET value_type = 'INF_NEG'",
        "UPDATE trial_values SET value_type = 'x'",
        f"UPDATE study_user_attributes SET value_json = '{DEEP}'",
        f"UPDATE trial_params SET distribution_json = '{DEEP}'",
    ],
)
def test_a_study_that_was_changed_is_one_clear_error(file, statement):
    search(file, 2)
    change(file, statement)
    before = file.read_bytes()
    for use in (open_and_read, lambda file: search(file, 4)):
        with pytest.raises(Img2PromptError) as raised:
            use(file)
        assert str(file) in str(raised.value)
        assert "\n" not in str(raised.value)
    assert file.read_bytes() == before


def test_a_study_that_cannot_be_written_is_told(file):
    def break_it(settings, report):
        change(file, "DROP TABLE trial_values")
        return 0.5

    search(file, 1)
    told = r"cannot be written: .*no such table.*; what was finished is kept"
    with searching(file, IDENTITY, warm_up=0) as study, pytest.raises(Img2PromptError, match=told):
        study.attempt("random", 1, break_it, prune=False)
