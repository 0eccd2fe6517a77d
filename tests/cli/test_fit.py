from __future__ import annotations

import json

import pytest

from img2prompt_cache.heads import HEADS, settings_of
from img2prompt_cache.runs.leaderboard import compare
from img2prompt_cache.runs.run import Run, load_run
from synthetic import ENCODER, ONE, OTHER, Cli, make_cache


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("fit") / "cache")


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


def test_json_is_what_scripts_rely_on(cli, folder):
    said = cli("fit", "--head", "ridge", "--cache", folder, "--json")
    assert said.code == 0
    assert list(said.json) == ["run", "head", "features", "metrics", "seconds", "expected"]
    assert said.json["head"] == "ridge"
    assert said.json["features"] == [ONE, OTHER]
    assert said.json["run"] == str(folder / "runs" / "ridge-one+other-01")
    metrics = said.json["metrics"]
    assert {"cosine", "mse", "n"} <= {*metrics}
    assert metrics == load_run(folder / "runs" / "ridge-one+other-01").metrics
    assert type(metrics["n"]) is int
    assert said.json["seconds"] > 0


def test_people_are_told_the_same(cli, folder, tmp_path):
    said = cli("fit", "--head", "mean", "--cache", folder, "--run", tmp_path / "run", "--features", OTHER)
    assert (said.code, said.err) == (0, "")
    made = load_run(tmp_path / "run")
    assert said.out.startswith(f"{tmp_path / 'run'}: cosine {made.metrics['cosine']:.4f} (")
    low, high = made.metrics["ci95"]
    assert f" ({low:.4f} to {high:.4f}), floor {made.metrics['floor']:.4f}, mse " in said.out
    least, most = made.metrics["leakage_gap_ci95"]
    more = f"leakage gap {made.metrics['leakage_gap']:+.4f} ({least:.4f} to {most:.4f})"
    more += f" beyond the floor's {made.metrics['leakage_gap_floor']:+.4f}"
    groups = made.metrics["groups"]
    assert f"few groups: the held-out rows are {groups} groups of near-identical ones, as good as" in said.out
    assert f"on {made.metrics['n']} held-out rows (group split; {more})" in said.out
    assert [use.spec for use in made.features] == [OTHER]


def test_folds_are_told(cli, folder, tmp_path):
    options = ("--folds", "4", "--no-leakage-gap", "--run", tmp_path / "run")
    said = cli("fit", "--head", "mean", *options, "--cache", folder)
    assert (said.code, said.err) == (0, "")
    assert " on 60 rows in 4 folds (group split); " in said.out
    assert [fold["n"] for fold in load_run(tmp_path / "run").fold_metrics] == [15] * 4


def test_bare_fit_is_the_best_head_on_everything_in_the_default_cache(cli, tmp_path, monkeypatch):
    make_cache(tmp_path / "cache" / "default", 40)
    monkeypatch.chdir(tmp_path)
    said = cli("fit", "--json")
    assert said.json["run"] == "cache/default/runs/best-one+other-01"
    assert said.json["head"] == "best"
    assert [step["step"] for step in said.json["steps"]] == ["kernel", "knn", "mlp", "soft bank"]


@pytest.mark.parametrize(
    ("head", "options", "settings"),
    [
        ("ridge", ["--alpha", "0.5", "--features", ONE], {"alpha": 0.5}),
        ("ridge", ["--alpha", "0.5,2"], {"alpha": [0.5, 2]}),
        (
            "ridge",
            ["--inner-folds", "3", "--choose", "mse", "--seed", "5"],
            {"folds": 3, "choose": "mse", "seed": 5},
        ),
        ("knn", ["--k", "4", "--power", "1.5"], {"k": 4, "power": 1.5}),
        ("knn", ["--inner-folds", "2"], {"folds": 2}),
        ("kernel", ["--alpha", "0.1", "--gain", "1,2", "--landmarks", "9"], {"alpha": 0.1, "gain": [1, 2]}),
        (
            "mlp",
            [
                *("--loss", "cosine", "--optimizer", "sgd", "--lr", "0.01", "--weight-decay", "0.1"),
                *("--dropout", "0.2", "--batch-size", "7", "--hidden", "16,8", "--epochs", "2"),
            ],
            {
                "loss": "cosine",
                "optimizer": "sgd",
                "lr": 0.01,
                "weight_decay": 0.1,
                "dropout": 0.2,
                "batch_size": 7,
                "hidden": [16, 8],
                "epochs": 2,
            },
        ),
        ("mlp", ["--hidden", "0", "--max-epochs", "2", "--patience", "1"], {"hidden": [], "patience": 1}),
    ],
)
def test_every_setting_reaches_its_head(cli, folder, tmp_path, head, options, settings):
    said = cli("fit", "--head", head, *options, "--cache", folder, "--run", tmp_path / "run")
    assert said.code == 0, said.err
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert {name: kept[name] for name in settings} == settings


