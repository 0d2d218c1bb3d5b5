"""The Python that our documents show, so that the tests can run it.

A fenced ```python block in README.md or under docs/ is compiled by ``test_documents.py``, and what it imports
from tidewire must exist. A block right after a comment ``<!-- test: NAME -->`` has a name, and a test of its own
that runs it::

    from tests.project.documents import named_block

    namespace = named_block("first-server").run()
    app = namespace["app"]

Lines of a block keep their numbers in the document, so a traceback points into README.md itself.
"""

import ast
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})\s*(?P<language>[\w+-]*)")
_NAME = re.compile(r"^\s*<!--\s*test:\s*(?P<name>[\w-]+)\s*-->\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block of code in a document."""

    document: Path  # where it stands, absolute
    line: int  # of its first line of code, from 1
    language: str  # the first word after the fence, in lower case; "" when there is none
    name: str | None  # from the comment right above it
    code: str  # without the indentation of the fence

    @property
    def label(self) -> str:
        """Where the block is, as an editor takes it: ``README.md:12``."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    def parse(self) -> ast.Module:
        """Return the syntax tree; line numbers are those of the document.

        Raises SyntaxError when the block is not Python. ``await`` outside a function is allowed, as in a notebook.
        """
        tree = ast.parse(self.code, str(self.document))
        ast.increment_lineno(tree, self.line - 1)
        return tree

    def compile(self) -> types.CodeType:
        """Return the code object; raises SyntaxError when the block is not Python."""
        code: types.CodeType = compile(
            self.parse(), str(self.document), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
        )
        return code

    def run(self, **given: Any) -> dict[str, Any]:
        """Run the block as a module of its own and return its names; ``given`` are names it finds already there.

        The block may not await outside a function (``run_async`` is for those).
        """
        namespace = self._namespace(given)
        exec(self.compile(), namespace)
        return namespace

    async def run_async(self, **given: Any) -> dict[str, Any]:
        """Like ``run``, for a block that awaits outside a function."""
        namespace = self._namespace(given)
        waiting = eval(self.compile(), namespace)
        if waiting is not None:
            await waiting
        return namespace

    def _namespace(self, given: dict[str, Any]) -> dict[str, Any]:
        # Not "__main__": a block may end with the usual guard, and then run() is for its caller to call.
        return {"__name__": f"document_{self.name or self.line}", "__file__": str(self.document), **given}


def blocks_of(document: Path) -> Iterator[Block]:
    """Yield the fenced blocks of one Markdown document, in order. An unclosed fence reaches to the end."""
    lines = document.read_text(encoding="utf-8").splitlines()
    name: str | None = None
    at = 0
    while at < len(lines):
        opening = _FENCE.match(lines[at])
        if opening is None:
            named = _NAME.match(lines[at])
            # An empty line between the comment and its block is allowed; anything else parts them.
            name = named["name"] if named else name if not lines[at].strip() else None
            at += 1
            continue
        first = at + 1
        at = first
        while at < len(lines) and not _closes(lines[at], opening["fence"]):
            at += 1
        indent = len(opening["indent"])
        code = "".join(f"{line[indent:] if not line[:indent].strip() else line}\n" for line in lines[first:at])
        yield Block(document, first + 1, opening["language"].lower(), name, code)
        name = None
        at += 1


def _closes(line: str, fence: str) -> bool:
    mark = line.strip()
    return len(mark) >= len(fence) and set(mark) == {fence[0]}


def documents() -> list[Path]:
    """Return the Markdown documents whose code is tested: those beside README.md, and docs/ with all its folders."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("**/*.md"))]


def python_blocks() -> list[Block]:
    """Return every ```python block of our documents."""
    return [block for document in documents() for block in blocks_of(document) if block.language in {"python", "py"}]


def named_block(name: str) -> Block:
    """Return the block after ``<!-- test: NAME -->``, of any language; LookupError unless exactly one has that name."""
    found = [block for document in documents() for block in blocks_of(document) if block.name == name]
    if len(found) != 1:
        where = ", ".join(block.label for block in found) or "none"
        raise LookupError(f"one block should stand after <!-- test: {name} -->; found: {where}")
    return found[0]
