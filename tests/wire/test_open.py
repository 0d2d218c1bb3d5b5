"""An open WebSocket on a transport without a socket, on a clock moved by hand: reading, writing, pings."""

from __future__ import annotations

import pytest

from tests.wire.fakes import HIGH_WATER, Bench, FakeOwner, opens, passes, said, texts
from tests.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, frame
from tidewire import limits
from tidewire.errors import ConnectionClosed
from tidewire.wire import frames
from tidewire.wire.frames import Part
from tidewire.wire.wheel import SPOKE_S

KIB = 1024
# deadlines are met at most so much later
LATE_S = 2 * SPOKE_S


# Reading


@opens
async def test_messages_come_in_order_and_together() -> None:
    bench = Bench()
    bench.transport.deliver(frame(TEXT, b"a") + frame(PING, b"?") + frame(BINARY, b"b") + frame(TEXT, b"c")[:3])
    bench.transport.deliver(frame(TEXT, b"c")[3:])
    assert bench.owner.messages == ["a", b"b", "c"]
    assert bench.owner.batches == [2, 1]
    assert bench.transport.frames == [Frame(PONG, b"?")]


@opens
async def test_what_came_before_it_was_opened_is_read() -> None:
    bench = Bench(early=frame(TEXT, b"early") + frame(TEXT, b"x", fin=False))
    bench.transport.deliver(frame(CONTINUATION, b"y"))
    assert bench.owner.messages == ["early", Part("x", False), Part("y", True)]


@opens
async def test_reading_is_paused_and_goes_on() -> None:
    bench = Bench()
    for _ in range(2):
        bench.socket.pause_reading()
    assert not bench.transport.is_reading()
    for _ in range(2):
        bench.socket.resume_reading()
    assert bench.transport.is_reading()
    assert (bench.transport.pauses, bench.transport.resumes) == (1, 1)


# Writing


@opens
async def test_what_is_written_in_one_pass_leaves_in_one_write() -> None:
    bench = Bench()
    for number in range(100):
        bench.socket.send(f"{number}")
    bench.socket.send_fragment(b"x", is_first=True, is_last=False)
    bench.socket.send_fragment(b"y", is_first=False, is_last=True)
    assert bench.transport.writes == []
    await passes()
    assert len(bench.transport.writes) == 1
    assert texts(bench) == [b"%d" % number for number in range(100)]
    assert bench.transport.frames[-2:] == [Frame(BINARY, b"x"), Frame(CONTINUATION, b"y")]
    await passes(3)
    assert len(bench.transport.writes) == 1
    bench.socket.send("again")
    await passes()
    assert len(bench.transport.writes) == 2


@opens
async def test_messages_of_any_size_are_framed() -> None:
    bench = Bench()
    sent: list[str | bytes] = ["", "x", "é" * 62, "x" * 125, "é" * 63, "x" * 126, "😀" * 40_000, b"", b"\xff" * 70_000]
    for message in sent:
        bench.socket.send(message)
    await passes()
    read = [one.payload.decode() if one.opcode == TEXT else one.payload for one in bench.transport.frames]
    assert read == sent


@opens
async def test_what_is_written_in_one_pass_to_many_leaves_in_a_write_each() -> None:
    benches = [Bench() for _ in range(3)]
    shared = benches[0].shared
    for bench in benches:
        bench.socket._shared = shared
    for number in range(5):
        for bench in benches:
            bench.socket.send(f"{number}")
    await passes()
    assert [len(bench.transport.writes) for bench in benches] == [1, 1, 1]


@opens
async def test_thousands_are_flushed_in_several_passes_and_all_of_them() -> None:
    benches = [Bench() for _ in range(1000)]
    for bench in benches:
        bench.socket._shared = benches[0].shared
        bench.socket.send("x")
    await passes()
    done = sum(len(bench.transport.writes) for bench in benches)
    assert 0 < done <= 256
    # who writes in between has its turn behind them
    benches[0].socket.send("y")
    await passes(5)
    assert [len(bench.transport.writes) for bench in benches] == [2] + [1] * 999


@opens
async def test_much_is_written_before_the_pass_is_over() -> None:
    bench = Bench()
    chunk = frames.message_frame(bytes(100))
    gathered = 0
    while gathered + len(chunk) < 64 * KIB:
        assert not bench.socket.write(chunk)
        gathered += len(chunk)
    assert bench.transport.writes == []
    assert bench.socket.write(chunk)
    assert [len(data) for data in bench.transport.writes] == [gathered + len(chunk)]
    bench.socket.send("rest")
    await passes()
    assert len(bench.transport.writes) == 2
    assert len(bench.transport.frames) == gathered // len(chunk) + 2


@opens
async def test_pongs_and_pings_go_ahead_of_what_is_gathered() -> None:
    bench = Bench()
    bench.socket.send("later")
    bench.transport.deliver(frame(PING, b"1") + frame(PING, b"2"))
    bench.socket.ping(b"3")
    assert bench.transport.frames == [Frame(PONG, b"1"), Frame(PONG, b"2"), Frame(PING, b"3")]
    assert len(bench.transport.writes) == 2, "the pongs of one read leave together"
    await passes()
    assert texts(bench) == [b"later"]


