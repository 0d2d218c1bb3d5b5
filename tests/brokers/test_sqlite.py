"""The sqlite broker: the contract of all brokers, what survives, and files that are not what they should be."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tidewire.brokers.base import Retention
from tidewire.brokers.sqlite import SqliteBroker
from tidewire.errors import BrokerFailed, NotRunning, ProducerGap, TooManyTopics, TopicFinished
from tidewire.limits import Limits
from tidewire.protocol.message import Draft, End, Kind, Message, Producer, Stream
from tidewire.protocol.position import NOW, START, Position
from tidewire.testing import BROKER_CONTRACT, BrokerBench, ManualClock
from tidewire.testing.broker_contract import LATEST, LOG, NOTHING, Check

Scenario = Callable[[BrokerBench, ManualClock], Awaitable[None]]


async def on_file(path: Path, scenario: Scenario, clock: ManualClock | None = None, **limits: Any) -> None:
    clock = clock or ManualClock()
    broker = SqliteBroker(path, limits=Limits(**limits), clock=clock, rng=random.Random(7))

    async def settle() -> None:
        """Events come with the answers."""

    async def advance(seconds: float) -> None:
        clock.advance(seconds)

    bench = BrokerBench(broker, settle, advance, wall_ms=clock.wall_ms)
    await broker.start(lambda topic, event: bench.delivered.append((topic, event)))
    try:
        await scenario(bench, clock)
    finally:
        await broker.close()


def play(path: Path, *scenarios: Scenario, **limits: Any) -> None:
    """One after the other, each with a broker of its own on the same file; time goes on."""
    clock = ManualClock()
    for scenario in scenarios:
        asyncio.run(on_file(path, scenario, clock, **limits))


@pytest.mark.parametrize("check", BROKER_CONTRACT, ids=lambda check: check.__name__)
def test_contract(check: Check, tmp_path: Path) -> None:
    play(tmp_path / "live.db", lambda bench, clock: check(bench))


# What is there afterwards


def test_a_restart_loses_nothing(tmp_path: Path) -> None:
    seen: list[Any] = []

    async def before(bench: BrokerBench, clock: ManualClock) -> None:
        for n in range(9):
            await bench.publish("log", str(n))
        for key, text in (("a", "1"), ("b", "2"), ("a", "3")):
            await bench.publish("latest", text, LATEST, key=key)
        await bench.publish("latest", "", LATEST, key="b", removed=True)
        await bench.broker.finish("done", "broken", LOG)
        seen.extend([await bench.broker.history(name, START, 10) for name in ("log", "latest", "done")])
        await bench.broker.publish("log", Draft(b"once", Kind.JSON, id="x", publisher=b"{}"), LOG)

    async def after(bench: BrokerBench, clock: ManualClock) -> None:
        again = await bench.broker.publish("log", Draft(b"once", Kind.JSON, id="x"), LOG)
        assert again.duplicate
        assert again.position is not None
        assert again.position.offset == 10
        log, latest, done = [await bench.broker.history(name, START, 10) for name in ("log", "latest", "done")]
        assert latest == seen[1]
        assert done == seen[2]
        assert log is not None
        assert [m.offset for m in log.messages] == [6, 7, 8, 9, 10]
        assert (log.messages[-1].kind, log.messages[-1].publisher) == (Kind.JSON, b"{}")
        assert log.messages[:-1] == seen[0].messages[1:]
        resumed = await bench.broker.history("log", Position(log.top.epoch, 7), 10)
        assert resumed is not None
        assert resumed.complete
        changed = await bench.broker.history("latest", Position(latest.top.epoch, 2), 10)
        assert changed is not None
        assert [(m.key, m.removed) for m in changed.messages] == [("a", False), ("b", True)]
        with pytest.raises(TopicFinished):
            await bench.publish("done", "late")
        await bench.broker.attach("log", LOG)
        await bench.publish("log", "next")
        assert [e.offset for _, e in bench.delivered] == [11]

    play(tmp_path / "live.db", before, after)


def test_writers_and_streams_are_remembered(tmp_path: Path) -> None:
    def terms(sequence: int, **more: Any) -> dict[str, Any]:
        return {"producer": Producer("p", 0, sequence), **more}

    stream = Stream("text/plain", ttl_s=60)

    async def before(bench: BrokerBench, clock: ManualClock) -> None:
        await bench.broker.create("s", stream, None, LOG)
        await bench.append("s", "0", **terms(0, order="a"))
        await bench.append("s", "1", **terms(1, order="b"))
        clock.advance(30)

    async def middle(bench: BrokerBench, clock: ManualClock) -> None:
        repeated = await bench.append("s", "1", **terms(1))
        assert (repeated.duplicate, repeated.accepted) == (True, 1)
        with pytest.raises(ProducerGap):
            await bench.append("s", "9", **terms(9))
        with pytest.raises(Exception, match="ascend"):
            await bench.append("s", "2", **terms(2, order="b"))
        assert (await bench.append("s", "2", **terms(2, order="c", closes=True))).closed
        created = await bench.broker.create("s", Stream("text/html"), None, LOG)
        assert (created.is_new, created.stream) == (False, stream)
        clock.advance(59)

    async def after(bench: BrokerBench, clock: ManualClock) -> None:
        assert (await bench.append("s", "2", **terms(2, order="c", closes=True))).duplicate
        assert await bench.kept("s") == ["0", "1", "2"]
        clock.advance(60)
        assert await bench.broker.position("s") is None

    play(tmp_path / "live.db", before, middle, after)


def test_epochs_go_on_ascending_although_the_clock_goes_back(tmp_path: Path) -> None:
    epochs: list[str] = []

    async def scenario(bench: BrokerBench, clock: ManualClock) -> None:
        position = await bench.publish(f"t{len(epochs)}", "x")
        assert position is not None
        epochs.append(position.epoch)

    for wall_ms in (2_000_000_000_000, 1_000_000_000_000, 1_500_000_000_000):
        asyncio.run(on_file(tmp_path / "live.db", scenario, ManualClock(wall_ms=wall_ms)))
    assert epochs == sorted(epochs)
    assert len(set(epochs)) == 3


KILLED = """
import asyncio, sys
from tidewire.brokers.sqlite import SqliteBroker
from tidewire.brokers.base import Retention
from tidewire.protocol.message import Draft, Kind

