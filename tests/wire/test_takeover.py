"""Stock uvicorn with its own class, and ``Live(takeover=True)``: real servers in this process, and peers by hand."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import zlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.server.test_hand_over import PATIENCE_S, Hand, World, eventually, open_client, serving
from tests.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame, upgrade
from tidewire.wire import takeover
from tidewire.wire.open import OpenSocket

KIB = 1024
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
Scenario = Callable[[World, int, Any], Coroutine[Any, Any, None]]


def play(
    scenario: Scenario,
    *,
    wrap: Callable[[Any], Any] = lambda app: app,
    loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    **options: Any,
) -> None:
    async def run() -> None:
        world = World("takeover")
        async with asyncio.timeout(2 * PATIENCE_S), serving("takeover", wrap(world), **options) as (port, state):
            await scenario(world, port, state)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


async def has_come(protocol: WebSocketsSansIOProtocol, messages: int) -> None:
    """Wait until so many messages wait for the application, behind the event that asks it to accept."""
    await eventually(lambda: protocol.queue.qsize() == 1 + messages, "what comes early")


def kinds(state: Any) -> set[type]:
    return {type(one) for one in state.connections}


def test_this_uvicorn_is_one_of_the_tested() -> None:
    assert uvicorn.__version__ in takeover.TESTED


@LOOPS
def test_delivery_positions_and_resume(loop: Any) -> None:
    async def scenario(world: World, port: int, state: Any) -> None:
        async with open_client(port, "quiet/a") as bare, open_client(port, "quiet/a?positions=1") as positions:
            await eventually(lambda: world.opened == 2, "the subscriptions")
            assert kinds(state) == {OpenSocket}
            for n in range(100):
                await world.live.publish("quiet/a", {"n": n})
            assert [json.loads(await bare.recv())["n"] for _ in range(100)] == list(range(100))
            assert "recovered" in json.loads(await positions.recv())
            said = [json.loads(await positions.recv()) for _ in range(100)]
            assert [one["data"]["n"] for one in said] == list(range(100))
        async with open_client(port, f"quiet/a?since={said[89]['position']}") as back:
            assert [json.loads(await back.recv())["n"] for _ in range(10)] == list(range(90, 100))
        await eventually(lambda: not state.connections, "the end of all connections")

    play(scenario, loop=loop)


@LOOPS
def test_publishing_over_the_socket(loop: Any) -> None:
    async def scenario(world: World, port: int, state: Any) -> None:
        async with open_client(port, "log/a") as client:
            await eventually(lambda: world.opened == 1, "the subscription")
            large = "x" * 300 * KIB
            for message in ("text", b"\x00bytes", large, ["in ", "pieces"]):
                await client.send(message)
            assert [await client.recv() for _ in range(4)] == ["text", b"\x00bytes", large, "in pieces"]
            assert kinds(state) == {OpenSocket}

    play(scenario, loop=loop)


async def forever(act: Callable[[], Awaitable[object]]) -> None:
    while True:
        await act()


def test_how_it_ends() -> None:
    async def ending(port: int, path: str, act: Callable[[Any], Awaitable[object]]) -> tuple[int, str]:
        async with open_client(port, path) as client:
            await act(client)
            with pytest.raises(ConnectionClosed) as told:
                await forever(client.recv)
            assert told.value.rcvd is not None
            return told.value.rcvd.code, told.value.rcvd.reason

    async def scenario(world: World, port: int, state: Any) -> None:
        assert await ending(port, "quiet/a", lambda client: client.send("x")) == (
            1008,
            "this topic takes no messages from clients",
        )
        assert await ending(port, "quiet/end", lambda _: world.live.finish("quiet/end", "enough")) == (1000, "enough")
        first = await world.live.publish("quiet/gap", 0)
        for n in range(150):
            await world.live.publish("quiet/gap", n)
        code, reason = await ending(port, f"quiet/gap?since={first}", lambda client: asyncio.sleep(0))
        assert (code, reason[:4]) == (4001, "gap ")
        async with open_client(port, "quiet/a") as client:
            await client.close(4321, "mine")
            assert (client.close_code, client.close_reason) == (4321, "mine")
        await eventually(lambda: not state.connections and not world.live.stats()["connections"], "the end of all")

    play(scenario)


def test_a_server_that_stops_says_1012_and_is_gone_within_five_seconds() -> None:
    seen: list[tuple[int, str]] = []

    async def run() -> None:
        world = World("takeover")
        async with Hand.to(await listening(world)) as stalled:
            stalled.send(upgrade("/live/quiet/a"))
            await stalled.accepted()
            client = await connect(f"ws://127.0.0.1:{port_of[0]}/live/quiet/a")
            await eventually(lambda: world.opened == 2, "the subscriptions")
            stalled._reader._transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(200):
                await world.live.publish("quiet/a", "x" * 60 * KIB)
                await client.recv()
            stop.set()
            async with asyncio.timeout(5):
                await over.wait()
            with pytest.raises(ConnectionClosed) as told:
                await client.recv()
            assert told.value.rcvd is not None
            seen.append((told.value.rcvd.code, told.value.rcvd.reason))
            await serving_task[0]
        assert world.live.stats()["connections"] == world.opened == 0

    stop, over = asyncio.Event(), asyncio.Event()
    port_of: list[int] = []
    serving_task: list[asyncio.Task[None]] = []

    async def listening(world: World) -> int:
        ready = asyncio.Event()

        async def serve() -> None:
            async with serving("takeover", world) as (port, _):
                port_of.append(port)
                ready.set()
                await stop.wait()
            over.set()

        serving_task.append(asyncio.create_task(serve()))
        await ready.wait()
        return port_of[0]

    async def bounded() -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            await run()

    asyncio.run(bounded())
    assert seen == [(1012, "")]


def test_who_answers_no_ping_is_dropped_and_who_does_stays() -> None:
    async def scenario(world: World, port: int, state: Any) -> None:
        async with open_client(port, "quiet/a") as alive, Hand.to(port) as dead:
            dead.send(upgrade("/live/quiet/a"))
            await dead.accepted()
            await eventually(lambda: world.opened == 2, "the subscriptions")
            assert [one.opcode for one in await dead.frames(1)] == [PING]
            with pytest.raises(ConnectionResetError):
                await dead.frames(2)
            assert world.opened == 1
            await world.live.publish("quiet/a", "still there")
            assert await alive.recv() == "still there"

    play(scenario, ws_ping_interval=0.2, ws_ping_timeout=0.4)


def test_uvicorns_own_pings_stop_where_ours_begin() -> None:
    """A pong to a ping of uvicorn's would never be heard, and it would close the connection."""

    async def scenario(world: World, port: int, state: Any) -> None:
        async with open_client(port, "quiet/a", ping_interval=None) as client:
            await eventually(lambda: world.opened == 1, "the subscription")
            (socket,) = state.connections
            await eventually(lambda: socket.latency_s > 0, "a pong")
            first = socket.latency_s
            await eventually(lambda: socket.latency_s != first, "another pong")
            await world.live.publish("quiet/a", "x")
            assert await client.recv() == "x"

    play(scenario, ws_ping_interval=0.1, ws_ping_timeout=0.2)


