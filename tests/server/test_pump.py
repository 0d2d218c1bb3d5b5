"""Writes begun by a flush: what does not wait is done at once, what waits goes on in a task of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tidewire.hub.outbox import Batch
from tidewire.server.pump import Pump

BATCH = Batch(("first", "second"), 11, 2)


class Peer:
    """A connection whose sends do what the test says."""

    def __init__(self, send: Callable[[Any], Coroutine[Any, Any, None]] | None = None, *, ready: bool = True) -> None:
        self.ready = ready
        self.got: list[Any] = []
        self.task: asyncio.Task[None] | None = None
        self.error: Exception | None = None
        self._send = send
        # the task each item was sent in
        self.sent_in: list[asyncio.Task[Any] | None] = []

    async def write_one(self, item: Any) -> None:
        self.sent_in.append(asyncio.current_task())
        if self._send is not None:
            await self._send(item)
        self.got.append(item)

    def began(self, batch: Batch, task: asyncio.Task[None]) -> None:
        assert batch is BATCH
        self.task, self.ready = task, False

    def failed(self, batch: Batch, error: Exception) -> None:
        assert batch is BATCH
        self.error, self.ready = error, False

    def wake(self) -> None:
        raise AssertionError("nobody is woken")


async def pass_by(item: Any) -> None:
    await asyncio.sleep(0)


def play(work: Callable[[Pump], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        pump = Pump()
        try:
            async with asyncio.timeout(5):
                await work(pump)
        finally:
            pump.close()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}, "close ends what the pump has started"

    asyncio.run(run())


def test_what_does_not_wait_is_done_at_once_and_needs_one_task_for_all() -> None:
    async def work(pump: Pump) -> None:
        crowd = tuple(Peer() for _ in range(50))
        current = asyncio.current_task()
        for _ in range(3):
            assert pump.write(crowd, BATCH) == []
        assert asyncio.current_task() is current
        assert all(peer.got == list(BATCH.items) * 3 for peer in crowd)
        tasks = {task for peer in crowd for task in peer.sent_in}
        assert len(tasks) == 1
        assert current not in tasks
        assert None not in tasks

    play(work)


def test_it_works_from_a_callback_where_no_task_is_current() -> None:
    async def work(pump: Pump) -> None:
        peer = Peer()
        asyncio.get_running_loop().call_soon(pump.write, (peer,), BATCH)
        await asyncio.sleep(0)
        assert peer.got == list(BATCH.items)
        assert peer.sent_in[0] not in (None, asyncio.current_task())

    play(work)


def test_who_is_not_ready_is_given_back() -> None:
    async def work(pump: Pump) -> None:
        asleep, busy = Peer(), Peer(ready=False)
        assert pump.write((busy, asleep), BATCH) == [busy]
        assert (asleep.got, busy.got) == (list(BATCH.items), [])

    play(work)


def test_a_send_that_waits_keeps_nobody_else() -> None:
    async def work(pump: Pump) -> None:
        gate = asyncio.Event()

        async def wait(item: Any) -> None:
            await gate.wait()

        before, slow, between, slower, after = Peer(), Peer(wait), Peer(), Peer(wait), Peer()
        assert pump.write((before, slow, between, slower, after), BATCH) == [slow, slower]
        assert [peer.got for peer in (before, between, after)] == [list(BATCH.items)] * 3
        assert slow.task is not None
        assert slower.task is not None
        assert slow.task is not slower.task
        for _ in range(5):
            await asyncio.sleep(0)
        assert not slow.got
        # meanwhile the others are written to
        assert pump.write((before, slow, after), BATCH) == [slow]
        gate.set()
        await slow.task
        await slower.task
        assert [slow.got, slower.got] == [list(BATCH.items)] * 2
        assert set(slow.sent_in) == {slow.task}, "begun and finished in the name of one task"
        assert [len(peer.got) for peer in (before, between, after)] == [4, 2, 4], "whoever waited took nobody with it"

    play(work)


def test_a_deadline_around_the_first_step_holds_later() -> None:
    async def work(pump: Pump) -> None:
        async def give_up(item: Any) -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.Event().wait()

        peer = Peer(give_up)
        assert pump.write((peer,), BATCH) == [peer]
        assert peer.task is not None
        await peer.task
        assert peer.got == list(BATCH.items)

    play(work)


def test_an_error_at_once_is_that_connections_and_the_rest_is_served() -> None:
    async def work(pump: Pump) -> None:
        async def fail(item: Any) -> None:
            raise ValueError("at once")

        broken, healthy = Peer(fail), Peer()
        assert pump.write((broken, healthy), BATCH) == [broken]
        assert isinstance(broken.error, ValueError)
        assert healthy.got == list(BATCH.items)

    play(work)


def test_an_error_later_is_the_tasks() -> None:
    async def work(pump: Pump) -> None:
        async def fail(item: Any) -> None:
            await asyncio.sleep(0)
            raise ValueError("later")

        broken, healthy = Peer(fail), Peer()
        assert pump.write((broken, healthy), BATCH) == [broken]
        assert broken.task is not None
        with pytest.raises(ValueError, match="later"):
            await broken.task
        assert (broken.got, healthy.got) == ([], list(BATCH.items))

    play(work)


def test_an_awaited_error_is_thrown_into_the_send() -> None:
    async def work(pump: Pump) -> None:
        seen = []

        async def catch(item: Any) -> None:
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(future.set_exception, KeyError("from the future"))
            try:
                await future
            except KeyError:
                seen.append(item)

        peer = Peer(catch)
        pump.write((peer,), BATCH)
        assert peer.task is not None
        await peer.task
        assert seen == list(BATCH.items)

    play(work)


def test_cancelling_the_task_cancels_the_send() -> None:
    async def work(pump: Pump) -> None:
        seen = []

        async def wait(item: Any) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        peer = Peer(wait)
        pump.write((peer,), BATCH)
        assert peer.task is not None
        await asyncio.sleep(0)
        peer.task.cancel()
        await asyncio.wait([peer.task])
        assert seen == ["cancelled"]
        assert peer.task.cancelled()

    play(work)


def test_a_pump_outlives_its_loop() -> None:
    pump = Pump()

    async def run() -> None:
        peer = Peer(pass_by)
        steady = Peer()
        assert pump.write((peer, steady), BATCH) == [peer]
        assert peer.task is not None
        await peer.task
        assert peer.got == steady.got == list(BATCH.items)

    asyncio.run(run())
    asyncio.run(run())
