"""A house that takes tokens, and what its clients may be told of them."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Self

from fastapi import Depends

from tests.server.mint import SECRET, mint
from tests.server.session.fakes import Caller, SessionHouse, passes
from tidewire import Deny, Identity, Operation, Tokens
from tidewire.server.identities import Identities

LEEWAY_S = 5.0
GRACE_S = 25.0


class TokenHouse(SessionHouse):
    """A house that takes tokens, and notes who asks for the topic ``mine``."""

    def __init__(self, tokens: Tokens | None = None, provider: Callable[..., Any] | None = None, **more: Any) -> None:
        is_open = more.pop("is_open", False)
        super().__init__(**more)
        site = self.site
        site.tokens = None if is_open else tokens or Tokens(secret=SECRET, leeway_s=LEEWAY_S)
        self.identities = site.identities = Identities(
            site.gate.inner, site.tokens, provider, tickets=site.tickets, revocations=site.revocations
        )
        self.asked: list[tuple[str, str, Any]] = []
        self.may = asyncio.Event()
        self.may.set()
        self.is_denied = False

        async def mine(op: Operation, who: Annotated[Identity, Depends(self.identities.dependency)]) -> None:
            self.asked.append((op.name, who.user, op.data))
            await self.may.wait()
            if self.is_denied:
                raise Deny("not any more")

        async def all_of_mine(
            op: Operation,
            who: Annotated[Identity, Depends(self.identities.dependency)],
            name: str | None = None,
        ) -> None:
            await mine(op, who)

        self.declare("mine", mine, publish=True)
        self.declare("each/{name}", all_of_mine, patterns=True)

    async def start(self) -> Self:
        await super().start()
        return self

    async def enter(self, token: str = "", **options: Any) -> Caller:
        """A client that is connected."""
        caller = Caller(self, **options)
        welcome = await caller.connect(token=token or mint())
        assert "client" in welcome, welcome
        return caller

    def revoke(self, **what: Any) -> int:
        """As ``Live.revoke`` does."""
        self.site.revocations.revoke(**{"user": None, "token_id": None, "for_s": 3600.0, **what})
        return self.site.sessions.end_revoked(self.site.revocations.is_revoked)


async def present(house: TokenHouse, token: str, codec: str = "json") -> tuple[Any, Any]:
    """The answer to a connect command with this token, and the close code; nothing is said of the token."""
    caller = Caller(house, codec=codec)
    caller.send({"connect": {"token": token}})
    await passes(40)
    assert_silent(caller, token)
    assert caller.goodbye is not None or not caller.session.is_connected or caller.reply_of(1) is not None
    return caller.reply_of(1), caller.goodbye


def assert_silent(caller: Caller, token: str) -> None:
    """Nothing comes after a close frame, and no word of the token comes back."""
    if caller.goodbye is not None:
        assert caller.frames[-1].opcode == 8
    said = b"".join(frame.payload for frame in caller.frames)
    for part in token.split("."):
        assert len(part) < 12 or part.encode("utf-8", "replace") not in said
