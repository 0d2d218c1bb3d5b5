"""What waits for a consumer: bounded, and what is dropped is told."""

import pytest

from tests.client.session.fakes import at, inbox, text
from tidewire.client.errors import ConsumerTooSlow
from tidewire.client.resume import Gap
from tidewire.client.session.inbox import Entry, Inbox, Notes, Put


def entry(offset: int, size: int = 1, gap: Gap | None = None) -> Entry:
    return Entry("t", b"x" * size, {}, at(offset), gap)


def unnumbered(data: bytes) -> Entry:
    return Entry("t", data, {})


def fill(box: Inbox, *offsets: int) -> list[Put]:
    return [box.put(entry(offset), may_pause=True) for offset in offsets]


def read(box: Inbox) -> list[tuple[int, Gap | None]]:
    found = []
    while (one := box.take()) is not None:
        assert one.position is not None
        found.append((one.position.offset, one.gap))
    return found


def test_what_is_put_is_taken_in_order() -> None:
    box = inbox()
    assert fill(box, 1, 2, 3) == [Put.TAKEN] * 3
    assert read(box) == [(1, None), (2, None), (3, None)]
    assert (box.take(), box.dropped, len(box)) == (None, 0, 0)


def test_pause_takes_nothing_more_and_says_so() -> None:
    box = inbox(2, on_overflow="pause")
    assert fill(box, 1, 2, 3) == [Put.TAKEN, Put.TAKEN, Put.PAUSE]
    assert read(box) == [(1, None), (2, None)]
    assert box.dropped == 0


def test_pause_without_a_way_back_drops() -> None:
    box = inbox(2, on_overflow="pause")
    assert [box.put(unnumbered(b"%d" % n), may_pause=False) for n in range(4)] == [Put.TAKEN] * 4
    first, second = box.take(), box.take()
    assert first is not None
    assert (first.data, first.gap) == (b"2", Gap(None, None))
    assert second is not None
    assert (second.data, second.gap) == (b"3", None)
    assert box.dropped == 2


def test_what_was_dropped_is_the_gap_of_the_next() -> None:
    box = inbox(2, on_overflow="drop")
    box.begin(at(10), is_new=True)
    fill(box, 11, 12, 13, 14, 15)
    assert box.dropped == 3
    assert read(box) == [(14, Gap(text(10), text(13))), (15, None)]


def test_the_gap_begins_after_what_was_read() -> None:
    box = inbox(2, on_overflow="drop")
    box.begin(at(0), is_new=True)
    fill(box, 1, 2)
    assert box.take() is not None
    fill(box, 3, 4)
    assert read(box) == [(3, Gap(text(1), text(2))), (4, None)]


def test_a_gap_of_a_dropped_message_is_not_forgotten() -> None:
    box = inbox(2, on_overflow="drop")
    box.begin(at(0), is_new=True)
    fill(box, 1)
    box.put(entry(9, gap=Gap(text(1), text(8))), may_pause=True)
    fill(box, 10, 11, 12)
    assert read(box) == [(11, Gap(text(0), text(10))), (12, None)]


def test_a_gap_before_and_one_of_the_message_itself_are_one() -> None:
    box = inbox(1, on_overflow="drop")
    box.begin(at(0), is_new=True)
    fill(box, 1)
    box.put(entry(5, gap=Gap(text(1), text(4))), may_pause=True)
    assert read(box) == [(5, Gap(text(0), text(4)))]


def test_error_refuses_and_keeps_what_came() -> None:
    box = inbox(2, on_overflow="error")
    assert fill(box, 1, 2, 3) == [Put.TAKEN, Put.TAKEN, Put.FAIL]
    refusal = box.refusal("t")
    assert isinstance(refusal, ConsumerTooSlow)
    assert refusal.waiting == 2
    assert read(box) == [(1, None), (2, None)]


@pytest.mark.parametrize("size", [50, 5000])
def test_bytes_count_too_and_one_message_always_has_room(size: int) -> None:
    box = inbox(100, bytes_max=100, on_overflow="drop")
    box.begin(at(0), is_new=True)
    for offset in range(1, 6):
        box.put(entry(offset, size), may_pause=True)
    fits = 2 if size == 50 else 1
    assert [offset for offset, _ in read(box)] == list(range(6 - fits, 6))
    assert box.dropped == 5 - fits


def test_low_is_a_quarter() -> None:
    box = inbox(8)
    fill(box, 1, 2, 3)
    assert not box.is_low
    box.take()
    assert box.is_low


def test_a_beginning_does_not_move_what_waits() -> None:
    box = inbox(2, on_overflow="drop")
    box.begin(at(0), is_new=True)
    fill(box, 1, 2)
    box.begin(at(50), is_new=True)
    fill(box, 51)
    assert read(box)[0] == (2, Gap(text(0), text(1)))


def test_notes_that_are_too_many_say_that_some_are_missing() -> None:
    notes = Notes[str](2, "missed")
    for note in ("a", "b", "c"):
        notes.put(note)
    assert len(notes) == 3
    assert [notes.take() for _ in range(4)] == ["missed", "b", "c", None]


def test_notes_are_forgotten_when_they_would_mislead() -> None:
    notes = Notes[str](2, "missed")
    notes.put("a")
    notes.miss()
    notes.put("b")
    assert [notes.take() for _ in range(3)] == ["missed", "b", None]
