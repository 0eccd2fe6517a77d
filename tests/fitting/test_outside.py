"""Members of a blend that another program fitted: joined by imgId, checked, mixed, and honest about it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import img2prompt_cache as ipc
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting import OutsideMember
from img2prompt_cache.fitting.outside import parse_outside
from img2prompt_cache.heads.outside import Outside
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.prediction.stream import load_backbones
from img2prompt_cache.runs.held_out import load_validation
from synthetic import ENCODER, ONE, WIDTH, Cli, make_cache

WITHOUT = [*range(60, 90)]
"""Rows without a prompt, which are there to be predicted."""


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_cache(tmp_path_factory.mktemp("outside") / "cache", 90, without_prompt=WITHOUT)
    run = folder / "runs" / "ridge"
    ipc.fit(folder, "ridge", settings={"alpha": 1.0}, features=ONE, folds=4, leakage_gap=False, run=run)
    ipc.fit(folder, "mean", features=ONE, folds=4, leakage_gap=False, run=folder / "runs" / "mean")
    return folder


@pytest.fixture(scope="module")
def other(folder, tmp_path_factory):
    """Another program's predictions: true targets blurred by noise of its own, for held-out and test rows."""
    home = tmp_path_factory.mktemp("files")
    cache, rng = ipc.Cache(folder), np.random.default_rng(5)
    targets = cache.values(cache.column("targets", ENCODER))[:60]
    centres = targets[:20]
    held = unit(targets + 0.09 * rng.normal(size=targets.shape)).astype(np.float32)
    test = unit(centres[rng.integers(20, size=30)] + 0.09 * rng.normal(size=(30, WIDTH))).astype(np.float32)
    names = cache.text("imgId")["imgId"]
    return home, names[:60], held, names[60:], test


def write_parquet(path: Path, names, vectors) -> Path:
    pq.write_table(pa.table({"imgId": list(names), "embedding": list(vectors)}), path)
    return path


def write_long(path: Path, names, vectors, order=None) -> Path:
    lines = [
        f"{name}_{place},{value!r}"
        for name, row in zip(names, vectors.tolist(), strict=True)
        for place, value in enumerate(row)
    ]
    if order is not None:
        lines = [lines[at] for at in order.permutation(len(lines))]
    path.write_text("\n".join(["imgId_eId,val", *lines]) + "\n")
    return path


def write_wide(path: Path, names, vectors) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["imgId", *(f"e{place}" for place in range(vectors.shape[1]))])
        writer.writerows([name, *row] for name, row in zip(names, vectors.tolist(), strict=True))
    return path


def write_npy(path: Path, names, vectors) -> Path:
    np.save(path, vectors)
    pd.DataFrame({"row": range(len(names)), "imgId": list(names)}).to_csv(
        path.with_suffix(".ids.csv"), index=False
    )
    return path


def write_jsonl(path: Path, names, vectors) -> Path:
    rows = zip(names, vectors.tolist(), strict=True)
    path.write_text("".join(json.dumps({"imgId": name, "embedding": row}) + "\n" for name, row in rows))
    return path


def shuffled(names, vectors, seed=0):
    order = np.random.default_rng(seed).permutation(len(names))
    return [names[at] for at in order], vectors[order]


@pytest.fixture(scope="module")
def files(other):
    home, names, held, test_names, test = other
    oof = write_parquet(home / "oof.parquet", *shuffled(names, held))
    return oof, write_parquet(home / "test.parquet", *shuffled(test_names, test, 1))


@pytest.fixture(scope="module")
def blend(folder, files):
    member = f"vit={files[0]}:{files[1]}"
    return ipc.fit(folder, "blend", members=["ridge", member], run=folder / "runs" / "both")


