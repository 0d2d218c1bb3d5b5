"""Tokens that are not good any more although they have not expired."""

from __future__ import annotations

from tidewire.clock import Clock
from tidewire.errors import TooManyRevocations
from tidewire.server.identity import Identity
from tidewire.server.tokens import LEEWAY_MAX_S


class Revocations:
    """Revoked tokens, by their id or by their user, for as long as such tokens may live.

    Full: revoking raises, because forgetting an older one would let it in again.
    """

    def __init__(self, clock: Clock, *, most: int) -> None:
        self.clock = clock
        self._most = most
        # token id -> when it is forgotten; user -> (what was issued up to then is void, when that is forgotten)
        self._tokens: dict[str, float] = {}
        self._users: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._tokens) + len(self._users)

    def revoke(self, *, user: str | None, token_id: str | None, for_s: float) -> None:
        """One token, or all of a user until now, or both; nothing is done where one of them makes no sense.

        Raises ``ValueError``, and ``TooManyRevocations``.
        """
        if user is None and token_id is None:
            raise ValueError("say whose tokens are revoked (user=), or which one (token_id=)")
        if user is not None:
            _check(user, "user", for_s)
        if token_id is not None:
            self.revoke_token(token_id, for_s=for_s)
        if user is not None:
            self.revoke_user(user, for_s=for_s)

    def revoke_token(self, token_id: str, *, for_s: float) -> None:
        """The token with this ``jti`` is void, and that is remembered for ``for_s`` seconds: until it expires.

        Raises ``TooManyRevocations``, and ``ValueError`` for an id that no token has.
        """
        _check(token_id, "token_id", for_s)
        self._make_room(token_id in self._tokens)
        self._tokens[token_id] = max(self._tokens.get(token_id, 0.0), self._end(for_s))

    def revoke_user(self, user: str, *, for_s: float, before: float | None = None) -> None:
        """What was issued to ``user`` until ``before`` (seconds since 1970; None: now) is void (``iat``).

        A token that does not say when it was issued is void, too. ``iat`` has whole seconds in most tokens: one that is
        issued in the rest of this second is void as well. Raises ``TooManyRevocations``, and ``ValueError`` for nobody.
        """
        _check(user, "user", for_s)
        self._make_room(user in self._users)
        known_before, known_until = self._users.get(user, (0.0, 0.0))
        before = self._now() if before is None else before
        self._users[user] = (max(known_before, before), max(known_until, self._end(for_s)))

    def is_revoked(self, identity: Identity) -> bool:
        """Whether the token that said so is void."""
        now = self._now()
        if identity.token_id is not None and self._tokens.get(identity.token_id, 0.0) > now:
            return True
        before, until = self._users.get(identity.user, (0.0, 0.0))
        return until > now and (identity.issued_at is None or identity.issued_at <= before)

    def _now(self) -> float:
        return self.clock.wall_ms() / 1000

    def _end(self, for_s: float) -> float:
        # a token is good for the leeway of ``Tokens`` after its end
        return self._now() + for_s + LEEWAY_MAX_S

    def _make_room(self, is_known: bool) -> None:
        if is_known or len(self) < self._most:
            return
        now = self._now()
        self._tokens = {token_id: until for token_id, until in self._tokens.items() if until > now}
        self._users = {user: entry for user, entry in self._users.items() if entry[1] > now}
        if len(self) >= self._most:
            raise TooManyRevocations(self._most)


def _check(name: object, what: str, for_s: float) -> None:
    """Refuse what would be remembered and mean nothing: who revokes believes that somebody is out."""
    if not isinstance(name, str) or not name:
        raise ValueError(
            f"{what} is the id that stands in the token, a text, and not {name!r}: the empty id is everybody who is "
            "not known"
        )
    if not for_s > 0:
        raise ValueError(f"for_s is how many seconds the revocation is remembered, more than 0, and not {for_s!r}")
