"""The conversation of ``tidewire cat``: what is typed goes out, what comes is shown, and who ends it."""

from __future__ import annotations

import asyncio

from tidewire.cli.cat_call import Call, stop
from tidewire.cli.cat_desk import Desk, choose_desk
from tidewire.cli.cat_options import Wanted, wait_after_input
from tidewire.errors import ConnectionClosed


async def talk(wanted: Wanted) -> int:
    """Connect and talk until one side ends it; returns the exit code.

    Raises ``ClientError``, ``BadInput``, ``BrokenPipeError``, and ``Interrupted`` for Ctrl-C at the prompt.
    """
    async with choose_desk(wanted) as desk:
        return await Talk(wanted, desk).run()


class Talk:
    """One run. A task sends what the desk gives, another stays connected and receives; the first to end decides."""

    def __init__(self, wanted: Wanted, desk: Desk) -> None:
        self._wanted = wanted
        self._desk = desk
        self._call = Call(wanted, desk, self._end_input)
        # sends, in the course of ``run``; and how many messages it has sent
        self._sending: asyncio.Task[None] | None = None
        self._sent = 0

    async def run(self) -> int:
        """Until one side ends it; returns the exit code."""
        sending = self._sending = asyncio.create_task(self._send_all())
        receiving = asyncio.create_task(self._call.run())
        try:
            await asyncio.wait([receiving, sending], return_when=asyncio.FIRST_COMPLETED)
            if sending.cancelled():
                # the connection has ended, and only its last word is missing
                return await receiving
            if sending.done():
                # raises what kept it from reading on
                sending.result()
                if not self._desk.can_type:
                    await self._wait_for_answers(receiving)
            return receiving.result() if receiving.done() else self._call.count_ok()
        finally:
            await stop(sending)
            # says goodbye to the server
            await stop(receiving)

    async def _end_input(self) -> None:
        """The prompt leaves first, so that the last word stands last."""
        if self._sending is not None:
            await stop(self._sending)

    async def _send_all(self) -> None:
        # nothing is read, and no prompt is drawn, before there is a connection
        await self._call.open.wait()
        async for message in self._desk.messages():
            await self._call.open.wait()
            assert self._call.connection is not None
            try:
                await self._call.connection.send(message)
                self._sent += 1
            except ConnectionClosed:
                if not self._wanted.reconnects:
                    # how it ended is said by who receives, and that ends this task
                    await asyncio.Event().wait()
                self._desk.say("the connection ended meanwhile: your last message may not have arrived", "yellow")

    async def _wait_for_answers(self, receiving: asyncio.Task[int]) -> None:
        """Return when it has been silent for long enough, or the receiving has ended."""
        silence_s = wait_after_input(self._wanted, self._sent)
        loop = asyncio.get_running_loop()
        hearing = asyncio.create_task(self._be_heard(silence_s))
        try:
            await asyncio.wait([receiving, hearing], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await stop(hearing)
        self._call.heard_at_s = loop.time()
        left_s = silence_s
        while left_s > 0 and not receiving.done():
            await asyncio.wait([receiving], timeout=None if left_s == float("inf") else left_s)
            left_s = self._call.heard_at_s + silence_s - loop.time()

    async def _be_heard(self, silence_s: float) -> None:
        """Wait for a pong: on a slow line the silence counts from when the server had everything."""
        if silence_s == 0 or self._call.connection is None:
            return
        try:
            await (await self._call.connection.ping())
        except ConnectionClosed:
            return
