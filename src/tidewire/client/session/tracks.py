"""All subscriptions of a client, by topic. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from tidewire.client.errors import AlreadySubscribed
from tidewire.client.session.desk import Desk
from tidewire.client.session.inbox import Inbox, Sink
from tidewire.client.session.track import Track, Wish
from tidewire.errors import ClientError
from tidewire.protocol.packets import Push, Subscribe, SubscribeRequest, SubscribeResult

UNREAD_MESSAGES_MAX = 1000
UNREAD_BYTES_MAX = 8 * 1024 * 1024
"""What is kept of what nobody has asked for (subscriptions of the server's); the oldest goes, and is told."""


class Tracks:
    """As many as the user and the server make; the server has a limit (error 106)."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._all: dict[str, Track] = {}

    def __len__(self) -> int:
        return len(self._all)

    def get(self, topic: str) -> Track | None:
        """The subscription to ``topic``, if there is one."""
        return self._all.get(topic)

    @property
    def unread(self) -> list[str]:
        """The topics that the server has subscribed this client to, and nobody here has asked for."""
        return [track.topic for track in self._all.values() if not track.is_wanted]

    def add(self, topic: str, sink: Sink, wish: Wish) -> Track:
        """Subscribe to ``topic``, or take over what the server has subscribed. Raises ``AlreadySubscribed``."""
        track = self._all.get(topic)
        if track is None:
            track = self._all[topic] = Track(self._desk, topic, sink, wish, on_end=self._forget)
            track.go()
        elif track.is_wanted:
            raise AlreadySubscribed(topic)
        else:
            track.redirect(sink)
        return track

    def _forget(self, track: Track) -> None:
        if self._all.get(track.topic) is track:
            del self._all[track.topic]

    def recovery_requests(self) -> dict[str, SubscribeRequest]:
        """Where the server's own subscriptions go on."""
        requests = {track.topic: track.recovery_request() for track in self._all.values() if track.is_servers}
        return {topic: request for topic, request in requests.items() if request.recover}

    def connected(self, results: Mapping[str, SubscribeResult]) -> None:
        """A connection has begun; ``results`` are the subscriptions that the server has made on it."""
        for topic, result in results.items():
            self._adopt(topic, result)
        for track in list(self._all.values()):
            if track.topic in results:
                continue
            if track.is_wanted:
                track.is_servers = False
                track.go()
            else:
                track.end(None, "the server has not subscribed this connection again")

    def _adopt(self, topic: str, result: SubscribeResult) -> None:
        track = self._all.get(topic)
        if track is None:
            inbox = Inbox(messages_max=UNREAD_MESSAGES_MAX, bytes_max=UNREAD_BYTES_MAX, on_overflow="drop")
            track = Track(self._desk, topic, inbox, Wish(), on_end=self._forget, is_servers=True)
            self._all[topic] = track
        track.adopt(result)

    def subscribed(self, topic: str, made: Subscribe) -> None:
        """The server has subscribed this client while it is connected."""
        result = SubscribeResult(
            recoverable=made.recoverable, epoch=made.epoch, offset=made.offset, positioned=made.positioned
        )
        self._adopt(topic, result)

    def hear(self, push: Push) -> None:
        """What the server says about a topic; one that was left meanwhile is nothing."""
        track = self._all.get(push.channel)
        if track is not None:
            track.hear(push)

    def disconnect(self, reason: str) -> None:
        """The connection is lost."""
        for track in list(self._all.values()):
            track.disconnect(reason)

    def invalidate(self) -> None:
        """Tokens and positions are worth nothing any more."""
        for track in self._all.values():
            track.invalidate()

    def end(self, error: ClientError | None, reason: str) -> None:
        """The client is closed."""
        for track in list(self._all.values()):
            track.end(error, reason)
