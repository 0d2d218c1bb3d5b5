"""A client of the Centrifuge protocol v2 without any I/O: feed it frames and time, take its events and frames.

How to use it (``shell`` does)::

    machine.start(now)                         # then, whenever something happens:
    machine.opened(now, attempt)               # the connection that ``Dial`` asked for is open
    machine.receive(now, attempt, frame)       # a frame has come
    machine.ended(now, attempt, advice, error) # it has ended, or could not be opened
    machine.tick(now)                          # ``next_at`` has come
    # and after each: do what ``take_events()`` says; write ``take_frames()`` as soon as the last ones have left

A client goes from disconnected over connecting to connected, and round again; closed is for good. What a server may
say, when, and what a client does about it: centrifugal.dev, "Client protocol".
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from msgspec import Raw

from tidewire.client.errors import ClientClosed, CommandRefused, Disconnected, NoAnswer, NotASession
from tidewire.client.reconnect import Advice, Backoff, ComeBack
from tidewire.client.session.advice import EXPIRED, STATE_INVALIDATED, advise_close, may_ask_again
from tidewire.client.session.desk import Desk
from tidewire.client.session.events import Arrived, Changed, Dial, Event, HangUp
from tidewire.client.session.inbox import Entry, Inbox, Sink
from tidewire.client.session.messages import ClientState, ClientStateName
from tidewire.client.session.pulse import Pulse
from tidewire.client.session.requests import Requests
from tidewire.client.session.streams import Streams
from tidewire.client.session.token import Token
from tidewire.client.session.track import Track, Wish
from tidewire.client.session.tracks import UNREAD_BYTES_MAX, UNREAD_MESSAGES_MAX, Tracks
from tidewire.errors import BadPacket, ClientError
from tidewire.protocol import codes, packets
from tidewire.protocol.codecs import Codec
from tidewire.protocol.packets import NOTHING, ConnectRequest, ConnectResult, Push, Reply

ANSWER_S = 15.0
"""How long a server may answer nothing: longer than it may ask a function of its own (10 s)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What every connect command says. ``token``: the one there is; ``renews_token``: a function gets new ones."""

    name: str = "tidewire"
    version: str = ""
    data: Raw = field(default_factory=lambda: NOTHING)
    headers: dict[str, str] = field(default_factory=dict)
    token: str = ""
    renews_token: bool = False


class Machine:
    """``shown`` is the URL without secrets, for sentences. ``answer_s``: how long the server may answer nothing.

    ``waits``: keep trying also before the first connection; otherwise its failure closes the client.
    """

    def __init__(
        self,
        codec: Codec,
        hello: Hello,
        *,
        shown: str,
        answer_s: float = ANSWER_S,
        waits: bool = False,
        backoff: Backoff | None = None,
        rng: random.Random | None = None,
    ) -> None:
        rng = rng or random.Random()
        self.state = ClientState("disconnected", "not begun")
        # what the server calls this connection, and what it has said to it on connecting
        self.connection_id = ""
        self.welcome = NOTHING
        # what the server sends to this user alone
        self.messages = Inbox(messages_max=UNREAD_MESSAGES_MAX, bytes_max=UNREAD_BYTES_MAX, on_overflow="drop")
        # who takes the items of streamed calls, by the ids of these
        self.streams = Streams()
        # what frames are
        self.is_text = codec.is_text
        self._shown = shown
        self._hello = hello
        self._answer_s = answer_s
        self._desk = Desk(codec, rng, stall_s=answer_s)
        self._desk.on_stall = self._stalled
        self._pulse = Pulse(self._desk, self._missed_ping)
        self._requests = Requests(self._desk, shown)
        self.tracks = Tracks(self._desk)
        self._token = Token(self._desk, None, hello.token, is_renewable=hello.renews_token)
        self._backoff = backoff or Backoff(rng=rng)
        self._attempts = 0
        # the name of the connection that is being opened or open
        self._line: int | None = None
        self._waits = waits
        self._was_connected = False
        # the last connect command was refused because its token had expired
        self._has_expired = False

    # Out

    @property
    def next_at(self) -> float | None:
        """When ``tick`` is to be called."""
        return self._desk.alarms.next_at

    def take_events(self) -> list[Event]:
        """What is to be done and told, in this order."""
        events, self._desk.events = self._desk.events, []
        return events

    @property
    def has_output(self) -> bool:
        """Whether ``take_frames`` has something."""
        return self._desk.has_output or self._requests.has_output

    def take_frames(self, now: float) -> list[bytes]:
        """What is to be written; call it when the last ones have left, and again while ``has_output``."""
        self._desk.now = now
        self._requests.pump()
        return self._desk.take_frames()

    # Connecting

    def start(self, now: float) -> None:
        """Begin to connect."""
        self._desk.now = now
        self._connect()

    def tick(self, now: float) -> None:
        """Do what is due."""
        self._desk.now = now
        self._desk.alarms.run(now)

    def _connect(self) -> None:
        if self.state.name != "connecting":
            self._move("connecting")
        if self._token.is_missing:
            self._token.want()
            return
        self._attempts += 1
        self._line = self._attempts
        self._desk.events.append(Dial(self._line))

    def opened(self, now: float, attempt: int) -> None:
        """The connection is open: say who this is."""
        self._desk.now = now
        if attempt != self._line:
            return
        hello = self._hello
        request = ConnectRequest(
            token=self._token.value,
            data=hello.data,
            subs=self.tracks.recovery_requests(),
            name=hello.name,
            version=hello.version,
            headers=hello.headers,
        )
        self._desk.ask(request, self._read_welcome)

    def _read_welcome(self, reply: Reply) -> None:
        if reply.error is not None:
            self._refused(reply.error)
        elif reply.connect is None or not reply.connect.client:
            # what only echoes says something that looks like an answer, but for the id that every server gives
            why = "its answer to the connect command was none"
            self._hang_up(Advice(ComeBack.STOP, why), NotASession(self._shown, why))
        else:
            self._welcomed(reply.connect)

    def _refused(self, error: packets.Error) -> None:
        refused = CommandRefused("to connect", error.code, error.message, temporary=error.temporary)
        advice = Advice(ComeBack.STOP, str(refused))
        has_expired = error.code == codes.TOKEN_EXPIRED.code
        if has_expired and self._token.is_renewable:
            self._token.drop()
            # the first one may have been kept somewhere; a new one that has expired is no accident
            retries = self._may_retry or not self._has_expired
            advice = Advice(ComeBack.FAST if retries else ComeBack.STOP, str(refused))
        elif not has_expired and may_ask_again(error.code, error.temporary):
            is_slow = error.code == codes.TOO_MANY_REQUESTS.code
            advice = Advice(ComeBack.SLOW if is_slow else ComeBack.FAST, str(refused))
        self._hang_up(advice, refused, retries=self._may_retry or has_expired)
        self._has_expired = has_expired

    def _welcomed(self, result: ConnectResult) -> None:
        self._was_connected = True
        self._has_expired = False
        self._desk.is_connected = True
        self._backoff.connected(self._desk.now)
        self.connection_id, self.welcome = result.client, result.data
        self._pulse.begin(result.ping, wants_pong=result.pong)
        self._token.renew_in(expires=result.expires, ttl_s=result.ttl)
        self._move("connected")
        self.tracks.connected(result.subs)

    # The end of a connection

    @property
    def _may_retry(self) -> bool:
        return self._was_connected or self._waits

    def ended(self, now: float, attempt: int, advice: Advice, error: ClientError, code: int | None = None) -> None:
        """The connection has ended, with that close code, or could not be opened."""
        self._desk.now = now
        if attempt != self._line:
            return
        if code in (EXPIRED, STATE_INVALIDATED):
            self._token.drop()
        if code == STATE_INVALIDATED:
            self.tracks.invalidate()
        self._lost(advice, error)

    def _hang_up(self, advice: Advice, error: ClientError | None = None, *, retries: bool | None = None) -> None:
        """End the connection from here."""
        if self._line is not None:
            self._desk.events.append(HangUp(self._line))
        self._lost(advice, error or Disconnected(self._shown, 1006, advice.reason), retries=retries)

    def _lost(self, advice: Advice, error: ClientError, *, retries: bool | None = None) -> None:
        self._rest()
        may_retry = self._may_retry if retries is None else retries
        if advice.come_back in (ComeBack.STOP, ComeBack.END) or not may_retry:
            self._close(error, advice.reason)
            return
        delay_s = self._backoff.failed(self._desk.now, advice)
        self._desk.alarms.set("retry", self._desk.now + delay_s, self._connect)
        self._move("disconnected", advice.reason, attempt=self._backoff.attempt, retry_in_s=delay_s)
        self._requests.lose(advice.reason)
        self.tracks.disconnect(advice.reason)

    def _rest(self) -> None:
        """Nothing is connected, and nothing is due."""
        self._line = None
        self._desk.hang_up()
        self._desk.alarms.clear("retry")
        self._pulse.stop()
        self._token.rest()

    def close(self, now: float) -> None:
        """The user has had enough: everything ends, quietly."""
        self._desk.now = now
        if self.state.name == "closed":
            return
        if self._line is not None:
            self._desk.events.append(HangUp(self._line, 1000))
        self._rest()
        self._close(None, "closed here")

    def _close(self, error: ClientError | None, reason: str) -> None:
        self._move("closed", reason, error=error)
        self._requests.lose(reason)
        self.tracks.end(error, reason)
        self._requests.fail_all(error or ClientClosed(self._shown))

    def _stalled(self) -> None:
        why = f"it answered nothing for {self._answer_s:g} s"
        self._hang_up(Advice(ComeBack.SLOW, why), NoAnswer(self._shown, why))

    def _missed_ping(self, why: str) -> None:
        self._hang_up(Advice(ComeBack.FAST, why))

    # What comes

    def receive(self, now: float, attempt: int, frame: str | bytes) -> None:
        """A frame of the server: replies, pushes, pings."""
        self._desk.now = now
        if attempt != self._line:
            return
        try:
            for reply in self._desk.codec.read_replies(frame):
                self._take(reply)
                if attempt != self._line:
                    return
        except BadPacket as error:
            # whoever has spoken the protocol before may do so again
            come_back = ComeBack.SLOW if self._was_connected else ComeBack.STOP
            self._hang_up(Advice(come_back, str(error)), NotASession(self._shown, str(error)))

    def _take(self, reply: Reply) -> None:
        if reply.id:
            self._desk.answer(reply)
        elif not self._desk.is_connected:
            # nothing is said before the welcome
            return
        elif reply.push is not None:
            self._hear(reply.push)
        else:
            self._pulse.beat()

    def _hear(self, push: Push) -> None:
        if push.message is not None:
            data = bytes(push.message.data)
            if not self.streams.take(data):
                self.messages.put(Entry("", data, {}), may_pause=False)
                self._desk.events.append(Arrived(None))
        elif push.disconnect is not None:
            # servers say it so where they have no close frames
            advice = advise_close(push.disconnect.code, push.disconnect.reason)
            self._hang_up(advice, Disconnected(self._shown, push.disconnect.code, advice.reason))
        elif push.refresh is not None:
            self._token.renew_in(expires=push.refresh.expires, ttl_s=push.refresh.ttl)
        elif push.subscribe is not None:
            self.tracks.subscribed(push.channel, push.subscribe)
        else:
            self.tracks.hear(push)

    # What the user wants

    def subscribe(self, now: float, topic: str, sink: Sink, wish: Wish) -> Track:
        """Subscribe to ``topic``; what comes goes to ``sink``. Raises ``AlreadySubscribed`` and ``ClientClosed``."""
        self._desk.now = now
        self._check_open()
        return self.tracks.add(topic, sink, wish)

    def unsubscribe(self, now: float, track: Track) -> None:
        """Leave; twice is nothing."""
        self._desk.now = now
        track.leave()

    def resume(self, now: float, track: Track) -> None:
        """The consumer of a paused subscription has read on."""
        self._desk.now = now
        track.resume()

    def request(
        self, now: float, request: packets.Request, what: str, *, timeout_s: float, is_repeatable: bool = False
    ) -> int:
        """Ask the server for something: ``Settled`` with the handle that is returned tells what came of it.

        Raises ``ClientClosed`` (or what closed it) and ``TooManyRequests``.
        """
        self._desk.now = now
        self._check_open()
        return self._requests.add(request, what, timeout_s=timeout_s, is_repeatable=is_repeatable)

    def _check_open(self) -> None:
        if self.state.name == "closed":
            raise self.state.error or ClientClosed(self._shown)

    def forget(self, handle: int) -> None:
        """Nobody waits for it any more."""
        self._requests.forget(handle)

    # Tokens

    def take_token(self, now: float, topic: str | None, value: str) -> None:
        """A token that ``WantToken`` asked for."""
        self._desk.now = now
        if topic is not None:
            track = self.tracks.get(topic)
            if track is not None:
                track.take_token(value)
            return
        self._token.take(value)
        if self._desk.is_connected:
            self._desk.ask(packets.RefreshRequest(token=value), self._read_refreshed)
        elif self.state.name == "connecting" and self._line is None:
            self._connect()

    def _read_refreshed(self, reply: Reply) -> None:
        error, result = reply.error, reply.refresh
        if error is None:
            if result is not None:
                self._token.renew_in(expires=result.expires, ttl_s=result.ttl)
        elif may_ask_again(error.code, error.temporary):
            self._token.renew_later()
        else:
            refused = CommandRefused("to refresh the connection", error.code, error.message, temporary=error.temporary)
            self._hang_up(Advice(ComeBack.STOP, str(refused)), refused)

    def miss_token(self, now: float, topic: str | None, error: ClientError, *, is_final: bool) -> None:
        """No token could be got; ``is_final``: nor will there be one."""
        self._desk.now = now
        if topic is not None:
            track = self.tracks.get(topic)
            if track is not None:
                track.miss_token(error, is_final=is_final)
            return
        self._token.failed()
        if self.state.name == "closed":
            return
        if is_final:
            self._hang_up(Advice(ComeBack.STOP, str(error)), error)
        elif self._desk.is_connected:
            self._token.renew_later()
        elif self.state.name == "connecting" and self._line is None:
            self._lost(Advice(ComeBack.FAST, str(error)), error)

    def _move(
        self,
        name: ClientStateName,
        reason: str = "",
        *,
        attempt: int = 0,
        retry_in_s: float | None = None,
        error: ClientError | None = None,
    ) -> None:
        self.state = ClientState(name, reason, attempt, retry_in_s, error)
        self._desk.events.append(Changed(self.state))
