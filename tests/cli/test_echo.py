"""`tidewire echo` as a process."""

import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import tidewire as tide
from tests.cli.test_end_to_end import Process, finish, read_line, tidewire
from tests.client.fakes import run


@asynccontextmanager
async def echoing(*arguments: str) -> AsyncIterator[tuple[Process, str]]:
    async with tidewire("echo", "--port", "0", *arguments) as process:
        line = await read_line(process.stdout)
        assert re.fullmatch(r"Tidewire is listening on ws://127\.0\.0\.1:\d+", line)
        url = line.split()[-1]
        assert await read_line(process.stderr) == f"try it: tidewire cat {url}"
        yield process, url


def test_everything_comes_back_as_it_was() -> None:
    async def main() -> None:
        async with echoing() as (process, url):
            async with tide.connect(f"{url}/any/path") as connection:
                for message in ("text", "", "\0ü", b"", b"\x00\xff", "x" * 1_000_000):
                    await connection.send(message)
                    assert await connection.recv() == message
                process.send_signal(signal.SIGINT)
                await connection.wait_closed()
                assert connection.close_code == 1001
            assert await finish(process) == (0, "", "")

    run(main())


def test_pages_only_with_their_origin() -> None:
    async def main() -> None:
        async with echoing("--origin", "https://example.org") as (_, url):
            async with tide.connect(url, origin="https://example.org") as connection:
                await connection.send("hi")
                assert await connection.recv() == "hi"
            with pytest.raises(tide.Refused, match="403"):
                await tide.connect(url, origin="https://evil.example")

    run(main())


def test_clients_that_vanish_are_no_news() -> None:
    async def main() -> None:
        async with echoing() as (process, url):
            connection = await tide.connect(url)
            connection._link.abort()  # type: ignore[attr-defined]
            await connection.wait_closed()
            async with tide.connect(url) as other:
                await other.send("still there?")
                assert await other.recv() == "still there?"
            process.send_signal(signal.SIGINT)
            assert await finish(process) == (0, "", "")

    run(main())


def test_a_port_in_use_is_1() -> None:
    async def main() -> None:
        async with echoing() as (_, url), tidewire("echo", "--port", url.rsplit(":", 1)[1]) as second:
            code, out, err = await finish(second)
            assert (code, out) == (1, "")
            assert "is in use by another program" in err

    run(main())
