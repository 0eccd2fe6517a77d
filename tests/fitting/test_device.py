"""The device of a fit, of a search and of predictions is the one that the caller names."""

from __future__ import annotations

import numpy as np
import pytest

from img2prompt_cache.errors import UsageError
from img2prompt_cache.fitting.fit import fit
from img2prompt_cache.runs.run import load_run
from img2prompt_cache.tuning.tune import tune
from synthetic import ONE, Cli, make_cache

QUICK = {"hidden": [4], "max_epochs": 2}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with a run of an mlp."""
    folder = make_cache(tmp_path_factory.mktemp("device") / "cache")
    fit(folder, "mlp", settings=QUICK, run=folder / "runs" / "mlp", device="cpu")
    return folder


def kinds(cache):
    """Calls that compute with torch, by name."""
    mlp = {"head": "mlp", "settings": QUICK}
    search = {"trials": 1, "space": {"max_epochs": [1]}}
    taught = {"settings": QUICK, "teacher": "mlp", "features": ONE}
    return {
        "mlp": lambda **options: fit(cache, **mlp, **options),
        "blend": lambda **options: fit(cache, "blend", settings={"members": [mlp, mlp]}, **options),
        "distil": lambda **options: fit(cache, "distil", **taught, **options),
        "tune": lambda run, **options: tune(
            cache, "mlp", **search, study=run.with_suffix(".db"), run=run, **options
        ),
    }


@pytest.mark.parametrize("kind", ["mlp", "blend", "distil", "tune"])
def test_it_computes_where_it_is_told_to_and_does_not_record_it(cache, tmp_path, kind, request):
    call = kinds(cache)[kind]
    with pytest.raises(UsageError, match="device cuda:64 is not there"):
        call(device="cuda:64", run=tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    expected = call(device="auto", run=tmp_path / "auto")
    request.getfixturevalue("pretended_gpu")
    made = call(device="cpu", run=tmp_path / "cpu")
    assert made.settings == expected.settings
    assert "device" not in str(made.settings)
    assert made.metrics == expected.metrics
    features = np.zeros((2, sum(made.widths)), np.float32)
    np.testing.assert_array_equal(
        load_run(made.folder).predict(features, device="cpu").vectors,
        expected.predict(features, device="cpu").vectors,
    )


def test_predictions_of_a_run_are_made_where_they_are_told_to(cache):
    run = load_run(cache / "runs" / "mlp")
    features = np.zeros((2, sum(run.widths)), np.float32)
    with pytest.raises(UsageError, match="device cuda:64 is not there"):
        run.predict(features, device="cuda:64")
    assert run.predict(features, device="cpu").vectors.shape == (2, run.target.width)


def test_the_command_line_says_where(cache, tmp_path, capsys):
    cli = Cli(capsys)
    options = ("--head", "mlp", "--set", "hidden=[4]", "--max-epochs", "1", "--cache", cache)
    cli("fit", *options, "--run", tmp_path / "run", "--device", "cuda:64").refused(2, "cuda:64", "not there")
    cli("fit", *options, "--run", tmp_path / "run", "--device", "cpu")
    assert load_run(tmp_path / "run").settings["max_epochs"] == 1
