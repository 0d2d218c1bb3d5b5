"""A raw connection on our own wire, over a transport without a socket: what ``test_socket`` demands over plain ASGI,
and what only our own wire can do: pieces both ways, pings, a closing handshake.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any

import pytest

from tests.wire.fakes import FakeTransport
from tests.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame
from tidewire.errors import BadPayload, Close, ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from tidewire.limits import INBOX_BYTES_MAX, INBOX_MESSAGES_MAX, RAW_CLOSE_S
from tidewire.testing import ManualClock
from tidewire.wire.connection import Connection
from tidewire.wire.frames import Assembler, Part, Reader
from tidewire.wire.intake import Intake
from tidewire.wire.open import OpenSocket, Shared
from tidewire.wire.raw import RawSocket

KIB = 1024


class Kernel(FakeTransport):
    """Keeps what has come while nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.unread: deque[bytes] = deque()

    def deliver(self, data: bytes) -> None:
        self.unread.append(data)
        self._give()

    def resume_reading(self) -> None:
        super().resume_reading()
        asyncio.get_running_loop().call_soon(self._give)

    def _give(self) -> None:
        while self.unread and self.is_reading() and not self.lost:
            self._protocol.data_received(self.unread.popleft())


class Wire:
    """A connection, and its peer."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.transport = Kernel()
        shared = Shared(asyncio.get_running_loop(), set(), self.clock)
        self.socket = OpenSocket(self.transport, shared, None, **{"max_size": 1 << 24, **options})  # type: ignore[arg-type]
        self.intake = self.socket.owner = Intake(self.socket)
        self.socket.start()
        scope = {
            "type": "websocket",
            "path": "/p\u00e9age",
            "raw_path": b"/p%C3%A9age",
            "query_string": b"a=1",
            "headers": [(b"host", b"test"), (b"x-a", b"1"), (b"x-a", b"2")],
            "client": ("10.0.0.1", 1234),
        }
        self.raw = RawSocket(self.socket, self.intake, scope, subprotocol="chat")
        self.connection = Connection(self.raw)

    # The peer

    def say(self, *messages: str | bytes) -> None:
        """Each in a packet of its own."""
        for message in messages:
            is_text = isinstance(message, str)
            self.send(frame(TEXT if is_text else BINARY, message.encode() if isinstance(message, str) else message))

    def send(self, *data: bytes) -> None:
        for each in data:
            self.transport.deliver(each)

    def leave(self, code: int = 1000, reason: str = "") -> None:
        self.send(frame(CLOSE, b"" if code == 1005 else close_payload(code, reason)))

    @property
    def messages(self) -> list[str | bytes]:
        """What the peer has read, read by our own reader: half a message is none."""
        reader, assembler = Reader(max_size=1 << 24, masked=False), Assembler()
        found = [assembler.add(one) if isinstance(one, Part) else one for one in reader.feed(self.transport.taken)]
        assert reader.failure is None, reader.failure
        return [one for one in found if one is not None]

    @property
    def opcodes(self) -> list[int]:
        return [one.opcode for one in self.transport.frames]

    @property
    def fins(self) -> list[bool]:
        """Of each data frame."""
        fins, data = [], self.transport.taken
        for each in self.transport.frames:
            fins.append(bool(data[0] & 0x80))
            head = 2 + {126: 2, 127: 8}.get(data[1] & 0x7F, 0)
            data = data[head + len(each.payload) :]
        return fins

    @property
    def goodbye(self) -> tuple[int, str] | None:
        found = [one for one in self.transport.frames if one.opcode == CLOSE]
        assert len(found) <= 1
        return found[0].close if found else None


def play(scenario: Callable[[Wire], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def run() -> None:
        wire = Wire(**options)
        before = asyncio.all_tasks()
        async with asyncio.timeout(20):
            await scenario(wire)
        await turn()
        assert asyncio.all_tasks() == before, "nothing is left behind"

    asyncio.run(run())


async def turn(n: int = 5) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


# As over plain ASGI


def test_text_stays_text_and_binary_stays_binary() -> None:
    async def scenario(wire: Wire) -> None:
        wire.say("text", b"binary", "", b"")
        assert [await wire.connection.recv() for _ in range(4)] == ["text", b"binary", "", b""]
        for message in ("text", b"binary", bytearray(b"array"), memoryview(b"view"), "", "\u00e4" * 100, b"x" * 70_000):
            await wire.connection.send(message)
        await turn()
        assert wire.messages == ["text", b"binary", b"array", b"view", "", "\u00e4" * 100, b"x" * 70_000]

    play(scenario)


def test_json_both_ways() -> None:
    async def scenario(wire: Wire) -> None:
        await wire.connection.send_json({"\u00e4": [1, None]})
        await turn()
        assert wire.messages == ['{"\u00e4":[1,null]}']
        wire.say('{"a": 1}', b"[2]", "{broken")
        assert [await wire.connection.recv_json() for _ in range(2)] == [{"a": 1}, [2]]
        with pytest.raises(BadPayload, match="JSON was expected"):
            await wire.connection.recv_json()

    play(scenario)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"a": 1}, "send_json"),
        (5, "not int"),
        (None, "not NoneType"),
        ([1, 2], "not int"),
    ],
)
def test_what_cannot_be_sent_is_told_and_nothing_leaves(message: Any, words: str) -> None:
    async def scenario(wire: Wire) -> None:
        with pytest.raises(TypeError, match=words):
            await wire.connection.send(message)
        await turn()
        assert not wire.transport.writes
        await wire.connection.send("still open")
        await turn()
        assert wire.messages == ["still open"]

    play(scenario)


def test_the_handshake_can_be_looked_at() -> None:
    async def scenario(wire: Wire) -> None:
        request = wire.connection.request
        assert request.path == "/p%C3%A9age?a=1"
        assert request.headers["Host"] == "test"
        assert request.headers.get_all("X-A") == ["1", "2"]
        assert wire.connection.subprotocol == "chat"
        assert wire.connection.remote_address == ("10.0.0.1", 1234)
        assert (wire.connection.close_code, wire.connection.close_reason) == (None, None)
        assert "open" in repr(wire.connection)
        assert wire.raw.shown == "/p\\xe9age"

    play(scenario)


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (1000, ConnectionClosedOK, "received 1000 (OK) bye; then sent 1000 (OK) bye"),
        (1001, ConnectionClosedOK, "received 1001 (going away) bye; then sent 1001 (going away) bye"),
        (1005, ConnectionClosedOK, "1005 (no status received"),
        (1006, ConnectionClosedError, "no close frame received or sent"),
        (1011, ConnectionClosedError, "1011 (internal error) bye"),
        (4000, ConnectionClosedError, "4000 (private use) bye"),
    ],
)
def test_what_came_before_the_end_is_delivered_before_it(code: int, kind: type[ConnectionClosed], text: str) -> None:
    async def scenario(wire: Wire) -> None:
        wire.say(*"12345")
        if code == 1006:
            wire.transport.lose()
        else:
            wire.leave(code, "bye")
        await turn()
        assert [await wire.connection.recv() for _ in range(5)] == list("12345")
        with pytest.raises(kind) as told:
            await wire.connection.recv()
        assert text in str(told.value)
        assert told.value.code == wire.connection.close_code == code
        for act in (wire.connection.recv(), wire.connection.send("late"), wire.connection.ping()):
            with pytest.raises(kind) as again:
                await act
            assert again.value is not told.value
        await wire.connection.close()
        await wire.connection.wait_closed()
        assert wire.opcodes == [CLOSE] * (code != 1006), "its own code, and nothing of ours"

    play(scenario)


@pytest.mark.parametrize(("code", "quiet", "raises"), [(1000, False, False), (1006, False, True), (1006, True, False)])
def test_a_loop_ends_with_the_connection(code: int, quiet: bool, raises: bool) -> None:
    async def scenario(wire: Wire) -> None:
        connection = Connection(wire.raw, ends_quietly=quiet)
        wire.say("a", "b")
        if code == 1006:
            wire.transport.lose()
        else:
            wire.leave(code)
        messages = aiter(connection)
        assert [await anext(messages), await anext(messages)] == ["a", "b"]
        with pytest.raises(ConnectionClosedError if raises else StopAsyncIteration):
            await anext(messages)

    play(scenario)


def test_a_peer_we_have_refused_did_not_say_so_itself() -> None:
    async def scenario(wire: Wire) -> None:
        wire.say("ok", "too large")
        assert await wire.connection.recv() == "ok"
        with pytest.raises(ConnectionClosedError) as told:
            await wire.connection.recv()
        assert told.value.rcvd is None
        assert told.value.sent is not None
        assert told.value.sent.code == told.value.code == wire.connection.close_code == 1009
        assert wire.goodbye is not None and wire.goodbye[0] == 1009

    play(scenario, max_size=5)


def test_closing_says_so_once_and_waits_for_the_peer() -> None:
    async def scenario(wire: Wire) -> None:
        both = asyncio.gather(wire.connection.close(4001, "\u00e4" * 100), wire.connection.close())
        await turn(20)
        assert not both.done(), "the peer has not answered"
        assert wire.goodbye is not None
        assert wire.goodbye[0] == 4001
        assert len(wire.goodbye[1].encode()) <= 123
        assert wire.connection.close_code is None
        wire.leave(4001)
        await both
        await wire.connection.close()
        assert wire.opcodes == [CLOSE]
        assert wire.connection.close_code == 4001
        for act in (wire.connection.recv(), wire.connection.send("late"), wire.connection.send(["l", "ate"])):
            with pytest.raises(ConnectionClosedError, match="sent 4001"):
                await act

    play(scenario)


def test_nothing_is_sent_behind_our_goodbye() -> None:
    async def scenario(wire: Wire) -> None:
        closing = asyncio.create_task(wire.connection.close(4001))
        await turn()
        for act in (wire.connection.send("late"), wire.connection.send(["l", "ate"]), wire.connection.ping()):
            with pytest.raises(ConnectionClosedError, match="sent 4001"):
                await act
        assert wire.opcodes == [CLOSE]
        wire.leave(4001)
        await closing

    play(scenario)


def test_a_peer_that_does_not_answer_a_goodbye_is_left() -> None:
    async def scenario(wire: Wire) -> None:
        closing = asyncio.create_task(wire.connection.close())
        await turn()
        wire.clock.advance(RAW_CLOSE_S - 0.2)
        await turn()
        assert not closing.done()
        wire.clock.advance(0.4)
        await closing
        assert wire.transport.closed
        assert wire.connection.close_code == 1000
        with pytest.raises(ConnectionClosedError, match=r"sent 1000 \(OK\).*no close frame received"):
            await wire.connection.recv()

    play(scenario)


def test_a_peer_that_does_not_take_a_goodbye_is_dropped() -> None:
    async def scenario(wire: Wire) -> None:
        wire.transport.stall()
        await wire.connection.send(b"x" * 100 * KIB)
        closing = asyncio.create_task(wire.connection.close())
        await turn()
        assert not closing.done()
        wire.clock.advance(RAW_CLOSE_S + 0.2)
        await closing
        assert wire.transport.aborts == 1

    play(scenario)


def test_what_comes_behind_our_goodbye_can_be_received_up_to_a_limit() -> None:
    async def scenario(wire: Wire) -> None:
        wire.say("before")
        assert await wire.connection.recv() == "before"
        closing = asyncio.create_task(wire.connection.close())
        await turn()
        large = "x" * 256 * KIB
        wire.say("a", large, large, large, large, "too much", "and this")
        wire.leave()
        await closing
        assert [await wire.connection.recv() for _ in range(5)] == ["a", large, large, large, large]
        with pytest.raises(ConnectionClosedOK):
            await wire.connection.recv()
        assert wire.raw.dropped == 0, "of what nobody could know to expect nothing is counted"

    play(scenario)


@pytest.mark.parametrize("begun", [False, True])
def test_half_a_message_behind_our_goodbye_is_never_given(begun: bool) -> None:
    """The limit is met in the middle of a message, whose beginning may have been received already."""

    async def scenario(wire: Wire) -> None:
        wire.say("before")
        assert await wire.connection.recv() == "before"
        half = frame(TEXT, b"h" * 300 * KIB, fin=False)
        if begun:
            wire.send(half)
            waiting = asyncio.create_task(wire.connection.recv())
            await turn()
            waiting.cancel()
            await asyncio.wait([waiting])
        closing = asyncio.create_task(wire.connection.close())
        await turn()
        if not begun:
            wire.send(half)
        rest = frame(CONTINUATION, b"h" * 300 * KIB, fin=False)
        wire.send(rest, rest, rest, rest, frame(CONTINUATION, b"end"))
        wire.say("whole")
        wire.send(frame(TEXT, b"in ", fin=False), frame(CONTINUATION, b"parts"))
        wire.leave()
        await closing
        with pytest.raises(ConnectionClosedOK):
            pytest.fail(f"something came after what was lost: {await wire.connection.recv()!r}")

    play(scenario)


def test_pieces_of_what_was_cut_off_behind_our_goodbye_end_with_the_connection() -> None:
    async def scenario(wire: Wire) -> None:
        wire.send(frame(TEXT, b"a" * 10, fin=False))
        pieces = wire.connection.recv_streaming()
        assert await anext(pieces) == "a" * 10
        closing = asyncio.create_task(wire.connection.close())
        await turn()
        for _ in range(5):
            wire.send(frame(CONTINUATION, b"b" * 300 * KIB, fin=False))
        wire.send(frame(CONTINUATION, b"end"))
        wire.say("whole")
        wire.leave()
        await closing

        async def read_on() -> None:
            async for piece in pieces:
                assert set(piece) == {"b"}

        with pytest.raises(ConnectionClosedOK):
            await read_on()

    play(scenario)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000])
def test_codes_that_may_not_be_sent(code: int) -> None:
    async def scenario(wire: Wire) -> None:
        with pytest.raises(ValueError, match="cannot be sent"):
            await wire.connection.close(code)
        await wire.connection.send("still open")
        await turn()
        assert wire.opcodes == [TEXT]

    play(scenario)


def test_a_cancelled_recv_loses_nothing() -> None:
    async def scenario(wire: Wire) -> None:
        for n in range(6):
            waiting = asyncio.create_task(wire.connection.recv())
            await turn()
            wire.say(f"m{n}")
            # the message comes, and the wish to stop waiting with it
            await turn(n % 3)
            waiting.cancel()
            await asyncio.wait([waiting])
            if waiting.cancelled():
                assert await wire.connection.recv() == f"m{n}"
            else:
                assert waiting.result() == f"m{n}"

    play(scenario)


@pytest.mark.parametrize("seed", range(20))
def test_receiving_in_every_way_and_cancelling_at_any_time_loses_nothing_and_repeats_nothing(seed: int) -> None:
    rng = random.Random(seed)

    async def scenario(wire: Wire) -> None:
        sent: list[str | bytes] = []
        stream = b""
        for n in range(60):
            text = f"{n} ".ljust(rng.choice([4, 4, 4, 30, 70_000]), "x")
            message = text if rng.random() < 0.6 else text.encode()
            sent.append(message)
            opcode, payload = (TEXT, text.encode()) if isinstance(message, str) else (BINARY, text.encode())
            cuts = sorted(rng.randrange(len(payload) + 1) for _ in range(rng.choice([0, 0, 1, 3])))
            parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
            for index, part in enumerate(parts):
                stream += frame(CONTINUATION if index else opcode, part, fin=index == len(parts) - 1)
        stream += frame(CLOSE, close_payload(1000))
        got: list[Any] = []

        async def receive_one() -> None:
            how = rng.choice(["recv", "ready", "stream"])
            message: Any = wire.raw.take_ready() if how == "ready" else None
            if message is None:
                if how == "stream":
                    # nothing is cancelled here: what is left of a message in pieces is skipped
                    pieces = [piece async for piece in wire.connection.recv_streaming()]
                    message = pieces[0][:0].join(pieces) if pieces else ""
                else:
                    waiting = asyncio.create_task(wire.connection.recv())
                    await turn(rng.randrange(4))
                    if rng.random() < 0.5:
                        waiting.cancel()
                    await asyncio.wait([waiting])
                    if waiting.cancelled():
                        return
                    message = waiting.result()
            got.append(message)

        async def deliver() -> None:
            at = 0
            while at < len(stream):
                size = rng.choice([1, 3, 50, 4000, 100_000])
                wire.send(stream[at : at + size])
                at += size
                await turn(rng.randrange(3))

        delivering = asyncio.create_task(deliver())

        async def receive_all() -> None:
            while True:
                await receive_one()

        with pytest.raises(ConnectionClosedOK):
            await receive_all()
        await delivering
        assert [one or type(one)() for one in got] == sent

    play(scenario)


def test_one_task_receives_at_a_time() -> None:
    async def scenario(wire: Wire) -> None:
        first = asyncio.create_task(wire.connection.recv())
        await turn()
        with pytest.raises(RuntimeError, match="another task is receiving"):
            await wire.connection.recv()
        with pytest.raises(RuntimeError, match="another task is receiving"):
            await anext(wire.connection.recv_streaming())
        wire.say("for the first", "next")
        # before the first has run
        assert wire.raw.take_ready() is None
        assert await first == "for the first"
        assert await wire.connection.recv() == "next"

    play(scenario)


def test_what_is_ready_is_taken_in_order_and_only_by_those_who_receive() -> None:
    async def scenario(wire: Wire) -> None:
        wire.say("a", "b")
        assert wire.raw.take_ready() is None, "nobody has ever received"
        assert await wire.connection.recv() == "a"
        assert wire.raw.take_ready() == "b"
        assert wire.raw.take_ready() is None
        wire.send(frame(TEXT, b"c1", fin=False))
        assert wire.raw.take_ready() is None
        wire.send(frame(CONTINUATION, b"c2"), frame(TEXT, b"d"))
        assert wire.raw.take_ready() is None, "d is not before c"
        assert await wire.connection.recv() == "c1c2"
        assert wire.raw.take_ready() == "d"
        assert wire.raw.take_ready() is None

    play(scenario)


def test_two_tasks_send_whole_messages() -> None:
    async def scenario(wire: Wire) -> None:
        async def send(name: str, size: int) -> None:
            for n in range(20):
                await wire.connection.send([f"{name}{n}", "x" * size])
                await wire.connection.send(f"{name}{n}")

        await asyncio.gather(send("a", 0), send("b", 100_000), send("c", 10))
        await turn()
        expected = [f"{x}{n}" for x in "abc" for n in range(20)]
        assert sorted(str(message).rstrip("x") for message in wire.messages) == sorted(expected * 2)

    play(scenario)


def test_a_full_intake_stops_reading_for_a_body_that_receives() -> None:
    async def scenario(wire: Wire) -> None:
        wire.say("0")
        assert await wire.connection.recv() == "0"
        wire.say(*map(str, range(1, 3 * INBOX_MESSAGES_MAX)))
        await turn()
        assert len(wire.intake.waiting) == INBOX_MESSAGES_MAX
        assert wire.transport.is_paused
        seen = [await wire.connection.recv() for _ in range(1, 3 * INBOX_MESSAGES_MAX)]
        assert seen == [str(n) for n in range(1, 3 * INBOX_MESSAGES_MAX)]
        assert wire.raw.dropped == 0

    play(scenario)


def test_a_loop_takes_everything_although_reading_stops_again_and_again() -> None:
    async def scenario(wire: Wire) -> None:
        wire.say("0")
        seen = [await wire.connection.recv()]
        wire.say(*map(str, range(1, 1000)))
        wire.leave()
        seen += [message async for message in wire.connection]
        assert seen == [str(n) for n in range(1000)]
        assert wire.transport.pauses > 10

    play(scenario)


def test_a_body_that_never_receives_drops_what_is_too_much() -> None:
    async def scenario(wire: Wire) -> None:
        wire.say(*map(str, range(INBOX_MESSAGES_MAX + 8)))
        wire.leave(1001)
        await wire.connection.wait_closed()
        assert wire.raw.dropped == 8
        assert wire.connection.close_code == 1001
        assert [await wire.connection.recv() for _ in range(INBOX_MESSAGES_MAX)] == list(map(str, range(32)))

    play(scenario)


def test_a_goodbye_does_not_wait_for_a_full_intake() -> None:
    async def scenario(wire: Wire) -> None:
        wire.say("0")
        await wire.connection.recv()
        wire.say(*["x"] * (2 * INBOX_MESSAGES_MAX))
        assert wire.transport.is_paused
        closing = asyncio.create_task(wire.connection.close())
        await turn()
        wire.leave()
        await closing
        assert wire.connection.close_code == 1000
        assert await wire.connection.recv() == "x", "what had come before is still there"

    play(scenario)


# Sending to a peer that does not read


def test_a_send_waits_while_the_peer_does_not_read() -> None:
    async def scenario(wire: Wire) -> None:
        wire.transport.stall()
        sent = 0

        async def send() -> None:
            nonlocal sent
            for n in range(20):
                await wire.connection.send(f"{n} " + "x" * 40 * KIB)
                sent += 1

        sending = asyncio.create_task(send())
        await turn(50)
        assert sent < 5
        assert len(wire.transport.buffered) < 200 * KIB
        wire.transport.unstall()
        await sending
        await turn()
        assert [str(message).split()[0] for message in wire.messages] == [str(n) for n in range(20)]

    play(scenario)


def test_many_senders_wait_their_turn_and_stay_whole() -> None:
    async def scenario(wire: Wire) -> None:
        rng = random.Random(1)

        async def send(name: str) -> None:
            for n in range(10):
                if n % 3 == 0:
                    await wire.connection.send([f"{name}{n}", " ", "x" * 30 * KIB, "y" * 50 * KIB])
                else:
                    await wire.connection.send(f"{name}{n} " + "x" * rng.choice([1, 100 * KIB]))

        senders = [asyncio.create_task(send(name)) for name in "abcde"]
        while not all(sender.done() for sender in senders):
            wire.transport.stall()
            await turn(rng.randrange(6))
            wire.transport.unstall()
            await turn(rng.randrange(3))
        await turn()
        told = [str(message).split()[0] for message in wire.messages]
        for name in "abcde":
            assert [one for one in told if one[0] == name] == [f"{name}{n}" for n in range(10)]

    play(scenario)


def test_a_message_does_not_come_between_the_pieces_of_another_that_began_while_it_waited() -> None:
    """Both wait for the same room, and the one in pieces is resumed first."""

    async def scenario(wire: Wire) -> None:
        go = asyncio.Event()

        async def pieces() -> AsyncIterator[str]:
            await go.wait()
            yield "in "
            await turn(5)
            yield "pieces"

        wire.transport.stall()
        await wire.connection.send(b"x" * 100 * KIB)
        await turn()
        assert not wire.socket.writable
        whole = asyncio.create_task(wire.connection.send("whole"))
        await turn()
        parted = asyncio.create_task(wire.connection.send(pieces()))
        await turn()
        # the pieces' task runs before the one that has waited for room
        go.set()
        wire.transport.unstall()
        await asyncio.gather(whole, parted)
        await turn()
        assert wire.messages[1:] in (["in pieces", "whole"], ["whole", "in pieces"])

    play(scenario)


@pytest.mark.parametrize("how", ["closes", "vanishes"])
def test_a_send_that_waits_is_told_of_the_end(how: str) -> None:
    async def scenario(wire: Wire) -> None:
        wire.transport.stall()
        await wire.connection.send(b"x" * 100 * KIB)
        await turn()
        sending = [asyncio.create_task(wire.connection.send(message)) for message in ("a", ["b", "c"], "d")]
        await turn()
        if how == "closes":
            wire.leave(1001)
        else:
            wire.transport.lose()
        for each in await asyncio.gather(*sending, return_exceptions=True):
            assert isinstance(each, ConnectionClosed)
            assert each.code == (1001 if how == "closes" else 1006)

    play(scenario)


def test_a_sender_that_never_waits_lets_the_loop_run() -> None:
    async def scenario(wire: Wire) -> None:
        counted = 0

        async def count() -> None:
            nonlocal counted
            while True:
                counted += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        await turn()
        before = counted
        for _ in range(200):
            await wire.connection.send(b"x" * 10 * KIB)
        assert counted - before >= 200 // 7 - 1
        before = counted
        await wire.connection.send(b"x" * 10 * KIB for _ in range(200))
        assert counted - before >= 200 // 7 - 1
        counting.cancel()
        await asyncio.wait([counting])

    play(scenario)


@pytest.mark.parametrize("message", ["x", ["x", "y"]], ids=["whole", "in pieces"])
def test_a_sender_that_never_waits_hears_of_an_abort(message: Any) -> None:
    """The line is dropped by a timer; until the transport has said so there is neither an end nor an open socket."""

    async def scenario(wire: Wire) -> None:
        wire.socket.abort()

        async def send_on() -> None:
            for _ in range(1000):
                await wire.connection.send(message)

        with pytest.raises(ConnectionClosedError):
            await send_on()
        assert not wire.transport.writes

    play(scenario)


# Sending in pieces


def test_an_iterable_is_one_message_in_fragments() -> None:
    async def numbers() -> AsyncIterator[bytes]:
        for n in range(3):
            yield b"%d" % n

    async def scenario(wire: Wire) -> None:
        await wire.connection.send(["a", "", "b"])
        await wire.connection.send(numbers())
        await wire.connection.send(iter([]))
        await wire.connection.send([b""])
        await wire.connection.send([bytearray(b"1"), memoryview(b"2"), b"3"])
        await turn()
        assert wire.messages == ["ab", b"012", b"", b"123"]
        assert wire.opcodes == [
            *(TEXT, CONTINUATION, CONTINUATION, CONTINUATION),
            *(BINARY, CONTINUATION, CONTINUATION, CONTINUATION),
            *(BINARY, CONTINUATION),
            *(BINARY, CONTINUATION, CONTINUATION, CONTINUATION),
        ]
        assert wire.fins == [*[False] * 3, True, *[False] * 3, True, False, True, *[False] * 3, True]

    play(scenario)


def test_others_wait_until_a_message_in_pieces_is_whole() -> None:
    async def scenario(wire: Wire) -> None:
        doors = [asyncio.Event() for _ in range(3)]

        async def slow() -> AsyncIterator[str]:
            for n, door in enumerate(doors):
                await door.wait()
                yield f"{n}"

        first = asyncio.create_task(wire.connection.send(slow()))
        await turn()
        others = [asyncio.create_task(wire.connection.send(message)) for message in ("a", ["b", "c"], "d")]
        for n, door in enumerate(doors):
            wire.send(frame(PING, b"%d" % n))
            door.set()
            await turn()
            assert n == 2 or not any(other.done() for other in others)
        await asyncio.gather(first, *others)
        await turn()
        assert wire.messages == ["012", "a", "bc", "d"]
        assert wire.opcodes.count(PONG) == 3, "control frames come between"
        assert wire.opcodes.index(PONG) < wire.opcodes.index(TEXT)

    play(scenario)


class MineError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "words"),
    [(MineError("mine"), "mine"), (ConnectionClosedError(None, None), "no close frame")],
    ids=["an error", "another connection's end"],
)
def test_pieces_that_fail_half_way_end_the_connection(error: Exception, words: str) -> None:
    async def broken() -> AsyncIterator[str]:
        yield "half"
        raise error

    async def scenario(wire: Wire) -> None:
        with pytest.raises(type(error), match=words):
            await wire.connection.send(broken())
        await turn()
        assert wire.messages == []
        assert wire.goodbye is not None, "nothing can follow half a message"
        assert wire.goodbye[0] == 1011
        with pytest.raises(ConnectionClosedError, match="sent 1011"):
            await wire.connection.send("more")

    play(scenario)


@pytest.mark.parametrize("pieces", [["a", b"b"], [b"a", "b"], ["a", 5]])
def test_pieces_of_another_kind_half_way_end_the_connection(pieces: list[Any]) -> None:
    async def scenario(wire: Wire) -> None:
        with pytest.raises(TypeError):
            await wire.connection.send(pieces)
        await turn()
        assert wire.goodbye is not None
        assert wire.goodbye[0] == 1011

    play(scenario)


def test_pieces_that_fail_before_the_first_change_nothing() -> None:
    def broken() -> Iterable[bytes]:
        raise KeyError("mine")
        yield b""

    async def scenario(wire: Wire) -> None:
        with pytest.raises(KeyError, match="mine"):
            await wire.connection.send(broken())
        with pytest.raises(TypeError, match="not int"):
            await wire.connection.send([5, "x"])
        await wire.connection.send("fine")
        await turn()
        assert wire.messages == ["fine"]

    play(scenario)


def test_pieces_that_are_left_are_closed() -> None:
    closed = []

    async def pieces() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async def scenario(wire: Wire) -> None:
        sending = asyncio.create_task(wire.connection.send(pieces()))
        await turn()
        sending.cancel()
        await asyncio.wait([sending])
        assert sending.cancelled()
        assert closed == [True]
        assert wire.transport.aborts == 1, "without a word: nothing can follow half a message"
        await turn()
        with pytest.raises(ConnectionClosedError):
            await wire.connection.send("more")

    play(scenario)


@pytest.mark.parametrize("size", [10, 100 * KIB])
@pytest.mark.parametrize("after", range(6))
def test_cancelling_a_message_in_pieces_at_any_time_leaves_no_half_of_it(size: int, after: int) -> None:
    """Either nothing of it was sent and the connection is as before, or the connection has ended."""

    async def pieces() -> AsyncIterator[str]:
        for _ in range(3):
            yield "p" * size
            await asyncio.sleep(0)

    async def scenario(wire: Wire) -> None:
        sending = asyncio.create_task(wire.connection.send(pieces()))
        await turn(after)
        sending.cancel()
        await asyncio.wait([sending])
        whole = [] if sending.cancelled() else ["p" * 3 * size]
        try:
            await wire.connection.send("next")
        except ConnectionClosedError:
            await turn()
            assert wire.messages == []
            assert wire.transport.aborts == 1
            return
        await turn()
        assert wire.messages == [*whole, "next"]

    play(scenario)


def test_an_end_before_the_last_piece_is_told() -> None:
    async def scenario(wire: Wire) -> None:
        async def pieces() -> AsyncIterator[str]:
            yield "a"
            wire.leave(1001)

        with pytest.raises(ConnectionClosedOK, match="received 1001"):
            await wire.connection.send(pieces())

    play(scenario)


# Receiving in pieces


def test_pieces_of_a_large_frame_come_as_they_arrive() -> None:
    async def scenario(wire: Wire) -> None:
        data = frame(BINARY, bytes(range(256)) * 1024)
        pieces = wire.connection.recv_streaming()
        wire.send(data[:100_000])
        first = await anext(pieces)
        assert isinstance(first, bytes)
        assert len(first) == 100_000 - 14
        waiting = asyncio.ensure_future(anext(pieces))
        await turn()
        assert not waiting.done()
        wire.send(data[100_000:150_000], data[150_000:])
        rest = [await waiting, *[piece async for piece in pieces]]
        assert b"".join([first, *rest]) == bytes(range(256)) * 1024
        wire.say("next")
        assert [piece async for piece in wire.connection.recv_streaming()] == ["next"]

    play(scenario)


def test_fragments_are_pieces_and_an_empty_one_is_none() -> None:
    async def scenario(wire: Wire) -> None:
        wire.send(frame(TEXT, b"a", fin=False), frame(CONTINUATION, b"", fin=False), frame(CONTINUATION, b"b"))
        wire.send(frame(TEXT, b"c", fin=False), frame(CONTINUATION, b""), frame(BINARY, b""))
        assert [piece async for piece in wire.connection.recv_streaming()] == ["a", "b"]
        assert [piece async for piece in wire.connection.recv_streaming()] == ["c"]
        assert [piece async for piece in wire.connection.recv_streaming()] == [b""]

    play(scenario)


@pytest.mark.parametrize("then", ["recv", "stream", "loop"])
@pytest.mark.parametrize("left", ["break", "kept", "closed"])
def test_what_is_left_unread_is_skipped(then: str, left: str) -> None:
    async def scenario(wire: Wire) -> None:
        wire.send(frame(TEXT, b"a", fin=False), frame(CONTINUATION, b"b", fin=False))
        kept = None
        if left == "break":
            async for piece in wire.connection.recv_streaming():
                assert piece == "a"
                break
        else:
            kept = wire.connection.recv_streaming()
            assert await anext(kept) == "a"
            if left == "closed":
                await kept.aclose()  # type: ignore[attr-defined]
        assert wire.raw.take_ready() is None

        async def receive() -> Any:
            if then == "recv":
                return await wire.connection.recv()
            if then == "stream":
                return "".join([str(piece) async for piece in wire.connection.recv_streaming()])
            return await anext(aiter(wire.connection))

        receiving = asyncio.create_task(receive())
        await turn()
        wire.send(frame(CONTINUATION, b"c"))
        wire.say("next", "last")
        assert await receiving == "next"
        if kept is not None and left == "kept":
            with pytest.raises(RuntimeError, match="left"):
                await anext(kept)
        assert await wire.connection.recv() == "last"

    play(scenario)


def test_a_recv_cancelled_in_mid_message_leaves_its_beginning() -> None:
    async def scenario(wire: Wire) -> None:
        for how in ("recv", "stream"):
            waiting = asyncio.create_task(wire.connection.recv())
            await turn()
            wire.send(frame(TEXT, b"a" * 5000, fin=False), frame(CONTINUATION, b"b", fin=False))
            await turn()
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
            wire.send(frame(CONTINUATION, b"c"), frame(TEXT, b"next"))
            if how == "recv":
                assert await wire.connection.recv() == "a" * 5000 + "bc"
            else:
                pieces = [piece async for piece in wire.connection.recv_streaming()]
                assert pieces == ["a" * 5000, "b", "c"]
            assert await wire.connection.recv() == "next"

    play(scenario)


def test_the_end_in_the_middle_of_a_message_is_told() -> None:
    async def scenario(wire: Wire) -> None:
        wire.send(frame(TEXT, b"a", fin=False))
        pieces = wire.connection.recv_streaming()
        assert await anext(pieces) == "a"
        wire.transport.lose()
        with pytest.raises(ConnectionClosedError):
            await anext(pieces)
        with pytest.raises(ConnectionClosedError):
            await wire.connection.recv()

    play(scenario)


def test_memory_of_a_large_message_in_pieces_is_flat() -> None:
    async def scenario(wire: Wire) -> None:
        total, most = 0, 0
        size = 8 * KIB * KIB
        head = frame(BINARY, b"", length=size)
        wire.say("begin")
        assert await wire.connection.recv() == "begin"
        wire.send(head)
        for _ in range(size // (64 * KIB)):
            wire.send(bytes(64 * KIB))
        async for piece in wire.connection.recv_streaming():
            total += len(piece)
            most = max(most, sum(map(len, wire.intake.waiting)))
        assert total == size
        assert most <= INBOX_BYTES_MAX + 64 * KIB

    play(scenario)


# Pings


def test_a_ping_measures_the_round_trip() -> None:
    async def scenario(wire: Wire) -> None:
        assert wire.connection.latency_s == 0
        waiting = await wire.connection.ping("\u00e4")
        assert [(one.opcode, one.payload) for one in wire.transport.frames] == [(PING, "\u00e4".encode())]
        wire.clock.advance(0.25)
        wire.send(frame(PONG, "\u00e4".encode()))
        assert await waiting == 0.25
        assert wire.connection.latency_s == 0.25
        with pytest.raises(ValueError, match="at most 125 bytes, not 126"):
            await wire.connection.ping("x" * 126)

    play(scenario)


def test_a_ping_that_is_never_answered_ends_with_the_connection() -> None:
    async def scenario(wire: Wire) -> None:
        waiting = await wire.connection.ping()
        wire.transport.lose()
        with pytest.raises(ConnectionClosedError):
            await waiting

    play(scenario)


# Cancelling


Act = Callable[[Connection], Coroutine[Any, Any, Any]]


async def ping_and_wait(connection: Connection) -> None:
    await (await connection.ping())


async def stream(connection: Connection) -> None:
    async for _ in connection.recv_streaming():
        pass


@pytest.mark.parametrize(
    ("act", "usable"),
    [
        (lambda connection: connection.send("x"), True),
        (lambda connection: connection.send(["x", "y"]), True),
        (lambda connection: connection.recv(), True),
        (lambda connection: connection.recv_json(), True),
        (stream, True),
        (ping_and_wait, True),
        (lambda connection: connection.wait_closed(), True),
        (lambda connection: connection.close(), False),
    ],
    ids=["send", "send pieces", "recv", "recv_json", "recv_streaming", "ping", "wait_closed", "close"],
)
def test_cancelling_in_every_await_leaves_nothing_behind(act: Act, usable: bool) -> None:
    async def scenario(wire: Wire) -> None:
        before = asyncio.all_tasks()
        wire.transport.stall()
        await wire.connection.send(b"x" * 100 * KIB)
        await turn()
        acting = asyncio.create_task(act(wire.connection))
        await turn()
        assert not acting.done()
        acting.cancel()
        await asyncio.wait([acting])
        assert acting.cancelled()
        assert asyncio.all_tasks() == before
        assert not wire.intake._rooms
        wire.transport.unstall()
        if usable:
            await wire.connection.send("still open")
            wire.say('"heard"')
            assert await wire.connection.recv() == '"heard"'
            await turn()
            assert wire.messages[1:] == ["still open"]
        else:
            with pytest.raises(ConnectionClosedError):
                await wire.connection.send("too late")

    play(scenario)


def test_watching_tells_the_end_once_and_at_once() -> None:
    async def scenario(wire: Wire) -> None:
        ends: list[ConnectionClosed | None] = []
        wire.raw.watch(lambda: ends.append(wire.raw.ended))
        assert not wire.raw.is_ending
        wire.leave(1001)
        assert [end.code for end in ends if end is not None] == [1001]
        assert wire.raw.is_ending
        wire.raw.watch(lambda: ends.append(None))
        assert len(ends) == 2, "who comes late is told at once"
        await wire.raw.leave()

    play(scenario)


def test_nobody_is_told_who_has_stopped_watching() -> None:
    async def scenario(wire: Wire) -> None:
        ends: list[bool] = []
        wire.raw.watch(lambda: ends.append(True))
        wire.raw.unwatch()
        assert wire.raw.was_read, "nothing is dropped from now on"
        wire.leave()
        await turn()
        assert not ends
        assert wire.raw.ended is not None
        assert wire.raw.ended.sent == Close(1000, "")

    play(scenario)
