"""Calls of a session: answers out of order, errors, streams, and that they end with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.server.session.fakes import Caller, SessionHouse, opens, passes, until
from tests.server.session.test_commands import enter
from tidewire import CallError
from tidewire.server.identity import Identity

both = pytest.mark.parametrize("codec", ["json", "protobuf"])


class Desk:
    """Functions to call, and what has become of them."""

    def __init__(self, house: SessionHouse) -> None:
        self.go_on = asyncio.Event()
        self.ended: list[str] = []
        for method, function in {
            "add": self.add,
            "sold.out": self.sold_out,
            "wait": self.wait,
            "count": self.count,
            "broken": self.broken,
        }.items():
            house.site.calls.declare(method, function)

    async def add(self, a: int, b: int = 1) -> int:
        return a + b

    async def sold_out(self) -> None:
        raise CallError(409, "sold out")

    async def broken(self) -> None:
        raise LookupError("a secret of the application")

    async def wait(self) -> str:
        try:
            await self.go_on.wait()
        finally:
            self.ended.append("wait")
        return "waited"

    async def count(self, to: int, pad: int = 0) -> AsyncIterator[dict[str, Any]]:
        try:
            for n in range(to):
                yield {"n": n, "pad": "." * pad}
            if not to:
                await self.go_on.wait()
        finally:
            self.ended.append("count")


async def opened(**options: Any) -> tuple[SessionHouse, Desk]:
    house = SessionHouse(**options)
    desk = Desk(house)
    return await house.start(), desk


def items(caller: Caller, stream: str) -> list[Any]:
    said = [json.loads(bytes(push.message.data)) for push in caller.pushes if push.message is not None]
    return [one["item"]["n"] for one in said if one["stream"] == stream]


@both
@opens
async def test_calls_and_their_errors(codec: str) -> None:
    house, _ = await opened()
    caller = await enter(house, codec=codec)
    assert await caller.ask(rpc={"method": "add", "data": {"a": 1, "b": 2}}) == {"data": 3}
    assert await caller.ask(rpc={"method": "sold.out"}) == {"error": 409, "message": "sold out"}
    assert (await caller.ask(rpc={"method": "nowhere"}))["error"] == 104
    assert (await caller.ask(rpc={"method": "add", "data": {"a": "x"}}))["error"] == 107
    failed = await caller.ask(rpc={"method": "broken"})
    assert failed["error"] == 100
    assert "secret" not in failed["message"]


@opens
async def test_a_slow_call_holds_up_nothing() -> None:
    house, desk = await opened()
    caller = await enter(house)
    slow, quick = caller.send({"rpc": {"method": "wait"}}, {"rpc": {"method": "add", "data": {"a": 1}}})
    assert await caller.answer(quick) == {"data": 2}
    assert await caller.ask(history={"channel": "t"}) is not None
    assert caller.reply_of(slow) is None
    desk.go_on.set()
    assert await caller.answer(slow) == {"data": "waited"}
    assert caller.session.calls == {}


@opens
async def test_a_call_ends_with_its_session() -> None:
    house, desk = await opened()
    caller = await enter(house)
    caller.send({"rpc": {"method": "wait"}})
    await passes(20)
    assert desk.ended == []
    caller.vanish()
    await until(lambda: desk.ended == ["wait"])


@opens
async def test_calls_at_once_are_counted() -> None:
    house, desk = await opened(session_calls_max=3)
    caller = await enter(house)
    ids = caller.send(*({"rpc": {"method": "wait"}} for _ in range(4)))
    assert (await caller.answer(ids[3]))["error"] == 111
    desk.go_on.set()
    assert [await caller.answer(one) for one in ids[:3]] == [{"data": "waited"}] * 3
    assert await caller.ask(rpc={"method": "wait"}) == {"data": "waited"}


@both
@opens
async def test_items_come_as_they_are_made(codec: str) -> None:
    house, desk = await opened()
    caller = await enter(house, codec=codec)
    asked = {"id": "s1", "method": "count", "data": {"to": 5}}
    assert await caller.ask(rpc={"method": "tidewire.stream", "data": asked}) == {"data": {"items": 5}}
    assert items(caller, "s1") == [0, 1, 2, 3, 4]
    assert desk.ended == ["count"]
    # who does not know of streams gets all of them at once
    whole = await caller.ask(rpc={"method": "count", "data": {"to": 3}})
    assert [one["n"] for one in whole["data"]] == [0, 1, 2]
    # the answer is behind the last item
    order = [packet.rpc is None for packet in caller.packets if packet.rpc is not None or packet.push is not None]
    assert order[:6] == [True] * 5 + [False]


@opens
async def test_a_stream_waits_for_a_client_that_does_not_read() -> None:
    house, desk = await opened(outbox_messages_max=1000, outbox_bytes_max=20_000)
    caller = await enter(house, high_water=1)
    caller.transport.stall()
    asked = {"id": "s", "method": "count", "data": {"to": 500, "pad": 500}}
    (command_id,) = caller.send({"rpc": {"method": "tidewire.stream", "data": asked}})
    await passes(300)
    assert desk.ended == []
    assert caller.connection.outbox.size_bytes < 20_000
    caller.transport.unstall()
    assert await caller.answer(command_id) == {"data": {"items": 500}}
    assert items(caller, "s") == list(range(500))


@opens
async def test_a_stream_is_cancelled() -> None:
    house, desk = await opened()
    caller = await enter(house)
    asked = {"id": "s", "method": "count", "data": {"to": 0}}
    (command_id,) = caller.send({"rpc": {"method": "tidewire.stream", "data": asked}})
    await passes(20)
    assert (await caller.ask(rpc={"method": "tidewire.stream", "data": asked}))["error"] == 107, "the id is taken"
    assert await caller.ask(rpc={"method": "tidewire.cancel", "data": {"id": "s"}}) == {"data": {}}
    refused = await caller.answer(command_id)
    assert refused == {"error": 100, "message": "the call was cancelled"}
    await until(lambda: desk.ended == ["count"])
    assert await caller.ask(rpc={"method": "tidewire.cancel", "data": {"id": "s"}}) == {"data": {}}


@pytest.mark.parametrize(
    "data", [None, {}, {"id": "", "method": "count"}, {"id": "x" * 65, "method": "count"}, {"id": 7}, "nonsense"]
)
@opens
async def test_streams_that_cannot_be(data: Any) -> None:
    house, _ = await opened()
    caller = await enter(house)
    request = {"method": "tidewire.stream"} | ({} if data is None else {"data": data})
    assert (await caller.ask(rpc=request))["error"] == 107
    no_stream = {"id": "s", "method": "add", "data": {"a": 1}}
    assert (await caller.ask(rpc={"method": "tidewire.stream", "data": no_stream}))["error"] == 107
    assert (await caller.ask(rpc={"method": "tidewire.cancel"}))["error"] == 107


@opens
async def test_a_call_knows_who_calls() -> None:
    house = SessionHouse()
    seen: list[Any] = []

    async def who() -> str:
        from tidewire.server.inner import current_call

        call = current_call()
        assert call is not None
        seen.append(call.identity)
        return "" if call.identity is None else call.identity.user

    house.site.calls.declare("who", who)
    await house.start()
    caller = await enter(house, identity=Identity(user="ann"))
    assert await caller.ask(rpc={"method": "who"}) == {"data": "ann"}
