"""What waits for a body, bounded."""

from __future__ import annotations

from tidewire.wire.inbox import Inbox


def test_it_is_full_by_messages_or_by_bytes_and_always_takes_one() -> None:
    inbox = Inbox(messages_max=3, bytes_max=10)
    assert not inbox.full
    inbox.put("a" * 100)
    assert inbox.full, "one message of any size fits, and then no more"
    assert inbox.take() == "a" * 100
    assert not inbox.full
    for message in ("a", b"b", ""):
        assert not inbox.full
        inbox.put(message)
    assert inbox.full
    assert [inbox.take() for _ in range(3)] == ["a", b"b", ""]
    assert not len(inbox)
