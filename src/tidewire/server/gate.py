"""Who may use a topic: its function decides, as a route of the inner app (CONTRACTS 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Depends
from fastapi.dependencies.models import Dependant
from starlette.requests import HTTPConnection

from tidewire.errors import DeclarationError, UnknownTopic
from tidewire.hub.policy import Latest, Policy
from tidewire.protocol.message import Kind
from tidewire.protocol.topics import Template, validate_topic
from tidewire.server.identity import Identity
from tidewire.server.inner import Admission, Call, Inner, Operation, Refusal, make_endpoint, refuse_websockets

__all__ = ["Admission", "Declaration", "Gate", "Operation", "Refusal"]


@dataclass(frozen=True, slots=True, eq=False)
class Declaration:
    """One ``@live.topic``."""

    template: Template
    policy: Policy
    function: Callable[..., Any]
    payload: Kind | None
    publish: bool | Callable[..., Any]

    @property
    def key_field(self) -> str | None:
        """The field that keys a ``Latest`` topic, when it is a field."""
        key = self.policy.key if isinstance(self.policy, Latest) else None
        return key if isinstance(key, str) else None


_FOUND_MAX = 10_000


class Gate:
    """Every declaration of topics, and the functions that decide for them."""

    def __init__(self, inner: Inner) -> None:
        self._inner = inner
        self.declarations: list[Declaration] = []
        # where the routes of each declaration are in the inner app
        self._index: dict[Declaration, int] = {}
        # what was found for a name, because every publish asks; forgotten when there are too many
        self._found: dict[str, Declaration] = {}

    def declare(self, declaration: Declaration) -> None:
        """Add a declaration; the first declared wins where two match. Raises ``DeclarationError``."""
        index = len(self.declarations)
        endpoint = make_endpoint(declaration.function, "topic function")
        publish: Sequence[Any] = [] if isinstance(declaration.publish, bool) else [Depends(declaration.publish)]
        try:
            self._add_route(f"/topics/{index}/read/", declaration, endpoint, [])
            self._add_route(f"/topics/{index}/publish/", declaration, endpoint, publish)
        except DeclarationError:
            raise
        except Exception as error:
            raise DeclarationError(f"topic {declaration.template.text!a}: {error}") from error
        self.declarations.append(declaration)
        self._found.clear()
        self._index[declaration] = index

    def _add_route(
        self, prefix: str, declaration: Declaration, endpoint: Callable[..., Any], dependencies: Sequence[Any]
    ) -> None:
        template = declaration.template
        route = self._inner.add(prefix + template.text, endpoint, dependencies=dependencies)
        refuse_websockets(route.dependant, f"topic {template.text!a}")
        _refuse_bodies(route.dependant, template)

    def find(self, topic: str) -> Declaration:
        """The first declaration that matches a name; raises ``BadTopic`` and ``UnknownTopic``."""
        known = self._found.get(topic)
        if known is not None:
            return known
        validate_topic(topic)
        for declaration in self.declarations:
            if declaration.template.match(topic) is not None:
                if len(self._found) >= _FOUND_MAX:
                    self._found.clear()
                self._found[topic] = declaration
                return declaration
        raise UnknownTopic(topic)

    async def ask(
        self,
        declaration: Declaration,
        operation: Operation,
        connection: HTTPConnection,
        identity: Identity | None = None,
    ) -> Admission | Refusal:
        """Run the topic function for the caller behind ``connection``; within the deadline, and never raises.

        ``identity``: who that is, where it is known already.
        """
        kind = "publish" if operation.name == "publish" else "read"
        path = f"/topics/{self._index[declaration]}/{kind}/{operation.topic}"
        what = f"the topic function of {operation.topic!a}"
        return await self._inner.call(path, Call(operation, identity), connection, what=what)


def _refuse_bodies(dependant: Dependant, template: Template) -> None:
    if dependant.body_params:
        raise DeclarationError(
            f"topic {template.text!a}: its function takes a body ({dependant.body_params[0].name}), and there is "
            "none; take op: Operation and look at op.data"
        )
    for sub in dependant.dependencies:
        _refuse_bodies(sub, template)
