"""The I/O around a client's machine: opens, reads, writes, waits, and gets tokens. It decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tidewire.client.dial import Cut
from tidewire.client.errors import Disconnected, NoToken
from tidewire.client.reconnect import Advice, ComeBack
from tidewire.client.session.events import Arrived, Changed, Dial, Event, HangUp, Settled, TrackChanged, WantToken
from tidewire.client.session.inbox import Sink
from tidewire.client.session.machine import Machine
from tidewire.client.session.messages import ClientState, SubscriptionState
from tidewire.client.session.track import Track, Wish
from tidewire.client.session.wire import OpenWire, Wire, explain_end
from tidewire.clock import Clock, Timer
from tidewire.errors import ClientError, ConnectionClosed
from tidewire.limits import CLOSE_IN_A_HURRY_S
from tidewire.protocol import packets
from tidewire.protocol.packets import Packet

logger = logging.getLogger("tidewire")

T = TypeVar("T")

_TURN_BYTES = 16 * 1024
"""What is read before consumers get a turn, so that those who read whenever they can are not overrun."""

GetToken = Callable[[], str | Awaitable[str]]


class Bell:
    """Wakes who waits for something to happen."""

    def __init__(self) -> None:
        # who waits, and what each makes of what has happened
        self._waiting: dict[asyncio.Future[Any], Callable[[object], object]] = {}

    def ring(self, what: object = None) -> None:
        """This has happened; whoever waits for it is woken."""
        for future, look in list(self._waiting.items()):
            found = look(what)
            if found is not None and not future.done():
                future.set_result(found)

    async def wait(self) -> None:
        """Until anything happens."""
        await self.until(lambda what: True)

    async def until(self, look: Callable[[object], T | None]) -> T:
        """Until something happens of which ``look`` makes something, which is asked in that moment; returns that."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting[future] = look
        try:
            return await future
        finally:
            del self._waiting[future]


@dataclass(slots=True)
class Listener:
    """Who wants to know what happens to a subscription."""

    bell: Bell = field(default_factory=Bell)
    on_state: Callable[[SubscriptionState], None] | None = None
    get_token: GetToken | None = None


