"""Masking (RFC 6455 5.3), in C where the ``websockets`` package has it for this platform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from websockets import utils


def mask_slowly(data: Any, mask: Any) -> bytes:
    """The same in Python, a hundred times slower, for a platform without a wheel."""
    return utils.apply_mask(data, bytes(mask))


def _find() -> Callable[[Any, Any], bytes]:
    try:
        from websockets import speedups
    except ImportError:
        return mask_slowly
    return speedups.apply_mask


apply_mask = _find()
"""``apply_mask(data, mask)`` masks or unmasks; both may be any kind of bytes, and ``mask`` has four of them."""
