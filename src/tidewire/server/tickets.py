"""Tickets: for browsers, which cannot set a header on a WebSocket. Good once, for some seconds, for whoever asked."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

from fastapi import Request, Response
from starlette.responses import JSONResponse

from tidewire.clock import Clock
from tidewire.server.identity import ANONYMOUS, Identity
from tidewire.server.inner import Refusal
from tidewire.server.origin import cors_headers

if TYPE_CHECKING:
    from tidewire.server.site import Site

PER_USER_MAX = 100
_RANDOM_BYTES = 24


class Tickets:
    """Tickets that were given out. Full: the oldest go, and whoever has one asks for another.

    Of one user there are ``PER_USER_MAX``, and of more that user's oldest go, so that nobody voids those of others.
    Users who are not known by an id share half of the room.
    """

    def __init__(self, clock: Clock, *, lifetime_s: float, most: int) -> None:
        self.clock = clock
        self.lifetime_s = lifetime_s
        self._most = most
        # by what a ticket hashes to, in the order they were given out, which is that of their ends
        self._given: dict[bytes, tuple[Identity, float]] = {}
        # of each user, in the same order
        self._of_user: dict[str, dict[bytes, None]] = {}

    def __len__(self) -> int:
        return len(self._given)

    def issue(self, identity: Identity) -> str:
        """A new ticket for ``identity``: 192 random bits."""
        self._make_room(identity.user)
        ticket = secrets.token_urlsafe(_RANDOM_BYTES)
        name = _name(ticket)
        self._given[name] = (identity, self.clock.now() + self.lifetime_s)
        self._of_user.setdefault(identity.user, {})[name] = None
        return ticket

    def redeem(self, ticket: str) -> Identity | None:
        """Whose it is; None for one that is unknown, used or too old. It is good no more."""
        identity, end = self._forget(_name(ticket))
        return identity if end > self.clock.now() else None

    def _make_room(self, user: str) -> None:
        now = self.clock.now()
        while self._given and next(iter(self._given.values()))[1] <= now:
            self._forget(next(iter(self._given)))
        own = self._of_user.get(user, {})
        if len(own) >= (PER_USER_MAX if user else max(1, self._most // 2)):
            self._forget(next(iter(own)))
        if len(self._given) >= self._most:
            self._forget(next(iter(self._given)))

    def _forget(self, name: bytes) -> tuple[Identity | None, float]:
        identity, end = self._given.pop(name, (None, 0.0))
        if identity is not None:
            own = self._of_user[identity.user]
            del own[name]
            if not own:
                del self._of_user[identity.user]
        return identity, end


def _name(ticket: str) -> bytes:
    """Tickets themselves are kept nowhere, so that nothing that shows the table shows any."""
    return hashlib.sha256(ticket.encode("utf-8", "replace")).digest()


async def issue_ticket(site: Site, request: Request) -> Response:
    """POST ``/-/ticket``: a ticket for who the request is from, to be put into the URL of a WebSocket."""
    headers = dict(cors_headers(request.headers.get("origin"), site.origins)) | {"cache-control": "no-store"}
    identity = site.check_origin(request) or await _identify(site, request)
    if isinstance(identity, Refusal):
        return JSONResponse({"detail": identity.detail}, identity.status, {**headers, **identity.headers})
    answer = {"ticket": site.tickets.issue(identity), "expires_in_s": site.tickets.lifetime_s}
    return JSONResponse(answer, headers=headers)


async def _identify(site: Site, request: Request) -> Identity | Refusal:
    if "ticket" in request.query_params:
        # otherwise whoever sees one ticket has access for ever
        return Refusal(401, "a ticket buys no other ticket: ask with what you had this one for", UNKNOWN)
    identity = await site.identify(request)
    if identity is ANONYMOUS:
        return Refusal(401, "say who you are, as on any other request: a ticket is for somebody known", UNKNOWN)
    return identity


# RFC 9110 section 15.5.2: a 401 says how to do better
UNKNOWN = {"www-authenticate": "Bearer"}