def test_a_backbone_that_stands_in_is_told(cli, tmp_path, monkeypatch):
    import synthetic

    quick = ("--head", "seed-resnet50", "--epochs", 1, "--cache")
    cli("fit", *quick, make_cache(tmp_path / "none")).refused(
        2, "takes ResNet50 or another", "--features", ONE
    )
    monkeypatch.setattr(synthetic, "ONE", "timm:resnet18.a1_in1k")
    folder = make_cache(tmp_path / "cache")
    said = cli("fit", *quick, folder, "--json")
    assert said.json["features"] == ["timm:resnet18.a1_in1k"]
    assert said.err == (
        "seed-resnet50 is made for ResNet50, which is not cached: timm:resnet18.a1_in1k stands in\n"
    )
    assert cli("fit", *quick, folder, "--features", OTHER, "--json").err == ""


@pytest.mark.parametrize("head", ["ridge", "knn"])
def test_a_held_out_set(cli, tmp_path, head):
    sets = ["external" if row % 20 in (0, 1, 2) and row >= 20 else "own" for row in range(60)]
    folder = make_cache(tmp_path / "cache", fold=sets)
    said = cli("fit", "--head", head, "--test", "fold=external", "--cache", folder, "--run", tmp_path / "a")
    assert said.code == 0, said.err
    assert (
        "test set fold=external: 6 rows; fitted on 51 others, without 3 that are near-identical" in said.err
    )
    run = Run.load(tmp_path / "a")
    assert (run.metrics["n"], run.refit, run.rows, run.metrics["leakage_gap"]) == (6, False, 51, None)
    split = {name: run.split[name] for name in ("strategy", "train", "validation", "straddling", "purged")}
    assert split == {
        "strategy": "fold=external",
        "train": 51,
        "validation": 6,
        "straddling": 0,
        "purged": 3,
    }
    apart = make_cache(tmp_path / "apart", groups=60, fold=["own"] * 40 + ["external"] * 20)
    assert cli("fit", "--head", head, "--split", "fold", "--cache", apart, "--no-leakage-gap").code == 0
    cli("fit", "--head", head, "--split", "fold", "--cache", folder).refused(2, "--test COLUMN=VALUE")
    for more, words in (
        (["--split", "random"], "leave out --split"),
        (["--folds", "3"], "leave out --folds"),
    ):
        cli("fit", "--head", head, "--test", "fold=external", *more, "--cache", folder).refused(2, words)
    cli("fit", "--head", head, "--test", "external", "--cache", folder).refused(
        2, "--test", "source=external"
    )


def test_runs_on_a_held_out_set_are_blended_and_compared(cli, tmp_path):
    sets = ["external" if row % 20 in (0, 1, 2, 3) and row >= 20 else "own" for row in range(60)]
    folder = make_cache(tmp_path / "cache", fold=sets)
    for head in ("ridge", "knn"):
        place = folder / "runs" / head
        assert (
            cli("fit", "--head", head, "--test", "fold=external", "--cache", folder, "--run", place).code == 0
        )
    said = cli("fit", "--head", "blend", "--members", "ridge,knn", "--cache", folder)
    assert said.code == 0, said.err
    said = cli("fit", "--head", "distil", "--teacher", "ridge", "--features", ONE, "--cache", folder)
    assert said.code == 0, said.err
    board = compare(folder)
    assert (len(board.runs), board.others) == (4, [])
    assert not any(run.refit for run in board.runs)


def test_groups_that_straddle_the_users_own_split_are_told(cli, tmp_path):
    sides = ["val" if row < 10 else "train" for row in range(40)]
    folder = make_cache(tmp_path / "cache", 40, fold=sides)
    said = cli("fit", "--head", "mean", "--split", "fold", "--cache", folder)
    assert said.code == 0
    assert "--split fold: 10 of 20 groups of near-identical prompts or images have rows on both" in said.err
    for split in ("group", "random"):
        assert cli("fit", "--head", "mean", "--split", split, "--cache", folder).err == ""


def test_every_option_is_explained(cli):
    import typer.main

    from img2prompt_cache.cli.main import app

    for name, command in typer.main.get_command(app).commands.items():
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"
        usage = cli(name, "--help").out.splitlines()[1]
        assert "[[" not in usage
        assert "...]" not in usage


def test_the_formats_of_a_source_are_named(cli):
    from img2prompt_cache.sources import FORMATS

    said = " ".join(cli("extract", "--help").out.replace("│", " ").split())
    assert [name for name in FORMATS if name not in said.partition("--format")[2][:300]] == []


