"""The wheel: everybody is called once, never early, at most one spoke late; and it stops when nobody stands on it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from tests.wire.fakes import passes
from tidewire.testing import ManualClock
from tidewire.wire.wheel import _CALLS_PER_PASS, SPOKE_S, Wheel


class Hand:
    """Stands on a wheel and remembers when it was called; ``then`` is what it does about it."""

    def __init__(self, wheel: Wheel, clock: ManualClock, name: str = "") -> None:
        self.spoke = 0
        self.wheel = wheel
        self.clock = clock
        self.name = name
        self.calls: list[float] = []
        self.then: Callable[[], None] = lambda: None

    def on_time(self) -> None:
        assert self.spoke == 0, "who is called stands nowhere"
        self.calls.append(self.clock.now())
        self.then()


class Setup:
    def __init__(self, now: float = 1000.0) -> None:
        self.clock = ManualClock(now=now)
        self.wheel = Wheel(self.clock)

    def hand(self, name: str = "") -> Hand:
        return Hand(self.wheel, self.clock, name)

    @property
    def has_timer(self) -> bool:
        return any(timer.callback is not None for _, _, timer in self.clock._timers)


@pytest.mark.parametrize("now", [0.0, 0.05, 4.3, 1000.0, 123_456.789, 3e6 + 1 / 3])
def test_nobody_is_called_early_and_nobody_later_than_one_spoke(now: float) -> None:
    rng = random.Random(now)
    setup = Setup(now)
    hands = []
    for _ in range(300):
        hand, delay = setup.hand(), rng.choice([0.0, 0.1, 0.3, 1.0, 20.0, rng.random() * 30])
        setup.wheel.set(hand, delay)
        hands.append((hand, setup.clock.now() + delay))
        setup.clock.advance(rng.random() * 0.2)
    setup.clock.advance(40)
    for hand, deadline in hands:
        (called,) = hand.calls
        # a clock that counts in floats has a picosecond or so
        assert deadline - 1e-6 <= called <= deadline + SPOKE_S + 1e-6
    assert len(setup.wheel) == 0
    assert not setup.has_timer


def test_every_spoke_is_reached_when_its_time_has_come() -> None:
    """Tenths are no binary fractions: 4.3 / 0.1 is less than 43, and a wheel that divides never gets there."""
    for spoke in range(1, 3000):
        setup = Setup(now=(spoke - 1) * SPOKE_S)
        hand = setup.hand()
        setup.wheel.set(hand, SPOKE_S / 2)
        setup.clock.advance(SPOKE_S * 2)
        assert len(hand.calls) == 1
    assert not setup.has_timer


def test_they_are_called_in_the_order_of_their_spokes() -> None:
    setup = Setup()
    order: list[str] = []
    for name, delay in [("c", 3.0), ("a", 1.0), ("d", 20.0), ("b", 2.0)]:
        hand = setup.hand(name)
        hand.then = lambda name=name: order.append(name)  # type: ignore[misc]
        setup.wheel.set(hand, delay)
    setup.clock.advance(30)
    assert order == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("first", "second"), [(5.0, 1.0), (1.0, 5.0), (2.0, 2.0), (2.0, 2.01)])
def test_a_deadline_that_is_set_again_replaces_the_one_before(first: float, second: float) -> None:
    setup = Setup()
    hand = setup.hand()
    setup.wheel.set(hand, first)
    setup.wheel.set(hand, second)
    assert len(setup.wheel) == 1
    setup.clock.advance(second - 0.2)
    assert hand.calls == []
    setup.clock.advance(10)
    assert len(hand.calls) == 1


def test_who_is_cleared_is_not_called_and_the_others_are() -> None:
    setup = Setup()
    gone, here = setup.hand(), setup.hand()
    for hand in (gone, here):
        setup.wheel.set(hand, 1.0)
    setup.wheel.clear(gone)
    setup.wheel.clear(gone)
    setup.clock.advance(5)
    assert (gone.calls, len(here.calls)) == ([], 1)


def test_clearing_and_setting_others_while_being_called() -> None:
    setup = Setup()
    cleared, later, caller = setup.hand(), setup.hand(), setup.hand()
    for hand in (cleared, later, caller):
        setup.wheel.set(hand, 1.0)

    def act() -> None:
        setup.wheel.clear(cleared)
        setup.wheel.clear(caller)
        setup.wheel.set(later, 3.0)

    caller.then = act
    setup.clock.advance(2)
    # the last that came to a spoke is called first: it has cleared the others in time
    assert (len(caller.calls), cleared.calls, later.calls) == (1, [], [])
    setup.clock.advance(3)
    assert len(later.calls) == 1
    assert not setup.has_timer


def test_who_sets_itself_again_when_called_is_called_again() -> None:
    setup = Setup()
    hand = setup.hand()
    hand.then = lambda: setup.wheel.set(hand, 1.0)
    setup.wheel.set(hand, 1.0)
    setup.clock.advance(10.5)
    # each time up to one spoke later
    assert len(hand.calls) in (9, 10)
    setup.wheel.clear(hand)
    assert len(setup.wheel) == 0


def test_a_shorter_deadline_than_all_others_moves_the_timer_up() -> None:
    setup = Setup()
    far, near = setup.hand(), setup.hand()
    setup.wheel.set(far, 100.0)
    setup.wheel.set(near, 1.0)
    setup.clock.advance(2)
    assert (len(near.calls), far.calls) == (1, [])
    setup.clock.advance(100)
    assert len(far.calls) == 1


def test_no_timer_is_left_when_the_wheel_is_empty() -> None:
    setup = Setup()
    hands = [setup.hand() for _ in range(10)]
    assert not setup.has_timer
    for number, hand in enumerate(hands):
        setup.wheel.set(hand, 1.0 + number)
    assert setup.has_timer
    for hand in hands:
        setup.wheel.clear(hand)
    assert len(setup.wheel) == 0
    assert not setup.has_timer
    # and it turns again
    setup.wheel.set(hands[0], 1.0)
    setup.clock.advance(2)
    assert len(hands[0].calls) == 1
    assert not setup.has_timer


def test_what_is_set_again_and_again_leaves_nothing_behind() -> None:
    setup = Setup()
    hand, other = setup.hand(), setup.hand()
    setup.wheel.set(other, 1000.0)
    for _ in range(5000):
        setup.wheel.set(hand, 10.0)
        setup.wheel.set(hand, 20.0)
    assert len(setup.wheel._order) < 20
    assert len(setup.clock._timers) < 20_000


def test_thousands_that_are_due_at_once_are_called_in_several_passes_of_the_loop() -> None:
    async def run() -> None:
        setup = Setup()
        hands = [setup.hand() for _ in range(10_000)]
        for hand in hands:
            setup.wheel.set(hand, 1.0)
        setup.clock.advance(1.2)
        done = counts = 0
        async with asyncio.timeout(20):
            while done < len(hands):
                before, done = done, sum(len(hand.calls) for hand in hands)
                assert 0 < done - before <= _CALLS_PER_PASS
                counts += 1
                await passes()
        assert counts == -(-len(hands) // _CALLS_PER_PASS)
        assert [len(hand.calls) for hand in hands] == [1] * len(hands)
        assert not setup.has_timer

    asyncio.run(run())


def test_one_that_is_set_between_two_passes_is_called_as_well() -> None:
    async def run() -> None:
        setup = Setup()
        hands = [setup.hand() for _ in range(1000)]
        for hand in hands:
            setup.wheel.set(hand, 1.0)
        setup.clock.advance(1.2)
        late = setup.hand()
        setup.wheel.set(late, 0.5)
        setup.wheel.clear(hands[0])
        async with asyncio.timeout(20):
            while sum(len(hand.calls) for hand in hands) < 999:
                await passes()
        assert (hands[0].calls, late.calls) == ([], [])
        setup.clock.advance(1)
        assert len(late.calls) == 1

    asyncio.run(run())


def test_one_that_is_always_due_does_not_hold_the_loop() -> None:
    async def run() -> None:
        setup = Setup(now=1000.0)
        hand, other = setup.hand(), setup.hand()
        hand.then = lambda: setup.wheel.set(hand, 0.0)
        setup.wheel.set(hand, 0.0)
        setup.wheel.set(other, 0.0)
        setup.clock.advance(0.0)
        await passes(2)
        assert hand.calls and len(other.calls) == 1
        setup.wheel.clear(hand)
        await passes(2)

    asyncio.run(run())


def test_who_raises_does_not_stop_the_wheel_for_the_others() -> None:
    """One faulty connection must not switch the deadlines of a server off."""
    setup = Setup()
    hands = [setup.hand() for _ in range(5)]

    def fail() -> None:
        raise LookupError("broken")

    hands[2].then = fail
    for number, hand in enumerate(hands):
        setup.wheel.set(hand, 1.0 if number < 3 else 5.0)
    with pytest.raises(LookupError):
        setup.clock.advance(10)
    setup.clock.advance(10)
    assert [len(hand.calls) for hand in hands] == [1] * 5
