"""How an open WebSocket ends, in every state: goodbyes, broken rules, silence, a server that stops."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.wire.fakes import HIGH_WATER, Bench, opens, passes, said, texts
from tests.wire.frames import BINARY, CLOSE, PING, TEXT, Frame, close_payload, frame
from tidewire import limits
from tidewire.errors import Close, ConnectionClosedOK
from tidewire.wire import frames
from tidewire.wire.wheel import SPOKE_S

KIB = 1024
# deadlines are met at most so much later
LATE_S = 2 * SPOKE_S


# Closing


@opens
async def test_we_close_and_the_peer_answers() -> None:
    bench = Bench()
    bench.socket.send("last")
    bench.socket.close(3001, "enough")
    bench.socket.close(1000)
    assert said(bench) == [(3001, "enough")], "at once, and behind what was written"
    assert texts(bench) == [b"last"]
    assert not bench.socket.is_open
    assert bench.socket.sent == Close(3001, "enough")
    bench.socket.send("never")
    bench.socket.send_fragment("never", is_first=True, is_last=True)
    assert not bench.socket.write(frames.message_frame("never" * 20_000))
    await passes()
    assert [one.opcode for one in bench.transport.frames] == [TEXT, CLOSE]
    # what it sends until it has heard
    bench.transport.deliver(frame(TEXT, b"still") + frame(PING, b"?"))
    assert bench.owner.messages == ["still"]
    assert not bench.owner.ends
    bench.transport.deliver(frame(CLOSE, close_payload(3001)) + frame(TEXT, b"never"))
    assert bench.transport.closed
    assert bench.owner.end == (Close(3001), Close(3001, "enough"), False)
    await passes()
    assert bench.transport.lost
    assert (bench.timers, bench.connections, bench.owner.messages) == (0, set(), ["still"])
    assert len(bench.owner.ends) == 1


@opens
async def test_the_peer_closes_and_we_answer_behind_what_is_written() -> None:
    bench = Bench()
    bench.socket.send("last")
    bench.transport.deliver(frame(TEXT, b"bye") + frame(CLOSE, close_payload(1000, "done")))
    assert texts(bench) == [b"last"]
    assert said(bench) == [(1000, "done")]
    assert bench.transport.closed
    assert bench.owner.end == (Close(1000, "done"), Close(1000, "done"), True)
    assert isinstance(bench.owner.ends[0], ConnectionClosedOK)
    assert bench.owner.messages == ["bye"]
    await passes()
    assert (bench.timers, bench.connections) == (0, set())


@opens
async def test_a_close_frame_without_a_code_is_answered_with_one_without() -> None:
    bench = Bench()
    bench.transport.deliver(frame(CLOSE))
    assert bench.transport.frames == [Frame(CLOSE, b"")]
    assert bench.owner.end == (Close(1005), Close(1005), True)


@opens
async def test_both_close_at_once() -> None:
    bench = Bench()
    bench.owner.on_received = lambda: bench.socket.close(4000)
    bench.transport.deliver(frame(TEXT, b"x") + frame(CLOSE, close_payload(4001)))
    assert said(bench) == [(4000, "")], "one close frame"
    assert bench.owner.end == (Close(4001), Close(4000), False)


@opens
async def test_nobody_can_write_from_inside_of_the_end() -> None:
    """The owner is told while the connection is still there: nothing may stand behind the close frame."""
    for last in (frame(CLOSE, close_payload(1000)), frame(3), frame(TEXT, b"\xff")):
        bench = Bench()

        def act(bench: Bench = bench) -> None:
            assert not bench.socket.is_open
            bench.socket.send("too late")
            bench.socket.send_fragment("too late", is_first=True, is_last=True)
            bench.socket.close(4000)

        bench.owner.on_ended = act
        bench.transport.deliver(last)
        bench.clock.advance(limits.REFUSED_LINGER_S + 1)
        await passes(2)
        assert [one.opcode for one in bench.transport.frames] == [CLOSE]
        assert len(bench.owner.ends) == 1


@opens
async def test_a_peer_that_does_not_answer_our_close_is_hung_up_on() -> None:
    bench = Bench()
    bench.socket.close(1000, patience_s=3.0)
    bench.clock.advance(3.0 - SPOKE_S)
    assert not bench.transport.closed
    bench.clock.advance(LATE_S)
    assert bench.transport.closed
    assert bench.transport.aborts == 0
    await passes()
    assert bench.owner.end == (None, Close(1000), None)
    assert (bench.timers, bench.connections) == (0, set())


@opens
async def test_a_peer_that_does_not_take_our_close_is_dropped() -> None:
    bench = Bench()
    bench.transport.stall()
    bench.socket.send(bytes(HIGH_WATER * 2))
    bench.socket.close(1000, patience_s=3.0)
    bench.clock.advance(3.0 + LATE_S)
    assert bench.transport.aborts == 1
    await passes()
    assert bench.owner.end == (None, Close(1000), None)


@opens
async def test_a_peer_that_has_closed_and_takes_nothing_is_dropped() -> None:
    bench = Bench()
    bench.transport.stall()
    bench.socket.send(bytes(HIGH_WATER * 2))
    await passes()
    bench.socket.send("waits")
    bench.transport.deliver(frame(CLOSE, close_payload(1000)))
    assert bench.owner.end == (Close(1000), Close(1000), True)
    await passes()
    assert not bench.transport.lost
    bench.clock.advance(limits.RAW_CLOSE_S + LATE_S)
    assert bench.transport.aborts == 1
    await passes()
    assert len(bench.owner.ends) == 1


@opens
async def test_closing_waits_behind_what_the_peer_does_not_read_and_then_leaves() -> None:
    bench = Bench()
    bench.transport.stall()
    bench.socket.send(bytes(HIGH_WATER * 2))
    await passes()
    bench.socket.send("one")
    bench.socket.close(1001)
    bench.socket.send("never")
    assert said(bench) == []
    bench.transport.unstall()
    assert [one.opcode for one in bench.transport.frames] == [BINARY, TEXT, CLOSE]


@opens
async def test_reading_goes_on_for_the_answer_to_our_close() -> None:
    bench = Bench()
    bench.socket.pause_reading()
    bench.socket.close(1000)
    bench.socket.pause_reading()
    bench.transport.deliver(frame(CLOSE, close_payload(1000)))
    assert bench.owner.end == (Close(1000), Close(1000), False)


@opens
async def test_codes_and_reasons_that_cannot_be_sent() -> None:
    bench = Bench()
    for code in (1005 - 1, 1006, 70_000, 0):
        with pytest.raises(ValueError, match=str(code)):
            bench.socket.close(code)
        assert bench.socket.is_open
        assert bench.socket.sent is None
    bench.socket.send("still here")
    bench.socket.close(1008, "x" * 500)
    ((code, reason),) = said(bench)
    assert (code, len(reason)) == (1008, 123)


# Breaking the rules


@opens
async def test_a_peer_that_breaks_the_protocol_is_told_and_read_away() -> None:
    bench = Bench()
    bench.socket.send("first")
    bench.transport.deliver(frame(TEXT, b"good") + frame(3) + frame(TEXT, b"never"))
    assert bench.owner.messages == ["good"]
    received, sent, _ = bench.owner.end
    assert received is None
    assert sent is not None and sent.code == 1002
    assert texts(bench) == [b"first"]
    assert [code for code, _ in said(bench)] == [1002]
    # a quiet peer is left after a while, one that goes on is heard on, and never longer than 5 s
    assert not bench.transport.closed
    bench.transport.deliver(b"\xff" * 1000)
    bench.clock.advance(limits.REFUSED_QUIET_S - SPOKE_S)
    assert not bench.transport.closed
    bench.clock.advance(LATE_S)
    assert bench.transport.closed
    await passes()
    assert (bench.timers, bench.connections, len(bench.owner.ends)) == (0, set(), 1)


@opens
async def test_a_refused_peer_that_never_stops_is_left_all_the_same() -> None:
    bench = Bench()
    bench.transport.deliver(frame(3))
    heard_s = 0.0
    while not bench.transport.closed:
        bench.transport.deliver(b"\xff" * 1000)
        bench.clock.advance(0.2)
        heard_s += 0.2
        assert heard_s <= limits.REFUSED_LINGER_S + 0.2 + LATE_S
    assert heard_s > limits.REFUSED_LINGER_S - 0.2 - LATE_S
    assert len(bench.transport.frames) == 1


@opens
async def test_a_refused_peer_whose_data_comes_before_the_timer_in_every_pass_is_left_all_the_same() -> None:
    bench = Bench()
    bench.transport.deliver(frame(3))
    heard_s = 0.0
    while not bench.transport.closed:
        # as the event loop does: it reads before it looks at its timers
        bench.clock._move_to(bench.clock.now() + 2 * SPOKE_S)
        bench.transport.deliver(b"\xff" * 1000)
        bench.clock.advance(0.0)
        heard_s += 2 * SPOKE_S
        assert heard_s <= limits.REFUSED_LINGER_S + 0.2 + LATE_S


@opens
async def test_a_refused_peer_that_answers_is_not_waited_for() -> None:
    bench = Bench()
    bench.transport.deliver(frame(3))
    bench.transport.deliver(frame(CLOSE, close_payload(1002)))
    assert bench.transport.closed
    assert len(bench.owner.ends) == 1


@opens
async def test_a_peer_that_breaks_the_protocol_instead_of_answering_our_close() -> None:
    bench = Bench()
    bench.socket.close(4000)
    bench.transport.deliver(frame(3))
    assert said(bench) == [(4000, "")]
    assert bench.owner.end == (None, Close(4000), None)
    bench.clock.advance(limits.REFUSED_QUIET_S + LATE_S)
    assert bench.transport.closed


@opens
async def test_a_refused_peer_that_reads_nothing_is_dropped() -> None:
    bench = Bench()
    bench.transport.stall()
    bench.socket.send(bytes(HIGH_WATER * 2))
    await passes()
    bench.socket.send("waits")
    bench.transport.deliver(frame(3))
    bench.clock.advance(limits.REFUSED_QUIET_S + LATE_S)
    assert bench.transport.closed
    bench.clock.advance(limits.RAW_CLOSE_S + LATE_S)
    assert bench.transport.aborts == 1
    await passes()
    assert bench.transport.lost


# The end, in every state


async def lose(bench: Bench) -> None:
    bench.transport.lose()
    await passes()


STATES: dict[str, tuple[Callable[[Bench], object], tuple[Close | None, Close | None, bool | None]]] = {
    "open": (lambda bench: None, (None, None, None)),
    "writing": (lambda bench: bench.socket.send("x"), (None, None, None)),
    "paused": (lambda bench: bench.socket.pause_reading(), (None, None, None)),
    "closing": (lambda bench: bench.socket.close(4000), (None, Close(4000), None)),
    "closed by the peer": (
        lambda bench: bench.transport.deliver(frame(CLOSE, close_payload(1001))),
        (Close(1001), Close(1001), True),
    ),
    "closed by both": (
        lambda bench: (bench.socket.close(4000), bench.transport.deliver(frame(CLOSE, close_payload(4000)))),
        (Close(4000), Close(4000), False),
    ),
    "stopping": (lambda bench: bench.socket.shutdown(), (None, Close(1012), None)),
    "refused": (
        lambda bench: bench.transport.deliver(frame(9, fin=False)),
        (None, Close(1002, "control frames come whole"), None),
    ),
    "aborted": (lambda bench: bench.socket.abort(), (None, None, None)),
}


@pytest.mark.parametrize("is_stalled", [False, True])
@pytest.mark.parametrize("last", ["lose", "abort", "shutdown", "close"])
@pytest.mark.parametrize("state", STATES)
@opens
async def test_the_owner_is_told_the_end_once_and_nothing_is_left(state: str, last: str, is_stalled: bool) -> None:
    enter, end = STATES[state]
    bench = Bench(ping_interval_s=20.0, ping_timeout_s=20.0)
    if is_stalled:
        bench.transport.stall()
        bench.socket.send(bytes(HIGH_WATER * 2))
        await passes()
    enter(bench)
    if last == "lose":
        bench.transport.lose()
    elif last == "abort":
        bench.socket.abort()
        bench.socket.abort()
    elif last == "shutdown":
        bench.socket.shutdown()
    else:
        bench.socket.close(4999)
    for _ in range(40):
        await passes()
        bench.clock.advance(1.0)
    assert bench.transport.lost, "nobody is kept for ever"
    received, sent, _ = bench.owner.end
    assert received == end[0]
    if state not in ("open", "writing", "paused") or last in ("lose", "abort"):
        assert bench.owner.end == end
    else:
        assert sent == (Close(1012) if last == "shutdown" else Close(4999))
    assert (bench.timers, bench.connections) == (0, set())
    # and nothing can be done any more
    writes = len(bench.transport.writes)
    bench.socket.send("never")
    bench.socket.send_fragment("never", is_first=True, is_last=True)
    bench.socket.write(frames.message_frame("never"))
    bench.socket.close(1000)
    bench.socket.shutdown()
    bench.socket.abort()
    bench.socket.flush()
    bench.socket.pause_reading()
    bench.socket.resume_reading()
    bench.clock.advance(100)
    await passes(2)
    assert len(bench.transport.writes) == writes
    assert bench.socket.pending_bytes() == 0
    assert not bench.socket.writable
    assert len(bench.owner.ends) == 1
    assert len(said(bench)) <= 1


@opens
async def test_a_line_that_is_cut_without_a_word_is_1006() -> None:
    bench = Bench()
    await lose(bench)
    assert (bench.owner.ends[0].code, isinstance(bench.owner.ends[0], ConnectionClosedOK)) == (1006, False)


@opens
async def test_what_is_gathered_when_the_line_goes_is_dropped_and_the_others_are_flushed() -> None:
    gone, here = Bench(), Bench()
    here.socket._shared = gone.shared
    gone.socket.send("never")
    here.socket.send("here")
    gone.transport.abort()
    gone.transport._lose()
    await passes(2)
    assert gone.transport.writes == []
    assert texts(here) == [b"here"]


@opens
async def test_an_owner_that_aborts_in_the_middle_of_a_read() -> None:
    bench = Bench()
    bench.owner.on_received = bench.socket.abort
    bench.transport.deliver(frame(TEXT, b"x") + frame(PING) + frame(3))
    await passes()
    assert bench.transport.writes == []
    assert bench.owner.end[0] is None
    assert bench.transport.lost


# Stopping


@opens
async def test_a_server_that_stops_says_1012_and_waits_a_second() -> None:
    bench = Bench()
    bench.socket.send("last")
    bench.socket.shutdown()
    assert texts(bench) == [b"last"]
    assert said(bench) == [(1012, "")]
    assert bench.owner.end == (None, Close(1012), None)
    # nobody is given anything after the end
    bench.transport.deliver(frame(TEXT, b"never"))
    assert bench.owner.messages == []
    bench.clock.advance(limits.CLOSE_IN_A_HURRY_S + LATE_S)
    assert bench.transport.closed


@opens
async def test_a_server_that_stops_hurries_those_that_are_closing() -> None:
    bench = Bench()
    bench.socket.close(4000, patience_s=60.0)
    bench.socket.shutdown()
    assert said(bench) == [(4000, "")]
    bench.clock.advance(limits.CLOSE_IN_A_HURRY_S + LATE_S)
    assert bench.transport.closed
