"""A chat under repeated drops of two seconds, as AnyCable has published it: who comes back has missed nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.interop.drops.scenario import Contender, Plan, contenders, play, table

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def invited() -> list[Contender]:
    """Who takes part, installed."""
    return contenders()


@pytest.mark.parametrize("at_once", [False, True], ids=["each by itself", "all at once"])
def test_a_chat_under_repeated_drops(invited: list[Contender], tmp_path: Path, at_once: bool) -> None:
    plan = Plan(people_n=50, messages_n=40, every_s=5.0, at_once=at_once)
    outcomes = asyncio.run(play(invited, plan, tmp_path))
    told = table(outcomes)
    print(told)
    for outcome in outcomes:
        assert outcome.drops_n >= plan.people_n, f"the lines were hardly cut: this shows nothing\n{told}"
        assert all(returns_n for _, returns_n, _ in outcome.people), told
        if outcome.contender.startswith("Tidewire"):
            assert outcome.wrong == [], told
            assert [gaps_n for _, _, gaps_n in outcome.people] == [0] * plan.people_n, told
