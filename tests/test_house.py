"""The layout of the library: imports climb one way, nothing is unused, every package says what it is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
LIBRARY = REPOSITORY / "img2prompt_cache"
ORDER = (
    ("cluster", "errors", "destination", "locks", "files", "progress", "progress_line", "shortage", "tables"),
    ("numerics", "images", "sources"),
    ("cache",),
    ("models",),
    ("environment", "data", "extraction"),
    ("heads",),
    ("prediction",),
    ("runs",),
    ("fitting",),
    ("tuning",),
    ("reporting", "app", "exporting"),
    ("__init__",),
    ("cli",),
)
"""Rooms from the lowest to the highest; one imports from its own line or from those above it in this list.

`prediction` lies below `runs` because `Run.predict` takes images: what predicts needs a fitted head and the
columns it was fitted on, and no run. The front door, `img2prompt_cache/__init__`, hands on names of every
room.
"""
RANKS = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}


def modules() -> dict[str, Path]:
    """Every file of the library and of the command line by dotted name, stubs of lazy packages included."""
    found = {}
    for folder, prefix in ((LIBRARY, "img2prompt_cache"), (REPOSITORY / "cli", "img2prompt_cache.cli")):
        for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.pyi")]):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join([prefix, *parts]).removesuffix(".__init__")
            found[f"{name}:stub" if path.suffix == ".pyi" else name] = path
    return found


MODULES = modules()


def room_of(name: str) -> str:
    """The room of a module: ``img2prompt_cache.data.splits`` is in ``data``."""
    parts = name.removesuffix(":stub").split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@cache
def imports_of(path: Path, name: str = "") -> frozenset[str]:
    """Every module of the library that a file imports, wherever in the file: also for type checkers only."""
    found = set()
    package = name.removesuffix(":stub")
    if path.stem != "__init__":
        package = package.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                if inner in MODULES:
                    found.add(inner)
                elif module in MODULES:
                    found.add(defined_in(module, alias.name))
    return frozenset(found - {name})


def defined_in(package: str, name: str) -> str:
    """The module that a lazy package takes a name from, or the package itself where it defines the name."""
    stub = MODULES.get(f"{package}:stub")
    if stub is not None:
        for node in ast.parse(stub.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
                found = f"{package}.{node.module}"
                return defined_in(found, name) if found in MODULES else package
    return package


def edges() -> Iterator[tuple[str, str]]:
    """Every import within the library, as (importing module, imported module)."""
    for name, path in MODULES.items():
        for other in imports_of(path, name):
            yield name, other


def test_imports_climb_one_way():
    climbing = [
        f"{name} imports {other}" for name, other in edges() if RANKS[room_of(other)] > RANKS[room_of(name)]
    ]
    assert not climbing, "\n".join(sorted(climbing))


def test_every_room_has_its_place_in_the_order():
    assert {room_of(name) for name in MODULES} <= RANKS.keys()


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The nodes of one circle of a graph, or an empty list where it has none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [*error.args[1]]
    return []


def test_no_modules_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {name: set() for name in MODULES if not name.endswith(":stub")}
    for name, other in edges():
        if not name.endswith(":stub"):  # a face is read by its users, and imports nothing until then
            graph[name].add(other)
    assert circle(graph) == []


def test_no_rooms_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {room: set() for room in RANKS}
    for name, other in edges():
        if room_of(name) != room_of(other):
            graph[room_of(name)].add(room_of(other))
    assert circle(graph) == []


def test_every_module_is_used():
    used = {other for name, other in edges() if name == "img2prompt_cache:stub" or not name.endswith(":stub")}
    for path in [*(REPOSITORY / "tests").rglob("*.py"), *(REPOSITORY / "benchmarks").rglob("*.py")]:
        used |= imports_of(path)
    # Loaded by name from a registry.
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for name in ("__init__.py", "registry.py")
        for path in LIBRARY.rglob(name)
    )
    words = set(re.findall(r'"(?:img2prompt_cache\.)?([\w.]+)(?::\w+)?"', text))
    unused = [
        name
        for name in MODULES
        if name not in used
        and not name.endswith((":stub", ".cli.start", ".cli.__main__"))
        and MODULES[name].stem != "__init__"
        and name.rpartition(".")[2] not in words
        and name.removeprefix("img2prompt_cache.") not in words
    ]
    assert not unused, "\n".join(unused)


@pytest.mark.parametrize("name", [name for name, path in MODULES.items() if path.name == "__init__.py"])
def test_every_package_says_in_a_sentence_what_it_is(name):
    docstring = ast.get_docstring(ast.parse(MODULES[name].read_text(encoding="utf-8"))) or ""
    first = docstring.split("\n\n")[0]
    assert first.endswith(".")
    assert 10 < len(first) <= 160
    assert first.count(". ") == 0


def test_modules_stay_short():
    long = {name: path.read_text(encoding="utf-8").count("\n") for name, path in MODULES.items()}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}