@opens
async def test_while_the_peer_does_not_read_whole_frames_wait_in_order() -> None:
    bench = Bench()
    bench.transport.stall()
    bench.socket.send(bytes(HIGH_WATER * 2))
    await passes()
    assert not bench.socket.writable
    assert bench.owner.turns == ["wait"]
    writes = len(bench.transport.writes)
    for number in range(2000):
        bench.socket.send(f"{number:0100}")
    await passes(3)
    assert len(bench.transport.writes) == writes
    assert bench.socket.pending_bytes() > HIGH_WATER * 2 + 2000 * 100
    bench.transport.deliver(frame(PING, b"now"))
    bench.transport.unstall()
    assert bench.owner.turns == ["wait", "write"]
    assert bench.socket.writable
    assert len(bench.transport.writes) == writes + 2, "a pong, and all that has waited at once"
    found = bench.transport.frames
    assert found[1] == Frame(PONG, b"now")
    assert [int(one.payload) for one in found[2:]] == list(range(2000))
    assert bench.socket.pending_bytes() == 0


@opens
async def test_who_may_write_is_not_told_so_while_what_waited_is_too_much_again() -> None:
    bench = Bench()
    bench.transport.stall()
    bench.socket.send(bytes(HIGH_WATER * 2))
    await passes()
    bench.socket.send(bytes(HIGH_WATER * 2))
    # the peer takes what was there and then nothing more
    bench.transport._drain()
    bench.transport._is_over_water = False
    bench.socket.resume_writing()
    assert bench.owner.turns == ["wait", "wait"]
    assert not bench.socket.writable
    bench.transport.unstall()
    assert bench.owner.turns == ["wait", "wait", "write"]


@opens
async def test_pings_of_a_peer_that_does_not_read_end_in_an_abort() -> None:
    bench = Bench()
    bench.transport.stall()
    bench.socket.send(bytes(HIGH_WATER * 2))
    await passes()
    size = bench.socket.pending_bytes()
    pings = frame(PING, b"x" * 125) * 8
    while not bench.transport.aborts:
        bench.transport.deliver(pings)
        assert bench.socket.pending_bytes() - size <= limits.UNREAD_PONGS_BYTES_MAX + len(pings)
    await passes()
    assert bench.owner.end == (None, None, None)


@opens
async def test_pings_of_a_peer_that_reads_are_all_answered() -> None:
    bench = Bench()
    n = limits.UNREAD_PONGS_BYTES_MAX // 100
    for _ in range(n):
        bench.transport.deliver(frame(PING, b"x" * 125))
    bench.transport.stall()
    bench.socket.send(bytes(HIGH_WATER * 2))
    await passes()
    bench.transport.deliver(frame(PING, b"x" * 125))
    bench.transport.unstall()
    # what has waited was read: counting begins anew
    for _ in range(n):
        bench.transport.deliver(frame(PING, b"x" * 125))
    assert bench.transport.aborts == 0
    assert sum(one.opcode == PONG for one in bench.transport.frames) == 2 * n + 1


# Pings


def pings(bench: Bench) -> list[bytes]:
    return [one.payload for one in bench.transport.frames if one.opcode == PING]


def until_ping(bench: Bench) -> bytes:
    """Move the clock until a ping has been sent; returns what it carries."""
    before = len(pings(bench))
    for _ in range(1000):
        bench.clock.advance(SPOKE_S)
        if len(pings(bench)) > before:
            return pings(bench)[-1]
    raise AssertionError("no ping within 100 s")


@opens
async def test_pings_are_sent_and_their_pongs_measured() -> None:
    bench = Bench(ping_interval_s=20.0, ping_timeout_s=10.0)
    before = bench.clock.now()
    for _ in range(3):
        ping = until_ping(bench)
        assert 20.0 - SPOKE_S < bench.clock.now() - before < 20.0 + 2 * LATE_S
        before = bench.clock.now()
        bench.clock.advance(0.25)
        bench.transport.deliver(frame(PONG, b"unasked") + frame(PONG, ping))
        assert 0.25 <= bench.socket.latency_s <= 0.25 + SPOKE_S + 1e-6
    assert len(set(pings(bench))) == 3
    bench.transport.lose()
    await passes()
    assert bench.timers == 0


@opens
async def test_a_peer_that_answers_no_ping_is_dropped() -> None:
    bench = Bench(ping_interval_s=20.0, ping_timeout_s=10.0)
    until_ping(bench)
    bench.transport.deliver(frame(PONG, b"another"))
    bench.clock.advance(10.0 - LATE_S)
    assert bench.transport.aborts == 0
    bench.clock.advance(2 * LATE_S)
    assert bench.transport.aborts == 1
    assert said(bench) == [], "a close would wait behind what it does not read"
    await passes()
    assert bench.owner.end == (None, None, None)


