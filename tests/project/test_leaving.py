"""The programs of docs/leaving.md: on Tidewire, and what a Centrifugo server would ask of the one that follows.

Streams are in tests/interop/leaving, which runs another server; the client is in tests/interop/documents.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import jwt
import pytest

from tests.project.documents import named_block
from tests.project.talking import talking
from tests.project.test_sessions import play

SECRET = "a secret of thirty-two characters"


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_SECRET", SECRET)
    monkeypatch.setenv("API_KEY", "k")


def test_before() -> None:
    app = named_block("leaving-sessions").run()["app"]

    async def scenario(url: str) -> None:
        async with httpx.AsyncClient(cookies={"user": "ada"}) as http:
            token = (await http.post(url.replace("/live", "/token"))).json()["token"]
            async with talking(url, token=token) as talk, talking(url) as nobody:
                assert "epoch" in await talk.ask(subscribe={"channel": "chat:lobby"})
                assert (await talk.ask(subscribe={"channel": "chat:board"}))["code"] == 103
                assert (await nobody.ask(subscribe={"channel": "chat:lobby"}))["code"] == 103
                assert (await http.post(url.replace("/live", "/announce/lobby?text=hello"))).status_code == 200
                assert (await talk.push("pub"))["data"] == {"text": "hello"}
                assert (await talk.ask(rpc={"method": "order", "data": {"item": "tea"}}))["data"] == {"ordered": "tea"}
                assert (await talk.ask(rpc={"method": "order", "data": {"item": "coffee"}}))["code"] == 409

    play(app, scenario)


def test_after() -> None:
    """Requests as centrifugal.dev, "Proxy events to backend", has them."""
    names = named_block("leaving-proxy").run()
    about = {"client": "9336a229", "transport": "websocket", "protocol": "json", "encoding": "json", "user": "56"}
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"result": {}})

    async def scenario() -> None:
        await names["centrifugo"].aclose()
        headers, base_url = names["centrifugo"].headers, names["centrifugo"].base_url
        transport = httpx.MockTransport(answer)
        names["centrifugo"] = httpx.AsyncClient(transport=transport, base_url=base_url, headers=headers)
        async with (
            names["centrifugo"],
            httpx.AsyncClient(transport=httpx.ASGITransport(names["app"]), base_url="http://test") as http,
        ):

            async def ask(what: str, **more: Any) -> Any:
                return (await http.post(f"/centrifugo/{what}", json={**about, **more})).json()

            assert await ask("subscribe", channel="chat:lobby") == {"result": {}}
            assert (await ask("subscribe", channel="chat:board"))["error"]["code"] == 103
            assert await ask("rpc", method="order", data={"item": "tea"}) == {"result": {"data": {"ordered": "tea"}}}
            assert (await ask("rpc", method="order", data={"item": "coffee"}))["error"]["code"] == 409
            assert (await ask("rpc", method="nope", data={}))["error"]["code"] == 104
            assert (await http.post("/announce/lobby?text=hello")).status_code == 200

    asyncio.run(scenario())
    (request,) = asked
    assert (str(request.url), request.headers["x-api-key"]) == ("http://127.0.0.1:8001/api/publish", "k")
    assert json.loads(request.content) == {"channel": "chat:lobby", "data": {"text": "hello"}}


def test_both_give_the_same_tokens() -> None:
    answers = []
    for name in ("leaving-sessions", "leaving-proxy"):
        names = named_block(name).run()
        answers.append(asyncio.run(_token_of(names["app"])))
        if "centrifugo" in names:
            asyncio.run(names["centrifugo"].aclose())
    assert [set(claims) for claims in answers] == [{"sub", "exp"}] * 2


async def _token_of(app: Any) -> dict[str, Any]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", cookies={"user": "ada"}) as http:
        claims: dict[str, Any] = jwt.decode((await http.post("/token")).json()["token"], SECRET, ["HS256"])
        return claims


def test_the_configuration_is_that_of_the_topic() -> None:
    configuration = json.loads(named_block("leaving-configuration").code)
    (namespace,) = configuration["channel"]["namespaces"]
    (declaration,) = named_block("leaving-sessions").run()["live"]._gate.declarations
    assert declaration.template.text.startswith(f"{namespace['name']}:")
    assert (namespace["history_size"], namespace["history_ttl"]) == (
        declaration.policy.keep,
        f"{declaration.policy.ttl_s}s",
    )
    assert namespace["presence"] is namespace["join_leave"] is declaration.join_leave is True
    routes = {route.path for route in named_block("leaving-proxy").run()["app"].routes}
    for proxy in (configuration["channel"]["proxy"]["subscribe"], configuration["rpc"]["proxy"]):
        assert proxy["endpoint"].removeprefix("http://127.0.0.1:8000") in routes