def test_nothing_of_uvicorns_is_left_of_a_connection() -> None:
    async def scenario(world: World, port: int, state: Any) -> None:
        before = len(asyncio.all_tasks())
        hands = []
        for _ in range(20):
            hand = Hand.to(port)
            opened = await hand.__aenter__()
            hands.append(hand)
            opened.send(upgrade("/live/quiet/a"))
            await opened.accepted()
        await eventually(lambda: world.opened == 20 and not state.tasks, "the subscriptions")
        assert len(asyncio.all_tasks()) == before
        gc.collect()
        assert not [thing for thing in gc.get_objects() if type(thing) is WebSocketsSansIOProtocol]
        for hand in hands:
            await hand.__aexit__(None, None, None)
        await eventually(lambda: world.opened == 0, "the end of the subscriptions")

    play(scenario)


# Compression


@pytest.mark.parametrize("offered", [True, False])
def test_a_client_that_offers_deflate_is_understood_and_is_answered_without(offered: bool) -> None:
    async def scenario(world: World, port: int, state: Any) -> None:
        options = {} if offered else {"compression": None}
        async with open_client(port, "log/a", **options) as client:
            assert ("Sec-WebSocket-Extensions" in client.response.headers) is offered
            await eventually(lambda: world.opened == 1, "the subscription")
            for n in range(20):
                # repeats itself: with context takeover each refers to those before
                text = f"message {n} " + "tide " * 500 * (n % 3)
                await client.send(text)
                assert await client.recv() == text
            await client.send(["fragments ", "of ", "one ", "message " * 1000])
            assert str(await client.recv()).startswith("fragments of one message message")
            assert kinds(state) == {OpenSocket}

    play(scenario)


# Clients that talk before they have an answer


