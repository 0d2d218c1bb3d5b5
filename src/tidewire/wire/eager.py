"""Begin a write at once, in the name of the task that sleeps for it; finish it there only if it must wait.

Most sends never wait: the socket takes them. Waking a task for each of a thousand of them costs more than
the sends. So the flush itself takes the first step of the coroutine, with the sleeping task entered as the
current one (the functions that asyncio documents for this, "Extending", "Task lifetime support"), so that
whatever the step does belongs to that task. Only a coroutine that suspends is handed to the task.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any

Begun = tuple[Coroutine[Any, Any, None], Any]
"""A coroutine that has been begun and waits, and what it waits for."""


def begin(coroutine: Coroutine[Any, Any, None], task: asyncio.Task[Any]) -> Begun | None:
    """Take the first step of ``coroutine`` as ``task``, which must be asleep.

    Returns None when it has finished; otherwise ``task`` must await ``finish`` of what is returned. Raises what
    the coroutine raises.
    """
    loop = task.get_loop()
    current = asyncio.current_task(loop)
    if current is not None:
        asyncio._leave_task(loop, current)
    asyncio._enter_task(loop, task)
    try:
        return coroutine, coroutine.send(None)
    except StopIteration:
        return None
    finally:
        asyncio._leave_task(loop, task)
        if current is not None:
            asyncio._enter_task(loop, current)


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
