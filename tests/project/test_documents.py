"""The code in our documents is Python, imports what exists, and links lead somewhere."""

import ast
import asyncio
import importlib
import re
import types
from collections import Counter
from pathlib import Path

import pytest

from tests.project.documents import ROOT, Block, blocks_of, documents, named_block, python_blocks

_LINK = re.compile(r"(?<!`)\[[^\]\n]*\]\((?P<target>[^)\s]+)\)|(?:src|href)=\"(?P<attribute>[^\"]+)\"")


@pytest.mark.parametrize("block", python_blocks(), ids=lambda block: block.label)
def test_a_python_block_compiles(block: Block) -> None:
    assert isinstance(block.compile(), types.CodeType)


@pytest.mark.parametrize("block", python_blocks(), ids=lambda block: block.label)
def test_a_python_block_imports_what_tidewire_has(block: Block) -> None:
    for node in ast.walk(block.parse()):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tidewire":
            module = importlib.import_module(node.module or "")
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            assert missing == [], f"{block.label}: {node.module} has no {missing}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tidewire":
            assert hasattr(importlib.import_module("tidewire"), node.attr), f"{block.label}: no tidewire.{node.attr}"


def test_every_named_block_has_a_test_that_runs_it() -> None:
    names = Counter(block.name for document in documents() for block in blocks_of(document) if block.name)
    assert [name for name, count in names.items() if count > 1] == []
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    # Any quoted mention counts, so that one parametrized test may run many.
    assert [name for name in names if f'"{name}"' not in tests] == []


def test_make_targets_in_the_documents_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    for document in documents():
        text = document.read_text(encoding="utf-8")
        named = set(re.findall(r"(?:^|`)(?:\$ )?make ([a-z][a-z-]*)\b", text, re.MULTILINE))
        assert named <= targets, f"{document.relative_to(ROOT)} names {sorted(named - targets)}"


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(document: Path) -> None:
    broken = []
    for found in _LINK.finditer(_without_code(document)):
        target = (found["target"] or found["attribute"]).partition("#")[0]
        if target and not re.match(r"[a-z][a-z0-9+.-]*:", target) and not (document.parent / target).exists():
            broken.append(target)
    assert broken == []


def _without_code(document: Path) -> str:
    lines = document.read_text(encoding="utf-8").splitlines()
    for block in blocks_of(document):
        for at in range(block.line - 1, block.line - 1 + block.code.count("\n")):
            lines[at] = ""
    return re.sub(r"`[^`\n]*`", "", "\n".join(lines))


# The helper itself.

_SAMPLE = """# Title

```console
$ make demo
```

<!-- test: answer -->
```python
value = await wait(41)
answer = value + 1
```

1. In a list:

   ~~~python title="a.py"
   if True:
       x = 1
   ~~~

<!-- test: lost -->
Words part a name from its block.

```python
y = 2
```
"""


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A document of its own, in the place of ours."""
    monkeypatch.setattr("tests.project.documents.ROOT", tmp_path)
    (tmp_path / "README.md").write_text(_SAMPLE, encoding="utf-8")
    return tmp_path / "README.md"


def test_blocks_are_found_with_language_name_and_line(sample: Path) -> None:
    found = [(block.language, block.name, block.line, block.code.splitlines()[0]) for block in blocks_of(sample)]
    assert found == [
        ("console", None, 4, "$ make demo"),
        ("python", "answer", 9, "value = await wait(41)"),
        ("python", None, 16, "if True:"),
        ("python", None, 24, "y = 2"),
    ]


def test_the_indentation_of_a_list_is_taken_off(sample: Path) -> None:
    assert list(blocks_of(sample))[2].run()["x"] == 1


def test_a_named_block_runs_with_the_names_given(sample: Path) -> None:
    async def wait(value: int) -> int:
        return value

    assert asyncio.run(named_block("answer").run_async(wait=wait))["answer"] == 42


def test_a_name_that_no_block_has_is_refused(sample: Path) -> None:
    with pytest.raises(LookupError, match="lost"):
        named_block("lost")


def test_an_error_points_into_the_document(sample: Path) -> None:
    sample.write_text("\n\n```python\n\n1 / 0\n```\n", encoding="utf-8")
    (block,) = blocks_of(sample)
    with pytest.raises(ZeroDivisionError) as raised:
        block.run()
    assert (Path(raised.traceback[-1].path), raised.traceback[-1].lineno + 1) == (sample, 5)


def test_a_block_that_is_not_python_is_told(sample: Path) -> None:
    sample.write_text("```python\ndef\n```\n", encoding="utf-8")
    (block,) = blocks_of(sample)
    with pytest.raises(SyntaxError):
        block.compile()