def test_the_score_is_that_of_the_mix(folder, other, blend):
    held = load_validation(folder / "runs" / "ridge")
    _, names, vectors, _, _ = other
    theirs = vectors[[names.index(name) for name in held.ids]]
    cache = ipc.Cache(folder)
    true = cache.values(cache.column("targets", ENCODER))[[names.index(name) for name in held.ids]]
    # The weights of each fold, found on the others by a plain search over the share of one.
    shares = np.linspace(0, 1, 2001)
    c, g = (held.predictions * true).sum(1), (theirs * true).sum(1)
    between = (held.predictions * theirs).sum(1)
    found = np.empty(60)
    for fold in range(4):
        inside = held.fold == fold
        mixed = [
            ((s * c + (1 - s) * g) / np.sqrt(s * s + (1 - s) ** 2 + 2 * s * (1 - s) * between))
            for s in shares
        ]
        best = int(np.argmax([each[~inside].mean() for each in mixed]))
        found[inside] = mixed[best][inside]
    assert blend.metrics["cosine"] == pytest.approx(found.mean(), abs=2e-5)
    member = blend.settings["members"][1]
    assert member["cosine"] == pytest.approx(g.mean(), abs=1e-6)
    assert (member["run"], member["head"]) == ("vit", "outside")
    assert [each["name"] for each in member["files"]] == ["oof.parquet", "test.parquet"]
    assert member["doubts"] == []
    assert blend.metrics["nested"] == 0


def test_test_images_are_predicted_by_the_same_mix(cli, folder, other, blend, tmp_path):
    _, _, _, names, theirs = other
    out = tmp_path / "submission.parquet"
    said = cli("predict", "--cache", folder, "--run", blend.folder, "--out", out)
    assert said.code == 0, said.err
    table = pq.read_table(out).to_pandas().set_index("imgId")
    own = ipc.Run.load(folder / "runs" / "ridge").predict(cache=folder, top_k=0)
    one, other_weight = blend.settings["weights"]
    expected = unit(one * own.vectors + other_weight * theirs[[names.index(name) for name in own.ids]])
    np.testing.assert_allclose(np.stack(table.loc[own.ids, "embedding"]), expected, atol=2e-4)
    assert len(own.ids) == 30
    again = ipc.Run.load(blend.folder).predict(top_k=0)
    assert np.isfinite(again.expected).all()


@pytest.mark.parametrize("kind", ["long", "mixed", "wide", "npy", "jsonl", "unscaled"])
def test_every_form_says_the_same(cli, folder, other, blend, tmp_path, kind):
    _, names, held, test_names, test = other
    order = np.random.default_rng(3)
    write = {
        "long": (write_long, ".csv"),
        "mixed": (lambda *each: write_long(*each, order=order), ".csv"),
        "wide": (write_wide, ".csv"),
        "npy": (write_npy, ".npy"),
        "jsonl": (write_jsonl, ".jsonl"),
        "unscaled": (lambda path, ids, each: write_parquet(path, ids, each * 3), ".parquet"),
    }[kind]
    paths = [
        write[0](tmp_path / f"{name}{write[1]}", ids, vectors)
        for name, ids, vectors in (("a", names, held), ("b", test_names, test))
    ]
    said = cli(
        *("fit", "--head", "blend", "--members", f"ridge,vit={paths[0]}:{paths[1]}", "--cache", folder),
        *("--run", tmp_path / "run", "--json"),
    )
    assert said.code == 0, said.err
    run = ipc.Run.load(tmp_path / "run")
    assert run.metrics["cosine"] == pytest.approx(blend.metrics["cosine"], abs=1e-6)
    told = said.json["members"][1]
    assert told["outside"] is True
    assert told["doubts"] == (
        ["its predictions have lengths from 3 to 3, scaled to 1"] if kind == "unscaled" else []
    )
    one, two = (each.predict(cache=folder, top_k=0).vectors for each in (run, blend))
    np.testing.assert_allclose(one, two, atol=1e-3)


def test_what_fit_writes_can_be_blended(cli, folder, blend, tmp_path):
    for name in ("oof.csv", "oof.npy", "oof.parquet", "oof.jsonl"):
        out = tmp_path / name
        options = ("--folds", "4", "--features", ONE, "--run", tmp_path / "knn", "--overwrite")
        settings = ("--k", "3", "--power", "2", "--no-leakage-gap", "--oof", out, "--cache", folder)
        assert cli("fit", "--head", "knn", *settings, *options).code == 0
        said = cli(
            *("fit", "--head", "blend", "--members", f"ridge,theirs={out}", "--cache", folder, "--json"),
            *("--run", tmp_path / f"blend-{name}"),
        )
        assert said.code == 0, said.err
        known = ipc.Run.load(tmp_path / "knn").metrics["cosine"]
        assert said.json["members"][1]["cosine"] == pytest.approx(known, abs=1e-6)


