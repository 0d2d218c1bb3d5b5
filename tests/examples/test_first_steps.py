"""The programs of ``examples/first_steps``, run as their readers run them: each side in a terminal of its own.

What each prints when all goes well, with either import, is in the transcripts of the tutorial, which
``tests/project/test_tutorial.py`` plays; here is the rest.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.examples.terminal import FIRST_STEPS, Terminal

LINES_MAX = {"chat.py": 40, "resuming_chat.py": 40}


@pytest.mark.parametrize("path", sorted(FIRST_STEPS.glob("*.py")), ids=lambda path: path.name)
def test_a_program_is_short_and_says_what_it_does(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES_MAX.get(path.name, 29)
    assert ast.get_docstring(ast.parse(text))


def test_a_client_without_a_server_is_told_what_to_do(tmp_path: Path) -> None:
    with Terminal("hello_server.py", 0, cwd=tmp_path) as server:
        port = server.port()
        server.stop()
    with Terminal("hello_client.py", f"ws://127.0.0.1:{port}", cwd=tmp_path) as client:
        client.until(f"nothing listens at ws://127.0.0.1:{port}/: start the server first")


def test_a_client_that_is_stopped_leaves_without_a_traceback(tmp_path: Path) -> None:
    with Terminal("forever.py", 0, cwd=tmp_path) as server:
        with Terminal("talk.py", f"ws://127.0.0.1:{server.port()}", "one", "two", cwd=tmp_path) as client:
            client.until("<<< two")
            assert client.stop() == ["<<< one", "<<< two"]
        server.until("a client has left")
        server.stop()


def test_for_a_while(tmp_path: Path) -> None:
    with Terminal("for_a_while.py", 0, 0.1, cwd=tmp_path) as server:
        assert server.finish()[-1] == "0.1 seconds are over"


def test_for_a_while_answers_meanwhile_and_can_be_stopped(tmp_path: Path) -> None:
    with Terminal("for_a_while.py", 0, 600, cwd=tmp_path) as server:
        with Terminal("talk.py", f"ws://127.0.0.1:{server.port()}", "still there?", cwd=tmp_path) as client:
            client.until("<<< still there?")
            server.interrupt()
            assert client.finish()[-1] == "closed by the server: 1001 "
        server.finish()


def test_an_image_server_that_gets_text_lives_on(tmp_path: Path) -> None:
    with Terminal("image_server.py", 0, cwd=tmp_path) as server:
        url = f"ws://127.0.0.1:{server.port()}"
        with Terminal("talk.py", url, "no picture", cwd=tmp_path) as client:
            client.until("1011")
        server.until("a picture is binary")
        with Terminal("image_client.py", url, cwd=tmp_path) as client:
            assert client.finish()[0] == "sent picture.png"


def test_a_file_of_another_size_than_promised_is_told(tmp_path: Path) -> None:
    with (
        Terminal("file_server.py", 0, cwd=tmp_path) as server,
        Terminal("talk.py", f"ws://127.0.0.1:{server.port()}", "7", "end", cwd=tmp_path) as client,
    ):
        assert client.finish()[0] == "<<< NOT complete: 0 bytes"


def test_a_big_file_needs_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    peaks = {}
    for mib in (4, 64):
        file = tmp_path / "file.bin"
        file.write_bytes(bytes(mib * 1024 * 1024))
        with Terminal("file_server.py", 0, cwd=tmp_path) as server:
            url = f"ws://127.0.0.1:{server.port()}"
            with Terminal("file_client.py", file, url, cwd=tmp_path) as client:
                peaks[mib] = _peaks(server, client)
                assert client.finish()[1] == f"the server says: complete: {file.stat().st_size} bytes"
    for small, big in zip(peaks[4], peaks[64], strict=True):
        assert big - small < 24 * 1024 * 1024


def _peaks(*terminals: Terminal) -> list[int]:
    """The most memory that was seen in each, until the last one has ended."""
    peaks = [0] * len(terminals)
    while terminals[-1].runs:
        peaks = [max(peak, terminal.memory_bytes) for peak, terminal in zip(peaks, terminals, strict=True)]
    return peaks
