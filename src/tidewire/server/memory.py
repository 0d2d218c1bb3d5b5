"""How the C library hands memory out, where the process is ours."""

from __future__ import annotations

import ctypes

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
