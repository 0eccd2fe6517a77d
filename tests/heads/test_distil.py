from __future__ import annotations

import numpy as np
import pytest

from estimators import problem
from img2prompt_cache.errors import DataError, Img2PromptError, UsageError
from img2prompt_cache.heads import make_head
from img2prompt_cache.numerics.metrics import unit

STUDENT = {"hidden": [8], "epochs": 3, "lr": 1e-2}


def test_targets_are_a_mix_and_images_without_prompt_have_the_teachers():
    X, y, _ = problem()
    taught = unit(np.random.default_rng(3).normal(size=y.shape))
    labelled, more = slice(0, 80), (X[80:], taught[80:])
    head = make_head("distil", share=0.4, student=STUDENT, seed=5)
    head.fit(X[labelled], y[labelled], taught=taught[labelled], more=more)
    mixed = np.concatenate([unit(0.6 * y[labelled] + 0.4 * taught[labelled]), taught[80:]])
    plain = make_head("mlp", **STUDENT, seed=5).fit(X, mixed)
    np.testing.assert_allclose(head.predict(X), plain.predict(X), atol=1e-6)


def test_without_a_teacher_or_with_no_share_of_it_it_is_a_plain_mlp():
    X, y, _ = problem()
    plain = make_head("mlp", **STUDENT).fit(X, y).predict(X)
    np.testing.assert_array_equal(make_head("distil", student=STUDENT).fit(X, y).predict(X), plain)
    none = make_head("distil", share=0.0, student=STUDENT).fit(X, y, taught=-y, more=(X, -y))
    np.testing.assert_allclose(none.predict(X), plain, atol=1e-5)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_one(share):
    X, y, _ = problem()
    with pytest.raises(UsageError, match="'share' of head 'distil' must be from 0 to 1"):
        make_head("distil", share=share).fit(X, y)


def test_what_a_teacher_says_is_finite():
    X, y, _ = problem()
    with pytest.raises(Img2PromptError, match="the teacher's predictions hold NaN"):
        make_head("distil", student=STUDENT).fit(X, y, taught=np.full_like(y, np.nan))


@pytest.mark.parametrize("kind", [np.asarray, np.ndarray.tolist])
def test_predictions_of_a_teacher_must_fit_the_rows(kind):
    X, y, _ = problem(30)
    head = make_head("distil", student=STUDENT)
    for wrong in (y[1:], y[:, 1:]):
        with pytest.raises(DataError, match=r"the teacher's predictions \(.*\) do not fit"):
            head.fit(X, y, taught=kind(wrong))
    for wrong in ((X[:, 1:], y), (X, y[1:]), (X, y[:, 1:])):
        with pytest.raises(DataError, match=r"the teacher's predictions \(.*\) do not fit"):
            head.fit(X, y, more=tuple(map(kind, wrong)))
    with pytest.raises(DataError, match=r"the teacher's predictions hold NaN"):
        head.fit(X, y, more=(X, np.full_like(y, np.nan)))
