"""Tables for papers: read back by other readers, with figures computed anew."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import img2prompt_cache as ipc
from img2prompt_cache.runs.board_table import FORMATS
from img2prompt_cache.runs.held_out import load_validation
from synthetic import Cli, make_cache


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_cache(tmp_path_factory.mktemp("tables") / "cache", groups=15)
    for head, settings in (("mean", {}), ("nearest", {}), ("ridge", {"alpha": 1.0})):
        ipc.fit(folder, head, settings=settings, folds=5, features="timm:one", leakage_gap=False)
    return folder


def cells(line: str, edge: str = "|") -> list[str]:
    return [cell.strip() for cell in line.strip().strip(edge).split(edge)]


def adjusted(values: list[float]) -> list[float]:
    """Holm's procedure as its paper writes it: the smallest of m times m, the next times m − 1, …"""
    order, found, before = np.argsort(values), np.empty(len(values)), 0.0
    for rank, place in enumerate(order):
        found[place] = before = max(before, min(1.0, (len(values) - rank) * values[place]))
    return found.tolist()


def by_hand(run: ipc.Run, reference: ipc.Run) -> tuple[float, float]:
    """The paired difference and its p, from the predictions on disk and the totals of each group."""
    one, other = (
        pd.read_csv(each.folder / "validation.csv").set_index("imgId").sort_index()
        for each in (run, reference)
    )
    difference = one.cosine - other.cosine
    away = (difference - difference.mean()).groupby(one.group).sum()
    widening = 1 + sum(len(fold) / (len(one) - len(fold)) for _, fold in one.groupby("fold"))
    error = np.sqrt((away**2).sum() * widening) / len(one)
    return difference.mean(), 2 * stats.norm.sf(abs(difference.mean()) / error)


def test_markdown_has_the_figures_that_pandas_and_scipy_find(cli, folder):
    text = cli("compare", "--cache", folder, "--format", "md", "--against", "mean-one-01").out
    lines = text.splitlines()
    header = cells(lines[0])
    assert header == [
        *("run", "head", "features", "cosine", "difference", "p", "floor", "n", "groups", "effective groups")
    ]
    assert set(lines[1]) <= set("|- :")
    rows = [dict(zip(header, cells(line), strict=True)) for line in lines[2:5]]
    runs = {run.name: run for run in ipc.compare(folder).runs}
    reference = runs.pop("mean-one-01")
    expected = {name: by_hand(run, reference) for name, run in runs.items()}
    p = dict(zip(expected, adjusted([each[1] for each in expected.values()]), strict=True))
    assert [row["head"] for row in rows] == ["ridge", "nearest", "mean"]
    for row in rows:
        held = pd.read_csv(folder / "runs" / row["run"] / "validation.csv")
        sizes = held.group.value_counts()
        assert (row["n"], row["groups"]) == (str(len(held)), str(len(sizes)))
        assert row["effective groups"] == f"{sizes.sum() ** 2 / (sizes**2).sum():.1f}"
        low, high = ipc.Run.load(folder / "runs" / row["run"]).metrics["ci95"]
        assert row["cosine"] == f"{held.cosine.mean():.4f} ± {(high - low) / 2:.4f}"
        if row["head"] == "mean":
            assert (row["difference"], row["p"]) == ("–", "–")
            continue
        difference = expected[row["run"]][0]
        shown = re.fullmatch(r"([+-][\d.]+) ± ([\d.]+)(\\\*)?", row["difference"])
        assert shown[1] == f"{difference:+.4f}"
        assert bool(shown[3]) == (p[row["run"]] < 0.05)
        told = row["p"].removeprefix("<").removeprefix("\\<").strip()
        assert float(told) == pytest.approx(p[row["run"]], abs=1e-4)
    notes = lines[6]
    assert "Split group, seed 0: 60 rows in 5 folds" in notes
    assert "Holm" in notes
    assert "mean-one-01" in notes


