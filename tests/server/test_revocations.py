"""Revoked tokens stay out for as long as they would have been good, and newer ones come in."""

from __future__ import annotations

import pytest

from tests.server.mint import NOW
from tidewire import Identity
from tidewire.errors import TooManyRevocations
from tidewire.server.identity import ANONYMOUS
from tidewire.server.revocations import Revocations
from tidewire.server.tokens import LEEWAY_MAX_S
from tidewire.testing import ManualClock


class Book:
    def __init__(self, most: int = 10) -> None:
        self.clock = ManualClock()
        self.revocations = Revocations(self.clock, most=most)

    def is_revoked(self, user: str = "ann", token_id: str | None = None, issued_at: float | None = NOW) -> bool:
        return self.revocations.is_revoked(Identity(user=user, token_id=token_id, issued_at=issued_at))


def test_a_token_by_its_id() -> None:
    book = Book()
    book.revocations.revoke_token("7", for_s=60)
    assert book.is_revoked(token_id="7")
    assert book.is_revoked("somebody else", token_id="7")
    assert not book.is_revoked(token_id="8")
    assert not book.is_revoked(token_id=None)


def test_it_is_remembered_until_no_leeway_could_let_it_in_again() -> None:
    """A token that expires in a minute is accepted for its leeway longer."""
    book = Book()
    book.revocations.revoke_token("7", for_s=60)
    book.revocations.revoke_user("ann", for_s=60)
    book.clock.advance(60 + LEEWAY_MAX_S - 1)
    assert book.is_revoked("bob", token_id="7")
    assert book.is_revoked("ann")
    book.clock.advance(1)
    assert not book.is_revoked("bob", token_id="7")
    assert not book.is_revoked("ann")


def test_what_a_user_had_until_now() -> None:
    book = Book()
    book.clock.advance(0.4)
    book.revocations.revoke_user("ann", for_s=60)
    assert book.is_revoked(issued_at=NOW - 1)
    assert book.is_revoked(issued_at=NOW)
    assert book.is_revoked(issued_at=NOW + 0.4)
    assert not book.is_revoked(issued_at=NOW + 0.5)
    assert not book.is_revoked(issued_at=NOW + 1)
    assert not book.is_revoked("bob", issued_at=NOW - 1)


def test_a_token_that_does_not_say_when_it_was_issued_goes_with_the_rest() -> None:
    book = Book()
    assert not book.is_revoked(issued_at=None)
    book.revocations.revoke_user("ann", for_s=60)
    assert book.is_revoked(issued_at=None)


def test_a_moment_of_the_past() -> None:
    book = Book()
    book.revocations.revoke_user("ann", for_s=60, before=NOW - 100)
    assert book.is_revoked(issued_at=NOW - 100)
    assert not book.is_revoked(issued_at=NOW - 99)


def test_revoking_again_lets_nothing_in() -> None:
    book = Book()
    book.revocations.revoke_user("ann", for_s=1000)
    book.revocations.revoke_user("ann", for_s=1, before=NOW - 100)
    book.revocations.revoke_token("7", for_s=1000)
    book.revocations.revoke_token("7", for_s=1)
    book.clock.advance(1000)
    assert book.is_revoked(issued_at=NOW - 1)
    assert book.is_revoked("bob", token_id="7")
    assert len(book.revocations) == 2


def test_nobody_is_no_user() -> None:
    """Who has no id would otherwise be kicked out together."""
    book = Book()
    with pytest.raises(ValueError, match="empty id"):
        book.revocations.revoke_user("", for_s=60)
    assert not book.revocations.is_revoked(ANONYMOUS)


def test_when_it_is_full_nothing_is_forgotten() -> None:
    book = Book(most=3)
    book.revocations.revoke_token("1", for_s=60)
    book.revocations.revoke_user("ann", for_s=60)
    book.revocations.revoke_token("2", for_s=1000)
    for _ in range(3):
        with pytest.raises(TooManyRevocations, match=r"3 revocations.*revocations_max"):
            book.revocations.revoke_token("3", for_s=60)
        with pytest.raises(TooManyRevocations):
            book.revocations.revoke_user("bob", for_s=60)
    # those that are known may be renewed
    book.revocations.revoke_token("2", for_s=2000)
    assert book.is_revoked(token_id="1")
    assert book.is_revoked("ann")
    book.clock.advance(60 + LEEWAY_MAX_S)
    book.revocations.revoke_token("3", for_s=60)
    assert len(book.revocations) == 2
    assert book.is_revoked(token_id="2")