class Shell:
    """Runs ``machine`` on the event loop; ``start`` it, and ``close`` it."""

    def __init__(
        self,
        machine: Machine,
        open_wire: OpenWire,
        clock: Clock,
        *,
        shown: str,
        get_token: GetToken | None,
        on_state: Callable[[ClientState], None] | None,
    ) -> None:
        self.machine = machine
        self.clock = clock
        # rings at every change of the client's state, and for what the server sends to this user
        self.bell = Bell()
        self._open_wire = open_wire
        self._shown = shown
        self._get_token = get_token
        self._on_state = on_state
        self._listeners: dict[Track, Listener] = {}
        self._answers: dict[int, asyncio.Future[Packet | None]] = {}
        # the open connection, and the task that lives on it
        self._wire: Wire | None = None
        self._line: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._token_tasks: dict[str | None, asyncio.Task[None]] = {}
        self._timer: Timer | None = None
        # there is something to write, and nothing is being written
        self._wake = asyncio.Event()
        self._is_written = asyncio.Event()
        self._is_written.set()
        self._is_pumping = False

    # Living

    def start(self) -> None:
        """Begin to connect."""
        self.machine.start(self.clock.now())
        self.pump()

    async def close(self) -> None:
        """Write what was asked to be written, say goodbye, and leave no task behind; within two seconds."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_IN_A_HURRY_S):
                    await self._is_written.wait()
            wire = self._wire
            self.machine.close(self.clock.now())
            self.pump()
            if wire is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_IN_A_HURRY_S):
                        await wire.close(1000, "")
        finally:
            self.machine.close(self.clock.now())
            self.pump()
            if self._timer is not None:
                self._timer.cancel()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def pump(self) -> None:
        """Do what the machine wants; after everything that was told to it."""
        if self._is_pumping:
            # a callback of the user's, called from below, has asked for something
            return
        self._is_pumping = True
        try:
            while events := self.machine.take_events():
                for event in events:
                    self._do(event)
        finally:
            self._is_pumping = False
        self._set_timer()
        if self.machine.has_output and self._wire is not None:
            self._is_written.clear()
            self._wake.set()

    def _do(self, event: Event) -> None:
        match event:
            case Arrived(track):
                self._bell_of(track).ring()
            case Settled(handle, result):
                self._settle(handle, result)
            case Changed(state):
                self.bell.ring(state)
                _tell(self._on_state, state)
            case TrackChanged(track, state):
                self._track_changed(track, state)
            case Dial(attempt):
                self._line = self._spawn(self._live(attempt))
            case HangUp(_, code):
                # with a code it is ``close`` that says goodbye
                if code is None and self._line is not None:
                    self._line.cancel()
                    self._unwire(self._wire)
            case WantToken(topic):
                self._token_tasks[topic] = self._spawn(self._fetch_token(topic))

    def _bell_of(self, track: Track | None) -> Bell:
        listener = None if track is None else self._listeners.get(track)
        return self.bell if listener is None else listener.bell

    def _track_changed(self, track: Track, state: SubscriptionState) -> None:
        listener = self._listeners.get(track)
        if listener is not None:
            listener.bell.ring(state)
            _tell(listener.on_state, state)
        if state.name == "unsubscribed":
            self._listeners.pop(track, None)
            getting = self._token_tasks.pop(track.topic, None)
            if getting is not None:
                getting.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.machine.next_at
        if at is not None:
            self._timer = self.clock.call_later(max(0.0, at - self.clock.now()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.machine.tick(self.clock.now())
        self.pump()

    # A connection

    async def _live(self, attempt: int) -> None:
        """Open one and read it to its end."""
        try:
            wire = await self._open_wire()
        except Cut as cut:
            self._over(attempt, cut.advice, cut.error)
            return
        self._wire = wire
        writer = self._spawn(self._write(wire))
        try:
            self.machine.opened(self.clock.now(), attempt)
            self.pump()
            taken = 0
            while True:
                frame = await wire.receive()
                self.machine.receive(self.clock.now(), attempt, frame)
                self.pump()
                taken += len(frame)
                if taken > _TURN_BYTES:
                    taken = 0
                    await asyncio.sleep(0)
        except ConnectionClosed as closed:
            self._unwire(wire)
            advice, error = explain_end(closed, self._shown)
            self._over(attempt, advice, error, closed.code)
        except Exception:
            logger.exception("a client failed; it connects again")
            self._unwire(wire)
            why = "this client has failed; its log has the error"
            self._over(attempt, Advice(ComeBack.SLOW, why), Disconnected(self._shown, 1006, why))
        finally:
            self._unwire(wire)
            writer.cancel()
            wire.abort()

    def _unwire(self, wire: Wire | None) -> None:
        if self._wire is wire:
            self._wire = None
            self._is_written.set()

    def _over(self, attempt: int, advice: Advice, error: ClientError, code: int | None = None) -> None:
        self.machine.ended(self.clock.now(), attempt, advice, error, code)
        self.pump()

    async def _write(self, wire: Wire) -> None:
        """Write what there is; everything of one pass of the loop shares frames."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._wire is wire and self.machine.has_output:
                    frames = self.machine.take_frames(self.clock.now())
                    self.pump()
                    for frame in frames:
                        await wire.send(frame.decode() if self.machine.is_text else frame)
                if self._wire is wire:
                    self._is_written.set()

    # Requests

    async def ask(self, request: packets.Request, what: str, *, timeout_s: float, is_repeatable: bool = False) -> Any:
        """The result of a command, or None for what has none. Raises what comes of it otherwise."""
        handle = self.machine.request(self.clock.now(), request, what, timeout_s=timeout_s, is_repeatable=is_repeatable)
        answer = self._answers[handle] = asyncio.get_running_loop().create_future()
        self.pump()
        try:
            return await answer
        finally:
            if self._answers.pop(handle, None) is not None:
                # cancelled
                self.machine.forget(handle)

    def _settle(self, handle: int, result: Packet | ClientError | None) -> None:
        answer = self._answers.pop(handle, None)
        if answer is None or answer.done():
            return
        if isinstance(result, ClientError):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    # Subscriptions

    def subscribe(self, topic: str, sink: Sink, wish: Wish, listener: Listener) -> Track:
        """Subscribe; ``listener`` hears of it until it is unsubscribed. Raises as the machine does."""
        track = self.machine.subscribe(self.clock.now(), topic, sink, wish)
        self._listeners[track] = listener
        self.pump()
        return track

    def leave(self, track: Track) -> None:
        """Unsubscribe; twice is nothing."""
        self.machine.unsubscribe(self.clock.now(), track)
        self.pump()

    def resume(self, track: Track) -> None:
        """The consumer of a paused subscription has read on."""
        self.machine.resume(self.clock.now(), track)
        self.pump()

    # Tokens

    async def _fetch_token(self, topic: str | None) -> None:
        get_token = self._get_token if topic is None else self._getter_of(topic)
        what = "the connection" if topic is None else f"the subscription to {topic!a}"
        failure: NoToken | None = None
        token = ""
        try:
            token = await _call(get_token)
        except Exception as error:
            logger.warning("the function that gets a token for %s failed", what, exc_info=True)
            failure = NoToken(what, f"the function that gets it failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
        self._token_tasks.pop(topic, None)
        now = self.clock.now()
        if failure is not None:
            self.machine.miss_token(now, topic, failure, is_final=False)
        elif not token:
            self.machine.miss_token(now, topic, NoToken(what, "the function that gets it gave none"), is_final=True)
        else:
            self.machine.take_token(now, topic, token)
        self.pump()

    def _getter_of(self, topic: str) -> GetToken | None:
        track = self.machine.tracks.get(topic)
        listener = None if track is None else self._listeners.get(track)
        return None if listener is None else listener.get_token


async def _call(get_token: GetToken | None) -> str:
    found = None if get_token is None else get_token()
    if inspect.isawaitable(found):
        found = await found
    if found is not None and not isinstance(found, str):
        raise TypeError(f"a token is a str, not {type(found).__name__}")
    return found or ""


def _tell(callback: Callable[[Any], None] | None, state: object) -> None:
    if callback is None:
        return
    try:
        callback(state)
    except Exception:
        logger.exception("on_state failed")
