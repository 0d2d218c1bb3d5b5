"""What one hub has done, in numbers that only grow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """Counters of one hub since it was made."""

    published: int = 0
    """Messages accepted here."""
    duplicates: int = 0
    """Publishes that were answered from their id."""
    delivered: int = 0
    """Messages queued to readers."""
    dropped: int = 0
    """``Signal`` messages that a full outbox lost."""
    evicted: int = 0
    """Readers given up as too slow."""
    gaps: int = 0
    """Times a reader was told that something is lost."""
    recovered: int = 0
    """Times a reader came back and nothing was lost."""
