"""centrifuge-python's own suite, from its sdist on PyPI, against our server: two versions, both codecs (its own)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.installed import python_suite
from tests.interop.sessions.served import serving

pytestmark = pytest.mark.interop

# how many tests there are at least: a suite that runs none would pass too
VERSIONS = {"0.7.0": 185, "0.5.0": 76}
SUITE_S = 300
# where the suite looks for a server
ITS_SERVER = "localhost:8000"
ITS_PATH = "/connection/websocket"


@pytest.mark.parametrize("version", VERSIONS)
def test_its_own_suite(version: str, tmp_path: Path) -> None:
    suite, libraries = python_suite("centrifuge-python", version)
    tree = tmp_path / "suite"
    shutil.copytree(suite, tree)
    # what is installed is to be tested, not what lies beside the tests
    shutil.rmtree(tree / "centrifuge")
    with serving(tmp_path) as server:
        pointed = 0
        for path in (tree / "tests").glob("*.py"):
            text = path.read_text(encoding="utf-8")
            there = text.replace(ITS_SERVER, f"localhost:{server.port}").replace(ITS_PATH, "/connection/-/session")
            pointed += there != text
            path.write_text(there, encoding="utf-8")
        assert pointed, "nothing in it knows where its server is"
        done = subprocess.run(
            [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-t", "."],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(libraries)},
            capture_output=True,
            text=True,
            timeout=SUITE_S,
            check=False,
        )
        told = f"{done.stdout[-2000:]}\n{done.stderr[-6000:]}\n--- the server:\n{server.log[-4000:]}"
    ran = re.search(r"^Ran (\d+) tests", done.stderr, re.MULTILINE)
    assert ran is not None, told
    assert int(ran[1]) >= VERSIONS[version], told
    assert done.returncode == 0, told
