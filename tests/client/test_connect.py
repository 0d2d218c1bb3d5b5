"""``connect`` once and again and again: what it sends, how it is left, and when it comes back."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.servers import (
    Conversation,
    for_ever,
    frame,
    good_certificate,
    http,
    listening,
    opened,
    read_close,
    read_frame,
    read_head,
    run,
    saying,
    serving,
    trusting,
)
from tidewire import BadURL, ConnectionClosedError, NotAWebSocket, NothingListens, Refused, connect
from tidewire.client.connect import Ending
from tidewire.client.reconnect import Advice, Backoff, ComeBack
from tidewire.errors import ClientError

CLOSE, TEXT = 8, 1


def closing(code: int | None, reason: bytes = b"") -> Conversation:
    """Accept and close at once; None: cut the line."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if code is not None:
            writer.write(frame(CLOSE, code.to_bytes(2, "big") + reason))
            await read_close(reader)

    return opened(talk)


class InTurn:
    """Conversations one after the other; the last one for all that come later."""

    def __init__(self, *conversations: Conversation) -> None:
        self._conversations = conversations
        self.calls = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        await self._conversations[min(self.calls, len(self._conversations)) - 1](reader, writer)


class Noted(Backoff):
    """The real one, with a known chance; it is told what it says, and nobody waits."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"initial_s": 1.0, "maximum_s": 16.0} | options), rng=random.Random(1))
        self.delays: list[float] = []
        self.advice: list[Advice] = []
        # how long before they ended connections seem to have begun
        self.healthy_s = 0.0

    def connected(self, now_s: float) -> None:
        super().connected(now_s - self.healthy_s)

    def failed(self, now_s: float, advice: Advice) -> float:
        self.advice.append(advice)
        self.delays.append(super().failed(now_s, advice))
        return 0.0


def jitter(*ceilings: float) -> list[float]:
    rng = random.Random(1)
    return [rng.uniform(0, ceiling) for ceiling in ceilings]


# Once


def test_what_the_server_is_asked() -> None:
    async def main() -> None:
        heads = []

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await read_head(reader))
            writer.write(http("403 Forbidden"))

        async with listening(talk) as port:
            with pytest.raises(Refused):
                await connect(
                    f"http://127.0.0.1:{port}/a/b?token=secret",
                    headers=[("X-One", "1"), ("X-One", "2"), ("Authorization", "Bearer x")],
                    origin="https://shop.example",
                    subprotocols=["v2", "v1"],
                )
            request, *lines = heads[0].decode().split("\r\n")
            headers = [line.split(": ", 1) for line in lines if line]
            assert request == "GET /a/b?token=secret HTTP/1.1"
            assert [value for name, value in headers if name == "X-One"] == ["1", "2"]
            fields = {name.lower(): value for name, value in headers}
            assert fields["authorization"] == "Bearer x"
            assert fields["origin"] == "https://shop.example"
            assert fields["sec-websocket-protocol"].replace(" ", "") == "v2,v1"
            assert fields["host"] == f"127.0.0.1:{port}"
            assert "sec-websocket-extensions" not in fields, "no compression unless it is asked for"

    run(main())


@pytest.mark.parametrize(
    ("make", "kind", "sentence"),
    [
        (lambda: connect("ftp://x"), BadURL, r"begin it with http://, https://, ws:// or wss://"),
        (lambda: connect("ws://"), BadURL, r"names no host"),
        (lambda: connect("ws://x/#a"), BadURL, r"a # is written %23"),
        (lambda: connect("ws://x:99999"), BadURL, r"ort"),
        (lambda: connect("ws://x", headers={"X Y": "1"}), ValueError, r"is not the name of a header"),
        (lambda: connect("ws://x", headers={"X": "1\r\nY: 2"}), ValueError, r"the value of the header X holds"),
    ],
)
def test_what_cannot_be_asked_is_told_before_anything_is_sent(
    make: Callable[[], Any], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        make()


def test_subprotocol_is_the_servers_choice() -> None:
    def choosing(choice: str) -> Conversation:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            from tests.client.servers import accept_of

            answer = accept_of(await read_head(reader))
            writer.write(answer[:-2] + f"Sec-WebSocket-Protocol: {choice}\r\n\r\n".encode())
            with contextlib.suppress(asyncio.IncompleteReadError):
                writer.write(frame(CLOSE, (await read_close(reader))[0].to_bytes(2, "big")))

        return talk

    async def main() -> None:
        async with (
            listening(choosing("v1")) as port,
            connect(f"ws://127.0.0.1:{port}", subprotocols=["v2", "v1"]) as connection,
        ):
            assert connection.subprotocol == "v1"
        async with listening(choosing("v9")) as port:
            with pytest.raises(NotAWebSocket, match="v9"):
                await connect(f"ws://127.0.0.1:{port}", subprotocols=["v2", "v1"])

    run(main())


@pytest.mark.parametrize("secure", [False, True])
def test_with_and_await_give_the_same(secure: bool) -> None:
    async def main() -> None:
        async with listening(closing(1000, b"bye"), tls=serving(good_certificate()) if secure else None) as port:
            url = f"{'wss' if secure else 'ws'}://127.0.0.1:{port}/a?b=c"
            asked = connect(url, ssl=trusting() if secure else None)
            async with asked as connection:
                assert connection.request.path == "/a?b=c"
                assert connection.remote_address == ("127.0.0.1", port)
                await connection.wait_closed()
            connection = await asked
            await connection.wait_closed()
            assert (connection.close_code, connection.close_reason) == (1000, "bye")

    run(main())


@pytest.mark.parametrize(("error", "code"), [(None, 1000), (LookupError("of the body"), 1011)])
def test_how_the_body_ends_is_what_the_server_hears(error: Exception | None, code: int) -> None:
    async def main() -> None:
        told = asyncio.get_running_loop().create_future()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            told.set_result(await read_close(reader))

        async with listening(opened(talk)) as port:
            with contextlib.nullcontext() if error is None else pytest.raises(LookupError):
                async with connect(f"ws://127.0.0.1:{port}") as connection:
                    if error is not None:
                        raise error
            assert await told == (code, "")
            assert connection.close_code == code

    run(main())


# Cancelled


@pytest.mark.parametrize("secure", [False, True])
def test_cancelled_handshake_leaves_nothing(secure: bool) -> None:
    async def main() -> None:
        came, gone = asyncio.Event(), asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(1)
            came.set()
            with contextlib.suppress(ConnectionError):
                await for_ever(reader, writer)
            gone.set()

        async with listening(talk) as port:
            task = asyncio.ensure_future(open_and_close(f"{'wss' if secure else 'ws'}://127.0.0.1:{port}"))
            await came.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            await gone.wait()

    run(main())


async def open_and_close(url: str, **options: Any) -> None:
    async with connect(url, **options):
        await asyncio.Event().wait()


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("loops", [True, False])
def test_cancelled_body_says_goodbye_in_a_hurry(answers: bool, loops: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C does not wait ten seconds for a server that says nothing."""
    if not answers:
        monkeypatch.setattr("tidewire.client.connect.CLOSE_IN_A_HURRY_S", 0.05)

    async def main() -> None:
        came = asyncio.Event()
        told = asyncio.get_running_loop().create_future()
        gone = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            came.set()
            told.set_result(await read_close(reader))
            if not answers:
                with contextlib.suppress(ConnectionError):
                    await for_ever(reader, writer)
            gone.set()

        async def body(url: str) -> None:
            async for _ in connect(url, close_timeout_s=1000):
                await asyncio.Event().wait()

        async with listening(opened(talk)) as port:
            url = f"ws://127.0.0.1:{port}"
            task = asyncio.create_task(body(url) if loops else open_and_close(url, close_timeout_s=1000))
            await came.wait()
            # the handshake is answered; the client's turn to see it
            for _ in range(20):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            if not loops:
                assert await told == (1001, "")
            elif answers:
                assert (await told)[0] in (1000, 1001)
            await gone.wait()

    run(main())


