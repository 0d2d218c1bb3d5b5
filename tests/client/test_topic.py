"""subscribe(): what it yields, how it comes back, and how it lets go. Against scripted servers on loopback."""

import asyncio
import errno
import gc
import random
from collections.abc import Callable
from contextlib import aclosing

import pytest
from websockets.asyncio.server import ServerConnection

from tests.client.fakes import FakeTCP, FakeTopic, Says, Script, States, at, quick, run
from tidewire.client import dial, link
from tidewire.client.errors import BadURL, Disconnected, NoAnswer, NotATopic, NothingListens, Refused, TopicFailed
from tidewire.client.reconnect import Backoff
from tidewire.client.resume import Gap, Received
from tidewire.client.topic import State, subscribe
from tidewire.protocol.message import Kind


async def three_and_the_end(socket: ServerConnection) -> None:
    says = Says(socket)
    await says.header(0)
    for offset in (1, 2, 3):
        await says.message(offset)
    await says.end(3)
    await socket.wait_closed()


async def header_and_silence(socket: ServerConnection) -> None:
    await Says(socket).header(0)
    await socket.wait_closed()


def closes(code: int, reason: str = "") -> Script:
    async def script(socket: ServerConnection) -> None:
        await socket.close(code, reason)

    return script


def header_then_close(code: int) -> Script:
    async def script(socket: ServerConnection) -> None:
        await Says(socket).header(0)
        await socket.close(code)

    return script


async def message_then_cut(socket: ServerConnection) -> None:
    says = Says(socket)
    await says.header(4)
    await says.message(5)
    says.cut()


# What it yields


def test_yields_every_kind_and_ends_with_the_topic() -> None:
    async def script(socket: ServerConnection) -> None:
        says = Says(socket)
        await says.header(0)
        await says.message(1, b'{"a":[1]}')
        await says.message(2, "grüße".encode(), Kind.TEXT)
        await says.message(3, b"\x00\xff", Kind.BYTES)
        await says.message(4, b"7", key="k")
        await says.message(5, b"", key="k", removed=True)
        await says.message(6, b"8", snapshot=True)
        await says.end(6)
        await socket.wait_closed()

    async def main() -> None:
        states = States()
        async with FakeTopic(script) as server:
            got = [message async for message in subscribe(server.url, on_state=states.append)]
        assert got == [
            Received({"a": [1]}, at(1)),
            Received("grüße", at(2), kind="text"),
            Received(b"\x00\xff", at(3), kind="bytes"),
            Received(7, at(4), key="k"),
            Received(None, at(5), key="k", removed=True),
            Received(8, at(6), snapshot=True),
        ]
        assert server.asked == ["positions=1"]
        assert states.names == ["connecting", "live", "ended"]

    run(main())


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_both_schemes(scheme: str) -> None:
    async def main() -> list[object]:
        async with FakeTopic(three_and_the_end) as server:
            return [m.data async for m in subscribe(server.url.replace("http", scheme))]

    assert run(main()) == [1, 2, 3]


def test_asks_for_what_it_was_told() -> None:
    async def main() -> None:
        async with FakeTopic(three_and_the_end) as server:
            async with subscribe(
                server.url + "?token=x",
                since=at(2),
                max_per_s=2,
                headers={"Authorization": "Bearer y"},
                origin="http://127.0.0.1:1",
            ) as messages:
                assert messages.position == at(0), "where the server says that this connection begins"
            request = server.requests[0]
            assert server.asked == [f"token=x&positions=1&since={at(2)}&max_per_s=2"]
            assert request.headers["Authorization"] == "Bearer y"
            assert request.headers["Origin"] == "http://127.0.0.1:1"
            assert "Sec-WebSocket-Extensions" not in request.headers

    run(main())


def test_since_in_the_url_counts() -> None:
    async def main() -> None:
        async with FakeTopic(three_and_the_end) as server:
            await subscribe(server.url + "?since=-1").next()
            assert server.asked == ["positions=1&since=-1"]

    run(main())


