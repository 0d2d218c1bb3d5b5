"""docs/protocols.md against the code: every code, everything that is refused, every exception."""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.project.documents import ROOT, named_block
from tests.server.session.fakes import SessionHouse, opens
from tests.server.session.test_commands import enter
from tidewire.hub.policy import Log
from tidewire.protocol import codes
from tidewire.protocol.message import Kind
from tidewire.testing.lifespan import Lifespan

TEXT = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")


def rows_below(heading: str, number: int = 0) -> Iterator[list[str]]:
    """The rows of a table of a section, without its head."""
    section = TEXT.partition(f"\n{heading}\n")[2]
    assert section, f"docs/protocols.md has no {heading!r}"
    section = re.split(r"\n#{2,3} ", section)[0]
    tables = re.findall(r"(?:^\|.*\n)+", section + "\n", re.MULTILINE)
    for line in tables[number].splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def yes(claim: bool) -> str:
    return "yes" if claim else "no"


def test_every_error_is_told_as_it_is() -> None:
    wanted = [[str(one.code), one.name, yes(one.temporary), one.meaning] for one in codes.FAULTS]
    assert list(rows_below("### Errors")) == wanted


@pytest.mark.parametrize(
    ("heading", "table"),
    [
        ("### How a connection ends", sorted(codes.SESSION_CODES, key=lambda one: one.code)),
        ("### How one subscription ends", codes.UNSUBSCRIBE_CODES),
    ],
)
def test_every_end_is_told_as_it_is(heading: str, table: Any) -> None:
    wanted = [[str(one.code), one.name, yes(one.come_back), one.meaning] for one in table]
    assert list(rows_below(heading)) == wanted


# what stands in the table of what is refused, and how to ask for it
ASKED = {
    "a map, or a shared poll: `type` of a subscribe": [
        {"subscribe": {"channel": "t", "type": number}} for number in (1, 2, 3, 4)
    ],
    "publishing to a map: `type` of a publish": [{"publish": {"channel": "t", "data": 1, "type": 1}}],
    "tracking the keys of a shared poll: `type` of a sub refresh": [{"sub_refresh": {"channel": "t", "type": 1}}],
    "a filter of tags: `tf`": [{"subscribe": {"channel": "t", "tf": {"key": "a", "cmp": "eq", "val": "b"}}}],
    "a ping of the client's": [{"ping": {}}],
    'a topic declared `payload="bytes"`, in JSON': [
        {"subscribe": {"channel": "raw"}},
        {"history": {"channel": "raw", "limit": 1}},
    ],
    "a pattern that the topic does not offer": [{"subscribe": {"channel": "room/*"}}],
}


@opens
async def test_what_is_refused_is_refused_so() -> None:
    told = {asked: answer for asked, answer in rows_below("### What is refused") if answer.startswith("error ")}
    assert set(told) == set(ASKED)
    house = SessionHouse(policy=Log())
    house.declare("raw", payload=Kind.BYTES)
    house.declare("room/{number}")
    await house.start()
    caller = await enter(house)
    for asked, commands in ASKED.items():
        for command in commands:
            answer = await caller.ask(**command)
            assert f"error {answer['error']}" == told[asked], (asked, answer)
    # offers, which the answer is silent about
    offered = [row[0] for row in rows_below("### What is refused", 1)]
    assert len(offered) == 3
    result = await caller.ask(subscribe={"channel": "t", "delta": "fossil", "flag": 1})
    assert not {"error", "delta", "id"} & set(result)


async def status_of(app: FastAPI, method: str, path: str, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        return (await http.request(method, path, headers=named)).status_code


def streams() -> FastAPI:
    """The program of "Durable Streams"."""
    app = FastAPI()
    app.include_router(named_block("protocols-stream").run()["live"].router, prefix="/live")
    return app


@pytest.mark.parametrize("transport", ["http_stream", "sse", "emulation", "uni_sse", "uni_http_stream", "webtransport"])
def test_transports_that_are_not_there_are_404(transport: str) -> None:
    app = streams()

    async def scenario() -> None:
        async with Lifespan(app):
            for method in ("GET", "POST"):
                assert await status_of(app, method, f"/live/-/{transport}") == 404

    asyncio.run(scenario())


def test_the_life_of_a_stream() -> None:
    app = streams()

    async def scenario() -> None:
        url, kind = "/live/orders/a", "application/json"
        async with Lifespan(app):
            assert await status_of(app, "GET", url) == 404
            assert [await status_of(app, "PUT", url, content_type=kind) for _ in range(2)] == [201, 200]
            assert await status_of(app, "PUT", url, content_type="text/plain") == 409
            assert await status_of(app, "PUT", f"{url}b", content_type=kind, stream_forked_from=url) == 501
            assert await status_of(app, "POST", url, content_type=kind, stream_closed="true") == 204
            assert await status_of(app, "HEAD", url) == 200
            assert await status_of(app, "DELETE", url) == 204
            assert await status_of(app, "HEAD", url) == 404

    asyncio.run(scenario())


def test_every_exception_of_the_conformance_suite_is_told() -> None:
    listed = tomllib.loads((ROOT / "tests/interop/streams/exceptions.toml").read_text(encoding="utf-8"))
    section = TEXT.partition("**Exceptions.**")[2].partition("\n## ")[0]
    assert f"Of the {listed['suite_tests']} tests" in section
    told = re.findall(r"^- \*([^*]+)\*", section, re.MULTILINE)
    groups = {group.partition(" - ")[0] for exception in listed["exception"] for group in exception["groups"]}
    assert set(told) == groups