def test_cancelled_pause_ends_the_loop() -> None:
    class Hours(Noted):
        def failed(self, now_s: float, advice: Advice) -> float:
            super().failed(now_s, advice)
            pausing.set()
            return 3600.0

    pausing = asyncio.Event()

    async def main() -> None:
        task = asyncio.create_task(turns("ws://127.0.0.1:1", Hours()))
        await pausing.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main())


# Again and again


async def turns(url: str, backoff: Backoff, *, most: int = 1000, **options: Any) -> int:
    """How many connections a loop gives before it ends, or ``most``."""
    number = 0
    async for connection in connect(url, backoff=backoff, **options):
        number += 1
        with contextlib.suppress(ConnectionClosedError):
            async for _ in connection:
                pass
        if number == most:
            break
    return number


def test_a_server_that_accepts_and_closes_at_once_is_not_hammered() -> None:
    async def main() -> None:
        backoff = Noted()
        async with listening(closing(1000)) as port:
            assert await turns(f"ws://127.0.0.1:{port}", backoff, most=8) == 8
        assert backoff.delays == jitter(1, 2, 4, 8, 16, 16, 16)

    run(main())


def test_only_a_healthy_while_brings_the_delay_back_down() -> None:
    async def main() -> None:
        backoff = Noted(healthy_after_s=10.0)
        number = 0
        async with listening(closing(1012)) as port:
            async for connection in connect(f"ws://127.0.0.1:{port}", backoff=backoff):
                await connection.wait_closed()
                number += 1
                # the fourth has been well for 9 s, the fifth, as the backoff sees it, for 11 s
                backoff.healthy_s = {3: 9.0, 4: 11.0}.get(number, 0.0)
                if number == 7:
                    break
        assert backoff.delays == jitter(1, 2, 4, 8, 1, 2)

    run(main())


