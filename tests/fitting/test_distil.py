from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.blend import fit_blend
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.distil import cheapest, fit_distil
from img2prompt_cache.fitting.run_rows import split_of
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.fitting.teacher import load_teacher_data, teacher_from_run
from img2prompt_cache.heads import make_head
from img2prompt_cache.runs.folder import load_head
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.run import load_run
from synthetic import ONE, OTHER, Cli, make_cache

STUDENT = {"hidden": [8], "epochs": 3, "lr": 1e-2}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with a ridge, a knn and a blend of both; and the same by folds."""
    made = Cache(make_cache(tmp_path_factory.mktemp("distil") / "cache", 80, without_prompt=[7, 8]))
    for kind, folds in (("", None), ("-folds", 3)):
        runs = [
            fit_head(
                made,
                FitConfig(head, given, (ONE,), folds=folds, leakage_gap=False),
                made.folder / "runs" / f"{head}{kind}",
            )
            for head, given in (("ridge", {}), ("knn", {"k": 3}))
        ]
        fit_blend(made, runs, made.folder / "runs" / f"blend{kind}")
    return made


@pytest.mark.parametrize("kind", ["", "-folds"])
def test_a_student_is_scored_on_its_teachers_split(cache, tmp_path, kind):
    said = load_run(cache.folder / "runs" / f"blend{kind}")
    run = fit_distil(cache, said, tmp_path / "run", features=(OTHER,), settings=STUDENT)
    assert run.split == said.split
    assert run.metrics["floor"] == said.metrics["floor"]
    assert run.metrics["n"] == said.metrics["n"]
    assert len(run.fold_metrics) == len(said.fold_metrics)
    assert run.rows == 80
    assert {"teacher", "plain"} <= {*run.metrics}
    assert run.settings["teacher"] == f"blend{kind}"
    if not kind:
        plain = fit_head(cache, FitConfig("mlp", STUDENT, (OTHER,), leakage_gap=False), tmp_path / "plain")
        assert run.metrics["plain"] == pytest.approx(plain.metrics["cosine"], abs=1e-6)
    data = load_dataset(cache, choose_features(cache, (OTHER,)))
    predicted = load_head(run.folder, load_run(run.folder)).predict(data.X)
    np.testing.assert_allclose(np.linalg.norm(predicted, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["blend", "ridge", "blend-folds"])
def test_the_hold_out_has_no_say_in_what_a_student_learns(cache, name):
    folder = cache.folder / "runs" / name
    run = load_run(folder)
    lessons = load_teacher_data(cache, run, choose_features(cache, (OTHER,)))
    split = split_of(cache, run, load_validation(folder, run), lessons.data)
    train, held = next(iter(split.sides))
    spoilt = lessons.data.y.copy()
    spoilt[held] = -spoilt[held][::-1]
    head = make_head("distil", student=STUDENT, share=0.5)
    found = []
    for y in (lessons.data.y, spoilt):
        each = replace(lessons, data=replace(lessons.data, y=y))
        student, _ = each.fit_pair(head, teacher_from_run(run, 0, 0), split, train)
        found.append(student.predict(lessons.data.X[:, :8]))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("name", ["finetune", "blend"])
def test_a_tuned_tail_teaches(tiny, tuned, tmp_path, name):
    made = Cache(tuned)
    tail = FitConfig("finetune", {"alpha": 1.0, "epochs": 2, "lr": 1e-2}, (f"{tiny.vit}#k2",), split="random")
    teacher = fit_head(made, tail, tmp_path / "finetune")
    if name == "blend":
        ridge = fit_head(
            made, FitConfig("ridge", {"alpha": 1.0}, (tiny.cnn,), split="random"), tmp_path / "ridge"
        )
        teacher = fit_blend(made, [ridge, teacher], tmp_path / "blend")
    run = fit_distil(made, teacher, tmp_path / "student", features=(tiny.cnn,), settings=STUDENT)
    assert run.settings["teacher"] == name
    assert [use.spec for use in run.features] == [tiny.cnn]
    if name == "finetune":  # the hold-out's score of a teacher fitted anew with all that was chosen
        assert run.metrics["teacher"] == pytest.approx(teacher.metrics["cosine"], abs=1e-5)
    data = load_dataset(made, choose_features(made, (tiny.cnn,)))
    assert np.isfinite(load_head(run.folder, load_run(run.folder)).predict(data.X)).all()


@pytest.mark.parametrize("head", ["blend", "distil"])
def test_rows_that_were_chosen_are_found_again_where_the_run_keeps_them(cache, tmp_path, head):
    data = load_dataset(cache, choose_features(cache, (ONE,)))
    kept = tmp_path / "kept.csv"
    kept.write_text("\n".join(["imgId", *data.ids[:50]]) + "\n")
    told = [FitConfig(each, {}, (ONE,), only=kept, leakage_gap=False) for each in ("ridge", "knn")]
    whole = [fit_head(cache, each, tmp_path / each.head) for each in told]
    folds = [fit_head(cache, replace(each, folds=3), tmp_path / f"{each.head}-folds") for each in told]
    make = {
        "blend": fit_blend,
        "distil": lambda c, runs, f: fit_distil(c, runs[0], f, features=(OTHER,), settings=STUDENT),
    }[head]
    with pytest.raises(
        Img2PromptError, match="fitted with `only`; fit it again as the cache is now, or with"
    ):
        make(cache, whole, tmp_path / "no")
    assert make(cache, folds, tmp_path / "yes").metrics["n"] == 50


def test_a_blend_teaches_with_weights_found_anew(cache):
    run = load_run(cache.folder / "runs" / "blend-folds")
    teacher = teacher_from_run(run, 1, seed=4)
    assert (teacher.weights, teacher.seed) == (None, 4)
    chosen = run.fold_metrics[1]["chosen"]["members"]
    assert [m["settings"] for m in teacher.members] == [m["settings"] for m in chosen]
    assert (
        chosen[0]["settings"]["alpha"]
        == load_run(cache.folder / "runs" / "ridge-folds").fold_metrics[1]["chosen"]["alpha"]
    )


def test_images_without_prompt_are_learned_from(cache):
    folder = cache.folder / "runs" / "ridge"
    run = load_run(folder)
    lessons = load_teacher_data(cache, run, choose_features(cache, (OTHER,)))
    assert len(lessons.unlabelled) == 2
    split = split_of(cache, run, load_validation(folder, run), lessons.data)
    head = make_head("distil", student=STUDENT)
    alone = replace(lessons, unlabelled=lessons.unlabelled[:0])
    with_them, without = (
        each.fit_pair(head, teacher_from_run(run, 0, 0), split, split.train)[0].predict(lessons.data.X[:, :8])
        for each in (lessons, alone)
    )
    assert not np.allclose(with_them, without)


def test_teachers_that_cannot_teach(cache, tmp_path):
    run = fit_distil(
        cache,
        load_run(cache.folder / "runs" / "ridge"),
        tmp_path / "run",
        features=(OTHER,),
        settings=STUDENT,
        refit=False,
    )
    with pytest.raises(UsageError, match="run was distilled itself"):
        fit_distil(cache, run, tmp_path / "again", features=(OTHER,))
    with pytest.raises(UsageError, match="ridge has a head that compares images with texts"):
        teacher_from_run(replace(load_run(cache.folder / "runs" / "ridge"), head="clip", settings={}), 0, 0)
    with pytest.raises(UsageError, match="`refit=False`"):
        fit_distil(cache, load_run(cache.folder / "runs" / "blend-folds"), features=(OTHER,), refit=False)
    data = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps({**data, "head": "blend", "settings": {"members": [3]}}))
    with pytest.raises(Img2PromptError, match="not what was saved"):
        fit_distil(cache, load_run(run.folder), tmp_path / "again", features=(OTHER,))
    assert not (tmp_path / "again").exists()


def test_the_cheapest_backbone_is_the_one_of_fewest_operations(tiny, pairs, tmp_path):
    from img2prompt_cache.models.backbones import load_backbone
    from img2prompt_cache.models.backbones.flops import operations

    tiny.extract(pairs, tmp_path / "cache", backbones=(tiny.vit, tiny.cnn))
    counts = {spec: operations(load_backbone(spec)) for spec in (tiny.vit, tiny.cnn)}
    assert cheapest(Cache(tmp_path / "cache")) == (min(counts, key=counts.get),)


def test_the_command_line(cache, tmp_path, capsys):
    cli = Cli(capsys)
    options = ("--features", OTHER, "--epochs", "2", "--set", "share=0.5", "--run", tmp_path / "run")
    said = cli("fit", "--head", "distil", "--teacher", "ridge", "--cache", cache.folder, *options)
    assert said.code == 0, said.err
    run = load_run(tmp_path / "run")
    assert run.settings["share"] == 0.5
    assert run.settings["student"]["epochs"] == 2
    assert f"the same mlp without a teacher: {run.metrics['plain']:.4f}" in said.out
    assert cli("predict", "--run", tmp_path / "run", "--cache", cache.folder, "--json").json["rows"] == 2
