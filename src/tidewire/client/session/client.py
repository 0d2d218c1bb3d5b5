"""``Client``: many topics, calls and messages on one connection that comes back by itself."""

from __future__ import annotations

import asyncio
import secrets
import ssl as tls
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload

from tidewire.client.errors import ClientClosed
from tidewire.client.reconnect import Backoff
from tidewire.client.session import asking
from tidewire.client.session.inbox import Inbox, OnOverflow
from tidewire.client.session.machine import ANSWER_S, Hello, Machine
from tidewire.client.session.messages import (
    ClientState,
    ClientStateName,
    History,
    Member,
    PresenceStats,
    SubscriptionState,
)
from tidewire.client.session.mirror import KEYS_MAX, Key, Mirror, Values
from tidewire.client.session.place import session_address
from tidewire.client.session.shell import Listener, Shell
from tidewire.client.session.streaming import Items
from tidewire.client.session.subscription import Plan, Subscription, UserMessages
from tidewire.client.session.track import Wish
from tidewire.client.session.values import encode_data, encode_optional, read_info, reader_of
from tidewire.client.session.wire import MAX_SIZE_BYTES, Handshake, OpenWire, opener
from tidewire.client.target import Headers, check_headers
from tidewire.clock import Clock, LoopClock
from tidewire.errors import BadTopic
from tidewire.protocol import packets
from tidewire.protocol.codecs import JSON, PROTOBUF, Codec
from tidewire.protocol.position import parse_position

T = TypeVar("T")
Token = str | Callable[[], str | Awaitable[str]] | None
TopicToken = str | Callable[[str], str | Awaitable[str]] | None
OnState = Callable[[SubscriptionState], None] | None

KEY_HEADER: Final = "tidewire-session"
BUFFER_MESSAGES: Final = 2000
BUFFER_BYTES: Final = 8 * 1024 * 1024


