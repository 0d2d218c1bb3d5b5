"""A client's connection on real sockets: sending, receiving, pings, closing, and what cancelling leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets

import tidewire
from tests.client.servers import for_ever, frame, listening, opened, read_close, read_frame, run
from tidewire import Close, Connection, ConnectionClosedError, ConnectionClosedOK, connect

MIB = 1024 * 1024
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


@asynccontextmanager
async def talking(talk: Callable[..., Any], **options: Any) -> AsyncIterator[Connection]:
    """A connection to a bare server that goes on with ``talk`` after the handshake."""
    async with listening(opened(talk)) as port, connect(f"ws://127.0.0.1:{port}", **options) as connection:
        yield connection


async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Every frame as it came; ends with the goodbye."""
    opcode = 0
    while opcode != CLOSE:
        opcode, fin, payload = await read_frame(reader)
        writer.write(frame(PONG if opcode == PING else opcode, payload, fin=fin))
        await writer.drain()


def saying_frames(*frames: bytes) -> Callable[..., Any]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(frames))
        code, _ = await read_close(reader)
        writer.write(frame(CLOSE, code.to_bytes(2, "big")))

    return talk


# Sending


def test_text_stays_text_and_bytes_stay_bytes() -> None:
    async def main() -> None:
        things = ["", "grüße 🌊", b"", b"\x00\xff", "x" * 125, "x" * 126, b"x" * 65535, b"x" * 65536, b"x" * MIB]
        async with talking(mirror) as connection:
            for thing in things:
                await connection.send(thing)
                assert await connection.recv() == thing
            await connection.send(bytearray(b"abc"))
            await connection.send(memoryview(b"abcd")[1:])
            assert [await connection.recv() for _ in range(2)] == [b"abc", b"bcd"]

    run(main())


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("pieces", [["a", "ü", "", "c"], [b"a", bytearray(b"b"), memoryview(b"c")], ["one"]])
def test_an_iterable_is_one_message_a_fragment_for_each_piece(is_async: bool, pieces: list[Any]) -> None:
    async def later() -> AsyncIterator[Any]:
        for piece in pieces:
            await asyncio.sleep(0)
            yield piece

    async def main() -> None:
        frames: asyncio.Queue[tuple[int, bool, bytes]] = asyncio.Queue()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                frames.put_nowait(await read_frame(reader))

        async with talking(talk, close_timeout_s=0.01) as connection:
            await connection.send(later() if is_async else (piece for piece in pieces))
            raw = [piece.encode() if isinstance(piece, str) else bytes(piece) for piece in pieces]
            got = [await frames.get() for _ in range(len(raw) + 1)]
            first = TEXT if isinstance(pieces[0], str) else BINARY
            expected = [(first if at == 0 else CONTINUATION, False, payload) for at, payload in enumerate(raw)]
            assert got == [*expected, (CONTINUATION, True, b"")]

    run(main())


def test_no_pieces_are_no_message() -> None:
    async def nothing() -> AsyncIterator[str]:
        return
        yield ""

    async def main() -> None:
        async with talking(mirror) as connection:
            await connection.send([])
            await connection.send(nothing())
            await connection.send("after")
            assert await connection.recv() == "after"

    run(main())


@pytest.mark.parametrize(
    ("thing", "sentence"),
    [
        (7, "send takes str, bytes or an iterable of either, not int: for values use send_json"),
        ({"a": 1}, "send takes str, bytes or an iterable of either, not dict: for values use send_json"),
        ([1], "an iterable for send gives str or bytes, not int"),
    ],
)
def test_what_is_no_message_does_no_harm(thing: Any, sentence: str) -> None:
    async def main() -> None:
        async with talking(mirror) as connection:
            with pytest.raises(TypeError) as caught:
                await connection.send(thing)
            assert str(caught.value) == sentence
            with pytest.raises(UnicodeEncodeError):
                await connection.send("half a character: \ud800")
            with pytest.raises(UnicodeEncodeError):
                await connection.send(["half a character: \ud800"])
            await connection.send("after")
            assert await connection.recv() == "after"

    run(main())


