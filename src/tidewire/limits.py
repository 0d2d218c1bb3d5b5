"""Every cap and deadline, with its default, in one frozen value.

A limit of ours is always a number: there is no magic 0 or -1 that switches one off.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB

# What the wire classes enforce before any application exists (CONTRACTS 10); constants, because uvicorn
# constructs its protocol classes itself and hands them no options of ours.
HEAD_BYTES_MAX = 32 * KIB
HEAD_DEADLINE_S = 10.0
FRAGMENTS_MAX = 128 * KIB
UNREAD_PONGS_BYTES_MAX = 64 * KIB
ABANDONED_AFTER_S = 60.0
RAW_MESSAGE_BYTES_MAX = 16 * MIB
# What a refused peer gets to hear why, while what it still sends is thrown away: until it has been quiet for a while,
# and never longer than this.
REFUSED_QUIET_S = 0.5
REFUSED_LINGER_S = 5.0
PINGS_MAX = 1000
# Raw connections (CONTRACTS 9): what may wait for a body, the time a closing handshake has, the time it has when the
# server stops or the body was cancelled, and how long a handler that never receives may find out that it is alone.
INBOX_MESSAGES_MAX = 32
INBOX_BYTES_MAX = 1 * MIB
RAW_CLOSE_S = 10.0
CLOSE_IN_A_HURRY_S = 1.0
RAW_GRACE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Caps of one ``Live``. Sizes in bytes, times in seconds, the rest are counts."""

    message_bytes_max: int = 1 * MIB
    """One message on a topic; larger ones are refused naming both numbers."""
    topics_max: int = 100_000
    """Topics with state in this process; idle ones without history or readers are dropped first."""
    topic_idle_s: float = 3600.0
    """How long a topic without readers and history is remembered (its positions stay valid so long)."""
    outbox_bytes_max: int = 1 * MIB
    """What may wait for one connection; then the policy's overflow rule decides. Always room for one message."""
    outbox_messages_max: int = 1000
    """The same, counted in messages."""
    gather_bytes_max: int = 64 * KIB
    """What may gather unflushed before a publisher yields to the event loop."""
    gather_messages_max: int = 256
    """The same, counted in messages."""
    flush_writes_max: int = 400
    """Readers that one pass of the event loop writes to; one write of 8 KiB counts twice. The others have the next."""
    page_messages_max: int = 256
    """Messages of history read and handed over at a time while a subscriber catches up."""
    read_bytes_max: int = 4 * MIB
    """What one plain GET returns at most; the answer then lacks Stream-Up-To-Date and the reader asks on."""
    batch_messages_max: int = 10_000
    """Messages in one POSTed JSON array; producers gather up to a megabyte before they send."""
    producers_max: int = 1000
    """Idempotent producers remembered per topic; of more, the one that was silent longest has to begin anew."""
    producer_remembered_s: float = 7 * 86_400.0
    """How long a silent producer is remembered."""
    long_poll_s: float = 20.0
    """A long-poll for which nothing has come by then is answered with 204."""
    stream_events_s: float = 60.0
    """An event stream asked for with ``live=sse`` ends after this; its reader asks again, and is authorised again."""
    stream_topics_max: int = 100
    """Topics in one stream of ``/-/stream``."""
    publish_queue_max: int = 10_000
    """Messages handed to publish_soon that wait for the event loop."""
    dedup_ids_max: int = 10_000
    """Publish ids remembered per topic."""
    dedup_window_s: float = 120.0
    """How long a publish id is remembered."""
    runs_max: int = 1000
    """Runs of publish_from that go on at once."""
    run_close_s: float = 1.0
    """What the iterator of a run gets to close; at shutdown it gets this twice, then it is left behind."""
    runs_remembered_max: int = 10_000
    """Runs with an id that have ended and can still be joined."""
    run_remembered_s: float = 600.0
    """How long they can."""
    connections_per_address_max: int = 1000
    """Streaming connections from one peer address; loopback (a local proxy) is not counted."""
    rates_per_topic_max: int = 32
    """Different ``max_per_s`` rates asked for by subscribers of one topic; more share the slowest."""
    session_frame_bytes_max: int = 1 * MIB + 64 * KIB
    """One frame of a session, which may carry several commands; larger ones end it with 4413."""
    session_commands_per_s: float = 1000.0
    """Commands a session may send in the long run; faster ones end it with 3013."""
    session_burst_max: int = 4000
    """Commands it may send at once."""
    session_subscriptions_max: int = 1000
    """Topics one session may be subscribed to."""
    session_calls_max: int = 64
    """Calls of one session that go on at once; more are refused for the moment."""
    call_timeout_s: float = 30.0
    """What a call gets to answer, and a stream to yield its next item, unless its declaration says otherwise."""
    call_close_s: float = 1.0
    """What a call that is ended gets to clean up before its caller goes on without it; it still cleans up."""
    calls_left_max: int = 16
    """Calls of one method that go on without a caller (no thread can be interrupted); of more, each is refused."""
    session_connect_s: float = 10.0
    """The connect command has to come within this time."""
    session_ping_s: float = 25.0
    """How often a session is pinged; the first time after half of it to all of it."""
    session_pong_s: float = 10.0
    """An answer has to come within this time."""
    session_expiry_grace_s: float = 25.0
    """What a client gets to refresh a token that has expired, before its connection or subscription ends."""
    pattern_topics_max: int = 10_000
    """Topics whose newest values a new subscription to a pattern begins with; one that matches more is refused."""
    history_messages_max: int = 300
    """Messages in one answer to a history command."""
    ticket_lifetime_s: float = 30.0
    """A ticket that was not used by then is void."""
    tickets_max: int = 10_000
    """Tickets given out and not used; of more the oldest are void."""
    revocations_max: int = 100_000
    """Revoked tokens and users that are remembered."""
    presence_grace_s: float = 10.0
    """How long somebody whose connection is lost is still present; who comes back in time has not left."""
    presence_members_max: int = 10_000
    """Members in one answer to a presence command; of more, only the numbers are told."""
    authorise_timeout_s: float = 10.0
    """A topic function that takes longer is answered for with 503."""
    authorise_ttl_s: float | None = None
    """How long an admission to subscribe, read or look at presence is good for the same caller; None: for once."""
    body_timeout_s: float = 30.0
    """A POST whose body has not arrived by then is answered with 408."""
    heartbeat_s: float = 15.0
    """A comment line on every idle event stream, so that proxies and peers see it alive."""
    evict_drain_s: float = 1.0
    """What an evicted connection gets to take its close frame before it is aborted."""
    shutdown_s: float = 4.0
    """What readers get at shutdown before their sockets are aborted."""