def test_a_csv_is_the_data_frame(folder, tmp_path):
    out = tmp_path / "board.csv"
    board = ipc.compare(folder, against="mean-one-01", out=out)
    expected = board.to_pandas()
    read = pd.read_csv(out, dtype=str, keep_default_na=False)
    assert list(read.columns) == list(expected.columns)
    for name in expected.columns:
        if expected[name].dtype.kind in "fi":
            values = pd.to_numeric(read[name]).to_numpy(float)
            np.testing.assert_allclose(values, expected[name].to_numpy(float), rtol=1e-12, equal_nan=True)
        else:
            assert read[name].tolist() == ["" if each is None else each for each in expected[name]]
    assert expected["cosine"].tolist() == sorted(expected["cosine"], reverse=True)


def test_latex_is_a_table_of_booktabs_with_nothing_unescaped(cli, folder, tmp_path):
    out = tmp_path / "board.tex"
    said = cli("compare", "--cache", folder, "--out", out, "--against", "mean-one-01")
    assert (said.code, said.out) == (0, f"{out}: 3 entries\n")
    body = [line for line in out.read_text().splitlines() if not line.startswith("%")]
    assert body[0] == r"\begin{tabular}{lllrrrrrrr}"
    assert [line for line in body if line.startswith("\\")] == [
        *(body[0], r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}")
    ]
    rows = [line for line in body if line.endswith(r"\\")]
    assert len(rows) == 4
    for row in rows:
        assert len(re.findall(r"(?<!\\)&", row)) == 9
        assert not re.search(r"(?<!\\)[%#_]", row)
    assert r"$\pm$" in rows[1]


def test_names_cannot_break_a_table(cli, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "cache")
    (copy / "runs" / "mean-one-01").rename(copy / "runs" / "a|b_c & 50% <i> *x*")
    lines = cli("compare", "--cache", copy, "--format", "md").out.splitlines()
    row = next(line for line in lines if "50%" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"(?<!\\)\|", lines[0]))
    assert r"a\|b\_c & 50% \<i> \*x\*" in row
    text = cli("compare", "--cache", copy, "--format", "latex").out
    assert r"a|b\_c \& 50\% $<$i> $^{*}$x$^{*}$ & mean" in text
    assert "=cmd" not in text
    (copy / "runs" / "nearest-one-01").rename(copy / "runs" / "=cmd")
    assert "\n'=cmd,nearest," in cli("compare", "--cache", copy, "--format", "csv").out


def test_what_is_printed_is_what_is_written(cli, folder, tmp_path):
    for format, extension in zip(FORMATS, (".md", ".csv", ".tex"), strict=True):
        out = tmp_path / f"board{extension}"
        printed = cli("compare", "--cache", folder, "--format", format).out
        assert cli("compare", "--cache", folder, "--out", out).code == 0
        assert out.read_text() == printed == ipc.compare(folder).table(format)
        again = cli("compare", "--cache", folder, "--out", out)
        again.refused(2, "--out", "exists; give --overwrite")
        assert cli("compare", "--cache", folder, "--out", out, "--overwrite").code == 0
    named = tmp_path / "board.txt"
    assert cli("compare", "--cache", folder, "--out", named, "--format", "md").code == 0
    assert named.read_text() == (tmp_path / "board.md").read_text()


def test_formats_and_places_that_do_not_go(cli, folder, tmp_path):
    said = cli("compare", "--cache", folder, "--format", "html")
    said.refused(2, "unknown --format 'html'", "latex")
    said = cli("compare", "--cache", folder, "--out", tmp_path / "board.html")
    said.refused(2, "the extension must be one of .md, .csv, .tex", "--format")
    said = cli("compare", "--cache", folder, "--out", tmp_path / "board.csv", "--format", "md")
    said.refused(2, "is no md file by its extension")
    said = cli("compare", "--cache", folder, "--out", tmp_path / "none" / "board.md")
    said.refused(2, "does not exist")
    cli("compare", "--cache", folder, "--format", "md", "--json").refused(2, "leave one out")
    assert not [*tmp_path.iterdir()]


def test_p_is_that_of_the_predictions_on_disk(folder):
    board = ipc.compare(folder, against="nearest-one-01")
    tried = [run for run in board.runs if run.name != "nearest-one-01"]
    expected = adjusted([by_hand(run, ipc.Run.load(folder / "runs" / "nearest-one-01"))[1] for run in tried])
    found = {run.name: each.p for run, each in zip(board.runs, board.differences, strict=True) if each}
    assert [found[run.name] for run in tried] == pytest.approx(expected, rel=1e-9)
    assert load_validation(tried[0].folder).fold.max() == 4