async def main():
    broker = SqliteBroker(sys.argv[1])
    await broker.start(lambda topic, event: None)
    n = int(sys.argv[2])

    async def one(writer):
        nonlocal n
        while True:
            n += 1
            mine = n
            done = await broker.publish("t", Draft(str(mine).encode(), Kind.TEXT), Retention(keep=100_000))
            print(mine, done.position.offset, flush=True)

    await asyncio.gather(*map(one, range(16)))

asyncio.run(main())
"""


def test_what_was_acknowledged_is_there_after_kill_9(tmp_path: Path) -> None:
    """Three times: every acknowledged message at its offset, dense, under one epoch."""
    path, acknowledged = tmp_path / "live.db", dict[int, str]()
    for begin in (0, 1_000_000, 2_000_000):
        command = [sys.executable, "-c", KILLED, str(path), str(begin)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(400)]
            process.kill()
            # the last one may be cut
            lines += [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith(b"\n")]
        for line in lines:
            text, offset = line.decode().split()
            acknowledged[int(offset)] = text

    async def scenario(bench: BrokerBench, clock: ManualClock) -> None:
        history = await bench.broker.history("t", START, 1_000_000)
        assert history is not None
        assert [m.offset for m in history.messages] == list(range(1, history.top.offset + 1))
        assert len({m.epoch for m in history.messages}) == 1
        kept = {m.offset: m.payload.decode() for m in history.messages}
        assert len(acknowledged) >= 1200
        assert {offset: kept.get(offset) for offset in acknowledged} == acknowledged

    play(path, scenario)


def test_a_log_that_was_cut_off_anywhere_is_a_whole_beginning(tmp_path: Path) -> None:
    """What a power cut may leave: the file, and a part of what was written ahead."""
    path = tmp_path / "live.db"
    copies: list[tuple[bytes, bytes]] = []

    async def write(bench: BrokerBench, clock: ManualClock) -> None:
        for n in range(40):
            await bench.publish("t", str(n), Retention(keep=1000))
        copies.append((path.read_bytes(), (tmp_path / "live.db-wal").read_bytes()))

    play(path, write)
    main, ahead = copies[0]
    rng = random.Random(3)
    tops = set[int]()
    for number in range(25):
        copy = tmp_path / f"copy{number}.db"
        copy.write_bytes(main)
        Path(f"{copy}-wal").write_bytes(ahead[: rng.randrange(len(ahead) + 1)])

        async def read(bench: BrokerBench, clock: ManualClock) -> None:
            history = await bench.broker.history("t", START, 1000)
            top = 0 if history is None else history.top.offset
            texts = [] if history is None else [m.payload.decode() for m in history.messages]
            assert texts == [str(n) for n in range(top)]
            tops.add(top)
            assert await bench.publish("t", "goes on", Retention(keep=1000)) is not None

        play(copy, read)
    assert len(tops) > 5


# Many at once


def test_those_who_wait_share_a_commit(tmp_path: Path) -> None:
    commits = 0

    async def scenario(bench: BrokerBench, clock: ManualClock) -> None:
        nonlocal commits
        await bench.publish("t", "first")

        def trace(statement: str) -> None:
            nonlocal commits
            commits += statement == "COMMIT"

        await bench.broker._ask(lambda e: e._connection.set_trace_callback(trace))  # type: ignore[attr-defined]
        positions = await asyncio.gather(*(bench.publish("t", str(n)) for n in range(500)))
        assert sorted(p.offset for p in positions if p) == list(range(2, 502))
        await bench.broker._ask(lambda e: e._connection.set_trace_callback(None))  # type: ignore[attr-defined]

    play(tmp_path / "live.db", scenario)
    assert commits < 50


def test_a_commit_waits_for_the_disk_where_that_is_promised(tmp_path: Path) -> None:
    async def scenario(bench: BrokerBench, clock: ManualClock) -> None:
        engine: Any = bench.broker._engine  # type: ignore[attr-defined]

        async def synchronous() -> int:
            return int(await bench.broker._ask(lambda e: e._connection.execute("PRAGMA synchronous").fetchone()[0]))  # type: ignore[attr-defined]

        await bench.publish("t", "x")
        assert await synchronous() == 2
        await bench.publish("u", "x", Retention(keep=5, durable=False))
        assert await synchronous() == 1
        await bench.publish("t", "x")
        assert await synchronous() == 2
        assert engine._path.exists()

    play(tmp_path / "live.db", scenario)


def test_old_messages_do_not_fill_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "live.db"

    async def scenario(bench: BrokerBench, clock: ManualClock) -> None:
        for n in range(40):
            await asyncio.gather(*(bench.publish("t", f"{n} {m}") for m in range(50)))
        history = await bench.broker.history("t", START, 1000)
        assert history is not None
        assert [m.offset for m in history.messages] == list(range(1996, 2001))

    play(path, scenario)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM messages").fetchone()[0] < 5 + 257


def test_idle_topics_make_room(tmp_path: Path) -> None:
    short = Retention(keep=5, ttl_s=10)

    async def scenario(bench: BrokerBench, clock: ManualClock) -> None:
        for name in "abc":
            await bench.publish(name, "x", short)
        with pytest.raises(TooManyTopics):
            await bench.publish("d", "x")
        clock.advance(11)
        assert await bench.publish("d", "x") is not None
        assert await bench.broker.position("a") is None

    play(tmp_path / "live.db", scenario, topics_max=3)


# What goes wrong


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"no database at all, " * 100)
    folder = tmp_path / "folder"
    folder.mkdir()
    for file, sentence in ((path, "something else"), (garbage, "not a database"), (folder, "cannot use")):

        async def scenario(bench: BrokerBench, clock: ManualClock) -> None:
            raise AssertionError("it has started")

        with pytest.raises(BrokerFailed, match=sentence):
            play(file, scenario)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    assert before == path.read_bytes()


def test_a_file_of_another_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "live.db"

    async def nothing(bench: BrokerBench, clock: ManualClock) -> None: ...

    play(path, nothing)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(BrokerFailed, match="tables 99, here 1"):
        play(path, nothing)


def test_a_commit_that_fails_acknowledges_nothing_and_the_next_goes_on(tmp_path: Path) -> None:
    async def scenario(bench: BrokerBench, clock: ManualClock) -> None:
        await bench.broker.attach("t", LOG)
        await bench.publish("t", "a")
        engine: Any = bench.broker._engine  # type: ignore[attr-defined]
        ask = bench.broker._ask  # type: ignore[attr-defined]
        (pages,) = await ask(lambda e: e._connection.execute("PRAGMA page_count").fetchone())
        await ask(lambda e: e._connection.execute(f"PRAGMA max_page_count = {pages + 8}"))
        with pytest.raises(BrokerFailed, match="full"):
            await bench.publish("t", "x" * 1_000_000)
        assert await bench.kept("t") == ["a"]
        # the others of its batch are not taken along
        answers = await asyncio.gather(
            bench.publish("t", "b"),
            bench.publish("t", "y" * 1_000_000),
            bench.publish("t", "c"),
            return_exceptions=True,
        )
        assert [isinstance(one, BrokerFailed) for one in answers] == [False, True, False]
        assert await bench.kept("t") == ["a", "b", "c"]
        assert bench.texts("t") == ["a", "b", "c"]
        assert engine.readers.events == []

    play(tmp_path / "live.db", scenario)


def test_another_writer_of_the_file_is_noticed(tmp_path: Path) -> None:
    """Numbering stays dense whoever writes."""
    path = tmp_path / "live.db"

    async def scenario(bench: BrokerBench, clock: ManualClock) -> None:
        async def other(second: BrokerBench, same: ManualClock) -> None:
            positions = [
                await each.publish("t", f"{n}", Retention(keep=100)) for n in range(10) for each in (bench, second)
            ]
            assert [p.offset for p in positions if p] == list(range(1, 21))
            assert await bench.kept("t") == await second.kept("t")

        await on_file(path, other, clock)

    play(path, scenario)


def test_who_is_cancelled_and_who_comes_too_late(tmp_path: Path) -> None:
    async def scenario() -> None:
        broker = SqliteBroker(tmp_path / "live.db")
        await broker.start(lambda topic, event: None)
        publishing = asyncio.create_task(broker.publish("t", Draft(b"x", Kind.TEXT), LOG))
        await asyncio.sleep(0)
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        history = await broker.history("t", START, 10)
        assert history is not None
        assert [m.payload for m in history.messages] == [b"x"]
        waiting = [asyncio.create_task(broker.publish("t", Draft(b"y", Kind.TEXT), LOG)) for _ in range(20)]
        await asyncio.sleep(0)
        await broker.close()
        assert [p.position.offset for p in await asyncio.gather(*waiting) if p.position] == list(range(2, 22))
        with pytest.raises(NotRunning):
            await broker.publish("t", Draft(b"z", Kind.TEXT), LOG)
        await broker.close()

    asyncio.run(scenario())


def test_signals_are_carried_and_not_written(tmp_path: Path) -> None:
    async def scenario(bench: BrokerBench, clock: ManualClock) -> None:
        await bench.broker.attach("s", NOTHING)
        await bench.publish("s", "x", NOTHING)
        assert bench.texts("s") == ["x"]
        end = await bench.broker.finish("s", None, NOTHING)
        assert bench.delivered[-1] == ("s", end)
        assert isinstance(end, End)
        assert end.epoch == ""
        history = await bench.broker.history("s", NOW, 10)
        assert history is not None
        assert [m for m in history.messages if isinstance(m, Message)] == []

    play(tmp_path / "live.db", scenario)


def test_a_broker_that_was_closed_may_start_again(tmp_path: Path) -> None:
    """As a ``Live`` whose application is started twice in one process."""

    async def scenario() -> None:
        broker = SqliteBroker(tmp_path / "live.db", limits=Limits(topics_max=2))
        delivered: list[Any] = []
        epochs: list[str] = []
        for n in range(3):
            await broker.start(lambda topic, event: delivered.append(event))
            if n < 2:
                published = await broker.publish(f"t{n}", Draft(b"x", Kind.TEXT), LOG)
                assert published.position is not None
                epochs.append(published.position.epoch)
                await broker.attach(f"t{n}", LOG)
            else:
                with pytest.raises(TooManyTopics):
                    await broker.publish("t2", Draft(b"x", Kind.TEXT), LOG)
                # who had readers the time before has none now
                await broker.publish("t0", Draft(b"y", Kind.TEXT), LOG)
            await broker.close()
        assert epochs == sorted(set(epochs))
        assert delivered == []

    asyncio.run(scenario())
