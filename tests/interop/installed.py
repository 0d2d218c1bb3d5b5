"""Other people's packages as judges: installed once into ``build/interop``, again when what is asked for changes."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.project.files import ROOT

FOLDER = ROOT / "build" / "interop"
INSTALL_S = 300


def node_modules(package: Path) -> Path:
    """A folder with the ``node_modules`` that ``package`` (a package.json) asks for; Node finds them from there."""
    npm = shutil.which("npm")
    assert npm is not None, "npm is missing: apt-get install npm"
    text = package.read_bytes()

    def install(folder: Path) -> None:
        (folder / "package.json").write_bytes(text)
        options = ("--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
        run([npm, "install", *options], folder)

    return _made(f"{package.parent.name}-node", text, install)


def python_suite(name: str, version: str) -> tuple[Path, Path]:
    """The unpacked sdist of a package, and a folder to put on PYTHONPATH with it and what it needs."""

    def install(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip"]
        quiet = ("--quiet", "--disable-pip-version-check")
        run([*pip, "download", *quiet, "--no-deps", "--no-binary", ":all:", "-d", ".", f"{name}=={version}"], folder)
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder / "unpacked", filter="data")
        archive.unlink()
        (tree,) = (folder / "unpacked").iterdir()
        tree.rename(folder / "suite")
        run([*pip, "install", *quiet, "--target", "libraries", "./suite"], folder)

    folder = _made(f"{name}-{version}", f"{name} {version}".encode(), install)
    return folder / "suite", folder / "libraries"


def _made(name: str, asked: bytes, install: Callable[[Path], None]) -> Path:
    folder = FOLDER / f"{name}-{hashlib.sha256(asked).hexdigest()[:12]}"
    with _locked(folder):
        done = folder / ".done"
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            install(folder)
            done.touch()
    return folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Tests run in several processes at once; one of them installs."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(command: list[str], folder: Path) -> None:
    """Run a command to its end; its words are those of the failure."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
