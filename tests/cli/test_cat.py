"""`tidewire cat` as a process in a pipe, against servers of this test."""

import asyncio
import contextlib
import json
import os
import pty
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets.asyncio.server

import tidewire as tide
from tests.cli.test_end_to_end import finish, read_line, tidewire
from tests.client.fakes import run
from tidewire.cli.echo import send_back

PIPE = asyncio.subprocess.PIPE
Handler = Callable[[tide.Connection], Awaitable[None]]


async def cat(*arguments: str, stdin: bytes = b"", **options: Any) -> tuple[int | None, bytes, str]:
    """Run it to its end; returns exit code, stdout and stderr."""
    async with tidewire("cat", *arguments, **({"stdin": PIPE} | options)) as process:
        out, err = await process.communicate(stdin)
        return process.returncode, out, err.decode()


@asynccontextmanager
async def serving(handler: Handler = send_back, **options: Any) -> AsyncIterator[str]:
    async with tide.serve(handler, port=0, **options) as server:
        yield server.url


async def count_then_close(connection: tide.Connection) -> None:
    """Three messages, whoever asks."""
    for number in range(1, 4):
        await connection.send(str(number))


async def say_goodbye_after_one(connection: tide.Connection) -> None:
    await connection.send(await connection.recv())


async def fails(connection: tide.Connection) -> None:
    await connection.send("before")
    await connection.close(1011, "out of paper")


async def never_answers(connection: tide.Connection) -> None:
    await connection.wait_closed()


def test_lines_go_out_and_answers_come_back() -> None:
    async def main() -> None:
        async with serving() as url:
            lines = b"hello\n\n  spaces \r\nno end of line"
            assert await cat(url, "-n", "4", stdin=lines) == (0, b"hello\n\n  spaces \nno end of line\n", "")

    run(main())


def test_the_answer_to_a_pipe_is_printed_without_any_option() -> None:
    async def main() -> None:
        async with serving(say_goodbye_after_one) as url:
            assert await cat(url.replace("ws:", "http:"), stdin=b"hi\n") == (0, b"hi\n", "")

    run(main())


def test_silence_after_the_end_of_stdin_ends_it() -> None:
    codes: list[int | None] = []

    async def main() -> None:
        left = asyncio.Event()

        async def listens(connection: tide.Connection) -> None:
            assert await connection.recv() == "hi"
            await connection.wait_closed()
            codes.append(connection.close_code)
            left.set()

        async with serving(listens) as url:
            assert await cat(url, "--wait", "0.1", stdin=b"hi\n") == (0, b"", "")
            await left.wait()
            code, out, err = await cat(url, "--wait", "0.1", "-n", "2", stdin=b"hi\n")
            assert (code, out, err) == (4, b"", "only 0 messages of 2 came\n")

    run(main())
    assert codes[0] == 1000


def test_with_nothing_to_send_it_listens_until_the_server_closes() -> None:
    async def main() -> None:
        async with serving(count_then_close) as url:
            assert await cat(url) == (0, b"1\n2\n3\n", "")
            assert await cat(url, "-n", "2") == (0, b"1\n2\n", "")
            assert await cat(url, "-n", "4") == (4, b"1\n2\n3\n", "only 3 messages of 4 came\n")

    run(main())


def test_leaving_early_does_not_wait_behind_what_is_under_way() -> None:
    ends: list[int | None] = []

    async def main() -> None:
        left = asyncio.Event()

        async def flood(connection: tide.Connection) -> None:
            try:
                while True:
                    await connection.send("x" * 10_000)
            except tide.ConnectionClosed:
                ends.append(connection.close_code)
                left.set()

        async with serving(flood) as url:
            code, out, err = await cat(url, "-n", "1", "-v")
            await left.wait()
            assert (code, len(out)) == (0, 10_001)
            # both said goodbye: nobody ran into a deadline
            assert err.splitlines()[-1] == "closed: sent 1000 (OK); then received 1000 (OK)"

    run(main())
    assert ends == [1000]


def test_binary_goes_through_unchanged() -> None:
    kinds: set[type] = set()

    async def collects(connection: tide.Connection) -> None:
        size = 0
        while size < len(data):
            message = await connection.recv()
            kinds.add(type(message))
            size += len(message)
            await connection.send(message)

    data = os.urandom(200_000) + b"\n\r\n\x00"

    async def main() -> None:
        async with serving(collects) as url:
            assert await cat(url, "--binary", stdin=data) == (0, data, "")

    run(main())
    assert kinds == {bytes}


