"""Who may use a topic: its function decides, as a route of the inner app (CONTRACTS 6)."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, count
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec
from fastapi import Depends
from fastapi.dependencies.models import Dependant
from starlette.requests import HTTPConnection

from tidewire.clock import Clock, LoopClock
from tidewire.errors import BadTopic, DeclarationError, UnknownTopic
from tidewire.hub.policy import Latest, Log, Policy
from tidewire.protocol.message import Kind
from tidewire.protocol.patterns import cover, parse_pattern
from tidewire.protocol.topics import Template, validate_topic
from tidewire.server.identity import Identity
from tidewire.server.inner import Admission, Call, Inner, Operation, Refusal, make_endpoint, refuse_websockets

__all__ = ["Admission", "Admissions", "Declaration", "Gate", "Operation", "Refusal"]

Presented = Callable[[HTTPConnection], Awaitable[Identity | Refusal | None]]
"""Whose the token or the ticket of a handshake is; None: it has neither."""


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
# each write is asked for, as its function may look at what is written
_REMEMBERED = frozenset({"subscribe", "read", "presence"})
ADMISSIONS_MAX = 100_000
# what differs from one handshake of a caller to the next, and does not say who it is: everything else does
_PASSING_HEADERS = frozenset(
    {b"sec-websocket-key", b"last-event-id", b"if-none-match", b"traceparent", b"tracestate", b"x-request-id"}
)
_PLACES = (b"since", b"offset", b"cursor")


class Admissions:
    """Who was admitted to what a moment ago (``Limits.authorise_ttl_s``), so that a crowd that comes back is let in.

    Full: the oldest go, and their callers are asked about anew. Time is the argument ``now``, in seconds.
    """

    def __init__(self, ttl_s: float, *, most: int = ADMISSIONS_MAX) -> None:
        self._ttl_s = ttl_s
        self._most = most
        # until when each is good, in the order in which they end
        self._until: dict[Any, float] = {}
        self.clearings = 0
        """How often everything was forgotten: who was asked about before that is not remembered after it."""

    def __len__(self) -> int:
        return len(self._until)

    def has(self, name: object, now: float) -> bool:
        """Whether ``name`` was admitted, and not too long ago."""
        return self._until.get(name, now) > now

    def keep(self, name: object, now: float, clearings: int) -> None:
        """``name`` was admitted; ``clearings`` is what it was when the application was asked."""
        if clearings != self.clearings:
            return
        self._until.pop(name, None)
        while self._until:
            oldest = next(iter(self._until))
            if self._until[oldest] > now and len(self._until) < self._most:
                break
            del self._until[oldest]
        self._until[name] = now + self._ttl_s

    def clear(self) -> None:
        """Forget everything: somebody may do less than before."""
        self.clearings += 1
        self._until.clear()


class Gate:
    """Every declaration of topics, and the functions that decide for them.

    ``admissions``: where admissions are remembered; None: every function is asked every time. ``clock``: its time.
    """

    def __init__(self, inner: Inner, *, admissions: Admissions | None = None, clock: Clock | None = None) -> None:
        self.inner = inner
        self.clock = clock or LoopClock()
        # a credential that has ended meanwhile is looked at even where its admission is remembered
        self.presented: Presented = _nothing_presented
        self._admissions = admissions
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
        return await self._ask(declaration, path, Call(operation, identity), connection, frozenset())

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
        # FastAPI would fill a parameter that the path lacks from the query of the handshake: a hole
        hidden = frozenset(values) - frozenset(known)
        return await self._ask(declaration, path, Call(operation, identity), connection, hidden)

    async def _ask(
        self, declaration: Declaration, path: str, call: Call, connection: HTTPConnection, hidden: frozenset[str]
    ) -> Admission | Refusal:
        """Run the route at ``path``, unless the same caller was admitted to the same a moment ago.

        Only an admission without a value is remembered: a value is the state of a topic, and a refusal may be over.
        """
        admissions = self._admissions
        name = None if admissions is None else await self._name(declaration, call, connection)
        if admissions is not None and name is not None and admissions.has(name, self.clock.now()):
            return Admission()
        clearings = 0 if admissions is None else admissions.clearings
        what = f"the topic function of {call.operation.topic!a}"
        admission = await self.inner.call(path, call, connection, what=what, hidden=hidden)
        is_plain = isinstance(admission, Admission) and admission.value is None
        if admissions is not None and name is not None and is_plain:
            admissions.keep(name, self.clock.now(), clearings)
        return admission

    async def _name(self, declaration: Declaration, call: Call, connection: HTTPConnection) -> object | None:
        """Who wants what, as far as a function can see, but for the position; None: it has to be asked."""
        operation, identity = call.operation, call.identity
        if operation.name not in _REMEMBERED:
            return None
        if identity is None:
            presented = await self.presented(connection)
            if isinstance(presented, Refusal):
                return None
            identity = presented
        digest = hashlib.blake2b(digest_size=16)
        try:
            for part in _facts(connection, identity, operation.data):
                digest.update(b"%d:%s" % (len(part), part))
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
            # the application's own identity has something in it that cannot be compared, or the data are too deep
            return None
        return declaration, operation.name, operation.topic, digest.digest()

    def forget_admissions(self) -> None:
        """Somebody may do less than before: ask every function again."""
        if self._admissions is not None:
            self._admissions.clear()


async def _nothing_presented(connection: HTTPConnection) -> None:
    """Where nobody looks at tokens and tickets."""


def _facts(connection: HTTPConnection, identity: Identity | None, data: Any) -> Iterator[bytes]:
    """All that a function can learn of its caller: the credentials that it knows of are not ours to name."""
    scope = connection.scope
    yield from (scope["type"].encode(), scope.get("scheme", "").encode(), scope["path"].encode("utf-8", "replace"))
    yield ((scope.get("client") or ("",))[0] or "").encode()
    # which of several doors it has come to
    yield repr(scope.get("server")).encode("utf-8", "replace")
    query: bytes = scope.get("query_string", b"")
    if any(place in query for place in _PLACES):
        pairs = parse_qsl(query, keep_blank_values=True)
        query = urlencode([pair for pair in pairs if pair[0] not in _PLACES]).encode()
    yield query
    for name, value in scope["headers"]:
        if name not in _PASSING_HEADERS:
            yield from (name, value)
    # what came with a subscription: bytes where it is no JSON
    yield b"bytes" + data if isinstance(data, bytes) else b"value" + msgspec.json.encode(data)
    if identity is not None:
        # claims tell a new token from the one before it; when the application was asked who it is tells nothing
        who = (identity.user, identity.token_id, identity.info, identity.claims)
        yield msgspec.json.encode(who, order="deterministic")


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
