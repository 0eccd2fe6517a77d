"""The package as a user gets it: built, checked, and installed where nothing but its requirements is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from filelock import FileLock
from packaging.requirements import Requirement

from kit import paint, write_prompts

ROOT = Path(__file__).parents[1]
CONSUMER = ROOT / "tests" / "consumer.py"
NOT_COPIED = (".*", "__pycache__", "*.egg-info", "build", "dist", "demo", "cache.h5")
LARGE = {
    "torch",
    "torchvision",
    "open_clip",
    "timm",
    "sentence_transformers",
    "transformers",
    "tokenizers",
    "sklearn",
}
LARGE |= {"faiss", "onnx", "scipy", "safetensors", "huggingface_hub"}
"""Modules of requirements that are left out where other versions of Python are tried."""
OF_EXTRAS = {"anyio", "fastapi", "jinja2", "matplotlib", "openTSNE", "openvino", "optuna"}
OF_EXTRAS |= {"starlette", "wordcloud"}
VERSIONS = ("3.11", "3.12", "3.13")

pytestmark = [pytest.mark.package, pytest.mark.slow]


def run(*command: object, cwd: Path | None = None, code: int = 0) -> str:
    """Run a program without what this environment tells Python, and give its output."""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MYPY"))}
    done = subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**given, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == code, f"{command}\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}"
    return done.stdout + done.stderr


def pip(environment: Path, *arguments: object) -> None:
    """Have this environment's pip work on another one."""
    quiet = ("-m", "pip", "--disable-pip-version-check", "--python", environment / "bin" / "python")
    run(sys.executable, *quiet, *arguments)


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Have a folder made by the first worker that needs it, and used by all."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, whole = shared / name, shared / f"{name}.whole"
    with FileLock(shared / f"{name}.lock"):
        if not whole.exists():
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The source distribution, and the wheel that is built from it; by the ending of their names."""

    def build(folder: Path) -> None:
        sources = tmp_path_factory.mktemp("sources") / "img2prompt-cache"
        shutil.copytree(ROOT, sources, ignore=shutil.ignore_patterns(*NOT_COPIED))
        said = run(sys.executable, "-m", "build", "--outdir", folder, sources)
        assert "Warning" not in said, said  # of setuptools, such as a data folder taken for a package

    found = once(tmp_path_factory, "built", build)
    return {path.suffix: path for path in found.iterdir()}


@pytest.fixture(scope="module")
def bare(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what it requires, and nothing else."""

    def install(folder: Path) -> None:
        run(sys.executable, "-m", "venv", "--without-pip", folder)
        (packages,) = folder.glob("lib/python*/site-packages")
        for each in required():
            link(each, packages)
        pip(folder, "install", "--no-deps", "--no-index", built[".whl"])

    return once(tmp_path_factory, "bare", install)


def link(installed: Distribution, packages: Path) -> None:
    """Have an environment hold what another one has installed."""
    for top in {file.parts[0] for file in installed.files or ()} - {"..", "__pycache__"}:
        if not (packages / top).exists():
            (packages / top).symlink_to(Path(str(installed.locate_file(top))).resolve())


def required() -> list[Distribution]:
    """Every distribution that ours requires, however indirectly; none of its extras."""
    found: dict[str, Distribution] = {}
    asked = {("img2prompt-cache", "")}
    left = [*asked]
    while left:
        name, extra = left.pop()
        found[name] = distribution(name)
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                new = {(requirement.name, each) for each in ("", *requirement.extras)} - asked
                asked |= new
                left += new
    del found["img2prompt-cache"]
    return [*found.values()]


def test_what_is_built_passes_the_checks_of_the_package_index(built):
    assert {*built} == {".whl", ".gz"}
    run(sys.executable, "-m", "twine", "check", "--strict", *built.values())
    run(sys.executable, "-m", "check_wheel_contents", built[".whl"])


