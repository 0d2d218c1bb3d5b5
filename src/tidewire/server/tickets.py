"""Tickets: for browsers, which cannot set a header on a WebSocket. Good once, for some seconds, for whoever asked."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING

from fastapi import Request, Response
from starlette.responses import JSONResponse

from tidewire.clock import Clock
from tidewire.server.identity import ANONYMOUS, Identity
from tidewire.server.inner import Refusal

if TYPE_CHECKING:
    from tidewire.server.site import Site

_RANDOM_BYTES = 24


class Tickets:
    """Tickets that were given out. Full: the oldest go, and whoever has one asks for another."""

    def __init__(self, clock: Clock, *, lifetime_s: float, most: int) -> None:
        self.clock = clock
        self.lifetime_s = lifetime_s
        self._most = most
        # in the order they were given out, which is that of their ends
        self._given: OrderedDict[str, tuple[Identity, float]] = OrderedDict()

    def issue(self, identity: Identity) -> str:
        """A new ticket for ``identity``: 192 random bits."""
        now = self.clock.now()
        while self._given and (len(self._given) >= self._most or next(iter(self._given.values()))[1] <= now):
            self._given.popitem(last=False)
        ticket = secrets.token_urlsafe(_RANDOM_BYTES)
        self._given[ticket] = (identity, now + self.lifetime_s)
        return ticket

    def redeem(self, ticket: str) -> Identity | None:
        """Whose it is; None for one that is unknown, used or too old. It is good no more."""
        found = self._given.pop(ticket, None)
        if found is None or found[1] <= self.clock.now():
            return None
        return found[0]


async def issue_ticket(site: Site, request: Request) -> Response:
    """POST ``/-/ticket``: a ticket for who the request is from, to be put into the URL of a WebSocket."""
    refusal = site.check_origin(request)
    if refusal is None:
        identity = await site.identify(request)
        refusal = identity if isinstance(identity, Refusal) else None
        if refusal is None and identity is ANONYMOUS:
            refusal = Refusal(401, "say who you are, as on any other request: a ticket is for somebody known")
        if refusal is None:
            assert isinstance(identity, Identity)
            answer = {"ticket": site.tickets.issue(identity), "expires_in_s": site.tickets.lifetime_s}
            return JSONResponse(answer, headers={"cache-control": "no-store"})
    return JSONResponse({"detail": refusal.detail}, status_code=refusal.status, headers=refusal.headers)
