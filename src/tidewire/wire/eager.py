"""Begin a write at once, in the name of the task that sleeps for it; finish it there only if it must wait.

Most sends never wait: the socket takes them. Waking a task for each of a thousand of them costs more than
the sends. So the flush itself takes the first step of the coroutine, with the sleeping task entered as the
current one (the functions that asyncio documents for this, "Extending", "Task lifetime support"), so that
whatever the step does belongs to that task. Only a coroutine that suspends is handed to the task.
"""

from __future__ import annotations

import asyncio
import types
from asyncio import _enter_task, _leave_task
from collections.abc import Coroutine, Generator
from typing import Any

Begun = tuple[Coroutine[Any, Any, None], Any]
"""A coroutine that has been begun and waits, and what it waits for."""


def begin(
    coroutine: Coroutine[Any, Any, None], task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop
) -> Begun | None:
    """Take the first step of ``coroutine`` as ``task`` of ``loop``, which must be asleep.

    Returns None when it has finished; otherwise ``task`` must await ``finish`` of what is returned. Raises what
    the coroutine raises. Cheapest from a callback of the loop, where no task is current.
    """
    try:
        _enter_task(loop, task)
    except RuntimeError:
        return _begin_within(coroutine, task, loop)
    try:
        return coroutine, coroutine.send(None)
    except StopIteration:
        return None
    finally:
        _leave_task(loop, task)


def _begin_within(
    coroutine: Coroutine[Any, Any, None], task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop
) -> Begun | None:
    """The same while another task is current: it steps aside for the moment."""
    current = asyncio.current_task(loop)
    assert current is not None, "only a current task keeps another from being entered"
    _leave_task(loop, current)
    try:
        return begin(coroutine, task, loop)
    finally:
        _enter_task(loop, current)


@types.coroutine
def finish(begun: Begun) -> Generator[Any, Any, None]:
    """Go on with a coroutine that ``begin`` left waiting, in the task it was begun for."""
    coroutine, awaited = begun
    while True:
        try:
            try:
                answer = yield awaited
            except BaseException as error:  # noqa: BLE001 - passed on, cancellation too
                awaited = coroutine.throw(error)
            else:
                awaited = coroutine.send(answer)
        except StopIteration:
            return