def test_the_wheel_holds_the_files_of_the_packages_and_nothing_else(built):
    ours = {
        f"{prefix}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, prefix in (("img2prompt_cache", "img2prompt_cache"), ("cli", "img2prompt_cache/cli"))
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(built[".whl"]) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = {Path(name).name for name in archive.namelist() if "/licenses/" in name}
    assert held == ours
    assert licences == {"LICENSE", "THIRD_PARTY.md"}


def test_the_source_distribution_can_be_tested(built):
    with tarfile.open(built[".gz"]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "tests/kit.py",
        "tests/fixtures",
        "docs/index.md",
        "benchmarks/results",
        "Makefile",
        "CHANGELOG.md",
    ):
        assert name in held
    assert not [name for name in held if name.endswith(".pyc") or name.startswith((".venv", "cache"))]


def test_the_commands_work_with_the_requirements_alone(bare, tiny, no_weights, tmp_path):
    pip(bare, "check")
    program = bare / "bin" / "img2prompt-cache"
    (tmp_path / "images").mkdir()
    for number in range(24):
        paint(tmp_path / "images" / f"img{number:03d}.png", number)
    write_prompts(tmp_path, {f"img{number:03d}": " ".join(chr(97 + number) * 4) for number in range(24)})
    models = ("--backbone", tiny.cnn, "--encoder", tiny.encoder)
    run(program, "extract", "images", *models, cwd=tmp_path)
    found = json.loads(run(program, "--quiet", "fit", "--head", "ridge", "--json", cwd=tmp_path))
    assert found["head"] == "ridge"
    run(program, "predict", "images/img000.png", "--out", "submission.csv", cwd=tmp_path)
    assert (tmp_path / "submission.csv").read_text().startswith("imgId_eId,val\nimg000_0,")
    # What takes an extra says so.
    said = run(program, "tune", "--head", "ridge", "--trials", "1", cwd=tmp_path, code=2)
    assert "pip install 'img2prompt-cache[tune]'" in said


def test_a_program_is_type_checked_against_the_installed_package(built, tmp_path):
    """Without the larger requirements, whose types it does not need and a type checker reads slowly."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env")
    (packages,) = tmp_path.glob("env/lib/python*/site-packages")
    pip(tmp_path / "env", "install", "--no-deps", "--no-index", "--no-compile", built[".whl"])
    link(distribution("numpy"), packages)
    program = CONSUMER.read_text(encoding="utf-8")
    (tmp_path / "right.py").write_text(program)
    (tmp_path / "wrong.py").write_text(program.replace("folds=5", "folds='5'").replace(".ids", ".names"))
    options = ("--strict", "--config-file=", "--python-executable", tmp_path / "env" / "bin" / "python")
    said = run(sys.executable, "-m", "mypy", *options, "right.py", "wrong.py", cwd=tmp_path, code=1)
    assert "right.py" not in said, said
    assert '"Predictions" has no attribute "names"' in said
    assert 'Argument "folds" to "fit" has incompatible type "str"' in said


def find_python(version: str) -> str | None:
    """Find an interpreter of a version: on the path, or where pyenv puts it."""
    places = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for program in (shutil.which(f"python{version}"), *sorted(places.glob(f"{version}.*/bin/python"))):
        if program is not None:
            told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
            if told.startswith(f"Python {version}."):
                return str(program)
    return None


IMPORT_ALL = """
import importlib, pkgutil, img2prompt_cache
absent = set()
for module in pkgutil.walk_packages(img2prompt_cache.__path__, "img2prompt_cache."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            absent.add(error.name.partition(".")[0])
print(*absent)
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_it_works_on_other_versions_of_python(version, built, tmp_path):
    """Every module is compiled and, as far as that goes without `LARGE`, imported, and so are tests."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        pytest.skip(f"all tests run on Python {version} here")
    program = find_python(version)
    if program is None:
        pytest.skip(f"Python {version} is not installed")
    run(program, "-m", "venv", "--without-pip", tmp_path / "env")
    pip(tmp_path / "env", "install", "--no-deps", "--no-index", built[".whl"])
    wanted = ("numpy", "pillow", "h5py", "pyarrow", "filelock", "lazy-loader", "typer", "rich")
    pip(tmp_path / "env", "install", "--no-compile", *wanted, "pytest", "pytest-timeout", "hypothesis")
    python = tmp_path / "env" / "bin" / "python"
    (package,) = tmp_path.glob("env/lib/python*/site-packages/img2prompt_cache")
    run(python, "-W", "error", "-m", "compileall", "-q", "-f", package)
    absent = {*run(python, "-W", "error", "-c", IMPORT_ALL, cwd=tmp_path).split()}
    assert absent <= LARGE | OF_EXTRAS
    run(tmp_path / "env" / "bin" / "img2prompt-cache", "--help")
    tests = ("images", "sources/embedded", "test_files.py", "test_locks.py", "test_tables.py")
    options = ["-q", "-p", "no:cacheprovider", "-m", "not slow"]
    options += [f"--ignore=tests/images/{each}" for each in ("test_geometry.py", "scenes")]
    said = run(python, "-P", "-m", "pytest", *options, *(f"tests/{each}" for each in tests), cwd=ROOT)
    assert " passed" in said
