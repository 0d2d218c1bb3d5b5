"""Random histories of sessions; see ``sessions`` for the rules and for how to replay one.

``make histories`` lives through ten thousand.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.property.sessions import run_many

PARTS = 8
HISTORIES = int(os.environ.get("HISTORIES", "400"))


@pytest.mark.parametrize("part", range(PARTS))
def test_seeded_histories(part: int) -> None:
    each = -(-HISTORIES // PARTS)
    asyncio.run(run_many(range(part * each, (part + 1) * each)))
