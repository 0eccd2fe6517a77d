from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.cli.run_output import caution_lines
from img2prompt_cache.data.columns import UsedColumn, choose_features, choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.files import hash_file
from img2prompt_cache.fitting.blend import fit_blend
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.nested import can_be_nested, nested_products
from img2prompt_cache.fitting.run_rows import load_rows
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.heads.knn import Knn
from img2prompt_cache.numerics.blending import best_weights, cross_weights, inner_products, mix
from img2prompt_cache.numerics.metrics import mean_cosine
from img2prompt_cache.runs.folder import load_head
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.run import load_run
from synthetic import ENCODER, ONE, OTHER, Cli, make_cache

MEMBERS = {
    "ridge": FitConfig("ridge", {"alpha": 1.0}, features=(ONE,), leakage_gap=False),
    "knn": FitConfig("knn", {"k": 3, "power": 2.0}, features=(OTHER, ONE), leakage_gap=False),
    "mlp": FitConfig("mlp", {"hidden": [8], "epochs": 3}, leakage_gap=False),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cache with three runs on a random split, where heads learn something, and the same by folds."""
    cache = Cache(make_cache(tmp_path_factory.mktemp("ensemble") / "cache", 80, without_prompt=[7]))
    for name, config in MEMBERS.items():
        for kind, more in (("", {}), ("-folds", {"folds": 3})):
            fit_head(cache, replace(config, split="random", **more), cache.folder / "runs" / f"{name}{kind}")
    return cache


@pytest.fixture
def cache(made, tmp_path):
    return Cache(shutil.copytree(made.folder, tmp_path / "cache"))


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


def folders(cache, kind=""):
    return [cache.folder / "runs" / f"{name}{kind}" for name in MEMBERS]


def blend(cache, members):
    return fit_blend(cache, [load_run(member) for member in members])


def edit(folder, change):
    data = json.loads((folder / "run.json").read_text())
    change(data)
    (folder / "run.json").write_text(json.dumps(data))


def test_scores_are_of_weights_from_the_other_folds_and_those_kept_from_all(cache):
    run = blend(cache, folders(cache))
    held = load_validation(run.folder, run)
    said = [load_validation(member) for member in folders(cache)]
    data = load_dataset(cache, choose_features(cache, ()), choose_target(cache, None))
    targets = data.y[[data.ids.index(name) for name in held.ids]]
    known = inner_products([each.predictions for each in said], targets)
    fold = k_folds(np.arange(len(held.ids)), 5, 0)  # a random split: each row its own group
    mixed = mix([each.predictions for each in said], cross_weights(known, fold)[fold])
    np.testing.assert_allclose(held.predictions, mixed, atol=1e-6)
    assert run.metrics["cosine"] == pytest.approx(mean_cosine(mixed, targets))
    assert run.split == load_run(folders(cache)[0]).split
    assert run.metrics["floor"] == pytest.approx(load_run(folders(cache)[0]).metrics["floor"])
    np.testing.assert_allclose(run.settings["weights"], best_weights(known), atol=1e-9)
    with (run.folder / "history.csv").open() as file:
        records = list(csv.DictReader(file))
    assert [float(record["weight"]) for record in records] == run.settings["weights"]
    assert [float(r["without"]) for r in records] == [m["without"] for m in run.settings["members"]]


def test_it_predicts_without_its_members(cache):
    run = blend(cache, folders(cache))
    assert [use.spec for use in run.features] == [ONE, OTHER]
    X = load_dataset(cache, choose_features(cache, (ONE, OTHER))).X
    inputs = [X[:, :24], X[:, [*range(24, 32), *range(24)]], X]
    heads = [load_head(member, load_run(member)) for member in folders(cache)]
    pairs = zip(heads, inputs, strict=True)
    expected = mix([head.predict(x) for head, x in pairs], np.array(run.settings["weights"]))
    for member in folders(cache):
        shutil.rmtree(member)
    np.testing.assert_allclose(load_head(run.folder, load_run(run.folder)).predict(X), expected, atol=1e-6)


def test_runs_by_folds_are_blended_fold_by_fold(cache):
    run = blend(cache, folders(cache, "-folds"))
    held = load_validation(run.folder, run)
    assert run.metrics["n"] == 79
    np.testing.assert_array_equal(held.fold, load_validation(folders(cache, "-folds")[0]).fold)
    assert [fold["n"] for fold in run.fold_metrics] == [(held.fold == k).sum() for k in range(3)]
    chosen = run.fold_metrics[1]["chosen"]
    assert len(chosen["weights"]) == len(chosen["members"]) == 3
    assert chosen["members"][0]["settings"]["alpha"] == 1.0


def test_weights_that_score_a_fold_know_nothing_of_it(cache):
    first, *_ = runs = [load_run(folder) for folder in folders(cache, "-folds")]
    columns = [UsedColumn.of(column) for column in choose_features(cache, (OTHER, ONE))]
    data, split = load_rows(cache, first, load_validation(first.folder, first), "", columns)
    place = {OTHER: [0, 8], ONE: [8, 32]}
    members = [
        {"head": run.head, "settings": run.settings, "columns": [place[use.spec] for use in run.features]}
        for run in runs
    ]
    assert can_be_nested(members, split)
    changed = data.y.copy()
    changed[split.fold == 1] = -changed[split.fold == 1][::-1]
    before, after = (
        nested_products([members] * 3, replace(data, y=y), split, seed=0) for y in (data.y, changed)
    )
    assert np.array_equal(before[1].true, after[1].true)
    assert np.array_equal(before[1].between, after[1].between)
    assert not np.array_equal(before[0].true, after[0].true)


def test_a_blend_by_folds_is_scored_with_weights_of_inner_folds(cache, monkeypatch):
    run = blend(cache, folders(cache, "-folds"))
    assert run.metrics["nested"] == 1
    assert caution_lines(run)[1:] == []
    assert "nested" not in blend(cache, folders(cache)).metrics
    monkeypatch.setattr(Knn, "costly", True)
    quick = blend(cache, folders(cache, "-folds"))
    assert quick.metrics["nested"] == 0
    assert "so the score is a little too high" in caution_lines(quick)[-1]
    weights = [[fold["chosen"]["weights"] for fold in each.fold_metrics] for each in (run, quick)]
    assert not np.allclose(*weights)
    assert run.settings["weights"] == quick.settings["weights"]


def test_rows_in_another_order_are_put_in_order(cache):
    expected = blend(cache, folders(cache))
    member = folders(cache)[1]
    lines = (member / "validation.csv").read_text().splitlines()
    (member / "validation.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    np.save(member / "validation.npy", np.load(member / "validation.npy")[::-1])
    assert blend(cache, folders(cache)).metrics == expected.metrics


def test_runs_that_may_not_be_blended(cache, tmp_path):
    one, two, _ = folders(cache)
    with pytest.raises(UsageError, match=r"two runs or more.*split and target: .*mlp"):
        blend(cache, [one])
    with pytest.raises(UsageError, match="`members`: ridge is named twice"):
        blend(cache, [one, two, one.parent / "." / "ridge"])
    with pytest.raises(UsageError, match="knn-folds was scored on another split than ridge"):
        blend(cache, [one, folders(cache, "-folds")[1]])
    made = blend(cache, [one, two])
    with pytest.raises(UsageError, match="is a blend itself; name its members instead: ridge,knn"):
        blend(cache, [one, made.folder])
    edit(two, lambda data: data["target"]["fingerprint"].update(weights="sha256:other"))
    with pytest.raises(UsageError, match="knn was scored on another target than ridge"):
        blend(cache, [one, two])
    edit(two, lambda data: data["target"]["fingerprint"].update(weights=f"sha256:{ENCODER}"))
    edit(two, lambda data: data["features"][1]["fingerprint"].update(weights="sha256:other"))
    with pytest.raises(UsageError, match="knn was fitted on another timm:one than ridge"):
        blend(cache, [one, two])


def test_members_that_are_damaged(cache):
    one, two, _ = folders(cache)
    before = (two / "validation.npy").read_bytes()
    (two / "validation.npy").unlink()
    with pytest.raises(Img2PromptError, match=r"validation predictions of .*knn cannot be read"):
        blend(cache, [one, two])
    (two / "validation.npy").write_bytes(before)
    np.save(two / "validation.npy", -np.load(two / "validation.npy"))
    with pytest.raises(Img2PromptError, match="predictions of knn do not fit its hold-out"):
        blend(cache, [one, two])
    (two / "validation.npy").write_bytes(before)
    state = load_file(two / "head.safetensors")
    save_file({**state, "k": state["k"] + 1}, two / "head.safetensors")
    with pytest.raises(Img2PromptError, match="not the file that was saved"):
        blend(cache, [one, two])
    assert not list((cache.folder / "runs").glob("blend*"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("members.1.k"), r"member 1 \(knn\): the saved head lacks 'k'"),
        (lambda state: state.update(weights=np.full(3, np.nan)), "'weights'.* is not what was fitted"),
        (lambda state: state.update(weights=np.ones(2)), "'weights'.* is not what was fitted"),
    ],
)
def test_a_tampered_blend(cache, change, words):
    folder = blend(cache, folders(cache)).folder
    state = load_file(folder / "head.safetensors")
    change(state)
    save_file(state, folder / "head.safetensors")
    edit(folder, lambda data: data.update(head_sha256=hash_file(folder / "head.safetensors")))
    with pytest.raises(Img2PromptError, match=words):
        load_head(folder, load_run(folder))


def test_a_cache_that_has_changed_since(cache):
    one, two, _ = folders(cache)
    edit(one, lambda data: data["split"].update(strategy="group"))
    with pytest.raises(Img2PromptError, match="are not those that ridge was fitted on"):
        blend(cache, [one, two])


def test_the_command_line(cli, cache):
    said = cli("fit", "--head", "blend", "--members", "ridge,knn,mlp", "--cache", cache.folder, "--json")
    assert said.code == 0, said.err
    assert [set(member) for member in said.json["members"]] == [{"run", "weight", "cosine", "without"}] * 3
    run = said.json["run"]
    told = cli("fit", "--head", "blend", "--members", "ridge,knn", "--cache", cache.folder)
    lines = told.out.splitlines()
    assert lines[1].split()[0] == "member"
    assert [line.split()[0] for line in lines[2:4]] == ["ridge", "knn"]
    assert cli("predict", "--run", run, "--cache", cache.folder, "--json").json["rows"] == 1
    assert cli("compare", "--cache", cache.folder).out.count("blend") >= 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--head", "blend"], ("--members", "two runs or more", "mlp")),
        (["--head", "blend", "--members", "ridge,"], ("--members 'ridge,'", "commas")),
        (["--head", "blend", "--members", "ridge,kn"], ("unknown run or head 'kn'", "knn")),
        (["--head", "ridge", "--members", "ridge,knn"], ("--members goes with --head blend",)),
        (["--head", "blend", "--members", "ridge,knn", "--split", "group"], ("--split does not go",)),
        (["--head", "blend", "--members", "ridge,knn", "--set", "seed=1"], ("--set does not go",)),
        (["--head", "blend", "--members", "ridge,knn", "--teacher", "mlp"], ("--teacher goes with",)),
        (["--head", "distil"], ("learns from one run", "--teacher")),
        (["--head", "distil", "--teacher", "ridge,knn"], ("unknown run 'ridge,knn'",)),
        (["--head", "distil", "--teacher", "ridge", "--folds", "3"], ("--folds does not go",)),
        (["--head", "distil", "--teacher", "ridge", "--features", ONE, "--set", "rate=1"], ("'rate'",)),
        (
            ["--head", "distil", "--teacher", "ridge", "--features", ONE, "--set", "share=2"],
            ("from 0 to 1, not 2",),
        ),
        (["--head", "distil", "--teacher", "ridge"], ("cheapest backbone", "--features")),
    ],
)
def test_wrong_choices(cli, made, options, words):
    before = sorted((made.folder / "runs").iterdir())
    cli("fit", *options, "--cache", made.folder).refused(2, *words)
    assert sorted((made.folder / "runs").iterdir()) == before
