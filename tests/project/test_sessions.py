"""The programs of docs/sessions.md do what it says, and its table of limits is that of the code.

What is shown for a browser is in tests/interop/documents, which runs one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.project.documents import ROOT, named_block
from tests.project.talking import talking
from tests.project.test_readme import serving
from tidewire import ConnectionClosed, Limits, Live, Log


def play(app: FastAPI, scenario: Callable[[str], Awaitable[None]]) -> None:
    """Run ``scenario`` with the URL of the router, within ten seconds."""

    async def run(url: str) -> None:
        async with asyncio.timeout(10):
            await scenario(f"{url}/live")

    with serving(app) as url:
        asyncio.run(run(url))


def test_many_topics_on_one_socket() -> None:
    names = named_block("sessions-server").run()

    async def scenario(url: str) -> None:
        async with talking(url) as talk:
            for room in ("lobby", "kitchen"):
                assert (await talk.ask(subscribe={"channel": f"chat/{room}"}))["recoverable"] is True
            await talk.ask(publish={"channel": "chat/kitchen", "data": {"text": "tea"}})
            told = await talk.push("pub")
            assert (told["data"], told["info"]["client"]) == ({"text": "tea"}, talk.welcome["client"])

    play(names["app"], scenario)


def test_the_session_of_the_readme() -> None:
    names = named_block("readme-sessions").run()

    async def scenario(url: str) -> None:
        async with talking(url) as talk:
            assert (await talk.ask(rpc={"method": "order.place", "data": {"item": "tea"}}))["data"][
                "ordered"
            ] == "1 tea"
            assert (await talk.ask(rpc={"method": "order.place", "data": {"item": "coffee"}}))["code"] == 409
            await talk.ask(subscribe={"channel": "chat/lobby"})
            assert len((await talk.ask(presence={"channel": "chat/lobby"}))["presence"]) == 1

    play(names["app"], scenario)


def test_what_a_policy_gives_back() -> None:
    """The table of "A line that breaks"."""
    live = Live()
    app = FastAPI()
    app.include_router(live.router, prefix="/live")
    live.topic("log", policy=Log(keep=2), publish=True)(_anybody)

    async def scenario(url: str) -> None:
        async with talking(url) as talk:
            for n in range(4):
                await talk.ask(publish={"channel": "log", "data": n})
            top = await talk.ask(history={"channel": "log"})
            for offset, wanted in ((2, [2, 3]), (1, None)):
                asked = {"channel": "log", "recover": True, "epoch": top["epoch"], "offset": offset}
                result = await talk.ask(subscribe=asked)
                assert result["was_recovering"] is True
                assert result.get("recovered", False) is (wanted is not None)
                assert [one["data"] for one in result.get("publications", [])] == (wanted or [])
                await talk.ask(unsubscribe={"channel": "log"})

    play(app, scenario)


async def _anybody() -> None: ...


def test_who_is_here() -> None:
    names = named_block("sessions-presence").run()

    async def scenario(url: str) -> None:
        async with talking(url) as talk, httpx.AsyncClient() as http:
            await talk.ask(subscribe={"channel": "table/7"})
            assert (await talk.push("join"))["info"]["client"] == talk.welcome["client"]
            assert await talk.ask(presence_stats={"channel": "table/7"}) == {"num_clients": 1, "num_users": 1}
            people = await http.get(url.replace("/live", "/tables/7/people"))
            assert people.json() == [""]

    play(names["app"], scenario)


def test_calls() -> None:
    names = named_block("sessions-calls").run()

    async def scenario(url: str) -> None:
        async with talking(url) as talk:

            async def call(method: str, data: Any) -> Any:
                return await talk.ask(rpc={"method": method, "data": data})

            placed = await call("order.place", {"item": "tea", "n": 2})
            assert placed["data"] == {"item": "tea", "for": "somebody"}
            sold_out = await call("order.place", {"item": "coffee", "n": 2})
            assert (sold_out["code"], sold_out["message"]) == (409, "sold out")
            misfit = await call("order.place", {"item": "tea", "n": 0})
            assert misfit["code"] == 107
            assert "n: " in misfit["message"]
            assert (await call("order.steps", {"n": 2}))["data"] == ["step 0", "step 1"]

    play(names["app"], scenario)


def test_a_call_item_by_item() -> None:
    """docs/protocols.md, "Streams of a call"."""
    names = named_block("sessions-calls").run()

    async def scenario(url: str) -> None:
        async with talking(url) as talk:
            asked = {"id": "s", "method": "order.steps", "data": {"n": 2}}
            answer = await talk.ask(rpc={"method": "tidewire.stream", "data": asked})
            assert answer["data"] == {"items": 2}
            items = [(await talk.push("message"))["data"] for _ in range(2)]
            assert items == [{"stream": "s", "item": "step 0"}, {"stream": "s", "item": "step 1"}]
            assert await talk.ask(rpc={"method": "tidewire.cancel", "data": {"id": "s"}}) == {"data": {}}

    play(names["app"], scenario)


def test_coming_and_going() -> None:
    names = named_block("sessions-hooks").run()

    async def scenario(url: str) -> None:
        with pytest.raises(ConnectionClosed, match=r"3507 .* this version is too old"):
            async with talking(url, data={"version": 1}):
                pass
        async with talking(url, data={"version": 2}) as talk, httpx.AsyncClient() as http:
            assert talk.welcome["data"] == {"hello": "ada"}
            assert list(talk.welcome["subs"]) == ["inbox/ada"]
            assert (await talk.ask(subscribe={"channel": "inbox/bob"}))["code"] == 103
            await talk.tell("good morning")
            assert (await http.post(url.replace("/live", "/remind/ada"))).json() == 1
            assert (await talk.push("message"))["data"] == {"do": "drink some water"}
            await names["live"].publish("inbox/ada", {"from": "bob"})
            assert (await talk.push("pub"))["data"] == {"from": "bob"}

    play(names["app"], scenario)
    assert names["heard"] == ["good morning", "ada has gone"]


def test_a_dependency_says_who_it_is() -> None:
    names = named_block("sessions-identity").run()

    async def scenario(url: str) -> None:
        async with talking(url, headers={"cookie": "session=p2Q"}) as bob, talking(url) as nobody:
            assert "epoch" in await bob.ask(subscribe={"channel": "diary/bob"})
            for talk in (bob, nobody):
                assert (await talk.ask(subscribe={"channel": "diary/ada"}))["code"] == 103

    play(names["app"], scenario)


def test_tokens_and_tickets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_SECRET", "a secret of thirty-two characters")
    names = named_block("sessions-tokens").run()

    async def scenario(url: str) -> None:
        async with httpx.AsyncClient(cookies={"user": "ada"}) as http:
            token = (await http.post(url.replace("/live", "/token"))).json()["token"]
            async with talking(url, token=token) as ada:
                assert 500 < ada.welcome["ttl"] <= 600
                assert "epoch" in await ada.ask(subscribe={"channel": "diary/ada"})
                assert (await ada.ask(subscribe={"channel": "diary/bob"}))["code"] == 103
            bearer = {"authorization": f"Bearer {token}"}
            ticket = (await http.post(f"{url}/-/ticket", headers=bearer)).json()
            assert ticket["expires_in_s"] == 30
            statuses = [
                (await http.get(f"{url}/diary/ada?ticket={ticket['ticket']}", headers={"accept": "*/*"})).status_code
                for _ in range(2)
            ]
            assert statuses == [200, 401]
            assert await names["live"].revoke(user="ada") == 0
            assert (await http.get(f"{url}/diary/ada", headers=bearer)).status_code == 401

    play(names["app"], scenario)


def test_patterns() -> None:
    names = named_block("sessions-patterns").run()

    async def scenario(url: str) -> None:
        live: Live = names["live"]
        async with talking(url) as talk:
            await live.publish("quotes/NYSE/A", 1)
            assert "code" not in await talk.ask(subscribe={"channel": "quotes/NYSE/*"})
            first = await talk.push("pub")
            assert (first["channel"], first["data"]) == ("quotes/NYSE/A", 1)
            await live.publish("quotes/LSE/B", 2)
            await live.publish("quotes/NYSE/C", 3)
            assert (await talk.push("pub"))["channel"] == "quotes/NYSE/C"
            refused = await talk.ask(subscribe={"channel": "quotes/**"})
            assert (refused["code"], refused["message"]) == (103, "name a market: quotes/NYSE/*")

    play(names["app"], scenario)


def test_the_table_of_limits_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "sessions.md").read_text(encoding="utf-8")
    section = text.partition("\n## Limits\n")[2].partition("\n## ")[0]
    told: dict[str, float] = {}
    for names, defaults in re.findall(r"^\| (`.*?) \| (.*?) \|", section, re.MULTILINE):
        fields: list[str] = re.findall(r"`(\w+)`", names)
        values = [float(value.replace(",", "")) for value in re.findall(r"[\d,]+", defaults)]
        assert len(fields) == len(values), names
        told |= zip(fields, values, strict=True)
    assert len(told) > 15
    assert told == {name: getattr(Limits(), name) for name in told}
