"""Where a subscription stands: single cases, then random histories with a plain list as oracle."""

import random

import pytest

from tidewire.client.envelope import Header, Item, Lost
from tidewire.client.resume import Gap, Received, Tracker
from tidewire.protocol.position import Position


def at(offset: int, epoch: str = "a1") -> Position:
    return Position(epoch, offset)


def item(offset: int, epoch: str = "a1", **more: bool) -> Item:
    return Item(offset, "json", at(offset, epoch), **more)


def gap(start: int | None, end: int, epoch: str = "a1") -> Gap:
    return Gap(None if start is None else str(at(start)), str(at(end, epoch)))


def test_first_connection_goes_on_after_its_header() -> None:
    tracker = Tracker()
    tracker.begin(Header(at(5), None, 0))
    assert tracker.since == str(at(5))
    assert tracker.take(item(6)) == Received(6, str(at(6)))
    assert tracker.since == str(at(6))


def test_resumed_connection_drops_what_was_delivered() -> None:
    tracker = Tracker(str(at(5)))
    tracker.begin(Header(at(3), True, 4))
    assert [tracker.take(item(offset)) is None for offset in (4, 5, 6, 7)] == [True, True, False, False]
    assert tracker.lost is None


def test_within_a_connection_the_server_s_order_is_taken() -> None:
    tracker = Tracker()
    tracker.begin(Header(at(0), None, 0))
    assert [tracker.take(item(offset)) is None for offset in (3, 2, 3)] == [False, False, False]


def test_loss_is_on_the_first_message_only() -> None:
    tracker = Tracker(str(at(5)))
    tracker.begin(Header(at(8), False, 1))
    assert tracker.lose(Lost(at(5), at(8))) is False, "the header had told of it"
    first, second = tracker.take(item(9)), tracker.take(item(10))
    assert first is not None
    assert first.gap == gap(5, 8)
    assert second is not None
    assert second.gap is None


def test_loss_in_mid_stream() -> None:
    tracker = Tracker()
    tracker.begin(Header(at(0), None, 0))
    tracker.take(item(1))
    assert tracker.lose(Lost(at(1), at(4))) is True
    assert tracker.since == str(at(4))
    received = tracker.take(item(5))
    assert received is not None
    assert received.gap == gap(1, 4)


def test_losses_nobody_saw_are_joined() -> None:
    tracker = Tracker(str(at(5)))
    tracker.begin(Header(at(8), False, 0))
    tracker.begin(Header(at(12), False, 0))
    received = tracker.take(item(13))
    assert received is not None
    assert received.gap == gap(5, 12)


def test_new_numbering_drops_nothing() -> None:
    tracker = Tracker(str(at(500)))
    tracker.begin(Header(at(0, "a2"), False, 1))
    received = tracker.take(item(1, "a2"))
    assert received is not None
    assert received.gap == gap(500, 0, "a2")
    assert received.gap.is_history_lost
    assert received.gap.missing is None


def test_server_that_ignores_since_has_lost_something() -> None:
    tracker = Tracker(str(at(5)))
    tracker.begin(Header(at(9), None, 0))
    assert tracker.lost == gap(5, 9)


def test_everything_kept_is_no_loss() -> None:
    tracker = Tracker("-1")
    tracker.begin(Header(at(0), None, 2))
    assert tracker.lost is None
    assert tracker.since == "-1", "cut now, everything must be asked for again"
    tracker.take(item(1))
    assert tracker.since == str(at(1))


def test_everything_kept_of_a_trimmed_topic_is_a_loss_from_nowhere() -> None:
    tracker = Tracker("-1")
    tracker.begin(Header(at(7), None, 1))
    assert tracker.lose(Lost(None, at(7)))
    received = tracker.take(item(8))
    assert received is not None
    assert received.gap == gap(None, 7)


def test_now_is_no_position() -> None:
    tracker = Tracker("now")
    tracker.begin(Header(at(7), None, 0))
    assert tracker.lost is None


def test_cut_in_mid_replay_asks_for_the_rest() -> None:
    tracker = Tracker(str(at(5)))
    tracker.begin(Header(at(5), True, 3))
    assert tracker.since == str(at(5))
    tracker.take(item(6))
    assert tracker.since == str(at(6))
    tracker.begin(Header(at(6), True, 2))
    assert [tracker.take(item(7)), tracker.take(item(8))] == [Received(7, str(at(7))), Received(8, str(at(8)))]


def test_cut_in_mid_snapshot_asks_for_all_of_it() -> None:
    tracker = Tracker()
    tracker.begin(Header(at(9), None, 3))
    for _ in range(2):
        tracker.take(item(9, snapshot=True))
        assert tracker.since is None
    tracker.take(item(9, snapshot=True))
    assert tracker.since == str(at(9))


def test_snapshot_without_a_number_ends_where_the_header_stands() -> None:
    tracker = Tracker()
    tracker.begin(Header(at(0), None, 1))
    tracker.take(Item("state", "json", None, snapshot=True))
    assert tracker.since == str(at(0))


