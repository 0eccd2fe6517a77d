from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.heads import kernel as module
from img2prompt_cache.heads.kernel import Kernel
from img2prompt_cache.numerics.metrics import unit

GIVEN = {"gain": 2.0, "alpha": 0.05}


def images_of_prompts(prompts=80, each=3, seed=0, noise=5.0):
    """What a prompt says stands in some directions; what its images differ in, more strongly, in others."""
    rng = np.random.default_rng(seed)
    said = np.repeat(rng.normal(size=(prompts, 6)), each, axis=0)
    mixing = np.linalg.qr(np.random.default_rng(9).normal(size=(24, 24)))[0]
    unsaid = noise * rng.normal(size=(prompts * each, 3)) @ mixing[6:9]
    X = said @ mixing[:6] + unsaid + 0.3 * rng.normal(size=(prompts * each, 24))
    y = unit(np.repeat(np.tanh(said[::each]) @ np.random.default_rng(8).normal(size=(6, 5)), each, axis=0))
    return X.astype(np.float32), y, np.arange(prompts * each) // each


def test_what_differs_between_images_of_a_prompt_is_discounted_where_that_helps():
    X, y, groups = images_of_prompts()
    new, true, _ = images_of_prompts(seed=1)
    head = Kernel().fit(X, y, groups=groups, widths=(12, 12))
    assert head.chosen["whiten"] is True
    told = head.measured["whitening"]
    assert told["gain"] > told["standard_error"] > 0
    plain = Kernel(whiten=False).fit(X, y, groups=groups, widths=(12, 12))
    assert plain.chosen["whiten"] is False
    assert plain.measured == {}
    assert head.score(new, true) > plain.score(new, true) + 0.01
    again = Kernel(**head.chosen).fit(X, y, widths=(12, 12))
    np.testing.assert_allclose(again.predict(new), head.predict(new), atol=1e-5)


@pytest.mark.parametrize("shared", [0, 1])
def test_it_is_not_tried_where_hardly_a_prompt_has_several_images(shared):
    X, y, groups = images_of_prompts(120, 1)
    y[:shared] = y[119]
    head = Kernel().fit(X, y, groups=groups)
    assert head.measured == {}
    assert head.chosen["whiten"] is False


def test_it_is_dropped_where_images_of_a_prompt_differ_as_those_of_others():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 8)).astype(np.float32)
    y = unit(rng.normal(size=(60, 4)))[np.arange(120) // 2]
    head = Kernel().fit(X, y, groups=np.arange(120) // 2)
    told = head.measured["whitening"]
    assert head.chosen["whiten"] == (told["gain"] > told["standard_error"])


def test_settings_that_are_given_are_all_that_is_used():
    """As in runs of versions that did not whiten."""
    X, y, groups = images_of_prompts()
    assert Kernel(**GIVEN).fit(X, y, groups=groups).chosen == {**GIVEN, "whiten": False}


def test_a_head_that_whitens_is_saved_whole():
    X, y, _ = images_of_prompts()
    new = images_of_prompts(seed=1)[0]
    head = Kernel(**GIVEN, whiten=True).fit(X, y, widths=(12, 12))
    state = head.state()
    assert np.array_equal(clone(head).load_state(state).predict(new), head.predict(new))
    old = Kernel(**GIVEN).fit(X, y, widths=(12, 12))
    assert not {*state} <= {*old.state()}
    assert np.array_equal(clone(head).load_state(old.state()).predict(new), old.predict(new))


@pytest.mark.parametrize("name", ["members", "projected", "lengths"])
def test_arrays_that_do_not_fit_each_other_are_refused(name):
    X, y, _ = images_of_prompts()
    state = Kernel(**GIVEN, whiten=True).fit(X, y).state()
    with pytest.raises(Img2PromptError, match=name):
        Kernel().load_state({key: value for key, value in state.items() if key != name})
    with pytest.raises(Img2PromptError, match="root" if name == "members" else name):
        Kernel().load_state({**state, name: state[name][:-1]})
    if name == "members":
        with pytest.raises(Img2PromptError, match="'members' are no rows"):
            Kernel().load_state({**state, name: state[name] + 1000})


def test_more_rows_than_can_be_whitened_are_not(monkeypatch):
    X, y, groups = images_of_prompts()
    monkeypatch.setattr(module, "WHITENED", 100)
    assert Kernel().fit(X, y, groups=groups).measured == {}
    monkeypatch.setattr(module.kernel_choice, "drawn_rows", None)  # it is refused before any search
    with pytest.raises(UsageError, match="at most 100 rows") as caught:
        Kernel(whiten=True).fit(X, y, groups=groups)
    assert caught.value.parameter == "whiten"
