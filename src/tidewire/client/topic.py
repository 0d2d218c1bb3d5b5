"""``subscribe``: one topic as an async iterator that comes back by itself and never hides a loss."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, NoReturn, Self

from tidewire.client.dial import Cut
from tidewire.client.envelope import Ended, Envelope, Item, Lost
from tidewire.client.errors import NoAnswer, TopicFailed
from tidewire.client.link import Finalizer, Link, open_link
from tidewire.client.reconnect import Backoff, ComeBack
from tidewire.client.resume import Gap, Received, Tracker
from tidewire.client.target import Headers, Target, check_headers, parse_url

__all__ = ["Gap", "Received", "State", "Subscription", "subscribe"]

MAX_SIZE_BYTES = 8 * 1024 * 1024
"""One message with its envelope: the server's 1 MiB grows by escapes and base64."""


@dataclass(frozen=True, slots=True)
class State:
    """How a subscription stands, told whenever it changes.

    ``name``: "connecting", "live", "reconnecting" or "ended"; ``reason`` says why in words.
    ``recovered``: on "live" after a cut, how many missed messages follow at once; None when there was nothing to
    resume. ``lost``: on "live", what is lost just now; on "ended", a loss that no message carried.
    ``attempt`` and ``retry_in_s``: on "reconnecting", which attempt comes next, and when.
    """

    name: Literal["connecting", "live", "reconnecting", "ended"]
    reason: str = ""
    recovered: int | None = None
    lost: Gap | None = None
    attempt: int = 0
    retry_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """What every connection of a subscription asks for."""

    target: Target
    headers: list[tuple[str, str]]
    origin: str | None
    max_per_s: float | None
    open_timeout_s: float
    max_size_bytes: int
    retry: bool
    wait: bool


def subscribe(
    url: str,
    *,
    since: str | None = None,
    headers: Headers | None = None,
    origin: str | None = None,
    max_per_s: float | None = None,
    open_timeout_s: float = 10.0,
    max_size_bytes: int = MAX_SIZE_BYTES,
    on_state: Callable[[State], None] | None = None,
    retry: bool = True,
    wait: bool = False,
    backoff: Backoff | None = None,
) -> Subscription:
    """Read a topic, message by message, across cut lines and server restarts.

    ::

        async with subscribe("http://127.0.0.1:8000/live/chat/7") as messages:
            async for message in messages:
                print(message.data)

    ``url``: http(s) or ws(s). ``since``: a position to go on from, "-1" for everything kept; by default what comes.
    ``max_per_s``: on ``Latest`` topics, ask for a slower rate. ``on_state``: called with each ``State``.
    ``retry=False``: a lost connection raises instead. ``wait=True``: keep trying also before the first connection;
    otherwise a server that is not there raises at once. ``backoff``: other delays than the usual.

    Connects on entering ``async with``, or else at the first message. Raises ``BadURL`` and ``ValueError`` (headers,
    rate) here; iterating raises ``NothingListens``, ``Refused``, ``NoAnswer``, ``NotATopic``, ``Disconnected``, and
    ``TopicFailed`` when the topic was finished with an error; a topic that ends well ends the loop.
    """
    target = parse_url(url)
    if max_per_s is not None and not 0 < max_per_s < float("inf"):
        raise ValueError("max_per_s is a positive number of flushes a second")
    asked = _Asked(
        target, check_headers(headers), origin, max_per_s, open_timeout_s, max_size_bytes, retry=retry, wait=wait
    )
    return Subscription(asked, Tracker(since or target.since), backoff or Backoff(), on_state)