def test_people_are_told_that_it_is_taken_at_its_word(cli, folder, files, tmp_path):
    said = cli(
        *("fit", "--head", "blend", "--members", f"ridge,vit={files[0]}:{files[1]}", "--cache", folder),
        *("--run", tmp_path / "run"),
    )
    assert "vit: predictions of another program, taken at their word" in said.out
    assert "cannot be made again on inner folds" in said.out
    assert "takes too long" not in said.out


def leaky(folder, home):
    """Predictions by a nearly interpolating model that was fitted on the rows which it predicts."""
    cache = ipc.Cache(folder)
    targets = cache.values(cache.column("targets", ENCODER))[:60]
    names = cache.text("imgId")["imgId"]
    noise = np.random.default_rng(11).normal(size=(30, WIDTH))
    fitted = unit(targets + 0.03 * np.random.default_rng(12).normal(size=(60, WIDTH))).astype(np.float32)
    return names, fitted, unit(targets[:30] + 0.12 * noise).astype(np.float32), home


@pytest.fixture
def arguments(folder, tmp_path):
    """A blend into one folder, whose members are to be named."""
    return (
        *("fit", "--head", "blend", "--cache", folder),
        *("--run", tmp_path / "run", "--overwrite", "--members"),
    )


def test_predictions_for_rows_that_were_fitted_on_are_doubted(cli, folder, tmp_path, arguments):
    names, fitted, test, home = leaky(folder, tmp_path)
    oof = write_parquet(home / "oof.parquet", names[:60], fitted)
    there = write_parquet(home / "test.parquet", names[60:], test)
    said = cli(*arguments, f"ridge,vit={oof}:{there}")
    assert "are nearer to a prompt (a cosine of 0." in said.out
    cache = ipc.Cache(folder)
    exact = cache.values(cache.column("targets", ENCODER))[:60]
    copied = write_parquet(home / "copied.parquet", names[:60], exact)
    said = cli(*arguments, f"ridge,vit={copied}")
    assert "have a mean cosine of 1.000, 100% of them beyond 0.99" in said.out
    doubts = ipc.Run.load(tmp_path / "run").settings["members"][1]["doubts"]
    assert len(doubts) == 1


def test_rows_in_another_order_than_their_names_are_doubted(cli, folder, other, tmp_path):
    _, names, held, *_ = other
    oof = write_parquet(tmp_path / "oof.parquet", names, np.roll(held, 7, axis=0))
    said = cli(
        *("fit", "--head", "blend", "--cache", folder, "--members", f"ridge,vit={oof}"),
        *("--run", tmp_path / "run"),
    )
    assert "see whether its names and rows are in the same order" in said.out


def spoilt(held, change):
    found = held.copy()
    change(found)
    return found


