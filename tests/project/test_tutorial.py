"""The tutorial says what is: programs are the examples' own, and every printed line is what comes out.

Beside ``<!-- test: NAME -->`` (see ``documents.py``) three comments have a meaning in docs/, each right above a block:
``<!-- program: FILE -->`` a file of examples/first_steps, word for word; ``<!-- output: NAME -->`` what the named block
prints; ``<!-- transcript: NAME -->`` one terminal of a play, the first of a name being the server.
"""

from __future__ import annotations

import asyncio
import random
import re
import shlex
import shutil
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from fastapi import FastAPI, WebSocket, WebSocketException

import tidewire
from scripts.life_of_a_connection import FIGURE, draw
from tests.examples.background import background, strangers_echo
from tests.examples.terminal import FIRST_STEPS, Terminal
from tests.project.documents import blocks_of, named_block
from tests.project.files import ROOT
from tests.project.test_readme import serving
from tidewire.testing import Probe
from tidewire.testing.probe import ProbeRefused

PAGES = sorted((ROOT / "docs").rglob("*.md"))
_MARK = re.compile(r"<!-- (program|output|transcript): ([\w.-]+) -->$")


@dataclass(frozen=True)
class Marked:
    """A block with one of our three comments above it."""

    kind: str
    name: str
    text: str


def marked(kind: str) -> Iterator[Marked]:
    for page in PAGES:
        lines = page.read_text(encoding="utf-8").splitlines()
        for block in blocks_of(page):
            found = _MARK.match(lines[block.line - 3])
            if found and found[1] == kind:
                yield Marked(kind, found[2], block.code)


def printed(name: str) -> str:
    """What the document says that the block ``name`` prints."""
    (block,) = (block for block in marked("output") if block.name == name)
    return block.text


# Programs and the figure


@pytest.mark.parametrize("shown", list(marked("program")), ids=lambda shown: shown.name)
def test_a_program_is_the_file_word_for_word(shown: Marked) -> None:
    assert shown.text == (FIRST_STEPS / shown.name).read_text(encoding="utf-8")


def test_every_program_is_shown() -> None:
    helpers = {"talk.py"}
    shown = {block.name for block in marked("program")}
    assert shown | helpers == {path.name for path in FIRST_STEPS.glob("*.py")}


def test_the_figure_is_drawn_from_the_table() -> None:
    assert FIGURE.read_text(encoding="utf-8") == draw(), "run python scripts/life_of_a_connection.py"


# Transcripts


PLAYS = sorted({block.name for block in marked("transcript")})
LISTENING = re.compile(r"(?<=listening on port )\d+|(?<=the free port is )\d+")


class Play:
    """The terminals of one transcript, played in order: the first stays open until the others are through."""

    def __init__(self, name: str, folder: Path, *, both: bool = False) -> None:
        # with plain ``import websockets`` on both sides
        self._both = both
        self._scripts = [block.text.splitlines() for block in marked("transcript") if block.name == name]
        self._folder = folder
        self._url = ""

    def replace(self, old: str, new: str) -> None:
        """What the document shows and a test cannot have."""
        self._scripts = [[line.replace(old, new) for line in script] for script in self._scripts]

    def perform(self) -> None:
        """Play it to its end; fails where something else is printed."""
        if len(self._scripts) == 1:
            self._ask(self._scripts[0])
            return
        (program, *arguments), *expected = self._command(self._scripts[0])
        with Terminal(program, *arguments, 0, cwd=self._folder, both=self._both) as server:
            self._url = f"ws://127.0.0.1:{server.port()}"
            for script in self._scripts[1:]:
                self._ask(script)
            assert expected[-1] == "^C"
            said = [line for line in expected[:-1] if "listening" not in line]
            for line in said:
                server.until(line)
            assert _told(server.stop()) == _told(expected[:-1])

    def _ask(self, script: list[str]) -> None:
        (program, *arguments), *expected = self._command(script)
        if self._url:
            local = [re.sub(r"ws://127\.0\.0\.1:\d+", self._url, argument) for argument in arguments]
            arguments = local if local != arguments else [*arguments, self._url]
        with Terminal(program, *arguments, cwd=self._folder, both=self._both) as client:
            if expected[-1] == "^C":
                client.until(expected[-2])
                assert _told(client.stop()) == _told(expected[:-1])
            else:
                assert _told(client.finish()) == _told(expected)

    @staticmethod
    def _command(script: list[str]) -> list[Any]:
        dollar, python, *command = shlex.split(script[0])
        assert (dollar, python) == ("$", "python")
        return [command, *script[1:]]