class Client:
    """A session: one connection for many topics, with calls, presence and history.

    ::

        async with Client("http://127.0.0.1:8000/live", token=get_token) as client:
            async with client.subscribe("quotes/AAPL", type=Quote) as quotes:
                async for message in quotes:
                    print(message.data.price, message.gap)

    Speaks the Centrifuge client protocol v2, so it works with other servers of that protocol too. A cut line or a
    restarted server is outlived: it comes back with delays that grow, fully jittered, subscribes again from the
    positions where it was, and tells what is lost (``Message.gap``). The server knows who comes back (by a random key),
    so that a connection of ours that is only half dead is replaced.

    ``url``: that of the router, ``/-/session`` is added; or one that ends so, or with ``/websocket``, as it is.
    ``token``: says who this is: a text, or a function (async or not) that gets a new one whenever one is needed, before
    the present one ends too. ``data``: a JSON value for ``@live.on_connect``. ``protobuf``: speak the binary form,
    which carries bytes. ``headers``, ``origin``, ``ssl``, ``open_timeout_s``: of the handshake, as for ``connect``.
    ``timeout_s``: how long requests wait for their answers, for a connection included, unless they say otherwise. (A
    server that answers nothing to this client's own commands for 15 s, or ``timeout_s`` if that is longer, is left.)
    ``max_size_bytes``: of one frame of the server's. ``wait``: keep
    trying also before the first connection; otherwise a server that is not there raises at once. ``on_state``: called
    with each ``ClientState``. ``backoff``: other delays than the usual. ``clock`` and ``open_wire``: for tests.

    Raises ``BadURL`` and ``ValueError`` here. Entering raises ``NothingListens``, ``NoAnswer``, ``Refused``,
    ``NotASession``, ``CommandRefused`` (the server does not want this client) and ``NoToken``. When the server refuses
    it later, for good, it is closed: then everything raises that.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token = None,
        data: object = None,
        protobuf: bool = False,
        headers: Headers | None = None,
        origin: str | None = None,
        ssl: tls.SSLContext | None = None,
        timeout_s: float = 10.0,
        open_timeout_s: float = 10.0,
        max_size_bytes: int = MAX_SIZE_BYTES,
        wait: bool = False,
        on_state: Callable[[ClientState], None] | None = None,
        backoff: Backoff | None = None,
        clock: Clock | None = None,
        open_wire: OpenWire | None = None,
    ) -> None:
        address = session_address(url)
        if ssl is not None and not address.is_secure:
            raise ValueError(f"{address.shown} is not encrypted: write https:// or wss://, or leave ssl out")
        self._codec = PROTOBUF if protobuf else JSON
        self._timeout_s = timeout_s
        self._shown = address.shown
        hello = Hello(
            version=version("tidewire"),
            data=encode_optional(data, self._codec),
            headers={KEY_HEADER: secrets.token_urlsafe(24)},
            token=token if isinstance(token, str) else "",
            renews_token=callable(token),
        )
        handshake = Handshake(check_headers(headers), origin, ssl, open_timeout_s, max_size_bytes)
        self._machine = Machine(
            self._codec, hello, shown=self._shown, answer_s=max(ANSWER_S, timeout_s), waits=wait, backoff=backoff
        )
        self._shell = Shell(
            self._machine,
            open_wire or opener(address, self._codec, handshake),
            clock or LoopClock(),
            shown=self._shown,
            get_token=token if callable(token) else None,
            on_state=on_state,
        )
        self._is_begun = False

    # Living

    async def __aenter__(self) -> Self:
        if self._is_begun:
            raise RuntimeError("a Client is opened once: make another one")
        self._is_begun = True
        self._shell.start()
        try:
            await self.wait_for("connected")
        except BaseException:
            await self._shell.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._shell.close()

    @property
    def state(self) -> ClientState:
        """As it was told last."""
        return self._machine.state

    @property
    def id(self) -> str:
        """What the server calls this connection: ``Member.client``."""
        return self._machine.connection_id

    @property
    def welcome(self) -> Any:
        """What ``@live.on_connect`` has returned for this client; None: nothing."""
        return read_info(self._machine.welcome)

    @property
    def offered(self) -> list[str]:
        """Topics that the server has subscribed this client to and that nobody here reads: ``subscribe`` to them.

        Of each the last 1,000 messages are kept until then.
        """
        return self._machine.tracks.unread

    async def wait_for(self, name: ClientStateName, timeout_s: float | None = None) -> ClientState:
        """Wait until it stands so, if only for a moment. Raises ``TimeoutError``, and what has closed it otherwise."""
        self._check_begun()

        def look(what: object) -> ClientState | None:
            return what if isinstance(what, ClientState) and what.name in (name, "closed") else None

        async with asyncio.timeout(timeout_s):
            state = look(self.state)
            if state is None:
                state = await self._shell.bell.until(look)
        if state.name != name:
            raise (state.error or ClientClosed(self._shown)).with_traceback(None)
        return state

    def _check_begun(self) -> None:
        if not self._is_begun:
            raise ClientClosed(self._shown)

    # Topics

    @overload
    def subscribe(
        self,
        topic: str,
        *,
        type: type[T],
        since: str | None = ...,
        token: TopicToken = ...,
        data: object = ...,
        max_per_s: float | None = ...,
        members: bool = ...,
        on_overflow: OnOverflow = ...,
        buffer_messages: int = ...,
        buffer_bytes: int = ...,
        on_state: OnState = ...,
    ) -> Subscription[T]: ...
    @overload
    def subscribe(
        self,
        topic: str,
        *,
        since: str | None = ...,
        token: TopicToken = ...,
        data: object = ...,
        max_per_s: float | None = ...,
        members: bool = ...,
        on_overflow: OnOverflow = ...,
        buffer_messages: int = ...,
        buffer_bytes: int = ...,
        on_state: OnState = ...,
    ) -> Subscription[Any]: ...
    def subscribe(
        self,
        topic: str,
        *,
        type: Any = None,  # noqa: A002 - the word of the public signature
        since: str | None = None,
        token: TopicToken = None,
        data: object = None,
        max_per_s: float | None = None,
        members: bool = False,
        on_overflow: OnOverflow = "pause",
        buffer_messages: int = BUFFER_MESSAGES,
        buffer_bytes: int = BUFFER_BYTES,
        on_state: OnState = None,
    ) -> Subscription[Any]:
        """The messages of a topic, as ``async with`` and ``async for``; one at a time for each topic.

        ``type``: a pydantic model, a dataclass or anything msgspec decodes; by default the JSON as it is. ``since``: go
        on after this position. ``token``: a text, or a function that gets one for the topic it is called with.
        ``data``: for the topic's function (``op.data``). ``max_per_s``: on ``Latest`` topics, ask for fewer updates.
        ``members``: hear of joins and leaves (``Subscription.members``).

        What is not read waits: ``buffer_messages`` or ``buffer_bytes`` of it, then ``on_overflow`` decides. "pause":
        the subscription is given up, and made again from where it was when there is room, so that nothing is lost that
        the server still has, and others on this connection are not held up (a topic without positions: as "drop").
        "drop": the oldest goes, and is told as the gap of the next one. "error": it ends with ``ConsumerTooSlow``.

        Raises ``ClientClosed``, ``BadTopic``, ``BadPosition``, ``BadPayload`` here; when it begins
        ``AlreadySubscribed``, ``CommandRefused``, ``NoToken``.
        """
        self._check(topic)
        wish = _wish_of(self._codec, token, since, data, max_per_s, members=members)
        inbox = Inbox(messages_max=max(1, buffer_messages), bytes_max=max(1, buffer_bytes), on_overflow=on_overflow)
        listener = _listener(topic, token, on_state)
        return Subscription(self._shell, Plan(topic, wish, inbox, listener, reader_of(type, self._codec)))

    @overload
    def mirror(
        self,
        topic: str,
        *,
        key: Key = ...,
        type: type[T],
        token: TopicToken = ...,
        data: object = ...,
        max_per_s: float | None = ...,
        max_keys: int = ...,
        on_state: OnState = ...,
    ) -> Mirror[T]: ...
    @overload
    def mirror(
        self,
        topic: str,
        *,
        key: Key = ...,
        token: TopicToken = ...,
        data: object = ...,
        max_per_s: float | None = ...,
        max_keys: int = ...,
        on_state: OnState = ...,
    ) -> Mirror[Any]: ...
    def mirror(
        self,
        topic: str,
        *,
        key: Key = None,
        type: Any = None,  # noqa: A002 - as in subscribe
        token: TopicToken = None,
        data: object = None,
        max_per_s: float | None = None,
        max_keys: int = KEYS_MAX,
        on_state: OnState = None,
    ) -> Mirror[Any]:
        """The newest values of a ``Latest`` topic, as a mapping that is current inside of ``async with``.

        ::

            async with client.mirror("quotes", key="symbol", type=Quote) as quotes:
                await quotes.until(lambda quotes: "AAPL" in quotes)
                print(quotes["AAPL"].price)

        ``key``: the field that the topic is keyed by, or a function of the value; keys are text, as on the server. By
        default the key is the name of the topic that a message came from. The values arrive right after it has begun.
        At most ``max_keys``; one more ends it with ``TooManyKeys``. The other options are those of ``subscribe``.
        """
        self._check(topic)
        wish = _wish_of(self._codec, token, None, data, max_per_s, members=False)
        values = Values(key, reader_of(type, self._codec), keys_max=max_keys)
        return Mirror(self._shell, topic, values, wish, _listener(topic, token, on_state))

    def _check(self, topic: str) -> None:
        self._check_begun()
        if not topic:
            raise BadTopic(topic, "it is empty")

    async def publish(self, topic: str, value: object, *, timeout_s: float | None = None) -> None:
        """Publish ``value`` as JSON (bytes as they are, with ``protobuf=True``); returns when the server has it.

        Raises ``BadPayload``, ``CommandRefused``, and ``NoAnswer`` when it is not known whether it arrived.
        """
        self._check(topic)
        request = packets.PublishRequest(channel=topic, data=encode_data(value, self._codec))
        await self._ask(request, f"to publish to {topic!a}", timeout_s)

    async def history(
        self,
        topic: str,
        *,
        limit: int = 100,
        since: str | None = None,
        reverse: bool = False,
        type: Any = None,  # noqa: A002 - as in subscribe
        timeout_s: float | None = None,
    ) -> History[Any]:
        """Up to ``limit`` messages that are kept: the oldest first, or (``reverse``) the newest.

        ``since``: those after this position, or before it with ``reverse``. Raises as ``publish``, and ``WrongType``.
        """
        self._check(topic)
        return await asking.history(
            self._shell,
            topic,
            limit=max(0, limit),
            since=None if since is None else parse_position(since),
            reverse=reverse,
            read=reader_of(type, self._codec),
            timeout_s=self._time(timeout_s),
        )

    async def presence(self, topic: str, *, timeout_s: float | None = None) -> list[Member]:
        """Who is on ``topic``, one ``Member`` for each connection. Raises ``CommandRefused`` and ``NoAnswer``."""
        self._check(topic)
        return await asking.presence(self._shell, topic, self._time(timeout_s))

    async def presence_stats(self, topic: str, *, timeout_s: float | None = None) -> PresenceStats:
        """How many are on ``topic``. Raises as ``presence``."""
        self._check(topic)
        return await asking.presence_stats(self._shell, topic, self._time(timeout_s))

    # The application

    @overload
    async def call(self, method: str, data: object = ..., *, type: type[T], timeout_s: float | None = ...) -> T: ...
    @overload
    async def call(self, method: str, data: object = ..., *, timeout_s: float | None = ...) -> Any: ...
    async def call(
        self,
        method: str,
        data: object = None,
        *,
        type: Any = None,  # noqa: A002 - as in subscribe
        timeout_s: float | None = None,
    ) -> Any:
        """What ``@live.call(method)`` returns for ``data``, as ``type`` if one is given.

        Raises ``CallRefused`` (also a ``CallError``) with what it raised, ``WrongType``, ``BadPayload``, and
        ``NoAnswer`` when it is not known whether it was done.
        """
        self._check_begun()
        request = packets.RPCRequest(data=encode_optional(data, self._codec), method=method)
        return await asking.call(self._shell, request, reader_of(type, self._codec), self._time(timeout_s))

    @overload
    def stream(self, method: str, data: object = ..., *, type: type[T], buffer: int = ...) -> Items[T]: ...
    @overload
    def stream(self, method: str, data: object = ..., *, buffer: int = ...) -> Items[Any]: ...
    def stream(
        self,
        method: str,
        data: object = None,
        *,
        type: Any = None,  # noqa: A002 - as in subscribe
        buffer: int = BUFFER_MESSAGES,
    ) -> Items[Any]:
        """What ``@live.call(method)`` yields for ``data``, item by item as it comes, each as ``type`` if one is given.

        Raises as ``call`` does, when the items are taken.
        """
        self._check_begun()
        return Items(self._shell, method, encode_optional(data, self._codec), reader_of(type, JSON), buffer=buffer)

    async def send(self, value: object, *, timeout_s: float | None = None) -> None:
        """Send ``value`` to ``@live.on_message``, without an answer; returns when it is on its way.

        Raises ``BadPayload``, and ``NoAnswer`` when there was no connection in time.
        """
        await self._ask(packets.SendRequest(data=encode_data(value, self._codec)), "to send a message", timeout_s)

    @overload
    def messages(self, *, type: type[T]) -> UserMessages[T]: ...
    @overload
    def messages(self) -> UserMessages[Any]: ...
    def messages(self, *, type: Any = None) -> UserMessages[Any]:  # noqa: A002 - as in subscribe
        """What ``live.send(user, ...)`` sends to this user: an async iterator of ``Message``.

        What came before anybody read is there too: the last 1,000, 8 MiB at most; what was dropped is told as the gap
        of the next. What is sent while this user is not connected is not kept by anybody.
        """
        self._check_begun()
        return UserMessages(self._shell, reader_of(type, self._codec))

    async def _ask(self, request: packets.Request, what: str, timeout_s: float | None) -> Any:
        self._check_begun()
        return await self._shell.ask(request, what, timeout_s=self._time(timeout_s))

    def _time(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else timeout_s


def _wish_of(
    codec: Codec, token: TopicToken, since: str | None, data: object, max_per_s: float | None, *, members: bool
) -> Wish:
    if max_per_s is not None:
        if data is not None and not isinstance(data, dict):
            raise ValueError("max_per_s travels in data: give data as a dict, or leave one of them out")
        data = {**(data or {}), "max_per_s": max_per_s}
    return Wish(
        since=None if since is None else parse_position(since),
        data=encode_optional(data, codec),
        hears_members=members,
        token=token if isinstance(token, str) else "",
        renews_token=callable(token),
    )


def _listener(topic: str, token: TopicToken, on_state: OnState) -> Listener:
    listener = Listener(on_state=on_state)
    if callable(token):
        listener.get_token = lambda: token(topic)
    return listener
