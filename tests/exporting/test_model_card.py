"""Model cards: what the Hub reads of them, and what they must not say."""

from __future__ import annotations

import json
import re

import pytest
from huggingface_hub import ModelCard

import img2prompt_cache as ipc
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.runs.run import load_run


def table(text: str) -> dict[str, str]:
    return dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", text, re.MULTILINE))


def test_the_hub_reads_its_metadata(run):
    read = ModelCard(ipc.card(run, license="mit", name="my head"))
    assert (read.data.license, read.data.library_name) == ("mit", "img2prompt-cache")
    assert read.data.model_name == "my head"
    (result,) = read.data.eval_results
    assert result.metric_value == pytest.approx(load_run(run).metrics["cosine"], abs=5e-5)
    assert read.text.lstrip().startswith("# my head\n")


def test_its_figures_are_those_of_the_run(run):
    record, text = load_run(run), ipc.card(run)
    shown, metrics = table(text), record.metrics
    interval = "mean cosine similarity, 95 % interval over groups"
    low, high = metrics["ci95"]
    assert shown[interval] == f"{metrics['cosine']:.4f} ({low:.4f} to {high:.4f})"
    assert shown["the same for a constant prediction, the mean target"] == f"{metrics['floor']:.4f}"
    assert shown["held-out pairs"] == str(metrics["n"])
    assert f"{record.split['train'] + record.split['validation']} pairs of an image" in text
    assert "not stated by whoever shares it" in text
    assert "fitted again on all of them: 60 pairs" in text
    assert "with fewer than 30 the interval is too narrow" in text


@pytest.mark.parametrize("spec", [f"timm:local-dir:{root}/me/secret/vit" for root in ("/home", "C:")])
def test_it_names_no_path_image_or_prompt(spec, run):
    path = run / "run.json"
    record = json.loads(path.read_text())
    record["features"][0]["spec"] = spec
    path.write_text(json.dumps(record))
    text = ipc.card(run)
    assert "`timm:local-dir:vit`" in text
    for private in ("secret", str(run.parent.parent), record["cache"], "prompt 1 of", "i001"):
        assert private not in text


def test_a_run_that_did_not_measure_something_says_so(run):
    path = run / "run.json"
    record = json.loads(path.read_text())
    record["metrics"] |= {"ci95": None, "leakage_gap": None, "floor": None}
    path.write_text(json.dumps(record))
    shown = table(ipc.card(run))
    assert shown["the same for a constant prediction, the mean target"] == "not measured"
    assert shown["leakage gap: what a random split would add"] == "not measured"


@pytest.mark.parametrize("parameter", ["license", "name"])
@pytest.mark.parametrize("value", ["", " ", "mit\nmore: yes", "a\x1b[2J"])
def test_a_text_that_is_no_line_is_refused(parameter, value, run):
    with pytest.raises(UsageError, match=f"`{parameter}` must be a line of text") as caught:
        ipc.card(run, **{parameter: value})
    assert caught.value.parameter == parameter


def test_a_damaged_run_has_no_card(run):
    (run / "validation.csv").unlink()
    with pytest.raises(Img2PromptError, match=r"validation\.csv"):
        ipc.card(run)
