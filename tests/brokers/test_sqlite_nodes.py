"""Several processes on one file: in one loop with a moved clock, and as processes."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tidewire.brokers.sqlite import SqliteBroker
from tidewire.brokers.sqlite_carriage import LEASE_S
from tidewire.brokers.sqlite_tables import open_tables
from tidewire.protocol.message import Draft, End, Kind, Message, Stream
from tidewire.protocol.position import START
from tidewire.testing import BrokerBench, ManualClock
from tidewire.testing.broker_contract import LATEST, LOG, NOTHING, Retention

KEEP = Retention(keep=1000)


class Node(BrokerBench):
    """One process's broker; ``settle`` waits until it has heard of what the others had committed by then."""


@asynccontextmanager
async def node(path: Path, clock: ManualClock) -> AsyncIterator[Node]:
    broker = SqliteBroker(path, clock=clock, rng=random.Random(7))

    async def settle() -> None:
        # a call of its own looks what others have written
        await broker.position("nothing")

    async def advance(seconds: float) -> None:
        clock.advance(seconds)

    bench = Node(broker, settle, advance, wall_ms=clock.wall_ms)
    await broker.start(lambda topic, event: bench.delivered.append((topic, event)))
    try:
        yield bench
    finally:
        await broker.close()


def play(path: Path, scenario: Callable[..., Awaitable[None]], nodes: int = 2) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with AsyncExitStack() as stack:
            await scenario(clock, *[await stack.enter_async_context(node(path, clock)) for _ in range(nodes)])

    asyncio.run(main())


def test_every_node_hears_everything_in_one_order(tmp_path: Path) -> None:
    async def scenario(clock: ManualClock, *nodes: Node) -> None:
        for each in nodes:
            await each.broker.attach("t", KEEP)
        rng = random.Random(1)
        for n in range(60):
            some = [rng.choice(nodes).publish("t", f"{n} {m}", KEEP) for m in range(rng.randrange(1, 5))]
            await asyncio.gather(*some)
        for each in nodes:
            await each.settle()
        history = await nodes[0].broker.history("t", START, 1000)
        assert history is not None
        for each in nodes:
            assert [event for _, event in each.delivered] == history.messages
        assert [m.offset for m in history.messages] == list(range(1, len(history.messages) + 1))

    play(tmp_path / "live.db", scenario, nodes=3)


def test_all_kinds_are_carried(tmp_path: Path) -> None:
    async def scenario(clock: ManualClock, here: Node, there: Node) -> None:
        for topic, retention in (("log", LOG), ("latest", LATEST), ("signal", NOTHING), ("stream", LOG)):
            await there.broker.attach(topic, retention)
        await here.broker.publish("log", Draft(b"{}", Kind.JSON, publisher=b'{"client":"c"}'), LOG)
        await here.publish("latest", "1", LATEST, key="a")
        await here.publish("latest", "2", LATEST, key="a")
        await here.publish("latest", "", LATEST, key="a", removed=True)
        await here.publish("signal", "now", NOTHING)
        await here.broker.create("stream", Stream("text/plain"), Draft(b"first", Kind.TEXT), LOG)
        await here.broker.drop("stream")
        end = await here.broker.finish("log", "broken", LOG)
        await there.settle()
        log, latest, signal, stream = [
            [event for name, event in there.delivered if name == topic]
            for topic in ("log", "latest", "signal", "stream")
        ]
        assert [(type(e), e.offset) for e in log] == [(Message, 1), (End, 1)]
        assert isinstance(log[0], Message)
        assert (log[0].kind, log[0].publisher, log[1]) == (Kind.JSON, b'{"client":"c"}', end)
        assert [(e.payload, e.key, e.removed, e.offset) for e in latest if isinstance(e, Message)] == [
            (b"1", "a", False, 1),
            (b"2", "a", False, 2),
            (b"", "a", True, 3),
        ]
        assert [(e.payload, e.offset) for e in signal if isinstance(e, Message)] == [(b"now", 0)]
        assert [isinstance(e, End) and e.gone for e in stream] == [False, True]
        # it stays attached
        await here.publish("stream", "another", LOG)
        await there.settle()
        assert there.texts("stream") == ["first", "another"]

    play(tmp_path / "live.db", scenario)


def test_patterns_reach_over_processes(tmp_path: Path) -> None:
    async def scenario(clock: ManualClock, here: Node, there: Node) -> None:
        await there.broker.attach_pattern("a/*")  # type: ignore[attr-defined]
        for topic in ("a/1", "b/1", "a/2"):
            await here.publish(topic, topic)
        await here.broker.finish("a/1", None, LOG)
        await there.settle()
        assert [name for name, _ in there.delivered] == ["a/1", "a/2"]

    play(tmp_path / "live.db", scenario)


