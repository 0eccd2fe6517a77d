"""The front door: its names, how little importing it costs, and what is installed."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import img2prompt_cache

REPOSITORY = Path(__file__).parents[1]
HEAVY = (
    "torch",
    "sklearn",
    "scipy",
    "faiss",
    "h5py",
    "pyarrow",
    "pandas",
    "numpy",
    "rich",
    "timm",
    "PIL",
    "jinja2",
    "matplotlib",
    "fastapi",
    "prometheus_client",
    "starlette",
    "uvicorn",
)
VERBS = {"extract", "look", "fit", "fit_seeds", "tune", "predict", "compare", "report", "explore"}
OBJECTS = {"Cache", "Run", "Predictions", "Leaderboard", "Look", "Report"}
PACKAGES = [
    module.name
    for module in pkgutil.walk_packages(img2prompt_cache.__path__, "img2prompt_cache.")
    if module.ispkg and "cli" not in module.name
]


def test_the_front_door_shows_its_names():
    assert {*dir(img2prompt_cache)} >= VERBS | OBJECTS
    assert {*img2prompt_cache.__all__} >= VERBS | OBJECTS
    assert all(callable(getattr(img2prompt_cache, name)) for name in img2prompt_cache.__all__)


@pytest.mark.parametrize("name", ["img2prompt_cache", *PACKAGES])
def test_no_package_hands_on_a_name_that_one_of_its_modules_has(name):
    """A module becomes an attribute of its package once anything imports it, and would hide the name."""
    package = importlib.import_module(name)
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    names = {*getattr(package, "__all__", ())}
    assert not modules & names
    assert all(getattr(package, each) is not None for each in names)


def test_importing_it_and_its_packages_imports_nothing_heavy():
    code = f"import sys, {', '.join(['img2prompt_cache', *PACKAGES])}; print(*sys.modules)"
    quick = ("numerics", "sources")  # their modules are light, or are only imported with their packages
    names = [name for name in PACKAGES if name.partition(".")[2] not in quick]
    code = f"import sys, {', '.join(['img2prompt_cache', *names])}; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {*HEAVY} & {*loaded}


def test_importing_the_front_door_takes_no_time():
    code = (
        "import time; started = time.perf_counter(); import img2prompt_cache; dir(img2prompt_cache); "
        "print(time.perf_counter() - started)"
    )
    taken = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5)]
    assert min(taken) < 0.05


def test_every_package_is_installed(tmp_path):
    from setuptools import find_packages

    code = "import runpy, setuptools; setuptools.setup = lambda **given: print(*given['packages']); "
    code += "runpy.run_path('setup.py')"
    found = subprocess.check_output([sys.executable, "-c", code], cwd=REPOSITORY, text=True).split()
    assert {*found} == {"img2prompt_cache", "img2prompt_cache.cli", *PACKAGES}
    assert {*found} - {"img2prompt_cache.cli"} == {
        *find_packages(str(REPOSITORY), include=["img2prompt_cache*"])
    }
