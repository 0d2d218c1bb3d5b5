"""More than one process with a memory broker: most subscribers would miss most messages (CONTRACTS 11)."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import weakref
from collections.abc import Mapping, Sequence

from tidewire.errors import SeveralProcesses

# every ``Live`` of this process, and whether its topics are those of other processes too
_shared: weakref.WeakKeyDictionary[object, bool] = weakref.WeakKeyDictionary()


def note_sharing(live: object, *, shared: bool) -> None:
    """``live`` was made in this process."""
    _shared[live] = shared


def may_be_several() -> bool:
    """Whether nothing that was made here keeps its topics to itself."""
    return all(_shared.values())


def find_several(argv: Sequence[str], environment: Mapping[str, str], *, is_child: bool) -> str | None:
    """Why there seem to be several server processes, or None.

    ``is_child``: whether ``multiprocessing`` started this process. A reloader does that too, for one process.
    """
    count = environment.get("WEB_CONCURRENCY", "")
    if count.isdigit() and int(count) > 1:
        return f"WEB_CONCURRENCY={count}"
    workers = _workers_option(argv)
    if workers is not None and workers > 1:
        return f"--workers {workers}"
    reloading = any(word in {"--reload", "dev"} for word in argv)
    if is_child and workers is None and not reloading:
        return "a process started by multiprocessing"
    return None


def _workers_option(argv: Sequence[str]) -> int | None:
    for index, word in enumerate(argv):
        name, _, value = word.partition("=")
        if name in {"--workers", "-w"}:
            text = value or (argv[index + 1] if index + 1 < len(argv) else "")
            return int(text) if text.isdigit() else None
    return None


def guard_against_several(logger: logging.Logger) -> None:
    """Log an error where several processes are likely; ``run`` and the CLI refuse before they start."""
    why = find_several(sys.argv, os.environ, is_child=multiprocessing.parent_process() is not None)
    if why is not None:
        logger.error("%s", SeveralProcesses(why))