def test_entering_connects_so_that_nothing_published_next_is_missed() -> None:
    async def main() -> None:
        async with FakeTopic(header_and_silence) as server, subscribe(server.url) as messages:
            assert len(server.requests) == 1
            assert messages.state == State("live")

    run(main())


def test_topic_that_failed_raises_once() -> None:
    async def script(socket: ServerConnection) -> None:
        await Says(socket).header(0)
        await Says(socket).end(0, "model crashed")
        await socket.wait_closed()

    async def main() -> None:
        async with FakeTopic(script) as server:
            messages = subscribe(server.url)
            with pytest.raises(TopicFailed, match="model crashed") as caught:
                await messages.next()
            assert caught.value.position == at(0)
            assert [m async for m in messages] == []
            assert len(server.requests) == 1

    run(main())


def test_failure_is_told_even_when_its_reader_was_interrupted() -> None:
    done = asyncio.Event()

    async def script(socket: ServerConnection) -> None:
        await Says(socket).header(0)
        await Says(socket).end(0, "model crashed")
        socket.transport.pause_reading()  # our goodbye is not answered, so closing takes its full second
        await done.wait()
        socket.transport.abort()

    async def main() -> None:
        states = States()
        async with FakeTopic(script) as server:
            messages = subscribe(server.url, on_state=states.append)
            task = asyncio.create_task(messages.next())
            while states.names[-1:] != ["ended"]:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(TopicFailed):
                await messages.next()
            done.set()

    run(main())


def test_close_1000_is_the_end_even_without_a_word() -> None:
    async def main() -> None:
        async with FakeTopic(header_then_close(1000)) as server:
            assert [m async for m in subscribe(server.url)] == []

    run(main())


def test_loss_before_the_end_is_in_the_last_state() -> None:
    async def script(socket: ServerConnection) -> None:
        says = Says(socket)
        await says.header(0)
        await says.gap(at(0), 5)
        await says.end(5)
        await socket.wait_closed()

    async def main() -> None:
        states = States()
        async with FakeTopic(script) as server:
            assert [m async for m in subscribe(server.url, on_state=states.append)] == []
        assert states[-1] == State("ended", "the topic has ended", lost=Gap(at(0), at(5)))

    run(main())


# Coming back


def test_cut_line_resumes_and_says_what_was_recovered() -> None:
    async def again(socket: ServerConnection) -> None:
        says = Says(socket)
        await says.header(5, True, 2)
        await says.message(6)
        await says.message(7)
        await says.end(7)
        await socket.wait_closed()

    async def main() -> None:
        states = States()
        async with FakeTopic(message_then_cut, again) as server:
            messages = subscribe(server.url, on_state=states.append, backoff=quick())
            got = [(m.data, m.gap) async for m in messages]
        assert got == [(5, None), (6, None), (7, None)]
        assert server.asked == ["positions=1", f"positions=1&since={at(5)}"]
        assert states.names == ["connecting", "live", "reconnecting", "live", "ended"]
        assert states[2].attempt == 1
        assert states[2].retry_in_s is not None
        assert states[3] == State("live", recovered=2)

    run(main())


def test_server_gone_and_restarted_without_its_history() -> None:
    async def after(socket: ServerConnection) -> None:
        says = Says(socket, "a2")
        await says.header(0, False, 1)
        await says.gap(at(5), 0)
        await says.message(1)
        await socket.wait_closed()

    async def main() -> None:
        states = States()
        async with FakeTopic(message_then_cut) as server:
            messages = subscribe(server.url, on_state=states.append, backoff=quick())
            assert (await messages.next()).data == 5
        while states[-1].attempt <= 3:
            with pytest.raises(TimeoutError):
                await messages.next(timeout_s=0.02)
        assert states[-1].name == "reconnecting"
        assert states[-1].reason == "nothing listens there"
        async with FakeTopic(after, port=server.port), messages:
            message = await messages.next()
            assert (message.data, message.position, message.gap) == (1, at(1, "a2"), Gap(at(5), at(0, "a2")))
            assert messages.state == State("live", lost=Gap(at(5), at(0, "a2")))

    run(main())


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 3008, 4001])
def test_codes_that_say_come_back(code: int) -> None:
    async def main() -> None:
        async with FakeTopic(header_then_close(code), three_and_the_end) as server:
            messages = subscribe(server.url, backoff=quick())
            assert [m.data async for m in messages] == [1, 2, 3]
            assert len(server.requests) == 2

    run(main())


