"""Tidewire: the real-time layer for Python web applications.

The public names load on first use, so that ``import tidewire`` costs almost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidewire.app import Live, Topic
    from tidewire.client.errors import (
        BadURL,
        Disconnected,
        NoAnswer,
        NotATopic,
        NothingListens,
        Refused,
        TopicFailed,
    )
    from tidewire.client.publish import Publisher, publish
    from tidewire.client.resume import Gap, Received
    from tidewire.client.topic import State, Subscription, subscribe
    from tidewire.errors import (
        AddressInUse,
        BadPayload,
        BadPosition,
        BadTopic,
        ClientError,
        DeclarationError,
        Deny,
        DrainTimeout,
        NotRunning,
        PublishQueueFull,
        SeveralProcesses,
        TidewireError,
        TooLarge,
        TooManyTopics,
        TopicFinished,
        UnknownTopic,
    )
    from tidewire.hub.policy import Latest, Log, Signal
    from tidewire.limits import Limits
    from tidewire.server.gate import Operation
    from tidewire.server.run import run

__version__ = "0.1.0"

_HOMES = {
    "app": ("Live", "Topic"),
    "client.errors": ("BadURL", "Disconnected", "NoAnswer", "NotATopic", "NothingListens", "Refused", "TopicFailed"),
    "client.publish": ("Publisher", "publish"),
    "client.resume": ("Gap", "Received"),
    "client.topic": ("State", "Subscription", "subscribe"),
    "errors": (
        "AddressInUse", "BadPayload", "BadPosition", "BadTopic", "ClientError", "DeclarationError", "Deny",
        "DrainTimeout", "NotRunning", "PublishQueueFull", "SeveralProcesses", "TidewireError", "TooLarge",
        "TooManyTopics", "TopicFinished", "UnknownTopic",
    ),
    "hub.policy": ("Latest", "Log", "Signal"),
    "limits": ("Limits",),
    "server.gate": ("Operation",),
    "server.run": ("run",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AddressInUse",
    "BadPayload",
    "BadPosition",
    "BadTopic",
    "BadURL",
    "ClientError",
    "DeclarationError",
    "Deny",
    "Disconnected",
    "DrainTimeout",
    "Gap",
    "Latest",
    "Limits",
    "Live",
    "Log",
    "NoAnswer",
    "NotATopic",
    "NotRunning",
    "NothingListens",
    "Operation",
    "PublishQueueFull",
    "Publisher",
    "Received",
    "Refused",
    "SeveralProcesses",
    "Signal",
    "State",
    "Subscription",
    "TidewireError",
    "TooLarge",
    "TooManyTopics",
    "Topic",
    "TopicFailed",
    "TopicFinished",
    "UnknownTopic",
    "publish",
    "run",
    "subscribe",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'tidewire' has no attribute {name!r}")
    value = getattr(import_module(f"tidewire.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