class Subscription:
    """An async iterator of ``Received``, and an async context manager; made by ``subscribe``.

    One task reads it at a time. Cancelling the reader closes the socket (the next read would connect again and
    resume); to wait only a while use ``next(timeout_s=...)``, which leaves it open.
    """

    def __init__(
        self, asked: _Asked, tracker: Tracker, backoff: Backoff, on_state: Callable[[State], None] | None
    ) -> None:
        self._asked = asked
        self._tracker = tracker
        self._backoff = backoff
        self._on_state = on_state
        # the live connection, None between two
        self._link: Link | None = None
        # aborts the socket of a subscription that was dropped without aclose()
        self._finalizer: Finalizer | None = None
        # whether any connection was live: only then are failures worth retrying without being asked to
        self._was_live = False
        # when the next attempt is due, in loop time; None: at once
        self._retry_at_s: float | None = None
        # set by aclose() and by every final ending
        self._done = asyncio.Event()
        # how it ended, until somebody has been told
        self._failure: TopicFailed | None = None
        # whether a task is reading
        self._is_read = False
        self._state = State("connecting")

    @property
    def position(self) -> str | None:
        """After the last message received: pass it as ``since`` to go on from there in another process."""
        return self._tracker.since

    @property
    def state(self) -> State:
        """The state told last."""
        return self._state

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Received:
        return await self.next()

    async def next(self, timeout_s: float | None = None) -> Received:
        """The next message, whatever it takes.

        Raises ``TimeoutError`` after ``timeout_s``, which loses nothing and leaves the connection open, and
        otherwise what ``subscribe`` says; ``StopAsyncIteration`` at the end of the topic.
        """
        if self._is_read:
            raise RuntimeError("another task reads this subscription: give each task its own")
        self._is_read = True
        try:
            async with asyncio.timeout(timeout_s):
                return await self._read()
        except asyncio.CancelledError:
            self._abort()
            raise
        finally:
            self._is_read = False

    async def __aenter__(self) -> Self:
        try:
            await self._ensure_live()
        except StopAsyncIteration:
            pass
        except BaseException:
            self._abort()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading and close the socket, within a second; a reader in another task ends."""
        if not self._done.is_set():
            self._end("closed here")
        link = self._release()
        if link is not None:
            await link.close()

    async def _read(self) -> Received:
        while True:
            link = await self._ensure_live()
            try:
                envelope = await link.receive()
            except Cut as cut:
                self._release()
                self._plan(cut)
                continue
            received = await self._handle(envelope)
            if received is not None:
                return received

    async def _ensure_live(self) -> Link:
        """The live connection, made anew as often as the advice allows."""
        while self._link is None:
            await self._wait_for_turn()
            try:
                link = await self._open()
            except Cut as cut:
                self._plan(cut)
                continue
            if self._done.is_set():
                await link.close()
                raise StopAsyncIteration
            self._welcome(link)
        return self._link

    async def _wait_for_turn(self) -> None:
        if self._retry_at_s is not None:
            try:
                async with asyncio.timeout_at(self._retry_at_s):
                    await self._done.wait()
            except TimeoutError:
                self._retry_at_s = None
        else:
            self._tell(State("connecting"))
        if self._done.is_set():
            self._stop()

    async def _open(self) -> Link:
        asked = self._asked
        return await open_link(
            asked.target,
            since=self._tracker.since,
            max_per_s=asked.max_per_s,
            headers=asked.headers,
            origin=asked.origin,
            open_timeout_s=asked.open_timeout_s,
            max_size_bytes=asked.max_size_bytes,
        )

    def _welcome(self, link: Link) -> None:
        """A connection is live: note it, and say what is recovered or lost."""
        self._link = link
        self._finalizer = link.abort_when_forgotten(self)
        self._was_live = True
        self._backoff.connected(asyncio.get_running_loop().time())
        before = self._tracker.lost
        self._tracker.begin(link.header)
        lost = self._tracker.lost if self._tracker.lost != before else None
        recovered = link.header.replayed if link.header.recovered else None
        self._tell(State("live", recovered=recovered, lost=lost))

    async def _handle(self, envelope: Envelope) -> Received | None:
        match envelope:
            case Item():
                return self._tracker.take(envelope)
            case Lost():
                if self._tracker.lose(envelope):
                    self._tell(State("live", lost=self._tracker.lost))
            case Ended(position, error):
                await self._bury(None if position is None else str(position), error)
        return None

    async def _bury(self, position: str | None, error: str | None) -> None:
        """The topic has ended: say so, close, and raise what ends the loop."""
        self._end("the topic has ended" if error is None else f"the topic failed: {error}")
        if error is not None:
            self._failure = TopicFailed(self._asked.target.shown, error, position)
        link = self._release()
        if link is not None:
            await link.close()
        self._stop()

    def _stop(self) -> NoReturn:
        """Raise what ends the loop: the topic's failure once, however often a reader was interrupted before."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        raise StopAsyncIteration

    def _plan(self, cut: Cut) -> None:
        """After an ending: set the time of the next attempt, or raise."""
        if self._done.is_set():
            raise StopAsyncIteration
        advice = cut.advice
        if advice.come_back is ComeBack.END and self._was_live:
            self._end(advice.reason)
            raise StopAsyncIteration
        may_retry = self._asked.retry if self._was_live else self._asked.wait
        if advice.come_back in (ComeBack.STOP, ComeBack.END) or not may_retry:
            self._end(advice.reason)
            if advice.come_back is ComeBack.END:
                raise NoAnswer(self._asked.target.shown, "it closed the WebSocket without a word")
            raise cut.error
        now_s = asyncio.get_running_loop().time()
        delay_s = self._backoff.failed(now_s, advice)
        self._retry_at_s = now_s + delay_s
        self._tell(State("reconnecting", reason=advice.reason, attempt=self._backoff.attempt, retry_in_s=delay_s))

    def _end(self, reason: str) -> None:
        self._done.set()
        self._tell(State("ended", reason=reason, lost=self._tracker.lost))

    def _release(self) -> Link | None:
        """Let go of the connection, however it is to be closed."""
        link, self._link = self._link, None
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None
        return link

    def _abort(self) -> None:
        link = self._release()
        if link is not None:
            link.abort()

    def _tell(self, state: State) -> None:
        self._state = state
        if self._on_state is not None:
            self._on_state(state)