@pytest.mark.parametrize("code", [1003, 1008, 1009, 3500, 4500])
def test_codes_that_say_stop(code: int) -> None:
    async def main() -> None:
        async with FakeTopic(closes(code, "not you")) as server:
            with pytest.raises(Refused, match="not you") as caught:
                await subscribe(server.url, wait=True, backoff=quick()).next()
            assert caught.value.code == code
            assert len(server.requests) == 1

    run(main())


def test_accept_and_close_at_once_is_not_hammered() -> None:
    class Highest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    async def main() -> None:
        states = States()
        backoff = Backoff(initial_s=0.001, maximum_s=0.008, rng=Highest())
        async with FakeTopic(*[header_then_close(1012)] * 6, three_and_the_end) as server:
            messages = subscribe(server.url, on_state=states.append, backoff=backoff)
            assert [m.data async for m in messages] == [1, 2, 3]
        delays = [state.retry_in_s for state in states if state.name == "reconnecting"]
        assert delays == [0.001, 0.002, 0.004, 0.008, 0.008, 0.008]

    run(main())


def test_healthy_connection_makes_the_next_delay_short_again() -> None:
    class Highest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    async def main() -> None:
        states = States()
        backoff = Backoff(initial_s=0.001, maximum_s=1, healthy_after_s=0, rng=Highest())
        async with FakeTopic(*[header_then_close(1012)] * 4, three_and_the_end) as server:
            messages = subscribe(server.url, on_state=states.append, backoff=backoff)
            assert [m.data async for m in messages] == [1, 2, 3]
        assert [s.retry_in_s for s in states if s.name == "reconnecting"] == [0.001] * 4

    run(main())


def test_refusals_while_the_server_comes_up_are_outlived() -> None:
    async def main() -> None:
        states = States()
        async with FakeTopic(
            header_then_close(1012), 503, 429, 502, three_and_the_end, headers={"Retry-After": "0"}
        ) as server:
            messages = subscribe(server.url, on_state=states.append, backoff=quick())
            assert [m.data async for m in messages] == [1, 2, 3]
        assert [s.reason for s in states if s.name == "reconnecting"] == [
            "the server is restarting (1012)",
            "the server is not ready (503)",
            "too many requests (429)",
            "the server is not ready (502)",
        ]

    run(main())


def test_topic_that_is_gone_after_a_restart_raises() -> None:
    async def main() -> None:
        async with FakeTopic(header_then_close(1012), 404) as server:
            messages = subscribe(server.url, backoff=quick())
            with pytest.raises(Refused, match="404: says the server"):
                await messages.next()
            assert messages.state.name == "ended"
            assert [m async for m in messages] == []

    run(main())


def test_without_retry_a_cut_raises() -> None:
    async def main() -> None:
        async with FakeTopic(message_then_cut) as server:
            messages = subscribe(server.url, retry=False)
            assert (await messages.next()).data == 5
            with pytest.raises(Disconnected, match="the line was cut") as caught:
                await messages.next()
            assert caught.value.code == 1006
            assert len(server.requests) == 1

    run(main())


def test_unnumbered_topic_says_that_something_may_be_missing() -> None:
    async def script(socket: ServerConnection) -> None:
        await Says(socket).header(None)
        await socket.send('{"position":null,"data":1}')
        await socket.close(1012)

    async def main() -> None:
        async with FakeTopic(script) as server, subscribe(server.url, backoff=quick()) as messages:
            assert await messages.next() == Received(1)
            assert await messages.next() == Received(1, gap=Gap(None, None))
            assert server.asked == ["positions=1", "positions=1"]

    run(main())


# The first connection


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 421, 426, 429, 500, 503])
def test_first_refusal_raises_with_the_server_s_sentence(status: int) -> None:
    async def main() -> None:
        async with FakeTopic(status, headers={"Retry-After": "7"} if status == 429 else None) as server:
            with pytest.raises(Refused, match="says the server") as caught:
                await subscribe(server.url).next()
            assert caught.value.status == status
            assert caught.value.retry_after_s == (7 if status == 429 else None)
            assert len(server.requests) == 1

    run(main())