def test_snapshot_at_the_place_we_are_is_shown_and_an_older_one_is_not() -> None:
    tracker = Tracker(str(at(5)))
    tracker.begin(Header(at(5), True, 2))
    assert tracker.take(item(5, snapshot=True)) is not None
    tracker = Tracker(str(at(5)))
    tracker.begin(Header(at(4), True, 1))
    assert tracker.take(item(4, snapshot=True)) is None


def test_unnumbered_topic_says_that_something_may_be_missing() -> None:
    tracker = Tracker()
    tracker.begin(Header(None, None, 0))
    assert tracker.take(Item(1, "json", None)) == Received(1)
    assert tracker.since is None
    tracker.begin(Header(None, None, 0))
    assert tracker.take(Item(2, "json", None)) == Received(2, gap=Gap(None, None))


def test_gap_counts_what_is_missing() -> None:
    assert gap(5, 8).missing == 3
    assert gap(None, 8).missing is None
    assert Gap(None, None).missing is None
    assert not Gap(None, None).is_history_lost
    assert Gap(str(at(8)), str(at(5))).missing is None


class Model:
    """A server with a list: keeps the last ``keep`` messages, may forget everything and number anew."""

    def __init__(self, rng: random.Random, keep: int) -> None:
        self.rng = rng
        self.keep = keep
        self.epoch = 1
        self.top = 0
        # everything that was ever published, in order: the oracle
        self.published: list[Position] = []

    @property
    def name(self) -> str:
        return f"e{self.epoch:06}"

    @property
    def floor(self) -> int:
        return max(0, self.top - self.keep)

    def publish(self) -> Position:
        self.top += 1
        self.published.append(Position(self.name, self.top))
        return self.published[-1]

    def restart(self) -> None:
        self.epoch += 1
        self.top = 0

    def open(self, since: str | None) -> list[Header | Lost | Item]:
        """What a connection says at once."""
        if since is None:
            return [Header(Position(self.name, self.top), None, 0)]
        epoch, offset = since.split(":")
        complete = epoch == self.name and self.floor <= int(offset) <= self.top
        start = int(offset) if complete else self.floor
        # an honest server may repeat a little of what the reader has
        overlap = self.rng.randint(0, min(2, start - self.floor)) if complete else 0
        start -= overlap
        position = Position(self.name, start)
        said: list[Header | Lost | Item] = [Header(position, complete, self.top - start)]
        if not complete:
            said.append(Lost(Position(epoch, int(offset)), position))
        return said + [Item(None, "json", Position(self.name, n)) for n in range(start + 1, self.top + 1)]


def feed(tracker: Tracker, said: list[Header | Lost | Item]) -> list[Received]:
    """Hand ``said`` to the tracker as a subscription does."""
    got = []
    for what in said:
        if isinstance(what, Header):
            tracker.begin(what)
        elif isinstance(what, Lost):
            tracker.lose(what)
        else:
            received = tracker.take(what)
            if received is not None:
                got.append(received)
    return got


def check(published: list[Position], got: list[Received], begin: int) -> None:
    """Received is a contiguous slice of what was published, or every break of it is told."""
    index = {str(position): n for n, position in enumerate(published)}
    expected = begin
    for received in got:
        assert received.position is not None
        place = index[received.position]
        if place == expected:
            assert received.gap is None or received.gap.is_history_lost, "a loss was told where nothing is missing"
        else:
            assert place > expected, f"{received.position} came twice or out of order"
            assert received.gap is not None, f"{place - expected} messages are missing and nobody said so"
            assert received.gap.missing in (None, place - expected), "the loss was told wrongly"
        expected = place + 1


def live_through(seed: int) -> None:
    """One random history."""
    rng = random.Random(seed)
    model = Model(rng, keep=rng.randint(1, 12))
    for _ in range(rng.randint(0, 5)):
        model.publish()
    tracker, got = Tracker(), []
    feed(tracker, model.open(None))
    begin, is_open = len(model.published), True
    for _ in range(200):
        match rng.choices(["publish", "cut", "restart", "open"], [10, 3, 0.5, 6])[0]:
            case "publish":
                position = model.publish()
                if is_open:
                    got += feed(tracker, [Item(None, "json", position)])
            case "cut":
                is_open = False
            case "restart":
                model.restart()
                is_open = False
            case "open" if not is_open:
                said = model.open(tracker.since)
                # the line may be cut again in the middle of what is said
                whole = rng.random() < 0.6
                got += feed(tracker, said if whole else said[: rng.randint(1, len(said))])
                is_open = whole
    got += feed(tracker, model.open(tracker.since))
    got += feed(tracker, [Item(None, "json", model.publish())])
    check(model.published, got, begin)
    assert got[-1].position == str(model.published[-1])


def test_random_histories() -> None:
    for seed in range(300):
        try:
            live_through(seed)
        except AssertionError as error:
            pytest.fail(f"live_through({seed}): {error}")
