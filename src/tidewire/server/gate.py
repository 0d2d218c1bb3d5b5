"""Who may use a topic: its function decides, as a route of the inner app (CONTRACTS 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, count
from typing import Any

from fastapi import Depends
from fastapi.dependencies.models import Dependant
from starlette.requests import HTTPConnection

from tidewire.errors import BadTopic, DeclarationError, UnknownTopic
from tidewire.hub.policy import Latest, Log, Policy
from tidewire.protocol.message import Kind
from tidewire.protocol.patterns import cover, parse_pattern
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
    presence: bool = False
    """Who is on it may be asked, and is told to those who want to hear."""
    join_leave: bool = False
    """Every session that subscribes hears who joins and leaves, whether or not it has asked."""

    patterns: bool = False
    """Sessions may subscribe to patterns of it: wildcards in the place of its parameters."""
    streams: bool = False
    """Clients may create, close and delete it: a Durable Stream of theirs."""

    @property
    def key_field(self) -> str | None:
        """The field that keys a ``Latest`` topic, when it is a field."""
        key = self.policy.key if isinstance(self.policy, Latest) else None
        return key if isinstance(key, str) else None


_FOUND_MAX = 10_000
_PATTERN_FIELDS_MAX = 4
# what the dependency given as ``publish=`` is asked for too: who may not write may not create or delete either
_WRITES = frozenset({"publish", "create", "close", "delete"})


class Gate:
    """Every declaration of topics, and the functions that decide for them."""

    def __init__(self, inner: Inner) -> None:
        self.inner = inner
        self.declarations: list[Declaration] = []
        # a declaration that fails leaves routes behind: nobody gets their paths
        self._numbers = count()
        # where the routes of each declaration are in the inner app
        self._index: dict[Declaration, int] = {}
        # what was found for a name, because every publish asks; forgotten when there are too many
        self._found: dict[str, Declaration] = {}

    def declare(self, declaration: Declaration) -> None:
        """Add a declaration; the first declared wins where two match. Raises ``DeclarationError``."""
        if declaration.streams and not isinstance(declaration.policy, Log):
            raise DeclarationError(f"topic {declaration.template.text!a}: only a Log can be a stream of its clients")
        index = next(self._numbers)
        endpoint = make_endpoint(declaration.function, "topic function")
        publish: Sequence[Any] = [] if isinstance(declaration.publish, bool) else [Depends(declaration.publish)]
        try:
            self._add_route(f"/topics/{index}/read/", declaration, endpoint, [])
            self._add_route(f"/topics/{index}/publish/", declaration, endpoint, publish)
            if declaration.patterns:
                self._add_pattern_routes(index, declaration, endpoint)
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

        def check(dependant: Dependant) -> None:
            refuse_websockets(dependant, f"topic {template.text!a}")
            _refuse_bodies(dependant, template)

        self.inner.add(prefix + template.text, endpoint, dependencies=dependencies, check=check)

    def _add_pattern_routes(self, index: int, declaration: Declaration, endpoint: Callable[..., Any]) -> None:
        """A route for each choice of parameters that wildcards stand for: its path lacks them (CONTRACTS 6)."""
        fields = declaration.template.fields
        if not 1 <= len(fields) <= _PATTERN_FIELDS_MAX:
            raise DeclarationError(
                f"topic {declaration.template.text!a}: patterns=True wants 1 to {_PATTERN_FIELDS_MAX} parameters, "
                "which wildcards can stand for"
            )
        for size in range(len(fields)):
            for known in combinations(fields, size):
                path = _pattern_path(index, {name: declaration.template.parameter(name) for name in known})
                check = partial(_refuse_required, missing=set(fields) - set(known), template=declaration.template)
                self.inner.add(path, endpoint, check=check)

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
        kind = "publish" if operation.name in _WRITES else "read"
        path = f"/topics/{self._index[declaration]}/{kind}/{operation.topic}"
        what = f"the topic function of {operation.topic!a}"
        return await self.inner.call(path, Call(operation, identity), connection, what=what)

    def find_pattern(self, text: str) -> tuple[Declaration, dict[str, str | None]]:
        """The declaration that a pattern asks for, and its parameters; None for those that wildcards stand for.

        Raises ``BadTopic``, and ``UnknownTopic`` where none is, or where that one offers no patterns.
        """
        segments = parse_pattern(text)
        for declaration in self.declarations:
            values = cover(declaration.template, segments)
            if values is not None:
                if not declaration.patterns:
                    raise BadTopic(text, "wildcards subscribe to patterns, and this topic does not offer them")
                return declaration, values
        raise UnknownTopic(text)

    def admits(self, declaration: Declaration, topic: str) -> bool:
        """Whether a pattern of ``declaration`` reaches ``topic``: those of other declarations it never does."""
        try:
            return self.find(topic) is declaration and not topic.startswith("$")
        except (BadTopic, UnknownTopic):
            return False

    async def ask_pattern(
        self,
        declaration: Declaration,
        values: dict[str, str | None],
        operation: Operation,
        connection: HTTPConnection,
        identity: Identity | None = None,
    ) -> Admission | Refusal:
        """Run the topic function once for all topics of a pattern; what wildcards stand for is None."""
        known = {name: value for name, value in values.items() if value is not None}
        path = _pattern_path(self._index[declaration], known)
        what = f"the topic function of {operation.topic!a}"
        # FastAPI would fill a parameter that the path lacks from the query of the handshake: a hole
        hidden = frozenset(values) - frozenset(known)
        return await self.inner.call(path, Call(operation, identity), connection, what=what, hidden=hidden)


def _pattern_path(index: int, known: Mapping[str, str]) -> str:
    """Values stand after their names: they are told apart, and a value may hold slashes."""
    names = "-".join(sorted(known)) or "all"
    return f"/patterns/{index}/{names}/" + "/-/".join(known[name] for name in sorted(known))


def _refuse_required(dependant: Dependant, missing: set[str], template: Template) -> None:
    """Refuse a parameter that wildcards may stand for and that does not default to None."""
    for parameter in dependant.query_params:
        if parameter.name in missing and (parameter.field_info.is_required() or parameter.default is not None):
            raise DeclarationError(
                f"topic {template.text!a}: with patterns=True the parameter {parameter.name} is None where a wildcard "
                f"stands for it: write {parameter.name}: str | None = None"
            )
    for sub in dependant.dependencies:
        _refuse_required(sub, missing, template)


def _refuse_bodies(dependant: Dependant, template: Template) -> None:
    if dependant.body_params:
        raise DeclarationError(
            f"topic {template.text!a}: its function takes a body ({dependant.body_params[0].name}), and there is "
            "none; take op: Operation and look at op.data"
        )
    for sub in dependant.dependencies:
        _refuse_bodies(sub, template)
