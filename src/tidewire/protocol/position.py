"""Positions and the splice of history with what is live (CONTRACTS 4, DESIGN 6 rule 4)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from tidewire.errors import BadPosition
from tidewire.protocol.message import Message

OFFSET_DIGITS: Final = 20
OFFSET_MAX: Final = 2**63 - 1
_TEXT = re.compile(r"([A-Za-z0-9_-]{1,32}):([0-9]{1,20})\Z")


class Position(NamedTuple):
    """A place in a topic's history: after the message numbered ``offset`` of ``epoch``.

    Users and URLs see it as one opaque text. Offsets are zero-padded, because Durable Streams
    (PROTOCOL.md section 8) requires positions that sort as text.
    """

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset:0{OFFSET_DIGITS}d}"


class Edge:
    """The two positions every topic has without a number: its start and its present end."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


START: Final = Edge("START")
NOW: Final = Edge("NOW")

Since = Position | Edge
"""Where a reader wants to begin: after a position, with everything kept, or with what comes."""


def parse_position(text: str) -> Position:
    """``epoch:offset`` as a Position; raises ``BadPosition``."""
    found = _TEXT.match(text)
    if found is None or int(found.group(2)) > OFFSET_MAX:
        raise BadPosition(text)
    return Position(found.group(1), int(found.group(2)))


def parse_since(text: str) -> Since:
    """A position, ``-1`` (everything kept; Durable Streams 8) or ``now``; raises ``BadPosition``."""
    if text == "-1":
        return START
    if text == "now":
        return NOW
    return parse_position(text)


def position_of(message: Message) -> Position:
    """Where ``message`` stands."""
    return Position(message.epoch, message.offset)


def after(at: Position, messages: Sequence[Message]) -> Sequence[Message]:
    """The part of ``messages`` that comes after ``at``: the splice of history with what is live.

    ``messages`` ascend; what a reader has already is their beginning. A later epoch sorts after an earlier one
    (CONTRACTS 4), so what an old numbering still brings is dropped and a new one is taken whole.
    """
    for index, message in enumerate(messages):
        if position_of(message) > at:
            return messages[index:]
    return ()


def follows(at: Position, message: Message) -> bool:
    """Whether ``message`` is the very next one after ``at``; otherwise something between them is lost."""
    return message.epoch == at.epoch and message.offset == at.offset + 1