def test_json_is_indented_and_the_rest_is_left_alone() -> None:
    async def main() -> None:
        async with serving() as url:
            lines = b'{"a":[1.50,"x"]}\nno json\n'
            expected = b'{\n  "a": [\n    1.50,\n    "x"\n  ]\n}\nno json\n'
            assert await cat(url, "--json", "-n", "2", stdin=lines) == (0, expected, "")
            code, out, _ = await cat(url, "--timestamps", "-n", "1", stdin=b"hi\n")
            assert code == 0
            assert out.endswith(b"Z hi\n")

    run(main())


def test_what_is_asked_of_the_server() -> None:
    async def tells(connection: tide.Connection) -> None:
        headers = connection.request.headers
        asked = {name: headers.get(name) for name in ("Origin", "X-Token", "Sec-WebSocket-Protocol")}
        await connection.send(json.dumps([connection.request.path, asked, connection.subprotocol]))

    async def main() -> None:
        async with serving(tells, origins=["https://example.org"], subprotocols=["v2"]) as url:
            offers = ("--subprotocol", "v3", "--subprotocol", "v2")
            code, out, err = await cat(
                f"{url}/a?token=hidden", "-H", "X-Token: hidden", "--origin", "https://example.org", *offers, "-v"
            )
        asked = {"Origin": "https://example.org", "X-Token": "hidden", "Sec-WebSocket-Protocol": "v3, v2"}
        assert (code, json.loads(out)) == (0, ["/a?token=hidden", asked, "v2"])
        said = err.splitlines()
        assert said[0] == "> GET /a?(not shown) HTTP/1.1"
        assert "> X-Token: (not shown)" in said
        assert "< HTTP/1.1 101 Switching Protocols" in said
        assert said[-1] == "closed: received 1000 (OK); then sent 1000 (OK)"
        assert "hidden" not in err

    run(main())


def test_ping_says_the_round_trips() -> None:
    async def main() -> None:
        async with serving(never_answers) as url, tidewire("cat", url, "--ping", "0.01") as process:
            for _ in range(3):
                assert (await read_line(process.stderr)).startswith("ping: ")

    run(main())


