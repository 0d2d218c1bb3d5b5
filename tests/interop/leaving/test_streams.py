"""docs/leaving.md, "Streams": the same programs against Tidewire and against another server say the same."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.installed import node_modules
from tests.project.documents import named_block
from tests.project.test_protocols import streams
from tests.project.test_readme import serving

pytestmark = pytest.mark.interop
HERE = Path(__file__).parent
WITH = ["tidewire", "the reference server"]


def node() -> str:
    found = shutil.which("node") or shutil.which("nodejs")
    assert found is not None, "Node is missing: apt-get install nodejs npm"
    return found


@contextmanager
def served_by(server: str) -> Iterator[str]:
    """Where streams may be made."""
    if server == "tidewire":
        with serving(streams()) as url:
            yield f"{url}/live/orders"
        return
    command = [node(), str(HERE / "serve.mjs")]
    folder = node_modules(HERE / "package.json")
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline().strip()
            assert told.startswith("http://127.0.0.1:"), f"the server did not start: {told!r}"
            yield told
        finally:
            process.kill()


@pytest.mark.parametrize("server", WITH)
def test_the_client_for_javascript(server: str) -> None:
    with served_by(server) as url:
        done = subprocess.run(
            [node(), "--input-type=module", "-"],
            cwd=node_modules(HERE / "package.json"),
            env={**os.environ, "STREAMS": url},
            input=named_block("leaving-streams-js").code,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ['[{"item":"tea"},{"item":"milk"}]', '[{"item":"sugar"}]', "true"]


@pytest.mark.parametrize("server", WITH)
def test_the_client_for_python(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with served_by(server) as url:
        monkeypatch.setenv("STREAMS", url)
        named_block("leaving-streams-python").run()
    assert capsys.readouterr().out.splitlines() == ["[{'item': 'tea'}, {'item': 'milk'}]", "[{'item': 'sugar'}]"]