def _told(lines: list[str]) -> list[str]:
    """Without what uvicorn logs, and with no port of today."""
    return [LISTENING.sub("PORT", line).rstrip() for line in lines if not line.startswith("INFO:")]


# the others need what only tidewire has
WITH_BOTH_IMPORTS = {"hello", "free-port", "push-and-receive", "image", "file", "tokens"}
PICTURE = ("picture.png", "received_file.png")
FILE = ("big.iso", "received_file.bin")
IMPORTS = {False: "tidewire", True: "websockets"}


@pytest.mark.parametrize(
    ("name", "both"),
    [
        (name, both)
        for name in PLAYS
        for both in IMPORTS
        if name != "external" and (name in WITH_BOTH_IMPORTS or not both)
    ],
    ids=lambda value: IMPORTS.get(value, value),
)
def test_a_transcript_is_what_happens(name: str, both: bool, tmp_path: Path) -> None:
    play = Play(name, tmp_path, both=both)
    shutil.copy(FIRST_STEPS / "picture.png", tmp_path)
    (tmp_path / "big.iso").write_bytes(random.Random(7).randbytes(1024 * 1024))
    play.replace("1073741824", "1048576")  # 1 GiB takes too long here
    play.perform()
    for sent, stored in {"image": [PICTURE], "file": [FILE]}.get(name, []):
        assert (tmp_path / stored).read_bytes() == (tmp_path / sent).read_bytes()