def test_an_error_code_is_3() -> None:
    async def cut(connection: websockets.asyncio.server.ServerConnection) -> None:
        connection.transport.abort()

    async def main() -> None:
        async with serving(fails) as url:
            said = "the server closed the connection: 1011 (internal error) out of paper\n"
            assert await cat(url, stdin=b"hi\n") == (3, b"before\n", said)
        async with websockets.asyncio.server.serve(cut, "127.0.0.1", 0) as server:
            code, _, err = await cat(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", stdin=b"hi\n")
            assert (code, err) == (3, "the connection was lost: the line was cut without a goodbye\n")

    run(main())


def test_a_message_over_the_limit_is_3() -> None:
    async def too_much(connection: tide.Connection) -> None:
        with contextlib.suppress(tide.ConnectionClosed):
            await connection.send("x" * (16 * 1024 * 1024 + 1))
            await connection.recv()

    async def main() -> None:
        async with serving(too_much) as url:
            code, out, err = await cat(url)
            assert (code, out) == (3, b"")
            assert err.startswith("the connection had to be closed: 1009 (message too big)")

    run(main())


def test_what_cannot_be_reached_is_1() -> None:
    async def main() -> None:
        async with serving() as url:
            code, out, err = await cat(url, "--origin", "https://evil.example", "-v", stdin=b"hi\n")
            assert (code, out) == (1, b"")
            assert "< HTTP/1.1 403 Forbidden" in err.splitlines()
            assert f"{url}/ refused with 403" in err
        assert await cat(url) == (1, b"", f"nothing listens at {url}/: start the server first\n")

    run(main())


def test_wrong_usage_is_2() -> None:
    async def main() -> None:
        code, out, err = await cat("localhost:8000")
        assert (code, out) == (2, b"")
        assert err == (
            "'localhost:8000' is not the URL of a WebSocket: begin it with http://, https://, ws:// or wss://\n"
        )
        async with serving() as url:
            code, _, err = await cat(url, stdin=b"good\n\xff\n")
            assert (code, err) == (2, "line 2 of stdin is not UTF-8: send bytes with --binary\n")

    run(main())


def test_reconnect_says_what_happens() -> None:
    visits: list[str] = []

    async def restarts_once(connection: tide.Connection) -> None:
        visits.append("")
        if len(visits) == 1:
            await connection.close(1012, "")
        elif len(visits) == 2:
            await connection.send("here I am")
        else:
            await connection.close(1008, "enough")

    async def main() -> None:
        async with serving(restarts_once) as url:
            code, out, err = await cat(url, "--reconnect", "-n", "1")
            assert (code, out) == (0, b"here I am\n")
            assert err.splitlines() == ["the server is restarting (1012): trying to reconnect", "connected again"]
            code, _, err = await cat(url, "--reconnect")
            assert (code, err) == (3, f"{url}/ refused with close code 1008: enough\n")
        port = url.rsplit(":", 1)[1]
        async with tidewire("cat", url, "--reconnect", "-n", "1", stdin=PIPE) as waiting:
            assert await read_line(waiting.stderr) == "nothing listens there: trying to reconnect"
            async with tide.serve(send_back, port=int(port)):
                assert await finish(waiting, b"hi\n") == (0, "hi\n", "connected\n")

    run(main())


@pytest.mark.parametrize("options", [[], ["--reconnect"]])
def test_ctrl_c_says_goodbye(options: list[str]) -> None:
    codes: list[int | None] = []

    async def main() -> None:
        here, left = asyncio.Event(), asyncio.Event()

        async def watches(connection: tide.Connection) -> None:
            here.set()
            await connection.wait_closed()
            codes.append(connection.close_code)
            left.set()

        async with serving(watches) as url, tidewire("cat", url, *options, stdin=PIPE) as process:
            await here.wait()
            process.send_signal(signal.SIGINT)
            # stdin stays open: nothing may wait for it
            assert await process.wait() == 130
            assert await read_line(process.stderr) == ""
            await left.wait()

    run(main())
    assert codes == [1000]


def test_a_reader_that_leaves_is_no_error() -> None:
    async def main() -> None:
        ours, theirs = os.pipe()
        async with serving() as url, tidewire("cat", url, stdin=PIPE, stdout=theirs) as process:
            os.close(theirs)
            os.close(ours)
            assert process.stdin is not None
            process.stdin.write(b"hi\n")
            assert await process.wait() == 0
            assert await read_line(process.stderr) == ""

    run(main())


def test_a_reader_that_is_slow_does_not_keep_pings_from_being_answered() -> None:
    async def main() -> None:
        answered = asyncio.Event()

        async def big(connection: websockets.asyncio.server.ServerConnection) -> None:
            await connection.send("x" * 2_000_000)
            await (await connection.ping())
            await (await connection.ping())
            answered.set()

        async with websockets.asyncio.server.serve(big, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            ours, theirs = os.pipe()
            async with tidewire("cat", url, stdout=theirs) as process:
                os.close(theirs)
                # a little of it: now it writes, and nobody takes the rest
                assert await asyncio.to_thread(os.read, ours, 10) == b"x" * 10
                await answered.wait()
                os.close(ours)
                assert await process.wait() == 0

    run(main())


def test_what_comes_cannot_command_the_terminal() -> None:
    async def attacks(connection: tide.Connection) -> None:
        await connection.send("\x1b]0;owned\x07\x9b2J")
        await connection.send('{"a":"\x9b2J"}')
        await connection.send(b"\x1b[2J")

    async def main() -> None:
        ours, theirs = pty.openpty()
        try:
            async with serving(attacks) as url:
                code, _, _ = await cat_on(theirs, url, "--json", "-n", "3")
            shown = os.read(ours, 65536).decode()
        finally:
            os.close(ours)
            os.close(theirs)
        assert code == 0
        assert "\\x1b]0;owned\\x07\\x9b2J" in shown
        assert "4 bytes: 1b 5b 32 4a" in shown
        for command in ("\x07", "\x9b", "\x1b]", "\x1b[2J"):
            assert command not in shown

    async def cat_on(terminal: int, *arguments: str) -> tuple[int | None, str, str]:
        async with tidewire("cat", *arguments, stdout=terminal) as process:
            return await finish(process)

    run(main())
