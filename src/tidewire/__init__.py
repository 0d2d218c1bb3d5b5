"""Tidewire: the real-time layer for Python web applications.

The public names load on first use, so that ``import tidewire`` costs almost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidewire.app import Live, Topic
    from tidewire.client.connect import Ending, connect
    from tidewire.client.errors import (
        AlreadySubscribed,
        BadURL,
        CallRefused,
        ClientClosed,
        CommandRefused,
        ConsumerTooSlow,
        Disconnected,
        NoAnswer,
        NotASession,
        NotATopic,
        NotAWebSocket,
        NothingListens,
        NoToken,
        Refused,
        TooManyKeys,
        TooManyRequests,
        TopicFailed,
        Unsubscribed,
        WrongType,
    )
    from tidewire.client.publish import Publisher, publish
    from tidewire.client.reconnect import Advice, Backoff, ComeBack
    from tidewire.client.resume import Gap, Received
    from tidewire.client.session.client import Client
    from tidewire.client.session.messages import Message
    from tidewire.client.session.mirror import Mirror
    from tidewire.client.topic import State, Subscription, subscribe
    from tidewire.errors import (
        AddressInUse,
        AppendConflict,
        BadAddress,
        BadBrokerURL,
        BadPayload,
        BadPosition,
        BadToken,
        BadTopic,
        BrokerFailed,
        CallError,
        ClientError,
        Close,
        ConnectionClosed,
        ConnectionClosedError,
        ConnectionClosedOK,
        DeclarationError,
        Deny,
        DrainTimeout,
        KeysUnavailable,
        NotCarried,
        NotOffered,
        NotRunning,
        ProducerFenced,
        ProducerGap,
        PublishQueueFull,
        RunCancelled,
        RunIdTaken,
        SeveralProcesses,
        TidewireError,
        TokenExpired,
        TokenRevoked,
        TooLarge,
        TooManyRevocations,
        TooManyRuns,
        TooManyTopics,
        TopicFinished,
        UnknownStream,
        UnknownTopic,
    )
    from tidewire.hub.policy import Latest, Log, Signal
    from tidewire.hub.presence import Member
    from tidewire.limits import Limits
    from tidewire.server.accept import accept
    from tidewire.server.gate import Operation
    from tidewire.server.hooks import Welcome
    from tidewire.server.identity import Identity
    from tidewire.server.run import run
    from tidewire.server.runs import Run
    from tidewire.server.serve import Server, serve
    from tidewire.server.tokens import Tokens
    from tidewire.wire.connection import Connection

__version__ = "0.1.0"

_HOMES = {
    "app": ("Live", "Topic"),
    "client.connect": ("Ending", "connect"),
    "client.errors": (
        "AlreadySubscribed", "BadURL", "CallRefused", "ClientClosed", "CommandRefused", "ConsumerTooSlow",
        "Disconnected", "NoAnswer", "NoToken", "NotASession", "NotATopic", "NotAWebSocket", "NothingListens",
        "Refused", "TooManyKeys", "TooManyRequests", "TopicFailed", "Unsubscribed", "WrongType",
    ),
    "client.publish": ("Publisher", "publish"),
    "client.reconnect": ("Advice", "Backoff", "ComeBack"),
    "client.resume": ("Gap", "Received"),
    "client.session.client": ("Client",),
    "client.session.messages": ("Message",),
    "client.session.mirror": ("Mirror",),
    "client.topic": ("State", "Subscription", "subscribe"),
    "errors": (
        "AddressInUse", "AppendConflict", "BadAddress", "BadBrokerURL", "BadPayload", "BadPosition", "BadToken",
        "BadTopic", "BrokerFailed", "CallError", "ClientError", "Close", "ConnectionClosed", "ConnectionClosedError",
        "ConnectionClosedOK", "DeclarationError", "Deny", "DrainTimeout", "KeysUnavailable", "NotCarried",
        "NotOffered", "NotRunning", "ProducerFenced", "ProducerGap", "PublishQueueFull", "RunCancelled", "RunIdTaken",
        "SeveralProcesses", "TidewireError", "TokenExpired", "TokenRevoked", "TooLarge", "TooManyRevocations",
        "TooManyRuns", "TooManyTopics", "TopicFinished", "UnknownStream", "UnknownTopic",
    ),
    "hub.policy": ("Latest", "Log", "Signal"),
    "hub.presence": ("Member",),
    "limits": ("Limits",),
    "server.accept": ("accept",),
    "server.gate": ("Operation",),
    "server.hooks": ("Welcome",),
    "server.identity": ("Identity",),
    "server.run": ("run",),
    "server.runs": ("Run",),
    "server.serve": ("Server", "serve"),
    "server.tokens": ("Tokens",),
    "wire.connection": ("Connection",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AddressInUse",
    "Advice",
    "AlreadySubscribed",
    "AppendConflict",
    "Backoff",
    "BadAddress",
    "BadBrokerURL",
    "BadPayload",
    "BadPosition",
    "BadToken",
    "BadTopic",
    "BadURL",
    "BrokerFailed",
    "CallError",
    "CallRefused",
    "Client",
    "ClientClosed",
    "ClientError",
    "Close",
    "ComeBack",
    "CommandRefused",
    "Connection",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "ConsumerTooSlow",
    "DeclarationError",
    "Deny",
    "Disconnected",
    "DrainTimeout",
    "Ending",
    "Gap",
    "Identity",
    "KeysUnavailable",
    "Latest",
    "Limits",
    "Live",
    "Log",
    "Member",
    "Message",
    "Mirror",
    "NoAnswer",
    "NoToken",
    "NotASession",
    "NotATopic",
    "NotAWebSocket",
    "NotCarried",
    "NotOffered",
    "NotRunning",
    "NothingListens",
    "Operation",
    "ProducerFenced",
    "ProducerGap",
    "PublishQueueFull",
    "Publisher",
    "Received",
    "Refused",
    "Run",
    "RunCancelled",
    "RunIdTaken",
    "Server",
    "SeveralProcesses",
    "Signal",
    "State",
    "Subscription",
    "TidewireError",
    "TokenExpired",
    "TokenRevoked",
    "Tokens",
    "TooLarge",
    "TooManyKeys",
    "TooManyRequests",
    "TooManyRevocations",
    "TooManyRuns",
    "TooManyTopics",
    "Topic",
    "TopicFailed",
    "TopicFinished",
    "UnknownStream",
    "UnknownTopic",
    "Unsubscribed",
    "Welcome",
    "WrongType",
    "accept",
    "connect",
    "publish",
    "run",
    "serve",
    "subscribe",
]


def __getattr__(name: str) -> Any:
    if name == "exceptions":
        # where programs written for ``websockets`` look for ConnectionClosed
        return import_module("tidewire.errors")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'tidewire' has no attribute {name!r}")
    value = getattr(import_module(f"tidewire.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