COMES_BACK = {
    1000: "the connection was closed (1000)",
    1001: "the server is going away (1001)",
    None: "the line was cut (1006)",
    1011: "the server had an internal error (1011)",
    1012: "the server is restarting (1012)",
    1013: "the server is overloaded (1013)",
    4001: "messages were lost on the way (4001)",
}


@pytest.mark.parametrize("code", COMES_BACK)
def test_endings_after_which_it_comes_back(code: int | None) -> None:
    async def main() -> None:
        backoff = Noted()
        async with listening(InTurn(closing(code), closing(1000))) as port:
            assert await turns(f"ws://127.0.0.1:{port}", backoff, most=2) == 2
        assert backoff.advice == [Advice(ComeBack.FAST, COMES_BACK[code])]

    run(main())


@pytest.mark.parametrize(
    ("code", "reason", "sentence"),
    [
        (1008, b"", "refused with close code 1008: the server's policy does not allow it (1008)"),
        (1008, b"your token has expired", "refused with close code 1008: your token has expired"),
        (1003, b"", "refused with close code 1003: the server takes no such messages (1003)"),
        (3500, b"no such user", "refused with close code 3500: no such user"),
    ],
)
def test_endings_that_would_be_the_same_again(code: int, reason: bytes, sentence: str) -> None:
    async def main() -> None:
        backoff = Noted()
        talk = InTurn(closing(1012), closing(code, reason))
        async with listening(talk) as port:
            url = f"ws://127.0.0.1:{port}/a"
            with pytest.raises(Refused) as caught:
                await turns(f"{url}?token=secret", backoff)
            assert str(caught.value) == f"{url} {sentence}"
            assert (caught.value.code, caught.value.status) == (code, None)
        assert (talk.calls, len(backoff.delays)) == (2, 1)

    run(main())


@pytest.mark.parametrize("status", [401, 403, 404])
def test_refusals_that_would_be_the_same_again(status: int) -> None:
    async def main() -> None:
        talk = InTurn(closing(1012), saying(http(f"{status} No")))
        async with listening(talk) as port:
            with pytest.raises(Refused) as caught:
                await turns(f"ws://127.0.0.1:{port}", Noted())
            assert caught.value.status == status
        assert talk.calls == 2

    run(main())


def test_what_is_no_websocket_ends_the_loop() -> None:
    async def main() -> None:
        async with listening(saying(http("200 OK"))) as port:
            with pytest.raises(NotAWebSocket):
                await turns(f"ws://127.0.0.1:{port}", Noted())

    run(main())


