"""The server under judgement, and the judges from npm. Both once for all tests of this folder."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.project.files import ROOT

HERE = Path(__file__).parent
PACKAGES = HERE / "node_modules"
_STAMP = PACKAGES / ".installed"
INSTALL_S = 300.0
RUN_S = 300.0

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """Where the application of this folder answers."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "tests.interop.streams.app"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline().strip()
            assert told.startswith("http://"), f"the server did not start: {told!r}"
            yield told
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=10)


@pytest.fixture(scope="session")
def run_node(url: str) -> Run:
    """Run a Node program of this folder against the server; what it says is text."""
    _install()

    def run(*command: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=HERE,
            env={**os.environ, "STREAMS_URL": url, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )

    return run


def _install() -> None:
    """``npm install`` what package.json names, where that has not been done; one process of the test run does it."""
    npm = shutil.which("npm")
    assert npm is not None, "these tests need Node and npm: apt-get install -y --no-install-recommends nodejs npm"
    manifest = (HERE / "package.json").read_text(encoding="utf-8")
    with (HERE / ".gitignore").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _STAMP.is_file() and _STAMP.read_text(encoding="utf-8") == manifest:
            return
        command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        assert done.returncode == 0, f"npm could not install the judges:\n{done.stdout}{done.stderr}"
        _STAMP.write_text(manifest, encoding="utf-8")
