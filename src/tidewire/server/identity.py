"""Who a caller is, once that is verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def _check_user(user: object) -> None:
    """7 and "7" would be one user here and two there: one is revoked, and the other goes on."""
    if not isinstance(user, str):
        raise TypeError(f"Identity(user=...) is a str, not {type(user).__name__}: write str(...) around the user's id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A verified caller.

    ``user``: empty for somebody unknown. ``info``: a JSON value that other members of a topic may see, or None.
    ``claims``: those of the token it came from. ``expires_at``: seconds since 1970, None: it does not expire.
    ``token_id``: the token's own id (``jti``), by which it can be revoked. ``issued_at``: when it was issued, or when
    the application said who it is (seconds since 1970; None: nobody knows).
    """

    user: str = ""
    info: Any = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    expires_at: float | None = None
    token_id: str | None = None
    issued_at: float | None = None

    def __post_init__(self) -> None:
        _check_user(self.user)


ANONYMOUS = Identity()