def test_nothing_is_written_twice_where_nobody_else_listens(tmp_path: Path) -> None:
    async def scenario(clock: ManualClock, here: Node, there: Node) -> None:
        async def carried() -> int:
            ask = here.broker._ask  # type: ignore[attr-defined]
            return int(await ask(lambda e: e._connection.execute("SELECT count(*) FROM carried").fetchone()[0]))

        await here.broker.attach("t", LOG)
        await here.publish("t", "x")
        assert await carried() == 0
        await there.publish("t", "y")
        assert await carried() == 1
        await here.settle()
        assert here.texts("t") == ["x", "y"]
        clock.advance(61)
        await there.publish("t", "z")
        assert await carried() <= 1

    play(tmp_path / "live.db", scenario)


def test_who_was_silent_for_longer_than_its_lease_reads_what_it_missed(tmp_path: Path) -> None:
    """As a process that was stopped: the others go on as if it were gone."""

    async def scenario(clock: ManualClock, here: Node, there: Node) -> None:
        for topic in ("t", "gone", "done", "renumbered"):
            await there.broker.attach(topic, KEEP)
            await here.publish(topic, "heard", KEEP)
        await there.settle()
        there.delivered.clear()
        engine = there.broker._engine  # type: ignore[attr-defined]
        sleeping, engine.run = engine.run, lambda jobs: None
        clock.advance(2 * LEASE_S + 1)
        for n in range(3):
            await here.publish("t", str(n), KEEP)
        clock.advance(2 * LEASE_S + 1)
        await here.broker.drop("gone")
        await here.broker.finish("done", "over", KEEP)
        await here.broker.drop("renumbered")
        await here.publish("renumbered", "new", KEEP)
        engine.run = sleeping
        async with asyncio.timeout(10):
            while len(there.delivered) < 6:
                await asyncio.sleep(0.01)
        assert there.texts("t") == ["0", "1", "2"]
        assert [isinstance(e, End) and (e.gone, e.error) for name, e in there.delivered if name == "done"] == [
            (False, "over")
        ]
        assert [isinstance(e, End) and e.gone for name, e in there.delivered if name == "gone"] == [True]
        assert there.texts("renumbered") == ["new"]
        await here.publish("t", "and on", KEEP)
        await there.settle()
        assert there.texts("t") == ["0", "1", "2", "and on"]

    play(tmp_path / "live.db", scenario)


WORKER = """
import asyncio, json, sys
from tidewire.brokers.sqlite import SqliteBroker
from tidewire.brokers.base import Retention
from tidewire.protocol.message import Draft, Kind

async def main():
    keep, heard, all_there = Retention(keep=100_000), [], asyncio.Event()
    total, mine = int(sys.argv[2]), int(sys.argv[3])

    def deliver(topic, event):
        heard.append((event.offset, event.payload.decode()))
        if len(heard) == total:
            all_there.set()

    broker = SqliteBroker(sys.argv[1])
    await broker.start(deliver)
    await broker.attach("t", keep)
    print("ready", flush=True)
    sys.stdin.readline()

    async def publish(n):
        await broker.publish("t", Draft(f"{sys.argv[4]} {n}".encode(), Kind.TEXT), keep)

    for begin in range(0, mine, 20):
        await asyncio.gather(*map(publish, range(begin, begin + 20)))
    async with asyncio.timeout(60):
        await all_there.wait()
    print(json.dumps(heard), flush=True)
    await broker.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("workers", [4])
def test_processes_that_write_at_once_hear_everything_in_one_order(tmp_path: Path, workers: int) -> None:
    each = 200
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path / "live.db"), str(workers * each), str(each), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(workers)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        heard = [json.loads(process.communicate(timeout=90)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [offset for offset, _ in heard[0]] == list(range(1, workers * each + 1))
    assert all(one == heard[0] for one in heard)
    assert {text for _, text in heard[0]} == {f"{number} {n}" for number in range(workers) for n in range(each)}


def test_a_stream_lives_as_long_as_some_process_reads_it(tmp_path: Path) -> None:
    async def scenario(clock: ManualClock, here: Node, there: Node) -> None:
        await here.broker.create("s", Stream("text/plain", ttl_s=25), Draft(b"x", Kind.TEXT), LOG)
        await there.broker.attach("s", LOG)
        for _ in range(10):
            clock.advance(10)
            # as its thread does by itself, now and then
            await there.publish("other", "x")
            assert await here.broker.position("s") is not None
        await there.broker.detach("s")
        clock.advance(26)
        assert await here.broker.position("s") is None

    play(tmp_path / "live.db", scenario)


def test_a_new_file_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    """Workers start together; one of them makes the tables, and the others find them."""
    many = 8
    for number in range(25):
        path, together = tmp_path / f"{number}.db", threading.Barrier(many)

        def open_and_close(path: Path = path, together: threading.Barrier = together) -> None:
            together.wait(20)
            open_tables(path).close()

        with ThreadPoolExecutor(many) as pool:
            for opened in [pool.submit(open_and_close) for _ in range(many)]:
                opened.result(30)
