"""Tickets: good once, for a while, for who asked; and who may ask for one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import FastAPI
from starlette.requests import HTTPConnection

from tests.server.driver import HttpCall, play_with, request
from tests.server.mint import NOW, SECRET, mint
from tidewire import Identity, Live, Tokens
from tidewire.server.tickets import PER_USER_MAX, Tickets
from tidewire.testing import ManualClock

ANN, BOB = Identity(user="ann"), Identity(user="bob")


class Booth:
    def __init__(self, most: int = 1000) -> None:
        self.clock = ManualClock()
        self.tickets = Tickets(self.clock, lifetime_s=30, most=most)

    def issue(self, identity: Identity = ANN, count: int = 1) -> list[str]:
        return [self.tickets.issue(identity) for _ in range(count)]

    def good(self, tickets: list[str]) -> list[str]:
        """Whose they are; those that are void are left out."""
        found = [self.tickets.redeem(ticket) for ticket in tickets]
        return [identity.user for identity in found if identity is not None]


# The table


def test_a_ticket_is_good_for_who_asked() -> None:
    booth = Booth()
    ann, bob = booth.tickets.issue(ANN), booth.tickets.issue(BOB)
    assert booth.tickets.redeem(bob) is BOB
    assert booth.tickets.redeem(ann) is ANN
    assert len(booth.tickets) == 0


def test_a_ticket_used_twice() -> None:
    booth = Booth()
    (ticket,) = booth.issue()
    assert booth.good([ticket, ticket, ticket]) == ["ann"]


def test_an_expired_ticket() -> None:
    booth = Booth()
    late, in_time = booth.issue(count=2)
    booth.clock.advance(29.9)
    assert booth.good([in_time]) == ["ann"]
    booth.clock.advance(0.1)
    assert booth.good([late]) == []


def test_a_guessed_ticket() -> None:
    booth = Booth()
    tickets = booth.issue(count=50)
    assert len(set(tickets)) == 50
    # 128 bits are 22 characters of base64
    assert min(map(len, tickets)) >= 22
    first = tickets[0]
    guesses = ["", "x", first[:-1], first + "x", first.swapcase(), first[::-1], "ä\ud800", "0" * 100_000]
    assert booth.good(guesses) == []
    assert booth.good([first]) == ["ann"]


def test_the_table_shows_no_ticket() -> None:
    booth = Booth()
    (ticket,) = booth.issue()
    assert ticket not in repr(vars(booth.tickets))


def test_when_it_is_full_the_oldest_go() -> None:
    booth = Booth(most=3)
    tickets = [booth.tickets.issue(Identity(user=str(number))) for number in range(5)]
    assert len(booth.tickets) == 3
    assert booth.good(tickets) == ["2", "3", "4"]


def test_nobody_voids_the_tickets_of_others() -> None:
    booth = Booth(most=PER_USER_MAX + 1)
    bobs = booth.issue(BOB)
    mine = booth.issue(ANN, PER_USER_MAX * 3)
    assert booth.good(mine) == ["ann"] * PER_USER_MAX
    assert booth.good(mine[-PER_USER_MAX:]) == []
    assert booth.good(bobs) == ["bob"]


def test_those_that_are_too_old_make_room() -> None:
    booth = Booth(most=3)
    booth.issue(ANN, 2)
    booth.clock.advance(20)
    bobs = booth.issue(BOB)
    booth.clock.advance(10)
    booth.issue(ANN)
    assert len(booth.tickets) == 2
    assert booth.good(bobs) == ["bob"]


def test_people_without_an_id_share_the_room() -> None:
    booth = Booth()
    assert len(booth.good(booth.issue(Identity(), PER_USER_MAX + 1))) == PER_USER_MAX + 1


def test_nothing_is_left() -> None:
    booth = Booth()
    for user in (ANN, BOB, Identity()):
        booth.good(booth.issue(user, 3))
    booth.issue(ANN, 5)
    booth.clock.advance(30)
    booth.good(booth.issue(BOB))
    assert len(booth.tickets) == 0
    assert booth.tickets._of_user == {}


# POST /-/ticket


def user_of_header(connection: HTTPConnection) -> str | None:
    return connection.headers.get("x-user")


async def ask(app: FastAPI, query: str = "", **headers: str) -> HttpCall:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await request(app, "POST", f"/live/-/ticket{query}", headers=named)


def play(scenario: Any, **options: Any) -> None:
    play_with(lambda live: None, scenario, **options)


def test_who_is_known_gets_a_ticket() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for headers in ({"x_user": "ann"}, {"authorization": f"Bearer {mint()}"}):
            answer = await ask(app, **headers)
            assert answer.status == 200
            assert answer.headers["cache-control"] == "no-store"
            assert answer.json.keys() == {"ticket", "expires_in_s"}
            assert answer.json["expires_in_s"] == 30
            identity = live._site.tickets.redeem(answer.json["ticket"])
            assert identity is not None
            assert identity.user == "ann"
        assert (await ask(app, f"?token={mint()}")).status == 200

    play(scenario, tokens=Tokens(secret=SECRET), identity=user_of_header)


def test_who_is_nobody_gets_none() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for answer in (await ask(app), await ask(app, x_user="")):
            assert answer.status == 401
            assert "say who you are" in answer.json["detail"]
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["cache-control"] == "no-store"
        forged = await ask(app, authorization="Bearer forged", x_user="ann")
        assert forged.status == 401
        assert "no token" in forged.json["detail"]
        assert len(live._site.tickets) == 0

    play(scenario, tokens=Tokens(secret=SECRET), identity=user_of_header)


def test_where_nobody_can_be_known_there_are_no_tickets() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        assert (await ask(app, authorization=f"Bearer {mint()}")).status == 401

    play(scenario)


def test_a_page_of_another_site_gets_no_ticket() -> None:
    """Its visitor's cookies would come along."""

    async def scenario(app: FastAPI, live: Live) -> None:
        for origin in ("https://evil.example", "null", "http://test.evil.example"):
            answer = await ask(app, origin=origin, x_user="ann")
            assert answer.status == 403
            assert "origin" in answer.json["detail"]
            assert "access-control-allow-origin" not in answer.headers
        assert len(live._site.tickets) == 0
        assert (await ask(app, origin="http://test", x_user="ann")).status == 200

    play(scenario, identity=user_of_header)