def failing() -> Iterator[str]:
    yield "a"
    raise LookupError("no more")


@pytest.mark.parametrize(
    ("pieces", "kind"), [(["a", b"b"], TypeError), (failing(), LookupError), (["a", "\udc00"], UnicodeEncodeError)]
)
def test_pieces_that_fail_half_way_end_the_connection(pieces: Any, kind: type[Exception]) -> None:
    async def main() -> None:
        told = asyncio.get_running_loop().create_future()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            told.set_result(await read_close(reader))

        async with talking(talk) as connection:
            with pytest.raises(kind):
                await connection.send(pieces)
            assert await told == (1011, "error in fragmented message")
            assert connection.close_code == 1011

    run(main())


def test_tasks_that_send_at_once_do_not_mix_their_messages() -> None:
    async def pieces(name: str, number: int) -> AsyncIterator[str]:
        for part in (name, ":", str(number)):
            await asyncio.sleep(0)
            yield part

    async def main() -> None:
        many, names = 50, "abcd"

        async def send(connection: Connection, name: str) -> None:
            for number in range(many):
                message = f"{name}:{number}"
                shapes: list[Any] = [message, list(message), pieces(name, number)]
                await connection.send(shapes[(number + ord(name)) % 3])

        async with talking(mirror) as connection, asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(send(connection, name))
            got = [str(await connection.recv()).split(":") for _ in range(many * len(names))]
            for name in names:
                assert [int(number) for one, number in got if one == name] == list(range(many))

    run(main())


def test_sending_64_mib_in_pieces_takes_flat_memory() -> None:
    piece = bytes(64 * 1024)

    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # frames are not unmasked here: that would take longer than all the rest
            await for_ever(reader, writer)

        async with talking(talk, close_timeout_s=0.01) as connection:
            tracemalloc.start()
            try:
                await connection.send(piece for _ in range(1024))
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 4 * MIB

    run(main())


# Receiving


def test_64_mib_in_pieces_take_flat_memory() -> None:
    piece, count = bytes(64 * 1024), 1024

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(count):
            writer.write(frame(CONTINUATION if number else BINARY, piece, fin=number == count - 1))
            await writer.drain()
        writer.write(frame(TEXT, b"after"))
        await mirror(reader, writer)

    async def main() -> None:
        async with talking(talk, max_size=64 * MIB) as connection:
            tracemalloc.start()
            try:
                sizes = [len(part) async for part in connection.recv_streaming()]
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert (sum(sizes), max(sizes)) == (64 * MIB, len(piece))
            assert peak < 8 * MIB
            assert await connection.recv() == "after"

    run(main())


def test_text_in_pieces_splits_no_character() -> None:
    raw = "aü🌊z".encode()

    async def main() -> None:
        frames = [frame(TEXT if at == 0 else 0, raw[at : at + 1], fin=False) for at in range(len(raw))]
        async with talking(saying_frames(*frames, frame(0, b""), frame(TEXT, b"whole"))) as connection:
            pieces = [piece async for piece in connection.recv_streaming()]
            assert "".join(str(piece) for piece in pieces) == "aü🌊z"
            assert [piece async for piece in connection.recv_streaming()] == ["whole"]

    run(main())


def test_control_frames_between_fragments() -> None:
    frames = [frame(TEXT, b"a", fin=False), frame(PING, b"?"), frame(PONG, b"unasked"), frame(0, b"b")]

    async def main() -> None:
        told = asyncio.get_running_loop().create_future()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"".join(frames))
            told.set_result(await read_frame(reader))
            await mirror(reader, writer)

        async with talking(talk) as connection:
            assert await connection.recv() == "ab"
            assert await told == (PONG, True, b"?")

    run(main())