def test_files_that_do_not_fit_are_refused(cli, folder, other, tmp_path):
    _, names, held, *_ = other

    def refused(path, code, *words):
        said = cli("fit", "--head", "blend", "--cache", folder, "--members", f"ridge,vit={path}")
        said.refused(code, *words)

    refused(tmp_path / "none.csv", 1, "none.csv is not there")
    refused(write_parquet(tmp_path / "a.parquet", names[:50], held[:50]), 2, "no prediction for 10 of the 60")
    refused(write_parquet(tmp_path / "b.parquet", names, held[:, :100]), 1, "has 100 values, not 384")
    for name, change, words in (
        ("c", lambda each: each.__setitem__((3, 5), np.nan), "holds NaN or infinity"),
        ("d", lambda each: each.__setitem__(4, 0), "is the zero vector"),
    ):
        refused(write_parquet(tmp_path / f"{name}.parquet", names, spoilt(held, change)), 1, words, "i00")
    twice = write_parquet(tmp_path / "e.parquet", [*names[:59], names[0]], held)
    refused(twice, 1, "has two predictions for i000")
    np.save(tmp_path / "f.npy", held)
    refused(tmp_path / "f.npy", 1, "write f.ids.csv with the columns row and imgId")
    write_npy(tmp_path / "f.npy", names[:59], held)
    refused(tmp_path / "f.npy", 1, "f.ids.csv names 59 rows, and it has 60")
    np.save(tmp_path / "g.npy", np.array([object()]), allow_pickle=True)
    refused(tmp_path / "g.npy", 1, "g.npy cannot be read")
    text = write_long(tmp_path / "h.csv", names, held).read_text().splitlines()
    (tmp_path / "h.csv").write_text("\n".join(text[:-1]))
    refused(tmp_path / "h.csv", 1, "i059 has fewer than 384 values")
    (tmp_path / "h.csv").write_text("\n".join([*text, text[1]]))
    refused(tmp_path / "h.csv", 1, "i000_0 stands twice")
    (tmp_path / "h.csv").write_text("imgId,prompt\ni000,a boat\n")
    refused(tmp_path / "h.csv", 1, "its header is neither imgId_eId,val nor imgId and 384 columns")
    (tmp_path / "i.jsonl").write_text("{}\n")
    refused(tmp_path / "i.jsonl", 1, "cannot be read as predictions")
    refused(
        write_parquet(tmp_path / "j.parquet", names, held).rename(tmp_path / "j.csv"),
        1,
        "j.csv cannot be read",
    )
    (tmp_path / "k.parquet").write_bytes(b"PAR1")
    refused(tmp_path / "k.parquet", 1, "k.parquet cannot be read")
    refused(tmp_path / "oof.txt", 2, "write NAME=OOF:TEST")


def test_members_that_do_not_go(cli, folder, files):
    def refused(members, *words):
        cli("fit", "--head", "blend", "--cache", folder, "--members", members).refused(2, *words)

    both = f"{files[0]}:{files[1]}"
    refused(f"a={both},b={both}", "one member must be a run of this cache")
    refused(f"ridge,a={both},a={both}", "a is named twice")
    refused(f"ridge,ridge={both}", "ridge is named twice")
    refused(f"ridge,/a={both}", "'/a' is no name")
    with pytest.raises(UsageError, match="two runs or more"):
        ipc.fit(folder, "blend", members=OutsideMember("a", *files))


def test_images_that_it_has_no_prediction_for_are_refused_before_the_work(
    cli, folder, other, files, tmp_path, arguments
):
    _, _, _, names, test = other
    some = write_parquet(tmp_path / "some.parquet", names[:29], test[:29])
    assert cli(*arguments, f"ridge,vit={files[0]}:{some}").code == 0
    predict = ("predict", "--cache", folder, "--run", tmp_path / "run", "--out", tmp_path / "out.csv")
    said = cli(*predict)
    said.refused(2, "vit, a member of the blend", "has no prediction for 1 of 30 images: i089")
    assert not (tmp_path / "out.csv").exists()
    assert cli(*arguments, f"ridge,vit={files[0]}").code == 0
    cli(*predict).refused(2, "has no prediction for 30 of 30 images")


def test_what_needs_it_for_other_images_says_so(cli, folder, blend, tmp_path):
    said = cli("fit", "--head", "distil", "--teacher", blend.folder, "--cache", folder)
    said.refused(2, "--teacher", "a member of both was fitted by another program")
    features = np.zeros((2, 24 + WIDTH), np.float32)
    features[:, 24] = 1
    assert ipc.Run.load(blend.folder).predict(features).vectors.shape == (2, WIDTH)


def test_a_report_and_a_table_show_it(cli, folder, blend, tmp_path):
    board = ipc.compare(folder, ["both", "ridge"], against="ridge")
    assert board.records()[0]["features"] == "one+vit"
    pytest.importorskip("jinja2", reason="needs the extra: pip install 'img2prompt-cache[report]'")
    said = cli("report", "--cache", folder, "--out", tmp_path / "report.html")
    assert said.code == 0, said.err


