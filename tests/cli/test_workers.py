"""Several processes: refused where they would lose messages, and run where that is meant."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

APPLICATION = """
import os
from fastapi import FastAPI
from tidewire import Live

live = Live(isolated=True)
app = FastAPI()
app.include_router(live.router, prefix="/live")


@app.get("/pid")
def pid() -> int:
    return os.getpid()
"""


def command(folder: Path, *options: str) -> list[str]:
    (folder / "isolated_app.py").write_text(APPLICATION)
    return [sys.executable, "-m", "tidewire", "run", "isolated_app:app", "--workers", "2", *options]


def test_several_processes_are_refused_with_the_way_out(tmp_path: Path) -> None:
    refused = subprocess.run(command(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    said = " ".join(refused.stderr.split())
    assert "more than one process (workers=2) with the memory broker" in said
    assert "--isolated" in said


def test_isolated_processes_run_and_end(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        command(tmp_path, "--isolated", "--port", str(port)), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        lines: list[str] = []
        while not any(f"listening on http://127.0.0.1:{port} with 2 processes" in line for line in lines):
            lines.append(server.stderr.readline())
            assert lines[-1], "the server ended"
        while sum("Application startup complete" in line for line in lines) < 2:
            lines.append(server.stderr.readline())
            assert lines[-1], "the server ended"
        assert not any("more than one process" in line for line in lines), "an isolated Live is not warned about"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/pid", timeout=20) as answer:
            assert int(answer.read()) != server.pid
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=30)
        assert server.returncode is not None


def test_processes_that_share_a_file_run(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [*command(tmp_path), "--port", str(port)]
    application = tmp_path / "isolated_app.py"
    application.write_text(APPLICATION.replace("isolated=True", '"sqlite:///live.db"'))
    with subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        lines: list[str] = []
        while sum("Application startup complete" in line for line in lines) < 2:
            lines.append(server.stderr.readline())
            assert lines[-1], "".join(lines)
        assert not any("more than one process" in line for line in lines)
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=30)
        assert server.returncode is not None
