"""What the repository holds: no path of somebody's machine, nothing huge, the documents that a visitor expects."""

import ast
import os
import re
import tomllib

import pytest

from tests.project.files import ROOT, project_files, text_of

# A path under somebody's home or work folder. "/home" alone may be a URL's path; a folder below it is a machine's.
_MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:(?:home|Users)/[A-Za-z][\w.-]*/|(?:work|root)/[\w.-])")
_FILE_BYTES_MAX = 2 * 1024 * 1024


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in project_files()
        if (text := text_of(path)) is not None
        for number, line in enumerate(text.splitlines(), start=1)
        if _MACHINE_PATH.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "is_path"),
    [
        ("open('/" + "home/ada/code/x.py')", True),
        ("cd /" + "root/project", True),
        ("PATH=/" + "work/main", True),
        ('<a href="/home">', False),
        ("GET /live/work/7", False),
        ("https://example.org/root/x", False),
        (":root { color: red }", False),
    ],
)
def test_what_counts_as_a_path_of_one_machine(line: str, is_path: bool) -> None:
    assert bool(_MACHINE_PATH.search(line)) is is_path


def test_no_file_is_huge() -> None:
    huge = [str(path.relative_to(ROOT)) for path in project_files() if path.stat().st_size > _FILE_BYTES_MAX]
    assert huge == []


def test_no_build_results_are_kept() -> None:
    results = {".whl", ".pyc", ".so", ".egg", ".log", ".gz"}
    assert [str(path.relative_to(ROOT)) for path in project_files() if path.suffix in results] == []


@pytest.mark.parametrize(
    "name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "docs/architecture.md"]
)
def test_the_documents_exist(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8").strip()


def test_the_changelog_knows_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[?{re.escape(version)}\b", changelog, re.MULTILINE), f"CHANGELOG.md: no '## {version}'"


@pytest.mark.parametrize(
    "name",
    [".ci/run", "scripts/autobahn.sh", "scripts/install.sh", "scripts/need-tools.sh", "scripts/constraints.sh"],
)
def test_scripts_may_be_executed(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)


@pytest.mark.parametrize("mark", ["system", "interop"])
def test_tests_outside_of_make_test_are_marked(mark: str) -> None:
    # `make test` leaves the folder out, its own target takes what is marked: an unmarked file would run nowhere.
    files = sorted((ROOT / "tests" / mark).rglob("test_*.py"))
    assert files
    unmarked = [
        str(path.relative_to(ROOT))
        for path in files
        if not _has_mark(ast.parse(path.read_text(encoding="utf-8")), mark)
    ]
    assert unmarked == [], f"write `pytestmark = pytest.mark.{mark}` at their top"


def _has_mark(module: ast.Module, mark: str) -> bool:
    return any(
        isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)
        and f"mark.{mark}" in ast.unparse(node.value)
        for node in module.body
    )
