"""Records of arrays are compared by identity: `==` of two arrays is an array, which has no truth value."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

LIBRARY = Path(__file__).parents[1] / "img2prompt_cache"
ARRAYS = {"NDArray", "ndarray", "Tensor"}
RECORDS = {"dataclass", "NamedTuple"}


def trees() -> dict[str, ast.Module]:
    return {
        str(path.relative_to(LIBRARY.parent)): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(LIBRARY.rglob("*.py"))
    }


def names(annotation: ast.AST) -> Iterator[str]:
    """Names of the types in an annotation; what a callable takes and returns does not count."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        yield from names(ast.parse(annotation.value, mode="eval").body)
        return
    if isinstance(annotation, ast.Subscript) and "Callable" in set(names(annotation.value)):
        return
    if isinstance(annotation, ast.Name):
        yield annotation.id
    elif isinstance(annotation, ast.Attribute):
        yield annotation.attr
    else:
        for child in ast.iter_child_nodes(annotation):
            yield from names(child)


def aliases(modules: dict[str, ast.Module]) -> set[str]:
    """Names of array types, and of every alias that stands for one, anywhere in the library."""
    found = set(ARRAYS)
    assignments = [
        (target.id, node.value)
        for tree in modules.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and isinstance(node.value, ast.Subscript | ast.BinOp | ast.Constant)
    ]
    while True:
        more = {name for name, value in assignments if found & set(safe_names(value))} - found
        if not more:
            return found
        found |= more


def safe_names(value: ast.AST) -> set[str]:
    try:
        return set(names(value))
    except SyntaxError:  # a string that is no annotation
        return set()


def test_no_record_compares_arrays():
    modules = trees()
    arrays = aliases(modules)
    wrong, checked = [], 0
    for path, tree in modules.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef):
                continue
            made_by = [*node.decorator_list, *node.bases]
            record = next((ast.unparse(b) for b in made_by if RECORDS & set(names(b))), None)
            if record is None:
                continue
            fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
            of_arrays = [ast.unparse(f.target) for f in fields if arrays & safe_names(f.annotation)]
            checked += bool(of_arrays)
            if of_arrays and "eq=False" not in record:
                wrong.append(f"{path}:{node.lineno} {node.name}: {', '.join(of_arrays)}")
    assert not wrong, "make each a dataclass with eq=False:\n" + "\n".join(wrong)
    assert checked > 10