def test_any_setting_can_be_set_by_name(cli, folder, tmp_path):
    options = ("--set", "alpha=[0.5, 2]", "--set", "choose=mse", "--run", tmp_path / "run")
    assert cli("fit", "--head", "ridge", *options, "--cache", folder).code == 0
    made = load_run(tmp_path / "run")
    assert (made.settings["alpha"], made.settings["choose"]) == ([0.5, 2], "mse")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--head", "rigde"], ("unknown head 'rigde'", "ridge")),
        (["--folds", "4", "--holdout", "0.3"], ("--holdout", "leave one out")),
        (["--folds", "4", "--no-refit"], ("--no-refit", "leave one out")),
        (["--folds", "0"], ("--folds 0: at least 2",)),
        (["--folds", "21"], ("--folds 21", "only 20 groups")),
        (["--head", ""], ("unknown head ''", "mean", "ridge", "mlp")),
        (["--head", "ridge", "--lr", "1"], ("'lr'", "alpha")),
        (["--head", "mean", "--k", "3"], ("no settings",)),
        (["--loss", "mes"], ("'mes'", "did you mean mse")),
        (["--optimizer", "adm"], ("'adm'", "did you mean adam")),
        (["--head", "ridge", "--choose", "cos"], ("'cos'", "did you mean cosine")),
        (["--lr", "nan"], ("lr", "finite")),
        (["--weight-decay=-inf"], ("weight_decay", "finite")),
        (["--dropout", "1"], ("'dropout' of head 'mlp' must be below 1",)),
        (["--batch-size", "0"], ("'batch_size' of head 'mlp' must be at least 1",)),
        (["--epochs", "-1"], ("'epochs'", "at least 0")),
        (["--hidden", "a,b"], ("--hidden 'a,b'", "e.g. 1024,512")),
        (["--hidden=-3"], ("width 1…65536", "not (-3,)")),
        (["--hidden", "1000000000"], ("width 1…65536",)),
        (
            ["--head", "ridge", "--alpha", "0"],
            ("setting 'alpha' of head 'ridge' must be finite and above 0",),
        ),
        (["--head", "ridge", "--alpha", "1,b"], ("--alpha '1,b'", "commas")),
        (["--head", "kernel", "--gain", "nan"], ("--gain 'nan'", "a number")),
        (["--head", "knn", "--k", "0"], ("setting 'k' of head 'knn' must be at least 1, not 0",)),
        (["--head", "ridge", "--inner-folds", "1"], ("at least 2",)),
        (["--head", "ridge", "--inner-folds", "50"], ("cannot fill 50 folds", "--inner-folds")),
        (["--head", "ridge", "--blocks", "2"], ("'blocks'",)),
        (["--head", "finetune", "--blocks", "2"], ("no trunk column", "extract --cache", "--trunk 2")),
        (["--head", "finetune", "--features", ONE], (f"no trunk of {ONE}", f"--backbone {ONE} --trunk K")),
        (["--head", "finetune", "--features", f"{ONE},{OTHER}"], ("one backbone", "--features")),
        (["--set", "lr"], ("--set 'lr'", "NAME=VALUE")),
        (["--set", "=1"], ("NAME=VALUE",)),
        (["--set", "lr=1", "--set", "lr=2"], ("lr is given twice",)),
        (["--set", "lr=1", "--lr", "1"], ("lr is given twice",)),
        (["--set", "rl=1"], ("'rl'", "did you mean lr")),
        (["--set", "lr=fast"], ("takes lr as float or None, not 'fast'",)),
        (["--set", "lr=true"], ("takes lr as float or None, not True",)),
        (["--set", "lr=NaN"], ("lr", "finite")),
        (["--set", "epochs=1.5"], ("takes epochs as int or None, not 1.5",)),
        (["--set", "hidden=[1,[2]]"], ("takes hidden as list",)),
        (["--features", "timm:oen"], ("'timm:oen'", "did you mean timm:one")),
        (["--features", f"{ONE},{ONE}"], ("twice",)),
        (["--features", ""], ("--features ''", "leave it out")),
        (["--features", f"{ONE},"], ("commas",)),
        (["--encoder", "st:smoe"], ("'st:smoe'", f"did you mean {ENCODER}")),
        (["--split", "grup"], ("--split grup", "group", "random", "none")),
    ],
)
def test_wrong_choices(cli, folder, options, words):
    before = sorted((folder / "runs").glob("*"))
    head = [] if "--head" in options else ["--head", "mlp"]
    cli("fit", *head, *options, "--cache", folder).refused(2, *words)
    assert sorted((folder / "runs").glob("*")) == before


