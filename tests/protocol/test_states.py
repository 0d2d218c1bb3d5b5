"""The table of a connection's life, and that real connections live by it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.server.driver import SocketCall
from tidewire import Connection, ConnectionClosed
from tidewire.protocol.states import TABLE, Code, Event, ImpossibleEvent, State, next_state, transition
from tidewire.server.handler import Handlers


def test_each_event_leads_one_way() -> None:
    assert len({(one.state, one.event) for one in TABLE}) == len(TABLE)
    for one in TABLE:
        assert next_state(one.state, one.event) is one.to
        assert transition(one.state, one.event) is one
        assert one.why.startswith("RFC 6455 ")


def test_what_is_not_in_the_table_cannot_happen() -> None:
    known = {(one.state, one.event) for one in TABLE}
    for state in State:
        for event in Event:
            if (state, event) not in known:
                with pytest.raises(ImpossibleEvent, match=f"cannot happen to a connection that is {state.value}"):
                    next_state(state, event)


def test_every_life_ends_and_nothing_follows_the_end() -> None:
    assert not [one for one in TABLE if one.state is State.CLOSED]
    reached = {State.CONNECTING}
    for _ in State:
        reached |= {one.to for one in TABLE if one.state in reached}
    assert reached == set(State)
    # wherever it stands, the line may end, and then so does the connection
    assert {next_state(state, Event.LINE_ENDS) for state in State if state is not State.CLOSED} == {State.CLOSED}


def test_we_send_only_while_it_is_open() -> None:
    assert [one.state for one in TABLE if one.event is Event.WE_SEND] == [State.OPEN]


# Real connections, over a fake line.


class Life:
    """One connection of a server, driven through events; ``state`` is what its user can see of it."""

    def __init__(self, path: str = "/here") -> None:
        self.call = SocketCall(Handlers({"/here": self._handle}, host=""), path)
        self.connection: Connection | None = None
        self.heard: list[str | bytes] = []
        self._closing: asyncio.Task[None] | None = None
        self._begun = False

    async def _handle(self, connection: Connection) -> None:
        self.connection = connection
        async for message in connection:
            self.heard.append(message)
            self.call._news.set()
        await asyncio.wait([self._closing] if self._closing else [asyncio.create_task(connection.wait_closed())])

    async def live(self, event: Event) -> None:
        """Let ``event`` happen."""
        ways: dict[Event, Callable[[], Awaitable[None]]] = {
            Event.ACCEPTED: self._knock,
            Event.REFUSED: self._knock,
            Event.WE_SEND: self._we_send,
            Event.PEER_SENDS: self._peer_sends,
            Event.WE_CLOSE: self._we_close,
            Event.PEER_CLOSES: lambda: self._end(1001),
            Event.LINE_ENDS: lambda: self._end(1006),
        }
        await ways[event]()

    async def _knock(self) -> None:
        self._begun = True
        await self.call.open()
        await self.call.until(lambda call: self.connection is not None or call.over)

    async def _we_send(self) -> None:
        assert self.connection is not None
        await self.connection.send("from us")
        assert self.call.frames == ["from us"]

    async def _peer_sends(self) -> None:
        state = await self.state()
        self.call.send("from the peer")
        if state is State.OPEN:
            await self.call.until(lambda _: self.heard == ["from the peer"])

    async def _we_close(self) -> None:
        assert self.connection is not None
        # the peer does not take the frame, so that the goodbye lasts
        self.call.reading.clear()
        self._closing = asyncio.create_task(self.connection.close(4000, "ours"))
        await asyncio.sleep(0)

    async def _end(self, code: int) -> None:
        self.call._to_app.put_nowait({"type": "websocket.disconnect", "code": code})
        if not self._begun:
            self._begun = True
            self.call._start()
        if self._closing is None:
            await self.call.finished()
        else:
            assert self.connection is not None
            await self.connection.wait_closed()

    async def state(self) -> State:
        """As its user sees it."""
        if not self._begun:
            return State.CONNECTING
        if self.connection is None or self.connection.close_code is not None:
            return State.CLOSED
        if self._closing is None:
            return State.OPEN
        with pytest.raises(ConnectionClosed):
            await self.connection.send("too late")
        return State.CLOSING

    async def leave(self) -> None:
        """Nothing stays behind."""
        self.call.reading.set()
        if self.connection is not None and self.connection.close_code is None:
            await self._end(1006)
        if self._begun:
            await self.call.finished()
        if self._closing is not None:
            await self._closing


LIVES = [
    (Event.ACCEPTED,),
    (Event.REFUSED,),
    (Event.LINE_ENDS,),
    (Event.ACCEPTED, Event.WE_SEND),
    (Event.ACCEPTED, Event.PEER_SENDS),
    (Event.ACCEPTED, Event.LINE_ENDS),
    (Event.ACCEPTED, Event.WE_CLOSE),
    (Event.ACCEPTED, Event.WE_CLOSE, Event.PEER_SENDS),
    (Event.ACCEPTED, Event.WE_CLOSE, Event.LINE_ENDS),
]
SEEN = {Code.NONE: None, Code.OURS: 4000, Code.EITHER: 4000, Code.LOST: 1006, Code.PEERS: 1001}


@pytest.mark.parametrize("life", LIVES, ids=lambda life: ", ".join(event.name.lower() for event in life))
def test_a_connection_lives_by_the_table(life: tuple[Event, ...]) -> None:
    async def scenario() -> None:
        one = Life("/nowhere" if Event.REFUSED in life else "/here")
        state, code = State.CONNECTING, Code.NONE
        assert await one.state() is state
        async with asyncio.timeout(10):
            for event in life:
                await one.live(event)
                state, code = next_state(state, event), transition(state, event).code
                assert await one.state() is state
            seen = None if one.connection is None else one.connection.close_code
            await one.leave()
        assert seen == SEEN[code]

    asyncio.run(scenario())


@pytest.mark.parametrize("first", [None, Event.WE_CLOSE], ids=["it closes", "it answers"])
def test_a_peers_close_frame_and_the_end_of_the_line_are_one_event_of_asgi(first: Event | None) -> None:
    async def scenario() -> None:
        one = Life()
        state = State.CONNECTING
        async with asyncio.timeout(10):
            for event in (Event.ACCEPTED, first) if first else (Event.ACCEPTED,):
                await one.live(event)
                state = next_state(state, event)
            await one.live(Event.PEER_CLOSES)
            closing = transition(state, Event.PEER_CLOSES)
            assert await one.state() is next_state(closing.to, Event.LINE_ENDS)
            assert one.connection is not None
            assert one.connection.close_code == SEEN[closing.code]
            await one.leave()

    asyncio.run(scenario())


def test_a_peer_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidewire.wire.socket.RAW_CLOSE_S", 0.01)

    async def scenario() -> None:
        one = Life()
        async with asyncio.timeout(10):
            await one.live(Event.ACCEPTED)
            await one.live(Event.WE_CLOSE)
            assert one.connection is not None
            await one.connection.wait_closed()
            given_up = transition(State.CLOSING, Event.WE_GIVE_UP)
            assert await one.state() is given_up.to
            assert one.connection.close_code == SEEN[given_up.code]
            await one.leave()

    asyncio.run(scenario())
