"""How memory is handed out and collected, where the process is ours."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# a message of this size, or a piece of a larger one, comes from the heap
_HEAP_BYTES = 4 * 1024 * 1024
# so much free memory at the end of the heap is kept for the next one
_KEPT_BYTES = 16 * 1024 * 1024


def keep_large_blocks() -> bool:
    """Keep blocks of a few megabytes for the next message instead of giving them back after each one.

    By default glibc asks the kernel for every block above 128 KiB anew, and its pages are zeroed and mapped one by one;
    that costs more than receiving what is put into them. Returns whether it was done: elsewhere there is no
    ``mallopt(3)``.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _HEAP_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))


# Python's own are 700, and 2000 from 3.14 on: at thousands of connections that is a collection for every few that come
_YOUNG_DEFAULTS = (700, 2000)
_YOUNG_MAX = 10_000


def spare_collector() -> Callable[[], None]:
    """Let the garbage collector pass over what is there once the application has started: it stays until the end.

    Connections of ours leave nothing that refers to itself, so what it looks through is only what they are. A process
    that has set it up by itself is left alone. Returns what puts it back.
    """
    before = gc.get_threshold()
    if not gc.isenabled() or before[0] not in _YOUNG_DEFAULTS or gc.get_freeze_count():
        return lambda: None
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_MAX, 10, 10)

    def put_back() -> None:
        gc.unfreeze()
        gc.set_threshold(*before)

    return put_back
