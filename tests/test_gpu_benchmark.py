"""The prepared run for a machine with a GPU: it is whole, and it runs on a CPU with tiny models."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GPU = ROOT / "benchmarks" / "gpu"
SECTIONS = (
    *("inputs", "machine", "passes", "rival", "targets", "networks"),
    *("closed_forms", "forward", "lanes"),
)
IMPORT = "import importlib, sys; [importlib.import_module(name).measure for name in sys.argv[1:]]"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = {"PYTHONPATH": f"{ROOT}:{GPU.parent}:{GPU}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], env=path, capture_output=True, text=True, check=False)


def test_every_section_of_the_run_can_be_imported():
    done = run("-c", IMPORT, *SECTIONS)
    assert done.returncode == 0, done.stderr


def test_the_run_knows_every_section():
    assert set(SECTIONS) == {path.stem for path in GPU.glob("*.py")} - {"run", "setting"}
    (sections,) = (
        node.value
        for node in ast.parse((GPU / "run.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SECTIONS"
    )
    assert tuple(ast.literal_eval(sections)) == SECTIONS


def test_wheels_are_pinned_and_within_what_the_package_asks_for():
    pinned = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (GPU / "wheels.txt").read_text(), re.MULTILINE))
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    least = dict(re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(asked), re.MULTILINE))
    for name in ("faiss-cpu", "open_clip_torch"):
        assert [int(part) for part in pinned[name].split(".")] >= [int(p) for p in least[name].split(".")]


def test_a_section_that_fails_costs_the_others_nothing(tmp_path):
    out = tmp_path / "gpu.json"
    work = ["--work", str(tmp_path / "work")]
    done = run(str(GPU / "run.py"), "--small", "--only", "forward,machine", "--out", str(out), *work)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert "Error" in found["forward"]["error"]  # the inputs were not made
    assert found["machine"]["copy_gb_s"] > 0
    assert "error" not in found["machine"]
    assert "1 of 2 sections whole; not forward" in done.stdout


@pytest.mark.slow
def test_the_run_goes_through_on_a_cpu(tmp_path):
    out = tmp_path / "gpu.json"
    done = run(str(GPU / "run.py"), "--small", "--only", "inputs,forward,lanes", "--out", str(out))
    found = json.loads(out.read_text())
    assert "3 of 3 sections whole" in done.stdout, [each.get("error") for each in found.values() if each]
    assert set(found["inputs"]["mean_bytes"]) == {".png", ".jpg"}
    for name in ("resnet50", "vit_b_16", "clip_b_32", "clip_l_14"):
        assert found["forward"][name]["cosine_to_fp32_on_the_cpu"]["fp32"]["least"] > 0.9999
        assert found["forward"][name]["bf16"]["8"]["encode_images_s"] > 0