def test_waiting_outlives_a_server_that_is_not_ready() -> None:
    async def main() -> None:
        async with FakeTopic(503, closes(1013), three_and_the_end) as server:
            messages = subscribe(server.url, wait=True, backoff=quick())
            assert [m.data async for m in messages] == [1, 2, 3]

    run(main())


def test_waiting_does_not_outlive_a_refusal() -> None:
    async def main() -> None:
        async with FakeTopic(403) as server:
            with pytest.raises(Refused):
                await subscribe(server.url, wait=True, backoff=quick()).next()

    run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_nothing_listens(host: str) -> None:
    async def main() -> None:
        async with FakeTopic(three_and_the_end) as server:
            pass
        with pytest.raises(NothingListens) as caught:
            await subscribe(f"http://{host}:{server.port}/t").next()
        assert str(caught.value) == f"nothing listens at http://{host}:{server.port}/t: start the server first"

    run(main())


def test_refusal_at_every_address_of_a_name() -> None:
    joined = (
        f"Multiple exceptions: [Errno {errno.ECONNREFUSED}] ('::1', 1), [Errno {errno.ECONNREFUSED}] ('127.0.0.1', 1)"
    )
    assert dial.is_refused(OSError(joined))
    assert dial.is_refused(ConnectionRefusedError())
    assert not dial.is_refused(OSError(errno.ENETUNREACH, "Network is unreachable"))


def test_waiting_for_a_server_that_is_not_there_yet() -> None:
    async def main() -> None:
        async with FakeTopic(three_and_the_end) as server:
            pass
        messages = subscribe(server.url, wait=True, backoff=quick())
        with pytest.raises(TimeoutError):
            await messages.next(timeout_s=0.02)
        async with FakeTopic(three_and_the_end, port=server.port):
            assert [m.data async for m in messages] == [1, 2, 3]

    run(main())


def test_no_such_host() -> None:
    async def main() -> None:
        with pytest.raises(NothingListens, match="cannot reach"):
            await subscribe("http://no-such-host.invalid/t").next()

    run(main())


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()


def answers(text: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], asyncio.Future[None]]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        writer.close()

    return talk  # type: ignore[return-value]


def test_server_that_never_answers() -> None:
    async def main() -> None:
        async with FakeTCP(silence) as server:
            with pytest.raises(NoAnswer, match=r"handshake within 0\.05 s"):
                await subscribe(server.url, open_timeout_s=0.05).next()

    run(main())


def test_websocket_that_says_nothing() -> None:
    async def script(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async def main() -> None:
        async with FakeTopic(script) as server:
            with pytest.raises(NoAnswer, match=r"nothing was said within 0\.4 s"):
                await subscribe(server.url, open_timeout_s=0.4).next()

    run(main())


def test_server_that_hangs_up_is_asked_again_when_waiting() -> None:
    async def main() -> None:
        async with FakeTCP(hang_up) as server:
            with pytest.raises(NoAnswer, match="cut during the handshake"):
                await subscribe(server.url).next()
            messages = subscribe(server.url, wait=True, backoff=quick())
            while server.count <= 3:
                with pytest.raises(TimeoutError):
                    await messages.next(timeout_s=0.05)

    run(main())


def test_websocket_closed_without_a_word() -> None:
    async def main() -> None:
        async with FakeTopic(closes(1000)) as server:
            with pytest.raises(NoAnswer, match="without a word"):
                await subscribe(server.url).next()

    run(main())


@pytest.mark.parametrize(
    "text",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
        b"\x00\xff" * 5000,
    ],
    ids=["ssh", "plain http", "half an upgrade", "no content", "endless headers", "noise"],
)
def test_something_else_listens(text: bytes) -> None:
    async def main() -> None:
        async with FakeTCP(answers(text)) as server:
            with pytest.raises(NotATopic) as caught:
                await subscribe(server.url, wait=True, backoff=quick()).next()
            assert server.count == 1
            assert len(str(caught.value)) < 700

    run(main())


