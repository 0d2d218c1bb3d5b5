"""A function fits a screen, a class tells one story, a file is one thing (docs/architecture.md, rules of taste)."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.project.files import ROOT

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
CLASS_LINES_MAX = 350

_Sized = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def sources() -> list[Path]:
    """Return every Python file of the package."""
    return sorted((ROOT / "src").rglob("*.py"))


def lines_of(node: _Sized) -> int:
    """Count the lines of a definition without its own docstring and without its decorators."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def definitions(path: Path) -> Iterator[tuple[str, _Sized]]:
    """Yield every function and class of a file, nested ones too, with a label that an editor can open."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_files_are_short() -> None:
    assert sources()
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    too_long = [f"{path.relative_to(ROOT)}: {lines}" for path, lines in lengths.items() if lines >= FILE_LINES_MAX]
    assert too_long == []


def test_functions_fit_a_screen() -> None:
    too_long = [
        f"{label}: {lines_of(node)}"
        for path in sources()
        for label, node in definitions(path)
        if not isinstance(node, ast.ClassDef) and lines_of(node) > FUNCTION_LINES_MAX
    ]
    assert too_long == []


def test_classes_tell_one_story() -> None:
    too_long = [
        f"{label}: {lines_of(node)}"
        for path in sources()
        for label, node in definitions(path)
        if isinstance(node, ast.ClassDef) and lines_of(node) >= CLASS_LINES_MAX
    ]
    assert too_long == []
