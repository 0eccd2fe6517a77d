"""Every check finds what it is for, and passes where there is nothing of it."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from img2prompt_cache.cache.manifest_file import load_manifest, save_manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.cli import main
from img2prompt_cache.cli.spelling import spell
from img2prompt_cache.data.columns import UsedColumn
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.progress import ignore
from img2prompt_cache.reporting.checks import base, data, runs
from img2prompt_cache.reporting.checks.base import NotCheckedError, carry_out
from img2prompt_cache.reporting.checks.registry import CHECKS
from img2prompt_cache.reporting.checks.runs import edges
from img2prompt_cache.reporting.material import Material
from img2prompt_cache.reporting.report import plain
from img2prompt_cache.reporting.sections.checks import gather
from img2prompt_cache.runs.board import Leaderboard
from img2prompt_cache.runs.entries import Entry
from img2prompt_cache.runs.record import RunRecord
from img2prompt_cache.runs.run import Run
from synthetic import ONE, make_cache

MEMBERS = [{"run": "a"}, {"run": "b"}]
DOCS = Path(__file__).parents[2] / "docs" / "report.md"


def make_run(folder: Path, name: str = "ridge-01", **changes: Any) -> Run:
    """A run with good scores, of which some values are changed."""
    metrics = {
        "cosine": 0.6, "ci95": [0.55, 0.65], "floor": 0.3, "mse": 0.002, "n": 500, "r@1": 0.1, "r@5": 0.2,
        "groups": 200, "effective_groups": 150.0, "leakage_gap": 0.01,
    }  # fmt: skip
    split = {
        "strategy": "group", "seed": 0, "folds": 5, "digest": "d", "train": 400, "validation": 500,
        "straddling": 0, "largest_group": 20,
    }  # fmt: skip
    values: dict[str, Any] = {
        "head": "ridge", "settings": {}, "seconds": 1.0, "refit": True, "rows": 500, "cache": "",
        "created": "2026-01-01", "expected": None, "features": (UsedColumn(ONE, 24, {}),),
        "target": UsedColumn("st:some", 384, {}),
        "fold_metrics": [{"cosine": 0.6, "n": 100, "chosen": {}}, {"cosine": 0.62, "n": 100, "chosen": {}}],
    }  # fmt: skip
    values |= {key: value for key, value in changes.items() if key in values}
    metrics |= changes.get("metrics", {})
    split |= changes.get("split", {})
    history = changes.get("history", "")
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "history.csv").write_text(history)
    record = RunRecord(**values, metrics=metrics, split=split)  # type: ignore[arg-type]
    return Run.of(record, folder / name)


def board_of(*found: Run, **values: Any) -> Any:
    """Material of some runs."""
    board = Leaderboard([Entry((run,)) for run in found], **values)
    return SimpleNamespace(board=board, studies=[], cache=None)


def found_by(check: Any, material: Any) -> list[str]:
    return [finding.severity for finding in check(material)]


@pytest.fixture(scope="module")
def plain_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache(tmp_path_factory.mktemp("checks") / "cache", groups=60)


def material_of(folder: Path) -> Material:
    return Material.of_cache(Cache(folder))


def test_every_check_has_its_number_title_and_chapter():
    numbers = [check.number for check in CHECKS]
    assert numbers == [f"R{number:02d}" for number in range(1, len(CHECKS) + 1)]
    chapters = re.findall(r"^### (R\d\d) (.+)$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert chapters == [(check.number, check.title) for check in CHECKS]


def test_a_cache_without_faults_passes(plain_cache):
    section = gather(material_of(plain_cache), ignore)
    gone = {"R02"}  # its images never were
    assert {each.number for each in section.checks if each.findings} == gone
    assert len(section.checks) == len(CHECKS)
    assert sum(section.counts.values()) == len(CHECKS)
    assert json.loads(json.dumps(plain(section))) == plain(section)


def test_the_gravest_come_first(tmp_path):
    folder = make_cache(tmp_path / "cache", failed=[1, 2, 3, 4], without_prompt=[9])
    severities = [each.severity for each in gather(material_of(folder), ignore).checks]
    order = ["problem", "caution", "remark", "passed", "not checked"]
    assert severities == sorted(severities, key=order.index)
    assert severities[0] == "problem"


def test_failed_images(tmp_path, plain_cache):
    folder = make_cache(tmp_path / "cache", failed=[1])
    (finding,) = data.failed_images(material_of(folder))
    assert "1 image of 60" in finding.text
    assert "not an image" in finding.text
    assert not [*data.failed_images(material_of(plain_cache))]


def test_images_that_changed_or_are_gone(tiny, pairs, tmp_path):
    images = shutil.copytree(pairs, tmp_path / "images")
    tiny.extract(images, tmp_path / "cache")
    assert not [*data.changed_images(material_of(tmp_path / "cache"))]
    shutil.copy(images / "img002.png", images / "img001.png")
    (images / "img006.png").unlink()
    material = material_of(tmp_path / "cache")
    changed, gone = data.changed_images(material)
    assert (changed.severity, gone.severity) == ("problem", "caution")
    assert changed.text.startswith("1 of 20")
    assert gone.text.startswith("1 of 20")


def test_rows_without_a_prompt_and_repeated_ones(tmp_path, plain_cache):
    folder = make_cache(tmp_path / "cache", without_prompt=range(40))
    assert found_by(data.missing_prompts, material_of(folder)) == ["caution"]
    assert not [*data.missing_prompts(material_of(plain_cache))]
    material = material_of(plain_cache)
    assert not [*data.repeated_prompts(material)]
    material.rows.prompts[:30] = ["the same"] * 30
    assert found_by(data.repeated_prompts, material) == ["caution"]


def test_cut_prompts(plain_cache):
    material = material_of(plain_cache)
    with pytest.raises(NotCheckedError, match="tokenizer"):
        [*data.cut_prompts(material)]
    known = SimpleNamespace(tokens=[5] * 99 + [300], token_limit=256)
    assert found_by(data.cut_prompts, known) == ["remark"]
    assert found_by(data.cut_prompts, SimpleNamespace(tokens=[300, 5], token_limit=256)) == ["caution"]
    assert not found_by(data.cut_prompts, SimpleNamespace(tokens=[256, 5], token_limit=256))


def test_tokens_are_counted_by_the_encoders_own_tokenizer(made):
    material = material_of(made)
    assert material.token_limit == 32
    assert len(material.tokens) == len(material.rows.prompted)
    assert min(material.tokens) > 2


def test_prompts_in_other_scripts(plain_cache):
    material = material_of(plain_cache)
    material.target = replace(material.target, spec="packaged:all-MiniLM-L6-v2")
    assert not [*data.foreign_scripts(material)]
    material.rows.prompts[:10] = ["狐狸"] * 10
    assert found_by(data.foreign_scripts, material) == ["caution"]


def test_prompts_of_several_programs(plain_cache):
    material = material_of(plain_cache)
    with pytest.raises(NotCheckedError):
        [*data.mixed_programs(material)]
    material.rows.found_in[:30] = ["a1111"] * 30
    assert not [*data.mixed_programs(material)]
    material.rows.found_in[30:] = ["comfyui"] * 30
    (finding,) = data.mixed_programs(material)
    assert "a1111 30, comfyui 30" in finding.text


def test_damaged_parts_and_incomplete_columns(tmp_path):
    folder = make_cache(tmp_path / "cache")
    assert not [*data.damaged_parts(material_of(folder)), *data.incomplete_columns(material_of(folder))]
    manifest = load_manifest(folder)
    columns = list(manifest.columns)
    columns[1] = replace(columns[1], parts=columns[1].parts[:-1])
    columns[2] = replace(
        columns[2], parts=(replace(columns[2].parts[0], missing=(3,)), *columns[2].parts[1:])
    )
    save_manifest(folder, replace(manifest, columns=tuple(columns)))
    part = folder / columns[2].parts[1].file
    part.write_bytes(part.read_bytes() + b"x")
    material = material_of(folder)
    assert found_by(data.damaged_parts, material) == ["problem"]
    assert found_by(data.incomplete_columns, material) == ["caution", "problem"]


def test_features_that_are_nan(tmp_path, plain_cache):
    (finding,) = data.features(material_of(make_cache(tmp_path / "cache", nan=[3, 5])))
    assert finding.severity == "problem"
    assert "in 2 of 60 rows" in finding.text
    assert not [*data.features(material_of(plain_cache))]


def test_columns_of_lower_precision(tmp_path, plain_cache):
    folder = shutil.copytree(plain_cache, tmp_path / "cache")
    assert not [*data.precision(material_of(folder))]
    manifest = load_manifest(folder)
    columns = list(manifest.columns)
    columns[1] = replace(columns[1], fingerprint={**columns[1].fingerprint, "precision": "bf16"})
    save_manifest(folder, replace(manifest, columns=tuple(columns)))
    (finding,) = data.precision(material_of(folder))
    assert finding.text == "features/timm-one: computed in bf16"


@pytest.mark.parametrize(
    ("check", "changes", "severities"),
    [
        (runs.below_floor, {}, []),
        (runs.below_floor, {"metrics": {"floor": 0.7}}, ["problem"]),
        (runs.below_floor, {"metrics": {"floor": 0.57}}, ["caution"]),
        (runs.below_floor, {"head": "mean", "metrics": {"floor": 0.6}}, []),
        (runs.few_groups, {}, []),
        (runs.few_groups, {"metrics": {"effective_groups": 12.0}}, ["caution"]),
        (runs.large_group, {}, []),
        (runs.large_group, {"split": {"largest_group": 200}}, ["caution"]),
        (runs.leaking_split, {}, []),
        (runs.leaking_split, {"split": {"strategy": "random"}}, ["problem"]),
        (runs.leaking_split, {"split": {"straddling": 3, "strategy": "fold"}}, ["problem"]),
        (runs.leaking_split, {"metrics": {"leakage_gap": 0.2}}, ["remark"]),
        (runs.uneven_folds, {}, []),
        (runs.uneven_folds, {"fold_metrics": [{"cosine": 0.3}, {"cosine": 0.6}]}, ["caution"]),
        (runs.overfitted, {"history": "epoch,train_loss,val_loss\n0,1,1.5\n1,0.9,1.2\n"}, []),
        (runs.overfitted, {"history": "epoch,train_loss,val_loss\n0,1,1.5\n1,0.4,1.2\n"}, ["caution"]),
        (
            runs.unfinished_training,
            {"history": "epoch,train_loss,val_loss\n0,1,1.5\n1,1,1.2\n", "settings": {"max_epochs": 2}},
            ["caution"],
        ),
        (
            runs.unfinished_training,
            {"history": "epoch,train_loss,val_loss\n0,1,1.1\n1,1,1.2\n", "settings": {"max_epochs": 2}},
            [],
        ),
        (
            runs.edge_of_search,
            {"history": "alpha,cosine\n0.1,0.4\n1,0.5\n10,0.6\n", "settings": {"alpha": 10.0}},
            ["caution"],
        ),
        (
            runs.edge_of_search,
            {"history": "alpha,cosine\n0.1,0.4\n1,0.7\n10,0.6\n", "settings": {"alpha": 1.0}},
            [],
        ),
        (  # each epoch has its best mix
            runs.edge_of_search,
            {
                "head": "mlp",
                "history": "epoch,mix,val_cosine\n0,0,0.4\n1,0.1,0.5\n2,0.25,0.6\n",
                "settings": {"mix": 0.25},
            },
            [],
        ),
        (  # the path of an optimiser
            runs.edge_of_search,
            {
                "head": "kernel",
                "history": "gain 1,alpha,cosine\n1,0.1,0.4\n1,1,0.5\n1,10,0.6\n",
                "settings": {"alpha": 10.0},
            },
            [],
        ),
        (runs.expected_cosines, {"expected": {"calibration_error": 0.01, "spearman": 0.6}}, []),
        (runs.expected_cosines, {"expected": {"calibration_error": 0.1, "spearman": 0.6}}, ["caution"]),
        (runs.expected_cosines, {"expected": {"calibration_error": 0.01, "spearman": 0.1}}, ["remark"]),
        (runs.idle_members, {"settings": {"weights": [0.0, 1.0], "members": MEMBERS}}, ["remark"]),
        (runs.idle_members, {"settings": {"weights": [0.5, 0.5], "members": MEMBERS}}, []),
    ],
)  # fmt: skip
def test_checks_of_a_run(tmp_path, check, changes, severities):
    assert found_by(check, board_of(make_run(tmp_path, **changes))) == severities


@pytest.mark.parametrize(
    "check", [runs.overfitted, runs.unfinished_training, runs.idle_members, runs.unsure_best]
)
def test_what_a_run_does_not_have_is_not_checked(tmp_path, check):
    with pytest.raises(NotCheckedError):
        [*check(board_of(make_run(tmp_path)))]


def test_the_edge_counts_only_where_something_lies_beyond():
    history = [{"k": k, "power": power} for k in (1, 5, 9) for power in (0.0, 2.0, 4.0)]
    assert [*edges({"k": 1, "power": 0.0}, history)] == []
    assert [*edges({"k": 9, "power": 2.0}, history)] == [("k", 9.0, "greatest")]
    assert [*edges({"k": 5, "power": 4.0, "flag": True, "name": "x"}, history)] == [
        ("power", 4.0, "greatest")
    ]
    assert [*edges({"k": 5}, history[:2])] == []


def test_a_run_on_changed_rows_and_one_that_is_left_out(tmp_path):
    run, other = make_run(tmp_path), make_run(tmp_path, "other-01")
    material = board_of(
        run, others=[other], unreadable={Path("bad-01"): "damaged"}, outdated={run.folder: "3 rows"}
    )
    assert found_by(data.changed_rows, material) == ["problem"]
    assert found_by(runs.unreadable_runs, material) == ["problem", "remark"]
    assert not [*data.changed_rows(board_of(run)), *runs.unreadable_runs(board_of(run))]


def test_a_best_run_that_may_not_be_the_best_and_a_simpler_one(tmp_path):
    folder = make_cache(tmp_path / "cache", groups=60)
    for head, settings in (("ridge", {"alpha": 1.0}), ("ridge", {"alpha": 1.001}), ("mean", {})):
        fit_head(Cache(folder), FitConfig(head, settings))
    material = material_of(folder)
    assert found_by(runs.unsure_best, material) == ["caution"]
    assert not [*runs.simpler_head(material)]
    entries = material.board.entries
    entries[:] = [Entry((replace(entries[0].run, head="mlp"),)), *entries[1:]]
    (finding,) = runs.simpler_head(material)
    assert "is simpler than" in finding.text
    entries[:] = entries[1:]
    assert not [*runs.unsure_best(material)]


def test_folds_are_not_advised_to_runs_that_are_by_folds(tmp_path):
    changes = {"metrics": {"effective_groups": 12.0}}
    for check, more in ((runs.few_groups, changes), (runs.large_group, {"split": {"largest_group": 200}})):
        (finding,) = check(board_of(make_run(tmp_path, **more)))
        assert "Use folds" not in finding.advice
        assert "held out already" in finding.advice
        more = {**more, "split": {**more.get("split", {}), "folds": 1, "validation": 100}}
        (finding,) = check(board_of(make_run(tmp_path, **more)))
        assert "Use folds" in finding.advice


def test_runs_that_predict_the_same_are_not_compared(tmp_path):
    folder = make_cache(tmp_path / "cache", groups=60)
    for _ in range(2):
        fit_head(Cache(folder), FitConfig("ridge", {"alpha": 1.0}))
    with pytest.raises(NotCheckedError, match="or are the same"):
        [*runs.unsure_best(material_of(folder))]
    third = fit_head(Cache(folder), FitConfig("ridge", {"alpha": 1.001}))
    (finding,) = runs.unsure_best(material_of(folder))
    assert third.name in finding.text
    assert "By folds every row would count" in finding.advice


def test_the_edge_of_a_study(plain_cache, tmp_path):
    pytest.importorskip("optuna")
    from img2prompt_cache.heads.space import LogUniform, Uniform
    from img2prompt_cache.tuning.finished import FinishedStudy
    from img2prompt_cache.tuning.study import COMPLETE, FinishedTrial

    space = {"alpha": LogUniform(0.01, 100.0), "power": Uniform(0.0, 8.0)}

    def edges_of(alpha: float, power: float) -> list[str]:
        trial = FinishedTrial(0, COMPLETE, {"alpha": alpha, "power": power}, 0.5, 1.0)
        material = board_of(make_run(tmp_path))
        material.studies = [FinishedStudy(Path("ridge.db"), "ridge", space, [trial])]
        return [finding.text for finding in runs.edge_of_search(material)]

    assert edges_of(1.0, 4.0) == []
    assert len(edges_of(99.0, 4.0)) == 1
    assert "at the low end" in edges_of(0.0101, 4.0)[0]
    assert edges_of(1.0, 0.0) == [], "nothing lies below 0"


def test_what_findings_name_is_a_parameter_or_a_command():
    for module in (base, data, runs):
        tree = ast.parse(inspect.getsource(module))
        notes = {id(each.value) for each in ast.walk(tree) if isinstance(each, ast.Expr)}
        texts = [
            each.value
            for each in ast.walk(tree)
            if isinstance(each, ast.Constant) and isinstance(each.value, str) and id(each) not in notes
        ]
        for name in re.findall(r"`([^`]+)`", " ".join(texts)):
            assert spelled(f"`{name}`") != f"`{name}`", f"{name} is no parameter and no command"
            assert name.endswith(")") or spelled(f"`{name}()`") == f"`{name}()`", f"{name} lacks ()"


def spelled(text: str) -> str:
    """Spell a text as the command line does."""
    return spell(text, main.app, main.NAME)


def test_a_check_that_cannot_tell_says_why(tmp_path):
    check = next(check for check in CHECKS if check.examine is runs.few_groups)
    outcome = carry_out(check, board_of(make_run(tmp_path, metrics={"effective_groups": None})))
    assert outcome.severity == "not checked"
    assert outcome.not_checked
