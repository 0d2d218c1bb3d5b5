"""From a value, a body or a frame to a draft, by the rules of the declaration; then to the hub."""

from __future__ import annotations

from typing import Any

import msgspec

from tidewire.brokers.base import Published
from tidewire.errors import BadPayload, UnknownStream
from tidewire.hub.hub import Hub
from tidewire.hub.policy import Latest
from tidewire.limits import Limits
from tidewire.protocol import payload as payloads
from tidewire.protocol.durable import content_type_of
from tidewire.protocol.message import Draft, End, Kind, Stream, Terms
from tidewire.server.gate import Declaration, Gate

# what a message asks for on a topic of streams, by who sends it
_OWN = Terms(must_exist=True, creates=True)
_CLIENTS = Terms(must_exist=True)


class Publisher:
    """Publishes by name. Raises what ``tidewire.errors`` says under TopicError and BadPayload."""

    def __init__(self, hub: Hub, gate: Gate, limits: Limits) -> None:
        self._hub = hub
        self._gate = gate
        self._limits = limits

    async def publish(self, topic: str, value: object, publish_id: str | None = None) -> Published:
        """Publish what an application gives: ``str`` is text, bytes are bytes, the rest JSON."""
        declaration = self._gate.find(topic)
        draft = self.draft_value(declaration, value, publish_id)
        return await self.publish_draft(topic, declaration, draft)

    async def publish_draft(self, topic: str, declaration: Declaration, draft: Draft) -> Published:
        """Publish what ``draft_bytes`` or ``draft_value`` made.

        Where the declaration has streams, an application's message creates the one that is not there, and a
        client's raises ``UnknownStream``.
        """
        try:
            return await self._hub.publish(topic, declaration.policy, draft)
        except UnknownStream:
            if draft.terms is None or not draft.terms.creates:
                raise
        created = await self._hub.create(topic, declaration.policy, Stream(content_type_of(draft.kind)), draft)
        if created.is_new:
            return Published(created.position)
        # somebody else was first
        return await self._hub.publish(topic, declaration.policy, draft)

    def draft_value(self, declaration: Declaration, value: object, publish_id: str | None = None) -> Draft:
        """A draft of an application's value."""
        kind, data = payloads.encode(value)
        return self._draft(declaration, kind, data, value, publish_id, _OWN if declaration.streams else None)

    def draft_bytes(
        self,
        declaration: Declaration,
        kind: Kind,
        data: bytes,
        publish_id: str | None = None,
        terms: Terms | None = None,
    ) -> Draft:
        """A draft of bytes that a client sent, validated already."""
        terms = terms or (_CLIENTS if declaration.streams else None)
        return self._draft(declaration, kind, data, _Undecoded(kind, data), publish_id, terms)

    def _draft(
        self,
        declaration: Declaration,
        kind: Kind,
        data: bytes,
        value: object,
        publish_id: str | None,
        terms: Terms | None,
    ) -> Draft:
        if declaration.payload is not None and kind is not declaration.payload:
            raise BadPayload(
                f"the topic {declaration.template.text!a} takes {declaration.payload.value}, and this is {kind.value}"
            )
        payloads.check_size(data, self._limits.message_bytes_max)
        key = None
        if isinstance(declaration.policy, Latest):
            if callable(declaration.policy.key) and isinstance(value, _Undecoded):
                value = value.decode()
            key = declaration.policy.key_of(value, kind, data)
        return Draft(data, kind, key, id=publish_id, terms=terms)

    async def forget(self, topic: str, key: object) -> Published:
        """Remove ``key`` from a keyed ``Latest`` topic and tell its readers."""
        declaration = self._gate.find(topic)
        if not isinstance(declaration.policy, Latest) or declaration.policy.key is None:
            raise BadPayload(f"the topic {topic!a} has no keys to forget: declare it with Latest(key=...)")
        text = payloads.format_key(key)
        removed = payloads.removal(text, declaration.key_field)
        return await self._hub.publish(topic, declaration.policy, Draft(removed, Kind.JSON, text, removed=True))

    async def finish(self, topic: str, error: str | None) -> End:
        """End ``topic`` for good."""
        declaration = self._gate.find(topic)
        return await self._hub.finish(topic, declaration.policy, error)


class _Undecoded:
    """A client's payload, decoded only for those who look."""

    def __init__(self, kind: Kind, data: bytes) -> None:
        self._kind = kind
        self._data = data

    def decode(self) -> Any:
        return decode(self._kind, self._data)


def decode(kind: Kind, data: bytes) -> Any:
    """A payload as the value an application sees: the JSON value, ``str`` or ``bytes``."""
    if kind is Kind.JSON:
        return msgspec.json.decode(data)
    return data.decode() if kind is Kind.TEXT else data


def frame_kind(declaration: Declaration, frame: str | bytes) -> tuple[Kind, bytes]:
    """What a WebSocket frame from a client is.

    Where the topic promises JSON it must be JSON; where it promises nothing, a JSON object or array is JSON and
    every other text is text. Raises ``BadPayload``.
    """
    if isinstance(frame, bytes):
        return Kind.BYTES, frame
    data = frame.encode()
    if declaration.payload is Kind.TEXT:
        return Kind.TEXT, data
    if declaration.payload is Kind.JSON:
        return Kind.JSON, payloads.check_json(data)
    if frame.lstrip()[:1] in {"{", "["}:
        try:
            return Kind.JSON, payloads.check_json(data)
        except BadPayload:
            pass
    return Kind.TEXT, data