def test_two_tasks_that_receive() -> None:
    sentence = "another task is receiving: let one task receive and hand the messages out"

    async def main() -> None:
        async with talking(mirror) as connection:
            first = asyncio.create_task(connection.recv())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError) as caught:
                await connection.recv()
            assert str(caught.value) == sentence
            with pytest.raises(RuntimeError) as caught:
                await anext(connection.recv_streaming())
            assert str(caught.value) == sentence
            await connection.send("for the first")
            assert await first == "for the first"
            await connection.send("for anybody")
            assert await connection.recv() == "for anybody"

    run(main())


@pytest.mark.parametrize("how", ["break", "cancel"])
def test_pieces_that_nobody_reads_to_the_end(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be received behind them, and that is said; closing does not wait for what cannot come."""
    monkeypatch.setattr("tidewire.client.socket.CLOSE_IN_A_HURRY_S", 0.05)

    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(TEXT, b"first", fin=False))
            assert await read_frame(reader) == (TEXT, True, b"go on")
            writer.write(b"".join(frame(0, b"more", fin=False) for _ in range(100)))
            await mirror(reader, writer)

        async def first_piece(connection: Connection, seen: asyncio.Event) -> None:
            async for piece in connection.recv_streaming():
                assert piece == "first"
                seen.set()
                if how == "break":
                    break

        async with talking(talk) as connection:
            seen = asyncio.Event()
            reading = asyncio.create_task(first_piece(connection, seen))
            await seen.wait()
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            await connection.send("go on")
            for _ in range(2):
                with pytest.raises(RuntimeError, match=r"was not read to its end, .*: close this connection and open"):
                    await connection.recv()
            with pytest.raises(RuntimeError, match="was not read to its end"):
                await anext(connection.recv_streaming())
        assert connection.close_code == 1000
        with pytest.raises(tidewire.ConnectionClosed):
            await connection.recv()

    run(main())


def test_break_in_the_same_task_is_not_another_task() -> None:
    async def main() -> None:
        async with talking(saying_frames(frame(TEXT, b"a", fin=False), frame(0, b"b"))) as connection:
            pieces = connection.recv_streaming()
            assert await anext(pieces) == "a"
            with pytest.raises(RuntimeError, match="was not read to its end"):
                await connection.recv()
            assert [piece async for piece in pieces] == ["b"]

    run(main())


# Limits, both ways


@asynccontextmanager
async def serving(kind: str, handler: Callable[[Any], Any], max_size: int) -> AsyncIterator[str]:
    """Our server, or that of the ``websockets`` library; yields its URL."""
    if kind == "tidewire":
        async with tidewire.serve(handler, port=0, max_size=max_size) as server:
            yield server.url
    else:
        async with websockets.serve(handler, "127.0.0.1", 0, max_size=max_size, compression=None) as there:
            yield f"ws://127.0.0.1:{there.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("kind", ["tidewire", "websockets"])
@pytest.mark.parametrize("shape", ["one frame", "fragments", "a large frame"])
def test_too_large_for_the_server(kind: str, shape: str) -> None:
    limit, size = (MIB, 4 * MIB) if shape == "a large frame" else (1000, 1001)

    async def main() -> None:
        seen = asyncio.get_running_loop().create_future()

        async def handler(connection: Any) -> None:
            try:
                await connection.recv()
            except Exception as error:
                seen.set_result(error)

        async with serving(kind, handler, limit) as url, connect(url) as connection:
            whole = bytes(size)
            # a large one may be refused while it is still being sent
            with contextlib.suppress(ConnectionClosedError):
                await connection.send([whole[:600], whole[600:]] if shape == "fragments" else whole)
            with pytest.raises(ConnectionClosedError) as caught:
                await connection.recv()
            assert caught.value.code == 1009
            numbers = ("401", "600", "1000") if shape == "fragments" else (str(size), str(limit))
            assert all(number in caught.value.reason for number in numbers), caught.value.reason
            told = await seen
            assert told.sent is not None
            assert (told.sent.code, told.sent.reason) == (1009, caught.value.reason)

    run(main())


@pytest.mark.parametrize("kind", ["tidewire", "websockets"])
@pytest.mark.parametrize("shape", ["one frame", "fragments", "a large frame"])
def test_too_large_for_the_client(kind: str, shape: str) -> None:
    limit, size = (MIB, 4 * MIB) if shape == "a large frame" else (1000, 1001)

    async def main() -> None:
        seen = asyncio.get_running_loop().create_future()

        async def handler(connection: Any) -> None:
            whole = bytes(size)
            try:
                await connection.send([whole[:600], whole[600:]] if shape == "fragments" else whole)
                await connection.recv()
            except Exception as error:
                seen.set_result(error)

        async with serving(kind, handler, 16 * MIB) as url, connect(url, max_size=limit) as connection:
            with pytest.raises(ConnectionClosedError) as caught:
                await connection.recv()
            assert caught.value.sent is not None
            assert caught.value.sent.code == connection.close_code == 1009
            numbers = ("401", "600", "1000") if shape == "fragments" else (str(size), str(limit))
            assert all(number in caught.value.sent.reason for number in numbers), caught.value.sent.reason
            told = await seen
            assert told.rcvd is not None
            assert (told.rcvd.code, told.rcvd.reason) == (1009, caught.value.sent.reason)

    run(main())


def test_just_below_the_limit() -> None:
    async def main() -> None:
        async with talking(mirror, max_size=1000) as connection:
            await connection.send(bytes(1000))
            assert await connection.recv() == bytes(1000)
            await connection.send([bytes(400), bytes(600)])
            assert await connection.recv() == bytes(1000)

    run(main())


# Pings


def test_pings() -> None:
    async def main() -> None:
        async with talking(mirror) as connection:
            assert connection.latency_s == 0
            for data in (None, "text", b"bytes", b"", bytes(125)):
                round_trip_s = await (await connection.ping(data))
                assert connection.latency_s == round_trip_s > 0
            with pytest.raises(ValueError, match="a ping carries at most 125 bytes, not 126"):
                await connection.ping(bytes(126))

    run(main())


def test_a_ping_that_nobody_waits_for() -> None:
    async def main() -> None:
        async with talking(mirror) as connection:
            await connection.ping()
            await connection.send("x")
            assert await connection.recv() == "x"

    run(main())


def test_a_later_pong_answers_the_pings_before_it() -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_frame(reader)
            _, _, second = await read_frame(reader)
            writer.write(frame(PONG, b"unasked") + frame(PONG, second))
            await mirror(reader, writer)

        async with talking(talk) as connection:
            first = await connection.ping(b"1")
            with pytest.raises(ValueError, match="a ping with the same data waits for its pong already"):
                await connection.ping(b"1")
            second = await connection.ping(b"2")
            assert await first >= await second > 0

    run(main())


def test_pings_of_a_connection_that_ends() -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(3):
                await read_frame(reader)
            writer.write(frame(CLOSE, (1012).to_bytes(2, "big") + b"back soon"))
            await read_close(reader)

        async with talking(talk) as connection:
            waited, cancelled, _ = [await connection.ping() for _ in range(3)]
            asyncio.ensure_future(cancelled).cancel()
            with pytest.raises(ConnectionClosedError, match="received 1012"):
                await waited
            with pytest.raises(ConnectionClosedError, match="received 1012"):
                await connection.ping()

    run(main())


# Closing


def test_closing_twice_is_nothing() -> None:
    async def main() -> None:
        async with talking(mirror) as connection:
            assert (connection.close_code, connection.close_reason) == (None, None)
            await asyncio.gather(connection.close(4000, "enough"), connection.close(4001, "too late"))
            await connection.close(4002)
            await connection.wait_closed()
            assert (connection.close_code, connection.close_reason) == (4000, "enough")
            with pytest.raises(ConnectionClosedError) as caught:
                await connection.send("x")
            assert caught.value.sent == caught.value.rcvd == Close(4000, "enough")

    run(main())


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65536, -1])
def test_codes_that_may_not_be_sent(code: int) -> None:
    async def main() -> None:
        async with talking(mirror) as connection:
            with pytest.raises(ValueError, match=f"{code} cannot be sent: use 1000, "):
                await connection.close(code)
            await connection.send("still open")
            assert await connection.recv() == "still open"

    run(main())


@pytest.mark.parametrize(
    ("reason", "sent"), [("x" * 123, "x" * 123), ("x" * 124, "x" * 120 + "..."), ("🌊" * 40, "🌊" * 30 + "...")]
)
def test_reasons_are_cut_to_what_a_frame_carries(reason: str, sent: str) -> None:
    async def main() -> None:
        told = asyncio.get_running_loop().create_future()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            told.set_result(await read_close(reader))

        async with talking(talk) as connection:
            await connection.close(4000, reason)
            assert await told == (4000, sent)

    run(main())


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize(
    ("payload", "code", "reason", "ends_well"),
    [
        (b"\x03\xe8bye", 1000, "bye", True),
        (b"\x03\xe9", 1001, "", True),
        (b"", 1005, "", True),
        (b"\x03\xf4", 1012, "", False),
        (b"\x0f\xa1gap a:1", 4001, "gap a:1", False),
    ],
)
def test_how_the_server_ends_it(payload: bytes, code: int, reason: str, ends_well: bool, stays: bool) -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(TEXT, b"last words") + frame(CLOSE, payload))
            assert await read_frame(reader) == (CLOSE, True, payload)
            if stays:
                await for_ever(reader, writer)

        # a server that says goodbye and keeps the line is not waited for longer than for a pong
        async with talking(talk, ping_interval_s=0.02 if stays else 20, ping_timeout_s=0.02) as connection:
            messages = aiter(connection)
            assert await anext(messages) == "last words"
            with pytest.raises(StopAsyncIteration if ends_well else ConnectionClosedError):
                await anext(messages)
            assert (connection.close_code, connection.close_reason) == (code, reason)
            with pytest.raises(ConnectionClosedOK if ends_well else ConnectionClosedError):
                await connection.recv()

    run(main())


@pytest.mark.parametrize("unread", [1, 16, 17, 40, 1000])
def test_closing_reads_what_is_unread_so_that_the_goodbye_is_heard(unread: int) -> None:
    """The library stops reading at 17 waiting messages, would wait for its deadline and drop the line."""

    async def main() -> None:
        async with talking(saying_frames(*(frame(TEXT, b"%d" % at) for at in range(unread)))) as connection:
            assert await connection.recv() == "0"
            await connection.close()
            assert connection.close_code == 1000
            rest = [message async for message in connection]
            assert [int(str(message)) for message in rest] == list(range(1, unread))

    run(main())


def test_closing_before_a_server_that_never_stops() -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            told = asyncio.create_task(read_close(reader))
            while not told.done():
                writer.write(frame(BINARY, bytes(10_000)))
                await writer.drain()
            writer.write(frame(CLOSE, b"\x03\xe8"))

        async with talking(talk) as connection:
            await connection.recv()
            reading = asyncio.create_task(count(connection))
            await connection.close()
            assert connection.close_code == 1000
            # it got what had come, and its end; of the flood no more than there is room for
            assert await reading < 300

    run(main())


async def count(connection: Connection) -> int:
    return len([message async for message in connection])


# Cancelling


def test_cancelling_recv_loses_nothing() -> None:
    """Cancelled between, in, and together with messages, whole and in fragments."""
    many = 300

    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for number in range(many):
                if number % 3:
                    writer.write(frame(TEXT, b"%d" % number))
                else:
                    writer.write(frame(TEXT, b"%d" % (number // 10), fin=False))
                    await asyncio.sleep(0)
                    writer.write(frame(0, b"%d" % (number % 10)) if number >= 10 else frame(0, b""))
                await asyncio.sleep(0)
            await mirror(reader, writer)

        async with talking(talk) as connection:
            got: list[int] = []
            cancelled = 0
            while len(got) < many:
                receiving = asyncio.create_task(connection.recv())
                for _ in range(len(got) % 4):
                    await asyncio.sleep(0)
                receiving.cancel()
                try:
                    got.append(int(str(await receiving)))
                except asyncio.CancelledError:
                    cancelled += 1
                    await asyncio.sleep(0)
                if cancelled % 50 == 49:
                    # whatever the turns of the loop are, it comes to an end
                    cancelled += 1
                    got.append(int(str(await connection.recv())))
            assert cancelled
            # the first three have one digit too much in front: 0 // 10, 3 // 10 ...
            assert got == [0 if number in (3, 6, 9) else number for number in range(many)]

    run(main())


def test_cancelling_a_send_that_waits_for_a_slow_reader() -> None:
    async def main() -> None:
        read_on = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_on.wait()
            assert len((await read_frame(reader))[2]) == 8 * MIB
            writer.write(frame(TEXT, (await read_frame(reader))[2]))
            await mirror(reader, writer)

        async with talking(talk) as connection:
            sending = asyncio.create_task(connection.send(b"\x00" * (8 * MIB)))
            done, _ = await asyncio.wait([sending], timeout=0.05)
            assert not done, "it must wait for the reader"
            sending.cancel()
            await asyncio.wait([sending])
            assert sending.cancelled()
            read_on.set()
            await connection.send("behind it")
            assert await connection.recv() == "behind it"

    run(main())


def test_cancelling_half_a_message_drops_the_line() -> None:
    async def main() -> None:
        gone = asyncio.Event()
        first = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_frame(reader)
            first.set()
            with contextlib.suppress(ConnectionError):
                assert not await reader.read(), "nothing comes behind half a message"
            gone.set()

        async def pieces() -> AsyncIterator[str]:
            yield "half"
            await asyncio.Event().wait()

        async with talking(talk) as connection:
            sending = asyncio.create_task(connection.send(pieces()))
            await first.wait()
            sending.cancel()
            await asyncio.wait([sending])
            assert sending.cancelled()
            await connection.wait_closed()
            assert connection.close_code == 1006
            await gone.wait()

    run(main())


def test_cancelling_who_waits_for_his_turn_does_no_harm() -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def slowly() -> AsyncIterator[str]:
            yield "one "
            started.set()
            await go_on.wait()
            yield "message"

        async with talking(mirror) as connection:
            started = asyncio.Event()
            first = asyncio.create_task(connection.send(slowly()))
            await started.wait()
            waiting = [asyncio.create_task(connection.send(thing)) for thing in ("whole", ["pie", "ces"])]
            await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            assert all(task.cancelled() for task in waiting)
            go_on.set()
            await first
            assert await connection.recv() == "one message"

    run(main())


def test_cancelling_before_the_first_piece_does_no_harm() -> None:
    async def pieces() -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    async def main() -> None:
        async with talking(mirror) as connection:
            for thing in (connection.send(pieces()), anext(connection.recv_streaming())):
                task = asyncio.ensure_future(thing)
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
            await connection.send("after")
            assert await connection.recv() == "after"

    run(main())


def test_cancelling_the_wait_for_a_pong_or_the_end() -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_frame(reader)
            await mirror(reader, writer)

        async with talking(talk) as connection:
            pong = asyncio.ensure_future(await connection.ping())
            ended = asyncio.create_task(connection.wait_closed())
            await asyncio.sleep(0)
            for task in (pong, ended):
                task.cancel()
                await asyncio.wait([task])
            await (await connection.ping())
            await connection.send("after")
            assert await connection.recv() == "after"

    run(main())


def test_cancelling_close_drops_the_line() -> None:
    async def main() -> None:
        told = asyncio.get_running_loop().create_future()
        gone = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            told.set_result(await read_close(reader))
            with contextlib.suppress(ConnectionError):
                await for_ever(reader, writer)
            gone.set()

        async with talking(talk) as connection:
            closing = asyncio.create_task(connection.close(4000))
            assert await told == (4000, "")
            closing.cancel()
            await asyncio.wait([closing])
            assert closing.cancelled()
            await connection.wait_closed()
            await gone.wait()
            assert connection.close_code == 4000

    run(main())