def test_the_transcript_of_somebody_elses_server(
    tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with background(strangers_echo(_context(authority))) as port:
        play = Play("external", tmp_path)
        play.replace("wss://echo.example.org", f"wss://localhost:{port}")
        play.perform()


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return authority


def _context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


# Blocks


async def echo(connection: tidewire.Connection) -> None:
    async for message in connection:
        await connection.send(message)


def test_the_table_of_states(capsys: pytest.CaptureFixture[str]) -> None:
    named_block("tutorial-states").run()
    assert capsys.readouterr().out == printed("tutorial-states")


def test_a_server_ends_with_its_block(capsys: pytest.CaptureFixture[str]) -> None:
    main = named_block("tutorial-ends-at-once").run()["main"]
    asyncio.run(main())
    assert capsys.readouterr().out == printed("tutorial-ends-at-once")


def test_a_client_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    follow = named_block("tutorial-comes-back").run()["follow"]

    async def scenario() -> None:
        turns = iter([("one", 1012), ("two", 1008)])

        async def greet(connection: tidewire.Connection) -> None:
            word, code = next(turns)
            await connection.send(word)
            await connection.close(code)

        async with asyncio.timeout(10), tidewire.serve(greet, port=0) as server:
            with pytest.raises(tidewire.Refused):
                await follow(server.url)

    asyncio.run(scenario())
    assert capsys.readouterr().out == printed("tutorial-comes-back")


def test_a_message_over_the_limit(capsys: pytest.CaptureFixture[str]) -> None:
    send_too_much = named_block("tutorial-too-large").run()["send_too_much"]

    async def scenario() -> None:
        async with asyncio.timeout(10), tidewire.serve(echo, port=0, max_size=1000) as server:
            await send_too_much(server.url)

    asyncio.run(scenario())
    assert capsys.readouterr().out == printed("tutorial-too-large")


def test_an_authority_of_ones_own(tmp_path: Path, authority: trustme.CA, capsys: pytest.CaptureFixture[str]) -> None:
    ask = named_block("tutorial-own-authority").run()["ask"]
    with background(strangers_echo(_context(authority))) as port:
        asyncio.run(ask(f"wss://localhost:{port}", str(tmp_path / "ca.pem")))
    assert capsys.readouterr().out == printed("tutorial-own-authority")


def test_saying_who_one_is(capsys: pytest.CaptureFixture[str]) -> None:
    log_in = named_block("tutorial-headers").run()["log_in"]
    app = FastAPI()

    @app.websocket("/")
    async def door(websocket: WebSocket) -> None:
        if websocket.headers.get("authorization") != "Bearer sesame":
            raise WebSocketException(1008)
        async with tidewire.accept(websocket) as connection:
            await connection.send("welcome")

    with serving(app) as url:
        asyncio.run(log_in(url, "wrong"))
        asyncio.run(log_in(url, "sesame"))
    assert capsys.readouterr().out == printed("tutorial-headers")


def test_a_block_that_only_pushes_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    app = named_block("tutorial-accept").run()["app"]
    with serving(app) as url:

        async def look() -> None:
            async with asyncio.timeout(10), tidewire.connect(f"{url}/clock") as connection:
                assert await connection.recv_json() == {"second": 0}

        asyncio.run(look())
    assert capsys.readouterr().out == printed("tutorial-accept")


def test_after_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    handler = named_block("tutorial-after-the-end").run()["handler"]

    async def scenario() -> None:
        async with (
            asyncio.timeout(10),
            tidewire.serve(handler, port=0) as server,
            tidewire.connect(server.url) as connection,
        ):
            assert [message async for message in connection] == []

    asyncio.run(scenario())
    assert capsys.readouterr().out == printed("tutorial-after-the-end")


# docs/coming-from.md


def test_from_a_connection_manager() -> None:
    app = named_block("from-manager").run()["app"]

    async def scenario() -> None:
        async with asyncio.timeout(10), Probe(app) as probe, _http(app) as http:
            readers = [await probe.subscribe("chat") for _ in range(2)]
            await readers[0].send("from a browser")
            assert [(await reader.next()).data for reader in readers] == ["from a browser"] * 2
            assert (await http.post("/announce?text=from a route")).status_code == 200
            assert [(await reader.next()).data for reader in readers] == ["from a route"] * 2

    asyncio.run(scenario())


def test_from_socketio() -> None:
    app = named_block("from-socketio").run()["app"]

    async def scenario() -> None:
        async with asyncio.timeout(10), Probe(app) as probe:
            seven, eight = [await probe.subscribe(f"rooms/{number}") for number in (7, 8)]
            await seven.send("in seven")
            await eight.send("in eight")
            assert (await seven.next()).data == "in seven"
            assert (await eight.next()).data == "in eight"

    asyncio.run(scenario())


def test_from_channels() -> None:
    names = named_block("from-channels").run()

    async def scenario() -> None:
        async with asyncio.timeout(10), Probe(names["app"]) as probe:
            with pytest.raises(ProbeRefused, match="log in first"):
                await probe.subscribe("rooms/lobby")
            reader = await probe.subscribe("rooms/lobby", headers={"cookie": "user=ada"})
            await asyncio.to_thread(names["from_a_worker_thread"], "from a thread")
            assert (await reader.next()).data == "from a thread"

    asyncio.run(scenario())


def test_from_sse() -> None:
    app = named_block("from-sse").run()["app"]

    async def scenario() -> None:
        async with asyncio.timeout(10), Probe(app) as probe, _http(app) as http:
            for _ in range(2):  # the second joins
                assert (await http.post("/jobs/42")).status_code == 200
            reader = await probe.subscribe("jobs/42", since="-1")
            for step in ("fetched", "built", "tested"):
                assert (await reader.next()).data == f"42: {step}"

    asyncio.run(scenario())


def _http(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
