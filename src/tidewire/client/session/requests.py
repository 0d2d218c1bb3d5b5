"""What the user of a client asks for: it waits for a connection, for its turn, and for its answer. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tidewire.client.errors import CallRefused, CommandRefused, NoAnswer, TooManyRequests
from tidewire.client.session.desk import Desk, command
from tidewire.client.session.events import Settled
from tidewire.errors import ClientError
from tidewire.protocol import packets
from tidewire.protocol.packets import Packet, Reply

WAITING_MAX = 10_000
WINDOW = 256
"""Requests that wait for their answers at once; the server does them one after the other."""
CALLS_WINDOW = 64
"""The same for calls, which go on at once: as many as a server allows one session by default."""
TURN_BYTES_MAX = 256 * 1024
"""What is written at a time; the rest waits until that has left."""


@dataclass(slots=True)
class Asked:
    """One request. ``what`` is what it does, for sentences. ``is_repeatable``: asking twice does no harm."""

    request: packets.Request
    what: str
    is_repeatable: bool
    timeout_s: float
    # its command on the present connection
    command_id: int | None = None


class _Lane:
    """Requests of one kind: not sent yet, and (up to ``window``) sent."""

    def __init__(self, window: int) -> None:
        self.waiting: dict[int, Asked] = {}
        self.sent: dict[int, Asked] = {}
        self._window = window

    def __len__(self) -> int:
        return len(self.waiting) + len(self.sent)

    @property
    def next(self) -> int | None:
        """The handle of the one whose turn it is, if there is room."""
        return next(iter(self.waiting), None) if len(self.sent) < self._window else None


class Requests:
    """Requests in the order they were made. At most ``WAITING_MAX``; one more raises ``TooManyRequests``."""

    def __init__(self, desk: Desk, shown: str) -> None:
        self._desk = desk
        self._shown = shown
        self._last_handle = 0
        self._calls = _Lane(CALLS_WINDOW)
        self._others = _Lane(WINDOW)

    def __len__(self) -> int:
        return len(self._calls) + len(self._others)

    def _lane_of(self, asked: Asked) -> _Lane:
        return self._calls if isinstance(asked.request, packets.RPCRequest) else self._others

    @property
    def _next(self) -> tuple[int, _Lane] | None:
        """What may be sent now, the oldest first."""
        found = [(lane.next, lane) for lane in (self._calls, self._others)]
        return min(((handle, lane) for handle, lane in found if handle is not None), key=_handle_of, default=None)

    @property
    def has_output(self) -> bool:
        """Whether something may be sent now."""
        return self._desk.is_connected and self._next is not None

    def add(self, request: packets.Request, what: str, *, timeout_s: float, is_repeatable: bool) -> int:
        """Ask for something; what comes of it is told by ``Settled`` with the handle that is returned."""
        if len(self) >= WAITING_MAX:
            raise TooManyRequests(WAITING_MAX)
        self._last_handle += 1
        handle = self._last_handle
        asked = Asked(request, what, is_repeatable, timeout_s)
        self._lane_of(asked).waiting[handle] = asked
        self._desk.alarms.set(("request", handle), self._desk.now + timeout_s, lambda: self._time_out(handle))
        return handle

    def forget(self, handle: int) -> Asked | None:
        """Nobody waits for it any more: it is not sent, or its answer is ignored. Returns it."""
        self._desk.alarms.clear(("request", handle))
        for lane in (self._calls, self._others):
            asked = lane.waiting.pop(handle, None) or lane.sent.pop(handle, None)
            if asked is not None:
                if asked.command_id is not None:
                    self._desk.forget(asked.command_id)
                return asked
        return None

    def pump(self) -> None:
        """Send what may be sent now, ``TURN_BYTES_MAX`` at a time."""
        size = 0
        while self._desk.is_connected and size < TURN_BYTES_MAX and (found := self._next) is not None:
            handle, lane = found
            asked = lane.waiting.pop(handle)
            size += len(bytes(getattr(asked.request, "data", b"")))
            if isinstance(asked.request, packets.SendRequest):
                self._desk.say(command(asked.request))
                self._settle(handle, None)
                continue
            lane.sent[handle] = asked
            asked.command_id = self._desk.ask(asked.request, self._reader(handle, asked), is_own=False)

    def _reader(self, handle: int, asked: Asked) -> Callable[[Reply], None]:
        def read(reply: Reply) -> None:
            if reply.error is not None:
                kind = CallRefused if isinstance(asked.request, packets.RPCRequest) else CommandRefused
                error = reply.error
                self._settle(handle, kind(asked.what, error.code, error.message, temporary=error.temporary))
            else:
                self._settle(handle, result_of(reply))

        return read

    def lose(self, why: str) -> None:
        """The connection has ended: what may be asked twice is asked again, the rest has had no answer."""
        for lane in (self._calls, self._others):
            sent, lane.sent = lane.sent, {}
            again: dict[int, Asked] = {}
            for handle, asked in sent.items():
                asked.command_id = None
                if asked.is_repeatable:
                    again[handle] = asked
                else:
                    self._settle(handle, self._no_answer(asked, why))
            lane.waiting = {**again, **lane.waiting}

    def _no_answer(self, asked: Asked, why: str) -> NoAnswer:
        return NoAnswer(self._shown, f"{asked.what} was sent, and it is not known whether it was done: {why}")

    def _time_out(self, handle: int) -> None:
        asked = self.forget(handle)
        assert asked is not None, "its alarm goes with it"
        if asked.command_id is not None:
            error = self._no_answer(asked, f"no answer came within {asked.timeout_s:g} s")
        else:
            error = NoAnswer(self._shown, f"{asked.what} could not be sent within {asked.timeout_s:g} s")
        self._desk.events.append(Settled(handle, error))

    def fail_all(self, error: ClientError) -> None:
        """The client is closed: nothing is answered any more."""
        for lane in (self._calls, self._others):
            for handle in [*lane.waiting, *lane.sent]:
                self._settle(handle, error)

    def _settle(self, handle: int, result: Packet | ClientError | None) -> None:
        self.forget(handle)
        self._desk.events.append(Settled(handle, result))


def _handle_of(found: tuple[int, _Lane]) -> int:
    return found[0]


def result_of(reply: Reply) -> Packet | None:
    """What a reply brings; None: nothing that is known here."""
    for name in reply.__struct_fields__[3:]:
        result: Packet | None = getattr(reply, name)
        if result is not None:
            return result
    return None