def test_too_many_requests_waits_as_long_as_it_is_told() -> None:
    async def main() -> None:
        backoff = Noted()
        later = saying(http("429 Too Many Requests", "Retry-After: 120"))
        whenever = saying(http("429 Too Many Requests"))
        async with listening(InTurn(later, whenever, closing(1000))) as port:
            assert await turns(f"ws://127.0.0.1:{port}", backoff, most=1) == 1
        assert [advice.come_back for advice in backoff.advice] == [ComeBack.SLOW] * 2
        assert 120 <= backoff.delays[0] <= 121, "at least, and not all at the same moment"
        assert 8 <= backoff.delays[1] <= 16, "not told when: at least half of the longest pause"

    run(main())


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_server_that_is_not_ready_is_asked_again(status: int) -> None:
    async def main() -> None:
        backoff = Noted()
        not_yet = saying(http(f"{status} Later"))
        async with listening(InTurn(not_yet, not_yet, closing(1000))) as port:
            assert await turns(f"ws://127.0.0.1:{port}", backoff, most=1) == 1
        assert backoff.delays == jitter(1, 2)

    run(main())


def test_nothing_listening_is_asked_again() -> None:
    class Waits(Noted):
        def failed(self, now_s: float, advice: Advice) -> float:
            if len(self.delays) == 2:
                starting.set()
            return super().failed(now_s, advice)

    starting = asyncio.Event()

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        backoff = Waits()
        loop = asyncio.create_task(turns(f"ws://127.0.0.1:{port}", backoff, most=1))
        await starting.wait()
        async with listening(closing(1000), port):
            assert await loop == 1
        assert len(backoff.delays) >= 3
        assert set(backoff.advice) == {Advice(ComeBack.FAST, "nothing listens there")}

    run(main())


def test_no_answer_to_the_handshake_is_asked_again_slowly() -> None:
    async def main() -> None:
        backoff = Noted()
        async with listening(InTurn(for_ever, closing(1000))) as port:
            assert await turns(f"ws://127.0.0.1:{port}", backoff, most=1, open_timeout_s=0.05) == 1
        assert [advice.come_back for advice in backoff.advice] == [ComeBack.SLOW]

    run(main())


def test_a_message_over_the_limit_would_come_again() -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(TEXT, bytes(101)))
            await read_close(reader)

        async with listening(opened(talk)) as port:
            with pytest.raises(ClientError) as caught:
                await turns(f"ws://127.0.0.1:{port}/a", Noted(), max_size=100)
            assert str(caught.value) == (
                f"the connection to ws://127.0.0.1:{port}/a ended: a message is too large: raise max_size to take it "
                "(frame with 101 bytes exceeds limit of 100 bytes)"
            )

    run(main())


def test_a_peer_that_is_gone_is_asked_again() -> None:
    async def main() -> None:
        backoff = Noted()
        async with listening(InTurn(opened(for_ever), closing(1000))) as port:
            options = {"ping_interval_s": 0.02, "ping_timeout_s": 0.02}
            assert await turns(f"ws://127.0.0.1:{port}", backoff, most=2, **options) == 2
        assert backoff.advice == [Advice(ComeBack.FAST, "the server answers no pings")]

    run(main())


def test_closing_it_in_a_turn_ends_the_turn_only() -> None:
    """Also with a code that would mean "do not come back" if the server had said it."""

    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            code, reason = await read_close(reader)
            writer.write(frame(CLOSE, code.to_bytes(2, "big") + reason.encode()))

        backoff, codes = Noted(), [1008, 1000, 4500]
        async with listening(opened(talk)) as port:
            left = iter(codes)
            async for connection in connect(f"ws://127.0.0.1:{port}", backoff=backoff):
                await connection.close(next(left))
                if backoff.attempt == 2:
                    break
        assert backoff.advice == [Advice(ComeBack.FAST, "it was closed here")] * 2

    run(main())