def test_an_mlp_that_diverges_leaves_no_run(cli, folder, tmp_path):
    options = ("--lr", "1e30", "--optimizer", "sgd", "--hidden", "8", "--max-epochs", "3")
    said = cli("fit", "--head", "mlp", *options, "--cache", folder, "--run", tmp_path / "run")
    said.refused(1, "diverged", "lower --lr")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("made", "options", "code", "words"),
    [
        ({"without_prompt": range(20)}, [], 2, ("no usable image with a prompt", "extract images with")),
        ({"failed": range(20)}, [], 2, ("no usable image",)),
        ({"nan": [4]}, [], 1, ("features/timm-one", "NaN", "row 4", "verify")),
        ({"groups": 1}, [], 2, ("one group", "--split random")),
        ({"groups": 4}, ["--head", "ridge"], 2, ("cannot fill 5 folds",)),
        ({"rows": 1, "groups": 1}, ["--split", "random"], 2, ("cannot hold out rows of 1; add pairs",)),
        ({"rows": 2, "groups": 2}, ["--head", "knn"], 2, ("cannot fill 5 folds",)),
        (
            {"rows": 4, "groups": 1},
            ["--head", "knn", "--split", "random"],
            2,
            ("3 rows cannot fill 5 folds",),
        ),
        ({"fold": ["train"] * 20}, ["--split", "fold"], 2, ("'fold'", "no rows for validation")),
        ({"fold": ["", *["a"] * 19]}, ["--split", "fold"], 2, ("'fold'", "empty in 1 row")),
    ],
)
def test_caches_that_cannot_be_fitted(cli, tmp_path, made, options, code, words):
    folder = make_cache(tmp_path / "cache", **{"rows": 20, **made})
    cli("fit", *options, "--cache", folder).refused(code, *words)
    assert not any((folder / "runs").glob("*"))


def test_a_part_whose_bytes_changed(cli, tmp_path):
    folder = make_cache(tmp_path / "cache", 40)
    part = folder / "targets" / "st-some-all-MiniLM-L6-v2" / "00002.h5"
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    cli("fit", "--cache", folder).refused(1, "targets/st-some-all-MiniLM-L6-v2/00002.h5 is damaged", "repair")
    assert part.read_bytes() == data


def test_a_run_is_never_replaced_unasked(cli, folder, tmp_path):
    run = tmp_path / "run"
    arguments = ("fit", "--head", "mean", "--cache", folder, "--run", run)
    assert cli(*arguments).code == 0
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    cli(*arguments).refused(2, f"--run {run} exists", "--overwrite")
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    assert cli(*arguments, "--overwrite").code == 0
    (run / "mine.txt").write_text("mine")
    cli(*arguments, "--overwrite").refused(2, "mine.txt", "no part of a run")
    assert (run / "mine.txt").read_text() == "mine"


def test_a_run_in_a_folder_that_cannot_be(cli, folder, tmp_path):
    (tmp_path / "file").write_text("mine")
    for run in (tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        cli("fit", "--head", "mean", "--cache", folder, "--run", run).refused(1, "cannot be written")
    assert (tmp_path / "file").read_text() == "mine"
    long = tmp_path / ("x" * 255)
    assert cli("fit", "--head", "mean", "--cache", folder, "--run", long).code == 0


def test_the_current_folder_is_no_place_for_a_run(cli, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in (".", "", str(tmp_path)):
        cli("fit", "--head", "mean", "--cache", folder, "--run", run).refused(2, "is the current folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("head", HEADS)
def test_the_settings_of_every_head_are_listed(cli, head):
    said = cli("fit", "--settings", head)
    assert said.code == 0
    listed = cli("fit", "--settings", head, "--json").json
    assert listed["head"] == head
    assert [each["name"] for each in listed["settings"]] == list(settings_of(head))
    assert all(each["description"].endswith(".") or each["description"] for each in listed["settings"])
    if listed["settings"]:
        assert said.out.split()[:3] == ["setting", "type", "default"]
        assert len(said.out.splitlines()) == len(listed["settings"]) + 1
    else:
        assert said.out == f"{head} has no settings\n"


def test_settings_of_an_unknown_head(cli):
    cli("fit", "--settings", "rigde").refused(2, "unknown head 'rigde'", "ridge")


def test_a_threshold_of_near_identical_prompts(cli, folder, tmp_path):
    options = ("--cache", folder, "--run", tmp_path / "run", "--group-threshold")
    assert cli("fit", "--head", "mean", *options, "0.9999").code == 0
    assert load_run(tmp_path / "run").split["groups"] == 60
    cli("fit", "--head", "mean", *options, "0", "--overwrite").refused(2, "--group-threshold")
    assert cli("fit", "--head", "mean", *options, "1.5").code == 2
    study = ("--trials", "2", "--no-fit", "--study", tmp_path / "study.db", "--cache", folder)
    assert cli("tune", "--head", "knn", *study, "--group-threshold", "0.9999").code == 0
    cli("tune", "--head", "knn", *study).refused(2, "study")