# Nonsense on a live socket


@pytest.mark.parametrize("first", ["tick", b"\x00", '{"price":1}', '{"position":"a:1","data":1}'])
def test_first_frame_that_is_no_header(first: str | bytes) -> None:
    async def script(socket: ServerConnection) -> None:
        await socket.send(first)
        await socket.wait_closed()

    async def main() -> None:
        async with FakeTopic(script) as server:
            with pytest.raises(NotATopic):
                await subscribe(server.url).next()

    run(main())


@pytest.mark.parametrize("frame", ["tick", b"\x00", '{"position":"x"}'])
def test_nonsense_in_mid_stream_raises_and_closes(frame: str | bytes) -> None:
    gone = asyncio.Event()

    async def script(socket: ServerConnection) -> None:
        await Says(socket).header(0)
        await socket.send(frame)
        await socket.wait_closed()
        gone.set()

    async def main() -> None:
        async with FakeTopic(script) as server:
            with pytest.raises(NotATopic):
                await subscribe(server.url, backoff=quick()).next()
            await gone.wait()

    run(main())


def test_text_frame_that_is_not_utf8() -> None:
    async def script(socket: ServerConnection) -> None:
        await Says(socket).header(0)
        socket.transport.write(b"\x81\x02\xff\xff")
        await socket.wait_closed()

    async def main() -> None:
        async with FakeTopic(script) as server:
            with pytest.raises(NotATopic, match="broke the WebSocket protocol"):
                await subscribe(server.url).next()

    run(main())


def test_message_over_the_limit_is_not_fetched_for_ever() -> None:
    async def script(socket: ServerConnection) -> None:
        await Says(socket).header(0)
        await Says(socket).message(1, b"1" * 2000)
        await socket.wait_closed()

    async def main() -> None:
        async with FakeTopic(script) as server:
            with pytest.raises(Disconnected, match="max_size_bytes") as caught:
                await subscribe(server.url, max_size_bytes=1000, backoff=quick()).next()
            assert caught.value.code == 1009
            assert len(server.requests) == 1

    run(main())


def test_dead_peer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PING_S", 0.03)
    monkeypatch.setattr(link, "CLOSE_S", 0.03)
    done = asyncio.Event()

    async def dead(socket: ServerConnection) -> None:
        await Says(socket).header(0)
        socket.transport.pause_reading()  # no pong will ever come
        await done.wait()
        socket.transport.abort()

    async def main() -> None:
        states = States()
        async with FakeTopic(dead, three_and_the_end) as server:
            messages = subscribe(server.url, on_state=states.append, backoff=quick())
            assert (await messages.next()).data == 1
            await messages.aclose()
            done.set()
        assert states[2].reason == "the peer does not answer pings"

    run(main())


def test_slow_consumer_holds_the_server_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "CLOSE_S", 0.03)
    sent = 0

    async def flood(socket: ServerConnection) -> None:
        nonlocal sent
        await Says(socket).header(0)
        payload = b'"' + b"x" * 65536 + b'"'
        for offset in range(1, 2000):
            await Says(socket).message(offset, payload)
            sent = offset

    async def main() -> None:
        async with FakeTopic(flood) as server, subscribe(server.url) as messages:
            await messages.next()
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.05)
            assert sent < 500, "the rest must wait at the server, not here"
            for expected in range(2, 40):
                assert (await messages.next()).position == at(expected)

    run(main())


def test_proxy_settings_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "gopher://127.0.0.1:1")
    monkeypatch.setenv("ws_proxy", "gopher://127.0.0.1:1")
    with pytest.raises(NothingListens, match="proxy"):
        run(subscribe("http://192.0.2.1/t").next())


def test_loopback_never_goes_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ws_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)

    async def main() -> list[object]:
        async with FakeTopic(three_and_the_end) as server:
            return [m.data async for m in subscribe(server.url)]

    assert run(main()) == [1, 2, 3]


# Letting go


