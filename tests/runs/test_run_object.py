from __future__ import annotations

import pytest

import img2prompt_cache as ipc
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.fitting.fit import fit
from synthetic import make_cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = make_cache(tmp_path_factory.mktemp("object") / "cache")
    fit(folder, head="ridge")
    fit(folder, head="mean")
    return folder


def test_a_run_shows_what_it_is(cache):
    ridge, mean = ipc.compare(cache).runs
    assert (ridge.head, mean.head) == ("ridge", "mean")
    assert repr(ridge).startswith(f"Run({str(ridge.folder)!r}, head='ridge', cosine=")
    assert len(repr(ridge)) < 300
    assert "<td>ridge</td>" in ridge._repr_html_()
    assert ipc.Run.load(str(ridge.folder)) == ridge == ipc.load_run(ridge.folder)
    assert ridge.estimator.predict([[0.0] * sum(ridge.widths)]).shape == (1, ridge.target.width)


def test_its_history_is_records(cache):
    ridge = ipc.compare(cache).best
    assert len(ridge.history) > 3
    assert all(
        isinstance(value, int | float) for record in ridge.history for value in record.values() if value
    )
    assert ridge.history.to_pandas().shape == (len(ridge.history), len(ridge.history[0]))
    assert ridge.history._repr_html_().count("<tr>") == len(ridge.history) + 1
    (ridge.folder / "history.csv").rename(ridge.folder / "kept")
    with pytest.raises(Img2PromptError, match=r"history\.csv cannot be read"):
        _ = ridge.history
    (ridge.folder / "kept").rename(ridge.folder / "history.csv")


def test_a_leaderboard_is_a_data_frame(cache):
    board = ipc.compare(str(cache), against="mean-one+other-01", by="length")
    frame = board.to_pandas()
    assert list(frame["head"]) == ["ridge", "mean"]
    assert {"cosine", "ci95_low", "difference", "leakage_gap", "floor", "r@10"} <= {*frame}
    assert frame["difference"][0] == pytest.approx(frame["cosine"][0] - frame["cosine"][1])
    assert repr(board).startswith("Leaderboard(2 runs, best ridge-one+other-01 at cosine ")
    assert board._repr_html_().count("<tr>") == 3
    assert sum(cell.n for cell in board.cells) == board.split["validation"]
