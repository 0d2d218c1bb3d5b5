"""A broker by its URL: ``sqlite:///live.db``."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from tidewire.brokers.base import Broker
from tidewire.brokers.memory import MemoryBroker
from tidewire.clock import Clock
from tidewire.errors import BadBrokerURL
from tidewire.limits import Limits

_OFFERED = (
    "memory:// (one process, gone with it) and sqlite:///live.db (a file; sqlite:////var/lib/live.db from the root)"
)


def open_broker(url: str, *, limits: Limits | None = None, clock: Clock | None = None) -> Broker:
    """The broker that ``url`` names, not started yet.

    ``memory://``, or ``sqlite:///PATH`` (relative to the working directory; four slashes for one from the root).
    Raises ``BadBrokerURL``.
    """
    parts = urlsplit(url)
    if parts.scheme == "memory" and not parts.netloc and not parts.path.strip("/"):
        return MemoryBroker(limits=limits, clock=clock)
    if parts.scheme == "sqlite":
        path = unquote(parts.path[1:])
        if parts.netloc or not path or parts.query or parts.fragment:
            raise BadBrokerURL(url, "sqlite:/// is followed by the path of a file, and by nothing else")
        # only where it is asked for: sqlite3 is not in every Python
        from tidewire.brokers.sqlite import SqliteBroker

        return SqliteBroker(Path(path), limits=limits, clock=clock)
    raise BadBrokerURL(parts.scheme + "://..." if parts.scheme else url, f"there are {_OFFERED}")
