"""What `import tidewire` costs, and which rooms may know which."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import tidewire
from tests.project.files import ROOT

_LATE = (
    *("fastapi", "starlette", "uvicorn", "websockets", "httpx"),
    *("typer", "rich", "prompt_toolkit", "pydantic", "msgspec"),
)


def in_fresh_python(code: str) -> str:
    """Run ``code`` in an interpreter of its own and return what it printed; fails with its traceback."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_tidewire_loads_no_framework() -> None:
    loaded = set(json.loads(in_fresh_python("import json, sys, tidewire; print(json.dumps(sorted(sys.modules)))")))
    assert "tidewire" in loaded
    assert loaded.isdisjoint(_LATE)


def test_the_public_names_are_stated_once() -> None:
    assert tidewire.__all__
    assert len(set(tidewire.__all__)) == len(tidewire.__all__)
    assert set(tidewire.__all__) <= set(dir(tidewire))


def test_every_public_name_resolves_to_one_thing() -> None:
    for name in tidewire.__all__:
        assert getattr(tidewire, name) is getattr(tidewire, name)


def test_public_names_resolve_by_import_in_a_fresh_interpreter() -> None:
    # Each on its own line of one program: a name must not need another to have been asked for first.
    code = "\n".join(f"from tidewire import {name}" for name in reversed(tidewire.__all__))
    in_fresh_python(code)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = tidewire.no_such_name


def test_every_module_imports() -> None:
    for path in sorted((ROOT / "src" / "tidewire").rglob("*.py")):
        parts = path.relative_to(ROOT / "src").with_suffix("").parts
        if parts[-1] == "__main__":
            continue
        importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))


def test_the_rooms_know_only_those_below() -> None:
    lint_imports = Path(sys.executable).parent / "lint-imports"
    if not lint_imports.exists():
        pytest.skip("import-linter is not installed beside this Python; make check runs it")
    done = subprocess.run(
        [lint_imports, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
