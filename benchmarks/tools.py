"""What contenders need beside Python, and how to get it: C programs are compiled here, npm packages installed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import BenchmarkError

HERE = Path(__file__).parent
BUILD = HERE / "build"
NODE_BUILD = BUILD / "node"
NODE_PACKAGES = HERE / "contenders" / "node" / "package.json"
NODE_VERSION_MIN = 18


def compiled(source: Path, *, tls: bool = False) -> Path:
    """The program that ``source`` becomes; compiles it when it or its headers are new.

    Raises ``BenchmarkError`` without a C compiler, or without the headers of OpenSSL where ``tls`` needs them.
    """
    digest = hashlib.sha256(b"tls" if tls else b"")
    for file in (source, *sorted((HERE / "load").glob("*.h"))):
        digest.update(file.read_bytes())
    binary = BUILD / f"{source.stem}{'-tls' if tls else ''}-{digest.hexdigest()[:12]}"
    if binary.exists():
        return binary
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BenchmarkError("the benchmarks need a C compiler: apt-get install gcc libc6-dev")
    BUILD.mkdir(exist_ok=True)
    unfinished = binary.with_suffix(".new")
    argv = [compiler, "-O2", "-std=gnu11", "-Wall", "-o", str(unfinished), str(source)]
    with_tls = ["-DWITH_TLS", "-lssl", "-lcrypto"] if tls else []
    done = subprocess.run([*argv, *with_tls], capture_output=True, text=True, check=False)
    if done.returncode and tls and "openssl/" in done.stderr:
        raise BenchmarkError("the wss row needs the headers of OpenSSL: apt-get install libssl-dev")
    if done.returncode:
        raise BenchmarkError(f"{source.name} does not compile:\n{done.stderr}")
    unfinished.rename(binary)
    return binary


def node(script: str, arguments: Sequence[str]) -> list[str]:
    """The command that runs a contender in Node, its packages installed."""
    return [_node_program(), str(HERE / "contenders" / "node" / script), *arguments]


def need_node() -> None:
    """Install the npm packages where they are missing; raises ``BenchmarkError`` where that cannot be."""
    _node_program()
    wanted = NODE_PACKAGES.read_bytes()
    stamp = NODE_BUILD / "installed.json"
    if stamp.exists() and stamp.read_bytes() == wanted:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise BenchmarkError("npm is missing: apt-get install npm")
    NODE_BUILD.mkdir(parents=True, exist_ok=True)
    (NODE_BUILD / "package.json").write_bytes(wanted)
    argv = [npm, "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(argv, cwd=NODE_BUILD, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise BenchmarkError(f"npm could not install benchmarks/contenders/node/package.json:\n{done.stderr[-1000:]}")
    stamp.write_bytes(wanted)


def need_package(module: str) -> None:
    """Raises ``BenchmarkError`` where a package of the dependency group ``bench`` is not installed."""
    if importlib.util.find_spec(module) is None:
        raise BenchmarkError(
            f"the Python package {module} is missing: make bench installs it, and so does sh scripts/install.sh bench"
        )


def node_versions() -> dict[str, str]:
    """Node and the packages of its contenders, as far as they are there."""
    program = shutil.which("node") or shutil.which("nodejs")
    if program is None:
        return {}
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    packages: dict[str, str] = json.loads(NODE_PACKAGES.read_text())["dependencies"]
    return {"Node": done.stdout.strip().lstrip("v"), **{f"{name} (npm)": version for name, version in packages.items()}}


def _node_program() -> str:
    program = shutil.which("node") or shutil.which("nodejs")
    if program is None:
        raise BenchmarkError(f"Node {NODE_VERSION_MIN} or newer is missing: apt-get install nodejs npm")
    return program