def test_a_page_that_is_allowed_can_read_its_ticket() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for headers, status in (({"x_user": "ann"}, 200), ({}, 401)):
            answer = await ask(app, origin="https://app.example", **headers)
            assert answer.status == status
            assert answer.headers["access-control-allow-origin"] == "https://app.example"
            assert answer.headers["vary"] == "Origin"

    play(scenario, identity=user_of_header, origins=["https://app.example"])


def test_a_ticket_buys_no_other_ticket() -> None:
    """Otherwise who has seen one is in for ever."""

    async def scenario(app: FastAPI, live: Live) -> None:
        ticket = (await ask(app, x_user="ann")).json["ticket"]
        for headers in ({}, {"x_user": "ann"}):
            answer = await ask(app, f"?ticket={ticket}", **headers)
            assert answer.status == 401
            assert "buys no other" in answer.json["detail"]
        assert len(live._site.tickets) == 1

    play(scenario, identity=user_of_header)


def test_only_post_gives_tickets() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for method in ("GET", "PUT", "DELETE", "HEAD"):
            answer = await request(app, method, "/live/-/ticket", headers={"x-user": "ann"})
            assert answer.status in (404, 405)
        assert len(live._site.tickets) == 0

    play(scenario, identity=user_of_header)


def test_a_ticket_keeps_the_end_of_its_token() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        token = mint({"sub": "ann", "exp": NOW + 900, "jti": "7"})
        answer = await ask(app, authorization=f"Bearer {token}")
        identity = live._site.tickets.redeem(json.loads(answer.body_so_far)["ticket"])
        assert identity is not None
        assert (identity.expires_at, identity.token_id) == (NOW + 900, "7")

    async def run() -> None:
        clock = ManualClock()
        live = Live(tokens=Tokens(secret=SECRET), clock=clock)
        app = FastAPI()
        app.include_router(live.router, prefix="/live")
        await scenario(app, live)

    asyncio.run(run())