def test_cancelling_closes_the_socket_and_a_later_read_resumes() -> None:
    gone = asyncio.Event()

    async def script(socket: ServerConnection) -> None:
        await Says(socket).header(0)
        await Says(socket).message(1)
        await socket.wait_closed()
        gone.set()

    async def main() -> None:
        async with FakeTopic(script, three_and_the_end) as server:
            messages = subscribe(server.url)
            await messages.next()
            task = asyncio.create_task(messages.next())
            await asyncio.sleep(0)
            task.cancel()
            await gone.wait()
            with pytest.raises(asyncio.CancelledError):
                await task
            await messages.next()
            assert server.asked[1] == f"positions=1&since={at(1)}"
            await messages.aclose()

    run(main())


def test_timeout_leaves_the_connection_open() -> None:
    go = asyncio.Event()

    async def script(socket: ServerConnection) -> None:
        await Says(socket).header(0)
        await go.wait()
        await Says(socket).message(1)
        await socket.wait_closed()

    async def main() -> None:
        async with FakeTopic(script) as server, subscribe(server.url) as messages:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await messages.next(timeout_s=0.01)
            go.set()
            assert (await messages.next(timeout_s=5)).data == 1
            assert len(server.requests) == 1

    run(main())


def test_break_lets_go_of_the_socket() -> None:
    gone = asyncio.Event()

    async def script(socket: ServerConnection) -> None:
        await Says(socket).header(0)
        await Says(socket).message(1)
        await socket.wait_closed()
        gone.set()

    async def main() -> None:
        async with FakeTopic(script) as server:
            async for _ in subscribe(server.url):
                break
            gc.collect()
            await gone.wait()

    run(main())


def test_aclose_ends_a_reader_in_another_task() -> None:
    async def main() -> None:
        async with FakeTopic(header_and_silence) as server:
            messages = subscribe(server.url)
            await messages.__aenter__()
            task = asyncio.create_task(anext(messages, "ended"))
            await asyncio.sleep(0)
            await messages.aclose()
            assert await task == "ended"
            await messages.aclose()
            assert [m async for m in messages] == []

    run(main())


def test_aclose_ends_a_wait_between_two_attempts() -> None:
    async def main() -> None:
        states = States()
        async with FakeTopic(header_then_close(1012)) as server:
            backoff = Backoff(initial_s=600, maximum_s=600, rng=random.Random(3))
            messages = subscribe(server.url, on_state=states.append, backoff=backoff)
            task = asyncio.create_task(anext(messages, "ended"))
            while states.names[-1:] != ["reconnecting"]:
                await asyncio.sleep(0.001)
            await messages.aclose()
            assert await task == "ended"

    run(main())


def test_closing_does_not_wait_behind_what_is_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "CLOSE_S", 600)

    async def script(socket: ServerConnection) -> None:
        await Says(socket).header(0)
        for offset in range(1, 100):
            await Says(socket).message(offset)
        await socket.wait_closed()

    async def main() -> None:
        async with FakeTopic(script) as server, subscribe(server.url) as messages:
            await messages.next()

    run(main())


def test_two_readers_are_told() -> None:
    async def main() -> None:
        async with FakeTopic(header_and_silence) as server, subscribe(server.url) as messages:
            task = asyncio.create_task(anext(messages, "ended"))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="another task"):
                await messages.next()
            await messages.aclose()
            await task

    run(main())


def test_works_with_aclosing() -> None:
    async def main() -> list[object]:
        async with FakeTopic(three_and_the_end) as server, aclosing(subscribe(server.url)) as messages:
            return [m.data async for m in messages]

    assert run(main()) == [1, 2, 3]


def test_entering_raises_what_iterating_would() -> None:
    async def main() -> None:
        async with FakeTopic(403) as server:
            with pytest.raises(Refused):
                async with subscribe(server.url):
                    pytest.fail("not reached")

    run(main())


def test_bad_arguments_are_told_at_once() -> None:
    with pytest.raises(BadURL):
        subscribe("chat/7")
    with pytest.raises(ValueError, match="header"):
        subscribe("http://h/t", headers={"A": "x\ny"})
    for rate in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="max_per_s"):
            subscribe("http://h/t", max_per_s=rate)
