"""Commands on one connection: their numbers, who waits for which reply, and what is to be written. Pure."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from tidewire.client.session.alarms import Alarms
from tidewire.client.session.events import Event
from tidewire.protocol import packets
from tidewire.protocol.codecs import Codec
from tidewire.protocol.packets import Command, Reply

FRAME_BYTES_MAX = 64 * 1024
"""Commands share a frame up to this size; a larger one has a frame of its own."""
_ID_MAX = 2**32 - 1
_STALLED = "stalled"

Then = Callable[[Reply], None]
"""What is done with the reply; a connection that ends forgets it."""

_FIELDS: dict[type[packets.Packet], str] = {
    packets.ConnectRequest: "connect",
    packets.SubscribeRequest: "subscribe",
    packets.UnsubscribeRequest: "unsubscribe",
    packets.PublishRequest: "publish",
    packets.PresenceRequest: "presence",
    packets.PresenceStatsRequest: "presence_stats",
    packets.HistoryRequest: "history",
    packets.SendRequest: "send",
    packets.RPCRequest: "rpc",
    packets.RefreshRequest: "refresh",
    packets.SubRefreshRequest: "sub_refresh",
}


def command(request: packets.Request, command_id: int = 0) -> Command:
    """``request`` as a command."""
    made = Command(id=command_id)
    setattr(made, _FIELDS[type(request)], request)
    return made


class Desk:
    """What the parts of a client's machine share: time, chance, alarms, commands out and events out.

    ``stall_s``: how long the server may answer nothing while commands of the client's own (not its user's) wait.
    """

    def __init__(self, codec: Codec, rng: random.Random, *, stall_s: float) -> None:
        self.codec = codec
        self.rng = rng
        # seconds; whoever feeds the machine sets it
        self.now = 0.0
        self.alarms = Alarms()
        self.events: list[Event] = []
        # the connect command was accepted, and the connection is there
        self.is_connected = False
        # what to do when the server answers nothing
        self.on_stall: Callable[[], None] = lambda: None
        self._stall_s = stall_s
        self._last_id = 0
        self._waiting: dict[int, Then] = {}
        # those of them that are the client's own; bounded by its subscriptions
        self._own: set[int] = set()
        self._out: deque[bytes] = deque()

    def ask(self, request: packets.Request, then: Then, *, is_own: bool = True) -> int:
        """Send a command; ``then`` gets its reply. Returns its id."""
        self._last_id = self._last_id % _ID_MAX + 1
        self._waiting[self._last_id] = then
        self.say(command(request, self._last_id))
        if is_own:
            self._own.add(self._last_id)
            if not self.alarms.has(_STALLED):
                self._watch()
        return self._last_id

    def say(self, packet: Command) -> None:
        """Send what has no reply."""
        self._out.append(self.codec.write(packet))

    def answer(self, reply: Reply) -> None:
        """A reply has come; one that nobody waits for (any more) is nothing."""
        self._own.discard(reply.id)
        if self._own:
            # they are answered in their order: whatever comes is progress
            self._watch()
        else:
            self.alarms.clear(_STALLED)
        then = self._waiting.pop(reply.id, None)
        if then is not None:
            then(reply)

    def forget(self, command_id: int) -> None:
        """Nobody waits for this reply any more."""
        self._waiting.pop(command_id, None)
        self._own.discard(command_id)

    def _watch(self) -> None:
        self.alarms.set(_STALLED, self.now + self._stall_s, self._stall)

    def _stall(self) -> None:
        if self._own:
            self.on_stall()

    def hang_up(self) -> None:
        """The connection is gone, and with it what waited for replies and what was not written."""
        self.is_connected = False
        self._waiting.clear()
        self._own.clear()
        self._out.clear()
        self._last_id = 0
        self.alarms.clear(_STALLED)

    @property
    def has_output(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._out)

    def take_frames(self) -> list[bytes]:
        """What waits to be written, several commands to a frame."""
        frames: list[bytes] = []
        while self._out:
            parts = [self._out.popleft()]
            size = len(parts[0])
            while self._out and size + len(self._out[0]) <= FRAME_BYTES_MAX:
                parts.append(self._out.popleft())
                size += len(parts[-1])
            frames.append(self.codec.join(parts))
        return frames
