"""``tidewire call``, ``presence`` and ``history``, as processes against a server in this one."""

import asyncio
import json
from typing import Any

import jwt
import pytest
from fastapi import Depends
from typer.testing import CliRunner

from tests.cli.test_end_to_end import finish, tidewire
from tests.client.fakes import run
from tests.client.test_with_server import serving
from tidewire import CallError, Live, Log, Tokens
from tidewire.cli.main import app
from tidewire.client.session.client import Client
from tidewire.server.identity import Identity

SECRET = "a secret of at least thirty-two bytes"
runner = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"})


def make_live(**options: Any) -> Live:
    live = Live(**options)

    @live.topic("room/{name}", policy=Log(), publish=True, presence=True)
    async def room(name: str) -> None: ...

    @live.call("add")
    async def add(a: int, b: int = 1) -> dict[str, int]:
        return {"sum": a + b}

    @live.call("boom")
    async def boom() -> None:
        raise CallError(1400, "it went boom, as announced")

    @live.call("echo")
    async def echo() -> str:
        return "grüße\x1b[31m"

    return live


async def said(*arguments: str, stdin: bytes | None = None) -> tuple[int | None, str, str]:
    options = {} if stdin is None else {"stdin": asyncio.subprocess.PIPE}
    async with tidewire(*arguments, **options) as process:
        return await finish(process, stdin)


def test_calls() -> None:
    async def main() -> None:
        async with serving(make_live()) as url:
            assert await said("call", url, "add", '{"a": 2}') == (0, '{"sum":3}\n', "")
            assert await said("call", f"{url}/room/1", "add", "-", stdin=b'{"a":2,"b":5}\n') == (0, '{"sum":7}\n', "")
            assert await said("call", f"{url}/-/session", "echo", "--json") == (0, '"grüße\\u001b[31m"\n', "")
            code, out, err = await said("call", url, "boom")
            assert (code, out, err) == (1, "", "the call 'boom' was refused: it went boom, as announced (1400)\n")
            code, out, err = await said("call", url, "nothing")
            assert (code, out) == (1, "")
            assert "method not found (104)" in err

    run(main())


def test_presence() -> None:
    async def main() -> None:
        live = make_live(tokens=Tokens(secret=SECRET))
        token = jwt.encode({"sub": "ann", "info": {"name": "Ann\n"}}, SECRET, algorithm="HS256")
        async with serving(live) as url, Client(url, token=token) as client, client.subscribe("room/1"):
            topic = f"{url}/room/1"
            assert await said("presence", topic) == (0, f'ann\t{client.id}\t{{"name":"Ann\\n"}}\n', "")
            code, out, _ = await said("presence", topic, "--json", "--token", token)
            assert code == 0
            assert json.loads(out) == {
                "client": client.id,
                "user": "ann",
                "info": {"name": "Ann\n"},
                "topic_info": None,
            }
            assert await said("presence", topic, "--stats") == (0, "1 connection of 1 user\n", "")
            assert await said("presence", topic, "--stats", "--json") == (0, '{"connections":1,"users":1}\n', "")
            assert await said("presence", f"{url}/room/2") == (0, "", "")
            code, out, err = await said("presence", topic, "--token", "forged")
            assert (code, out) == (1, "")
            assert "refused" in err

    run(main())


def test_history() -> None:
    async def main() -> None:
        live = make_live()
        async with serving(live) as url:
            topic = f"{url}/room/1"
            positions = [await live.publish("room/1", value) for value in ("hello", {"a": 1}, [2])]
            assert await said("history", topic) == (0, 'hello\n{"a":1}\n[2]\n', "")
            assert await said("history", topic, "--reverse", "--limit", "2") == (0, '[2]\n{"a":1}\n', "")
            assert await said("history", topic, "--since", str(positions[0])) == (0, '{"a":1}\n[2]\n', "")
            assert await said("history", topic, "--since", "-1", "-n", "1") == (0, "hello\n", "")
            code, out, _ = await said("history", f"{url}/-/session/room/1", "--json", "--reverse", "-n", "1")
            assert code == 0
            assert json.loads(out) == {"position": positions[2], "kind": "json", "data": [2], "gap": None}
            code, _, err = await said("history", topic, "--since", "nonsense")
            assert code == 1
            assert "is not a position" in err

    run(main())


def test_who_asks_is_told_to_the_application() -> None:
    async def main() -> None:
        live = make_live(tokens=Tokens(secret=SECRET))

        @live.call("me")
        async def me(caller: Identity = Depends(live.identity)) -> str:  # noqa: B008
            return caller.user

        async with serving(live) as url:
            token = jwt.encode({"sub": "ann"}, SECRET, algorithm="HS256")
            assert await said("call", url, "me", "--token", token) == (0, '"ann"\n', "")

    run(main())


def test_nothing_is_there() -> None:
    async def main() -> None:
        async with serving(make_live()) as url:
            code, out, err = await said("presence", url.replace("/live", "/elsewhere/room/1"))
            assert (code, out) == (1, "")
            assert "speaks no session (Centrifuge protocol): neither this URL nor one above it does" in err
        code, _, err = await said("call", "http://127.0.0.1:9/live", "add")
        assert (code, err) == (1, "nothing listens at ws://127.0.0.1:9/-/session: start the server first\n")

    run(main())


@pytest.mark.parametrize("command", ["call", "presence", "history"])
def test_every_command_says_its_exit_codes(command: str) -> None:
    done = runner.invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert "Exit codes:" in done.output


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["call", "http://h/live"], "METHOD"),
        (["call", "http://h/live", "m", "{nope"], "not JSON"),
        (["call", "http://h/live", "m", "-H", "no colon"], "NAME:VALUE"),
        (["presence", "http://h/t", "--timeout-s", "0"], "--timeout-s"),
        (["history", "http://h/t", "--limit", "0"], "--limit"),
        (["history", "http://h/t", "--nonsense"], "--nonsense"),
    ],
)
def test_wrong_usage_is_2_and_says_what(arguments: list[str], word: str) -> None:
    done = runner.invoke(app, arguments)
    assert done.exit_code == 2
    assert word in done.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["call", "nonsense", "m"], "is not the URL of a session"),
        (["presence", "nonsense"], "is not the URL of a topic"),
        (["history", "http://h"], "it names no topic"),
    ],
)
def test_bad_url_is_1_and_says_what(arguments: list[str], sentence: str) -> None:
    done = runner.invoke(app, arguments)
    assert done.exit_code == 1
    assert sentence in done.stderr