def test_a_turn_that_is_left_open_is_closed() -> None:
    async def main() -> None:
        codes: asyncio.Queue[int] = asyncio.Queue()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            codes.put_nowait((await read_close(reader))[0])

        async with listening(opened(talk)) as port:
            connections = []
            async for connection in connect(f"ws://127.0.0.1:{port}", backoff=Noted()):
                connections.append(connection)
                if len(connections) == 3:
                    break
            assert [await codes.get() for _ in range(3)] == [1000] * 3
            for connection in connections:
                await connection.wait_closed()

    run(main())


def test_an_error_in_the_body_leaves_the_loop_and_closes() -> None:
    async def main() -> None:
        told = asyncio.get_running_loop().create_future()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            told.set_result(await read_close(reader))

        async def body(url: str) -> None:
            async for _ in connect(url, backoff=Noted()):
                raise LookupError("of the body")

        async with listening(opened(talk)) as port:
            with pytest.raises(LookupError, match="of the body"):
                await body(f"ws://127.0.0.1:{port}")
            assert (await told)[0] == 1000

    run(main())


def test_closed_raised_by_the_body_leaves_the_loop() -> None:
    async def main() -> None:
        async def body(url: str) -> None:
            async for connection in connect(url, backoff=Noted()):
                await connection.recv()

        async with listening(closing(1012)) as port:
            with pytest.raises(ConnectionClosedError, match="received 1012"):
                await body(f"ws://127.0.0.1:{port}")

    run(main())


@pytest.mark.parametrize("code", [1000, 1011, 1012, None])
def test_a_loop_in_the_loop_ends_quietly_however_the_connection_ended(code: int | None) -> None:
    async def main() -> None:
        async with listening(closing(code)) as port:
            number = 0
            async for connection in connect(f"ws://127.0.0.1:{port}", backoff=Noted()):
                assert [message async for message in connection] == []
                number += 1
                if number == 3:
                    break

    run(main())


def test_every_turn_is_a_new_connection() -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            _, _, payload = await read_frame(reader)
            writer.write(frame(TEXT, payload) + frame(CLOSE, b"\x03\xf4"))
            await read_close(reader)

        async with listening(opened(talk)) as port:
            got = []
            async for connection in connect(f"ws://127.0.0.1:{port}", backoff=Noted()):
                await connection.send(f"turn {len(got)}")
                got.append(await connection.recv())
                with pytest.raises(ConnectionClosedError):
                    await connection.recv()
                if len(got) == 5:
                    break
            assert got == [f"turn {number}" for number in range(5)]

    run(main())


# A policy of one's own


def test_a_policy_is_asked_about_every_ending() -> None:
    asked: list[Ending] = []

    def policy(ending: Ending) -> Advice:
        asked.append(ending)
        if len(asked) == 4:
            return Advice(ComeBack.END, "enough")
        return Advice(ComeBack.FAST, "whatever it says")

    async def main() -> None:
        backoff = Noted()
        endings = (closing(1008, b"go away"), saying(http("403 Forbidden")), closing(None), closing(1000))
        async with listening(InTurn(*endings)) as port:
            assert await turns(f"ws://127.0.0.1:{port}", backoff, policy=policy) == 3
        assert [(one.code, one.reason, one.status) for one in asked] == [
            (1008, "go away", None),
            (None, "", 403),
            (1006, "", None),
            (1000, "", None),
        ]
        assert [one.advice.come_back for one in asked] == [ComeBack.STOP, ComeBack.STOP, ComeBack.FAST, ComeBack.FAST]
        assert [type(one.error).__name__ for one in asked] == ["Refused", "Refused", "Disconnected", "Disconnected"]
        assert backoff.delays == jitter(1, 2, 4)

    run(main())


@pytest.mark.parametrize(("url", "kind"), [("ws://127.0.0.1:1", NothingListens), (None, ClientError)])
def test_a_policy_may_stop_what_would_come_back(url: str | None, kind: type[ClientError]) -> None:
    async def main() -> None:
        async with listening(closing(1012)) as port:
            with pytest.raises(kind) as caught:
                await turns(
                    url or f"ws://127.0.0.1:{port}", Noted(), policy=lambda ending: Advice(ComeBack.STOP, "no more")
                )
            if url is None:
                assert str(caught.value).endswith("ended: the server is restarting (1012)")

    run(main())
