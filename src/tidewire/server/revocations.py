"""Tokens that are not good any more although they have not expired."""

from __future__ import annotations

from tidewire.clock import Clock
from tidewire.errors import TooManyRevocations
from tidewire.server.identity import Identity


class Revocations:
    """Revoked tokens, by their id or by their user, for as long as such tokens may live.

    Full: revoking raises, because forgetting an older one would let it in again.
    """

    def __init__(self, clock: Clock, *, most: int) -> None:
        self.clock = clock
        self._most = most
        # token id -> when it is forgotten; user -> (tokens issued up to then are void, when that is forgotten)
        self._tokens: dict[str, float] = {}
        self._users: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._tokens) + len(self._users)

    def revoke_token(self, token_id: str, *, for_s: float) -> None:
        """The token with this ``jti`` is void, and that is remembered for ``for_s`` seconds."""
        self._make_room(token_id in self._tokens)
        self._tokens[token_id] = self._now() + for_s

    def revoke_user(self, user: str, *, for_s: float) -> None:
        """Tokens of ``user`` issued until now are void (``iat``; one without it is, too)."""
        self._make_room(user in self._users)
        now = self._now()
        self._users[user] = (now, now + for_s)

    def is_revoked(self, identity: Identity) -> bool:
        """Whether the token that said so is void."""
        now = self._now()
        if identity.token_id is not None and self._tokens.get(identity.token_id, 0.0) > now:
            return True
        before, until = self._users.get(identity.user, (0.0, 0.0))
        if until <= now:
            return False
        issued = identity.claims.get("iat")
        return isinstance(issued, bool) or not isinstance(issued, int | float) or issued <= before

    def _now(self) -> float:
        return self.clock.wall_ms() / 1000

    def _make_room(self, is_known: bool) -> None:
        if is_known or len(self) < self._most:
            return
        now = self._now()
        self._tokens = {token_id: until for token_id, until in self._tokens.items() if until > now}
        self._users = {user: entry for user, entry in self._users.items() if entry[1] > now}
        if len(self) >= self._most:
            raise TooManyRevocations(self._most)
