"""The way in over plain ASGI: who is refused before the upgrade, and how it goes on after it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException

from tests.server.driver import Scenario, SocketCall, play_with
from tidewire import Limits, Live, Tokens
from tidewire.protocol.codecs import PROTOBUF
from tidewire.testing.lifespan import Lifespan

PATH = "/live/-/session"


def play(scenario: Scenario, **options: Any) -> None:
    def declare(live: Live) -> None:
        @live.topic("t", publish=True)
        async def topic() -> None: ...

        @live.topic("many/{n}")
        async def many(n: int) -> None: ...

    play_with(declare, scenario, **options)


def packets(call: SocketCall) -> list[Any]:
    return [json.loads(line) for frame in call.frames for line in str(frame).split("\n")]


async def begin(app: FastAPI, *commands: Any, **options: Any) -> SocketCall:
    """Connected, and these commands sent in one frame."""
    call = await SocketCall(app, PATH, **options).open()
    assert call.accepted, (call.status, call.denial)
    all_ = [{"connect": {}}, *commands]
    call.send("\n".join(json.dumps({"id": n, **command}) for n, command in enumerate(all_, 1)))
    await call.until(lambda call: {one.get("id") for one in packets(call)} >= set(range(1, len(all_) + 1)))
    return call


def test_pages_of_other_sites_are_refused() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for origin, status in (("https://evil.example", 403), ("null", 403), ("https://ok.example", 0)):
            call = await SocketCall(app, PATH, headers={"origin": origin}).open()
            assert (call.accepted, call.status) == (status == 0, status)
            if call.accepted:
                await call.leave()
        assert len(live._site.sessions) == 0

    play(scenario, origins=["https://ok.example"])


def test_bad_credentials_of_the_handshake_are_refused() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for options in ({"headers": {"authorization": "Bearer forged"}}, {"path": f"{PATH}?token=forged"}):
            path = options.pop("path", PATH)
            call = await SocketCall(app, str(path), **options).open()  # type: ignore[arg-type]
            assert (call.accepted, call.status) == (False, 401)
            assert b"forged" not in call.denial

    play(scenario, tokens=Tokens(secret="a secret of thirty-two characters"))


def test_the_applications_own_dependencies_hold_for_sessions() -> None:
    def nobody() -> None:
        raise HTTPException(402, "pay first")

    async def scenario() -> None:
        live, app = Live(), FastAPI()
        app.include_router(live.router, prefix="/live", dependencies=[Depends(nobody)])
        async with Lifespan(app):
            call = await SocketCall(app, PATH).open()
            assert not call.accepted

    import asyncio

    asyncio.run(scenario())


def test_nobody_is_let_in_while_it_stops() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = await begin(app)
        await live.drain()
        await call.until(lambda call: call.close_code is not None)
        assert call.close_code == 3001
        late = await SocketCall(app, PATH).open()
        assert (late.accepted, late.status) == (False, 503)

    play(scenario, limits=Limits(shutdown_s=0.2, evict_drain_s=0.05))


@pytest.mark.parametrize("offered", [["centrifuge-protobuf"], ["x", "centrifuge-json"], []])
def test_the_form_is_agreed_on(offered: list[str]) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = SocketCall(app, PATH)
        call.scope["subprotocols"] = offered
        await call.open()
        if "centrifuge-protobuf" in offered:
            from tidewire.protocol.packets import Command, ConnectRequest

            call.send(PROTOBUF.join([PROTOBUF.write(Command(id=1, connect=ConnectRequest()))]))
            await call.until(lambda call: call.frames)
            frame = call.frames[0]
            assert isinstance(frame, bytes)
            assert next(iter(PROTOBUF.read_replies(frame))).connect is not None
        else:
            call.send('{"id":1,"connect":{}}')
            await call.until(lambda call: call.frames)
            assert packets(call)[0]["connect"]["client"]
        await call.leave()

    play(scenario)


def test_ten_thousand_subscriptions_on_one_socket() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        limit = live.limits.session_subscriptions_max
        call = await begin(app)
        for first in range(0, 3000, 500):
            commands = [{"id": 10 + n, "subscribe": {"channel": f"many/{n}"}} for n in range(first, first + 500)]
            call.send("\n".join(json.dumps(command) for command in commands))
            await call.until(lambda call, first=first: len(packets(call)) == 1 + first + 500)
        errors = [one["error"]["code"] for one in packets(call) if "error" in one]
        assert errors == [106] * (3000 - limit)
        assert live.stats()["subscriptions"] == limit
        # one frame with all ten thousand is a flood
        commands = [{"id": 10 + n, "subscribe": {"channel": f"many/{n}"}} for n in range(10_000)]
        call.send("\n".join(json.dumps(command) for command in commands))
        await call.until(lambda call: call.close_code is not None)
        assert call.close_code == 3013
        await call.closed()
        assert live.stats()["subscriptions"] == 0

    play(scenario, limits=Limits(session_subscriptions_max=100))


def test_a_call_and_a_message_to_the_user() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = await begin(app, {"subscribe": {"channel": "t"}}, {"publish": {"channel": "t", "data": [1]}})
        await call.until(lambda call: any("pub" in one.get("push", {}) for one in packets(call)))
        assert live.stats()["sessions"] == 1
        await call.leave()
        assert live.stats()["sessions"] == 0

    play(scenario)