@opens
async def test_without_a_timeout_pings_go_on() -> None:
    bench = Bench(ping_interval_s=20.0)
    bench.clock.advance(90.0)
    assert len(pings(bench)) == 4
    assert bench.transport.aborts == 0


@pytest.mark.parametrize("interval_s", [None, 0])
@opens
async def test_without_an_interval_there_are_no_pings(interval_s: float | None) -> None:
    bench = Bench(ping_interval_s=interval_s, ping_timeout_s=10.0)
    assert bench.timers == 0
    bench.clock.advance(1000)
    assert pings(bench) == []


@opens
async def test_there_is_patience_while_we_do_not_read() -> None:
    """The pong may be there, and we have not looked."""
    bench = Bench(ping_interval_s=20.0, ping_timeout_s=10.0)
    ping = until_ping(bench)
    bench.socket.pause_reading()
    bench.clock.advance(200.0)
    assert bench.transport.aborts == 0
    assert pings(bench) == [ping], "one that waits is enough"
    bench.socket.resume_reading()
    bench.transport.deliver(frame(PONG, ping))
    # and there is none any more
    until_ping(bench)
    bench.clock.advance(10.0 + LATE_S)
    assert bench.transport.aborts == 1


@opens
async def test_after_a_pause_the_pong_has_its_whole_time_again() -> None:
    """Else whoever resumes just before the deadline drops a peer whose pong lies in the kernel."""
    bench = Bench(ping_interval_s=20.0, ping_timeout_s=10.0)
    ping = until_ping(bench)
    bench.socket.pause_reading()
    bench.clock.advance(10.0 - LATE_S)
    bench.socket.resume_reading()
    bench.clock.advance(10.0 - LATE_S)
    assert bench.transport.aborts == 0
    bench.transport.deliver(frame(PONG, ping))
    until_ping(bench)
    bench.clock.advance(10.0 + LATE_S)
    assert bench.transport.aborts == 1


@opens
async def test_no_pings_once_it_is_closing() -> None:
    bench = Bench(ping_interval_s=5.0, ping_timeout_s=5.0)
    bench.socket.close(1000, patience_s=60.0)
    bench.clock.advance(30.0)
    assert pings(bench) == []
    assert not bench.transport.is_closing()


@opens
async def test_pings_of_the_application_give_the_round_trip() -> None:
    bench = Bench()
    first, second, third = (bench.socket.ping(data) for data in (b"1", None, b"3"))
    bench.clock.advance(0.5)
    # a pong answers its ping and all before it (RFC 6455 5.5.3)
    bench.transport.deliver(frame(PONG, pings(bench)[1]))
    assert (first.done(), second.done(), third.done()) == (True, True, False)
    assert await first == await second == bench.socket.latency_s == pytest.approx(0.5)
    bench.transport.deliver(frame(PONG, pings(bench)[1]) + frame(PONG, b"1"))
    assert not third.done()
    with pytest.raises(ValueError, match="waits for its pong already"):
        bench.socket.ping(b"3")
    bench.transport.lose()
    await passes()
    with pytest.raises(ConnectionClosed):
        await third
    with pytest.raises(ConnectionClosed):
        await bench.socket.ping(None)


@opens
async def test_a_ping_that_is_cancelled_harms_nobody() -> None:
    bench = Bench()
    gone, other = bench.socket.ping(b"1"), bench.socket.ping(b"2")
    gone.cancel()
    bench.transport.deliver(frame(PONG, b"2"))
    assert other.done()
    left = bench.socket.ping(b"3")
    left.cancel()
    bench.transport.lose()
    await passes(2)


@opens
async def test_pings_that_wait_are_bounded_and_small() -> None:
    bench = Bench()
    for _ in range(limits.PINGS_MAX):
        bench.socket.ping(None)
    with pytest.raises(RuntimeError, match="await some of them first"):
        bench.socket.ping(None)


@opens
async def test_pings_and_pongs_of_ours_and_of_the_application_are_kept_apart() -> None:
    bench = Bench(ping_interval_s=20.0, ping_timeout_s=10.0)
    waiter = bench.socket.ping(b"mine")
    ping = until_ping(bench)
    bench.transport.deliver(frame(PONG, ping))
    assert not waiter.done()
    bench.clock.advance(10.0 + LATE_S)
    assert bench.transport.aborts == 0
    bench.transport.deliver(frame(PONG, b"mine"))
    assert waiter.done()


# Handing over


@opens
async def test_another_owner_hears_what_comes_from_now_on() -> None:
    bench = Bench()
    bench.transport.deliver(frame(TEXT, b"one") + frame(TEXT, b"x", fin=False))
    other = FakeOwner()
    first, bench.socket.owner = bench.owner, other
    bench.transport.deliver(frame(CONTINUATION, b"y") + frame(CLOSE))
    assert first.messages == ["one", Part("x", False)]
    assert other.messages == [Part("y", True)]
    assert (first.ends, len(other.ends)) == ([], 1)
