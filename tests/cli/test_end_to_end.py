"""The commands as processes: a server killed with -9, a cut pipe, Ctrl-C, a terminal."""

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.client.fakes import run

Process = asyncio.subprocess.Process


@asynccontextmanager
async def tidewire(*arguments: str, **options: Any) -> AsyncIterator[Process]:
    """``python -m tidewire ...`` as a process; killed at the end if it still runs."""
    pipes = {"stdin": asyncio.subprocess.DEVNULL, "stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    # as users have it: with a buffer between us and the pipe
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tidewire", *arguments, env=environment | {"TERM": "xterm"}, **(pipes | options)
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def serving(port: int = 0, *options: str) -> AsyncIterator[tuple[Process, str]]:
    """The open server, when it really listens; yields its process and URL."""
    async with tidewire("serve", "--port", str(port), *options) as process:
        line = await read_line(process.stdout)
        assert line.startswith("Tidewire is listening on http://127.0.0.1:")
        yield process, line.split()[-1]


async def read_line(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    return (await stream.readline()).decode().rstrip("\n")


async def finish(process: Process, stdin: bytes | None = None) -> tuple[int | None, str, str]:
    """Wait for the end; returns exit code, stdout and stderr."""
    out, err = await process.communicate(stdin)
    return process.returncode, (out or b"").decode(), (err or b"").decode()


async def pub(*arguments: str) -> str:
    async with tidewire("pub", *arguments) as process:
        code, out, err = await finish(process)
        assert code == 0, err
        return out.strip()


def test_server_killed_and_started_again() -> None:
    async def main() -> None:
        async with serving() as (server, url):
            topic = f"{url}/chat/7"
            async with tidewire("sub", "--json", topic) as reader:
                assert await read_line(reader.stderr) == f"listening to {topic}"
                before = await pub(topic, '{"text":"before"}')
                line = json.loads(await read_line(reader.stdout))
                assert line == {"position": before, "kind": "json", "data": {"text": "before"}, "gap": None}

                server.kill()
                await server.wait()
                assert await read_line(reader.stderr) == "the line was cut: trying to reconnect"
                async with tidewire("pub", topic, "unheard") as failing:
                    assert await finish(failing) == (1, "", f"nothing listens at {topic}: start the server first\n")

                async with serving(int(url.rsplit(":", 1)[1])):
                    said = await read_line(reader.stderr)
                    if said == "nothing listens there: trying to reconnect":
                        said = await read_line(reader.stderr)
                    assert said == "history lost, live again"
                    after = await pub(topic, "after")
                    line = json.loads(await read_line(reader.stdout))
                    assert (line["data"], line["position"], line["gap"]["from"]) == ("after", after, before)

                    reader.send_signal(signal.SIGINT)
                    assert await finish(reader) == (130, "", "")

    run(main())


def test_server_on_a_file_killed_and_started_again(tmp_path: Path) -> None:
    options = ("--broker", f"sqlite:///{tmp_path}/live.db")

    async def main() -> None:
        async with serving(0, *options) as (server, url):
            topic = f"{url}/chat/7"
            async with tidewire("sub", "--json", topic) as reader:
                assert await read_line(reader.stderr) == f"listening to {topic}"
                await pub(topic, "before")
                assert json.loads(await read_line(reader.stdout))["data"] == "before"
                server.kill()
                await server.wait()
                assert await read_line(reader.stderr) == "the line was cut: trying to reconnect"
                async with serving(int(url.rsplit(":", 1)[1]), *options):
                    said = await read_line(reader.stderr)
                    while said == "nothing listens there: trying to reconnect":
                        said = await read_line(reader.stderr)
                    assert said.startswith("reconnected")
                    after = await pub(topic, "after")
                    line = json.loads(await read_line(reader.stdout))
                    assert (line["data"], line["position"], line["gap"]) == ("after", after, None)
            assert await refused("serve", "--broker", "redis://user:a-secret@host/0") == 1

    async def refused(*arguments: str) -> int | None:
        async with tidewire(*arguments) as process:
            code, _, said = await finish(process)
            assert "sqlite:///" in said
            assert "a-secret" not in said
            return code

    run(main())


def test_lines_in_and_lines_out() -> None:
    async def main() -> None:
        async with serving() as (_, url):
            topic = f"{url}/lines"
            async with tidewire("pub", topic, "-", stdin=asyncio.subprocess.PIPE) as writer:
                code, out, _ = await finish(writer, b'first\n\n{"n": 2}\r\n[3]\nno end of line')
                assert code == 0
                assert [line.split(":")[1].lstrip("0") for line in out.splitlines()] == ["1", "2", "3", "4"]
            async with tidewire("sub", topic, "--since", "-1", "-n", "4", "-q") as reader:
                assert await finish(reader) == (0, 'first\n{"n":2}\n[3]\nno end of line\n', "")
            await see_it_on_a_terminal(topic)
            await leave_by_closing_the_pipe(topic)

    async def see_it_on_a_terminal(topic: str) -> None:
        ours, theirs = pty.openpty()
        try:
            async with tidewire("sub", topic, "--since", "-1", "-n", "2", stdout=theirs) as reader:
                assert (await finish(reader))[0] == 0
            shown = os.read(ours, 65536).decode()
        finally:
            os.close(ours)
            os.close(theirs)
        assert "first" in shown
        assert "\x1b[" in shown

    async def leave_by_closing_the_pipe(topic: str) -> None:
        ours, theirs = os.pipe()
        async with tidewire("sub", topic, "-q", "--since", "-1", stdout=theirs) as reader:
            os.close(theirs)
            os.close(ours)
            assert await finish(reader) == (0, "", "")

    run(main())


def test_nothing_listens() -> None:
    async def main() -> None:
        async with tidewire("sub", "http://127.0.0.1:9/t") as reader:
            assert await finish(reader) == (1, "", "nothing listens at http://127.0.0.1:9/t: start the server first\n")
        async with tidewire("run", "no_such_module:app", "--port", "0") as server:
            code, _, err = await finish(server)
            assert code != 0
            assert "no_such_module" in err

    run(main())