class Deflater:
    """permessage-deflate by hand, with context takeover (RFC 7692 7.2.1)."""

    def __init__(self) -> None:
        self._compress = zlib.compressobj(wbits=-12)

    def frame(self, text: str) -> bytes:
        data = self._compress.compress(text.encode()) + self._compress.flush(zlib.Z_SYNC_FLUSH)
        return frame(TEXT, data[:-4], reserved=4)


def early_and_late() -> dict[str, tuple[list[bytes], list[str], bool]]:
    """What a client sends in all, cut where the first part comes before the answer; and whether it is taken over."""
    one, two = frame(TEXT, b"one"), frame(TEXT, b"two", mask=b"abcd")
    large = frame(TEXT, b"x" * 70_000)
    many = [frame(TEXT, b"m%d" % n) for n in range(70)]
    numbered = [f"m{n}" for n in range(70)]
    return {
        "nothing": ([b"", one, two], ["one", "two"], True),
        "a message": ([one, two], ["one", "two"], True),
        "many": ([b"".join(many[:60]), b"".join(many[60:])], numbered, True),
        "half of a head": ([one + two[:1], two[1:]], ["one", "two"], False),
        "two bytes of a head": ([two[:2], two[2:], one], ["two", "one"], False),
        "a head and its mask": ([two[:6], two[6:], one], ["two", "one"], False),
        "a part of a payload": ([one + two[:8], two[8:]], ["one", "two"], False),
        "a part of a large one": ([large[:30_000], large[30_000:], one], ["x" * 70_000, "one"], False),
        "a large head": ([large[:14], large[14:], one], ["x" * 70_000, "one"], False),
        "a fragment": (
            [frame(TEXT, b"a", fin=False), frame(CONTINUATION, b"b"), one],
            ["ab", "one"],
            False,
        ),
        "an empty fragment": (
            [frame(TEXT, b"", fin=False), frame(CONTINUATION, b"b", fin=False) + frame(CONTINUATION, b"c"), one],
            ["bc", "one"],
            False,
        ),
        "a message in fragments": (
            [frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b"), one],
            ["ab", "one"],
            True,
        ),
        "a pong": ([frame(PONG, b"p"), one], ["one"], True),
    }


async def send_and_wait(hand: Hand, data: bytes, state: Any) -> None:
    """Return when the server's only connection has it."""
    (protocol,) = state.connections
    has_come = b""
    receive = protocol.data_received

    def count(data: bytes) -> None:
        nonlocal has_come
        has_come += data
        receive(data)

    protocol.data_received = count
    hand.send(data)
    await eventually(lambda: has_come == data, "what comes early")
    del protocol.data_received


@pytest.mark.parametrize("case", early_and_late())
def test_what_comes_before_the_answer_is_not_lost_nor_torn(case: str) -> None:
    (early, *late), expected, is_taken = early_and_late()[case]

    async def scenario(world: World, port: int, state: Any) -> None:
        async with Hand.to(port) as hand:
            hand.send(upgrade("/live/late/a"))
            await eventually(lambda: "asked subscribe" in world.notes, "the topic function")
            await send_and_wait(hand, early, state)
            world.go.set()
            await hand.accepted()
            await eventually(lambda: world.opened == 1, "the subscription")
            assert kinds(state) == {OpenSocket if is_taken else WebSocketsSansIOProtocol}
            for part in late:
                hand.send(part)
                await asyncio.sleep(0.01)
            await world.until_texts("late/a", expected)
        await eventually(lambda: not state.connections, "the end of the connection")

    play(scenario)


def test_compressed_messages_before_and_after_share_their_context() -> None:
    async def scenario(world: World, port: int, state: Any) -> None:
        deflater = Deflater()
        expected = [f"tide {n} " * 30 for n in range(6)]
        async with Hand.to(port) as hand:
            hand.send(upgrade("/live/late/a", "sec-websocket-extensions: permessage-deflate"))
            await eventually(lambda: "asked subscribe" in world.notes, "the topic function")
            (protocol,) = state.connections
            hand.send(b"".join(deflater.frame(text) for text in expected[:3]))
            await has_come(protocol, 3)
            world.go.set()
            await hand.accepted()
            del protocol
            await eventually(lambda: kinds(state) == {OpenSocket}, "the take-over")
            hand.send(b"".join(deflater.frame(text) for text in expected[3:]))
            await world.until_texts("late/a", expected)

    play(scenario)


def test_a_client_that_talks_too_much_before_its_answer_is_not_read_further() -> None:
    """What it has sent fills the queue of publishes: reading stops until they are done."""

    async def scenario(world: World, port: int, state: Any) -> None:
        many = b"".join(frame(TEXT, b"m%d" % n) for n in range(60))
        door = asyncio.Event()
        publish = world.live._publisher.publish_draft

        async def slow(*args: Any) -> Any:
            await door.wait()
            return await publish(*args)

        world.live._publisher.publish_draft = slow  # type: ignore[method-assign]
        async with Hand.to(port) as hand:
            hand.send(upgrade("/live/late/a"))
            await eventually(lambda: "asked subscribe" in world.notes, "the topic function")
            (protocol,) = state.connections
            hand.send(many)
            await has_come(protocol, 60)
            del protocol
            world.go.set()
            await hand.accepted()
            await eventually(lambda: kinds(state) == {OpenSocket}, "the take-over")
            (socket,) = state.connections
            hand.send(frame(TEXT, b"last"))
            await asyncio.sleep(0.05)
            assert not socket.transport.is_reading()
            door.set()
            await world.until_texts("late/a", [*(f"m{n}" for n in range(60)), "last"])
            assert socket.transport.is_reading()

    play(scenario)


def test_a_client_that_goes_before_its_answer_leaves_nothing() -> None:
    async def scenario(world: World, port: int, state: Any) -> None:
        for how in (b"", frame(CLOSE, close_payload(1000)), frame(TEXT, b"x") + frame(CLOSE, b""), b"\xff\xff\xff"):
            world.go.clear()
            world.notes.clear()
            async with Hand.to(port) as hand:
                hand.send(upgrade("/live/late/a"))
                await eventually(lambda: "asked subscribe" in world.notes, "the topic function")
                hand.send(how)
                await asyncio.sleep(0.02)
            world.go.set()
            await eventually(lambda: "the task ends" in world.notes, "the end of the task")
            await eventually(lambda: not state.connections and not state.tasks, "the end of the connection")
            assert world.live.stats()["connections"] == world.opened == 0

    play(scenario)


# Where it cannot be


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "tidewire" and one.levelno == logging.WARNING]


