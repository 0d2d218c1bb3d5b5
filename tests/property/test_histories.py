"""Random histories of every policy; see ``histories`` for the rules and for how to replay one."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.histories import POLICIES, World, run_many

HISTORIES = 150


@pytest.mark.parametrize("policy", POLICIES)
def test_seeded_histories(policy: str) -> None:
    asyncio.run(run_many(range(HISTORIES), policy))


@pytest.mark.parametrize("policy", POLICIES)
def test_shrinking_histories(policy: str) -> None:
    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def history(rng: random.Random) -> None:
        asyncio.run(World(rng, POLICIES[policy]).run())

    history()
