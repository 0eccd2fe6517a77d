"""A Kaggler's day: several data sets, another program's model, and a notebook without network."""

from __future__ import annotations

import csv

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def submission(path):
    """Read a submission: its images in order, and a vector for each."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(*row["imgId_eId"].rsplit("_", 1), float(row["val"])) for row in csv.DictReader(file)]
    ids = list(dict.fromkeys(name for name, _, _ in rows))
    values = np.array([value for _, _, value in rows]).reshape(len(ids), -1)
    assert [int(place) for _, place, _ in rows] == [*range(values.shape[1])] * len(ids)
    return ids, values


def test_a_submission_from_a_notebook_without_network_cache_or_weights(begin):
    day = begin("A competition")
    day.follow(until="bundle")
    day.run("predict new --run ours --out before.csv --cache caches/both")
    ids, before = submission(day.folder / "before.csv")
    day.leave("run.zip", "new", "sample_submission.csv")
    day.follow()
    asked, values = submission(day.folder / "submission.csv")
    assert asked == list("fedcba")
    assert np.allclose(values, before[[ids.index(name) for name in asked]], atol=1e-5)
    assert np.allclose(np.linalg.norm(values, axis=1), 1, atol=1e-3)