async def works_without(world: World, port: int, state: Any) -> None:
    for _ in range(3):
        async with open_client(port, "log/a") as client:
            await eventually(lambda: world.opened == 1, "the subscription")
            assert OpenSocket not in kinds(state)
            await client.send("x")
            assert await client.recv() == "x"
        await eventually(lambda: world.opened == 0, "the end of the subscription")


def test_on_another_uvicorn_it_has_no_effect_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(takeover, "TESTED", ("0.1", "0.2"))
    play(works_without)
    (said,) = warnings_of(caplog)
    assert "takeover=True has no effect" in said
    assert f"uvicorn {uvicorn.__version__} is not one of the tested versions 0.1, 0.2" in said
    assert "--ws tidewire.wire:Protocol" in said


@pytest.mark.parametrize("ws", ["wsproto", "websockets"])
@pytest.mark.filterwarnings("ignore:The `websockets` implementation is deprecated", "ignore::DeprecationWarning")
def test_with_another_class_of_uvicorn_it_has_no_effect_and_says_so_once(
    ws: str, caplog: pytest.LogCaptureFixture
) -> None:
    play(works_without, ws=ws)
    (said,) = warnings_of(caplog)
    assert "no uvicorn with ws=websockets-sansio" in said


def test_behind_a_middleware_that_wraps_receive_it_has_no_effect_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def wrap(app: Any) -> Any:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            async def listen() -> Any:
                return await receive()

            await app(scope, listen, send)

        return wrapped

    play(works_without, wrap=wrap)
    (said,) = warnings_of(caplog)
    assert "a middleware wraps receive" in said


def test_without_the_option_nothing_is_taken_and_nothing_said(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        world = World("stock")
        async with asyncio.timeout(20), serving("stock", world) as (port, state):
            await works_without(world, port, state)

    asyncio.run(run())
    assert warnings_of(caplog) == []


def test_a_client_that_talks_early_is_no_reason_to_warn(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: World, port: int, state: Any) -> None:
        async with Hand.to(port) as hand:
            hand.send(upgrade("/live/late/a"))
            await eventually(lambda: "asked subscribe" in world.notes, "the topic function")
            (protocol,) = state.connections
            whole = frame(BINARY, b"x")
            hand.send(whole + whole[:3])
            await has_come(protocol, 1)
            del protocol
            world.go.set()
            await hand.accepted()
            await eventually(lambda: world.opened == 1, "the subscription")

    play(scenario)
    assert warnings_of(caplog) == []