def test_a_member_that_helps_nothing_gets_no_weight_and_is_not_asked(folder, other, tmp_path):
    _, names, held, *_ = other
    noise = unit(np.random.default_rng(0).normal(size=held.shape)).astype(np.float32)
    oof = write_parquet(tmp_path / "oof.parquet", names, -held + 0.1 * noise)
    run = ipc.fit(folder, "blend", members=["ridge", OutsideMember("bad", oof)], run=tmp_path / "run")
    assert run.settings["weights"] == [1, 0]
    plain = ipc.Run.load(folder / "runs" / "ridge").predict(cache=folder, top_k=0)
    np.testing.assert_allclose(run.predict(cache=folder, top_k=0).vectors, plain.vectors, atol=1e-6)


def test_names_travel_with_the_table():
    names = ["a", "", "ö/x=y", "\ud800", "a b\n"]
    vectors = np.eye(5, dtype=np.float32)
    again = Outside().load_state(Outside.of(names, vectors).state())
    assert again.ids_ == names
    np.testing.assert_array_equal(again.find(["\ud800", "a"]), vectors[[3, 0]])
    empty = Outside().load_state(Outside.of([], vectors[:0]).state())
    assert empty.missing(["a"]) == ["a"]
    state = Outside.of(names, vectors).state()
    for broken in (
        {**state, "stops": state["stops"][::-1].copy()},
        {**state, "stops": state["stops"] + 1},
        {**state, "text": state["text"][:-1]},
        {**state, "stops": state["stops"][:-1]},
    ):
        with pytest.raises(Img2PromptError, match="fit it again"):
            Outside().load_state(broken)


def test_files_are_told_apart_by_their_extensions():
    assert parse_outside("ridge") is None
    assert parse_outside("a=x.csv") == OutsideMember("a", Path("x.csv"))
    assert parse_outside("a=d:/x.CSV:y.npy") == OutsideMember("a", Path("d:/x.CSV"), Path("y.npy"))
    assert parse_outside("a=x:1.csv:y:2.parquet") == OutsideMember("a", Path("x:1.csv"), Path("y:2.parquet"))
    with pytest.raises(UsageError, match="write NAME=OOF:TEST"):
        parse_outside("a=x.csv:y")


def test_new_images_are_mixed_with_the_rows_of_their_file(cli, tiny, pairs, tmp_path):
    folder = tmp_path / "cache"
    tiny.extract(pairs, folder, backbones=(tiny.cnn,))
    run = ipc.fit(folder, "ridge", settings={"alpha": 0.1}, split="random", folds=3, leakage_gap=False)
    held = load_validation(run.folder)
    width = run.target.width
    names = ipc.Cache(folder).text("imgId")["imgId"]
    rng = np.random.default_rng(0)
    test = unit(rng.normal(size=(len(names), width))).astype(np.float32)
    oof = write_parquet(
        tmp_path / "oof.parquet", held.ids, held.predictions + 0.5 * rng.normal(size=(len(held.ids), width))
    )
    member = OutsideMember("theirs", oof, write_parquet(tmp_path / "test.parquet", names, test))
    blend = ipc.fit(folder, "blend", members=[run, member], run=tmp_path / "blend")
    blend_weights = np.array([0.6, 0.4])
    blend.estimator.weights_ = blend_weights
    blend.estimator.heads_ = [run.estimator, Outside.of(names, test)]
    found, own = blend.predict(pairs, top_k=0), run.predict(pairs, top_k=0)
    assert found.ids == own.ids
    assert found.failed == own.failed
    theirs = test[[names.index(name) for name in found.ids]]
    np.testing.assert_allclose(found.vectors, unit(0.6 * own.vectors + 0.4 * theirs), atol=1e-3)
    cached = blend.predict(ipc.Cache(folder), top_k=0)
    np.testing.assert_allclose(cached.vectors, found.vectors, atol=1e-3)
    with pytest.raises(UsageError, match="only its predictions are known"):
        load_backbones(blend.features)
