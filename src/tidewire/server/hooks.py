"""What an application wants to be asked and told of sessions: connect, disconnect, messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.dependencies.models import Dependant
from starlette.requests import HTTPConnection

from tidewire.errors import DeclarationError
from tidewire.server.identity import Identity
from tidewire.server.inner import Admission, Call, Inner, Operation, Refusal, make_endpoint, refuse_websockets

CONNECT = "connect"
DISCONNECT = "disconnect"
MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Welcome:
    """What ``@live.on_connect`` may return.

    ``data``: a JSON value for the client. ``topics``: the server subscribes the session to these by itself, without
    asking their functions. ``info``: a JSON value that other members of a topic may see (None: that of the token).
    """

    data: Any = None
    topics: Sequence[str] = ()
    info: Any = None


class Hooks:
    """One function each, run as a route of the inner app with ``Depends`` and all."""

    def __init__(self, inner: Inner) -> None:
        self._inner = inner
        self._declared: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._declared

    def declare(self, name: str, function: Callable[..., Any]) -> None:
        """Use ``function`` for ``name``; raises ``DeclarationError`` for a second one, and for what cannot work."""
        what = f"on_{name}"
        if name in self._declared:
            raise DeclarationError(f"{what} is declared twice: one function can call the other")

        def check(dependant: Dependant) -> None:
            refuse_websockets(dependant, what)
            if dependant.body_params:
                raise DeclarationError(f"{what}: its function takes a body; take op: Operation and look at op.data")

        try:
            self._inner.add(f"/hooks/{name}", make_endpoint(function, f"{what} function"), check=check)
        except DeclarationError:
            raise
        except Exception as error:
            raise DeclarationError(f"{what}: {error}") from error
        self._declared.add(name)

    async def run(
        self, name: str, connection: HTTPConnection, identity: Identity, data: Any = None
    ) -> Admission | Refusal:
        """Run the function, if there is one; ``op.data`` is ``data``. Never raises."""
        if name not in self._declared:
            return Admission()
        call = Call(Operation(name, "", data=data), identity)
        return await self._inner.call(f"/hooks/{name}", call, connection, what=f"the on_{name} function")
