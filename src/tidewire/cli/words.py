"""What ``tidewire sub`` says about a subscription, in the words of CONTRACTS 4. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidewire.client.resume import Gap
    from tidewire.client.topic import State

# Control characters, and the marks that turn the direction of writing: a stranger's text must not move the cursor.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def defuse(text: str) -> str:
    r"""``text`` with everything that a terminal would act upon written out (``\x1b``); line ends and tabs stay."""
    return _UNSAFE.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


class Narrator:
    """Turns the states of one subscription into sentences, each outage told once."""

    def __init__(self, url: str) -> None:
        self._url = url
        # the state before
        self._before = ""
        # whether it was ever live
        self._was_live = False
        # why the present outage was said to be one
        self._reason = ""

    def tell(self, state: State) -> str | None:
        """The sentence for ``state``, or None when there is nothing new to say."""
        sentence = self._sentence(state)
        if state.name == "live":
            self._was_live, self._reason = True, ""
        self._before = state.name
        return sentence

    def _sentence(self, state: State) -> str | None:
        if state.name == "reconnecting":
            return self._outage(state.reason)
        if state.name == "ended" and state.lost is not None:
            return f"{count_lost(state.lost)} before the end"
        if state.name != "live":
            return None
        if self._before == "live" and state.lost is not None:
            return count_lost(state.lost)
        if state.lost is not None:
            return say_lost(state.lost)
        if not self._was_live:
            return f"listening to {self._url}"
        return "reconnected" if state.recovered is None else f"reconnected, {state.recovered} recovered"

    def _outage(self, reason: str) -> str | None:
        if reason == self._reason:
            return None
        self._reason = reason
        if self._was_live:
            return f"{reason}: trying to reconnect"
        return f"{reason} yet: waiting for {self._url}"


def say_lost(lost: Gap) -> str:
    """A loss found when a connection came back."""
    if lost.is_history_lost:
        return "history lost, live again"
    if lost.from_position is None and lost.to_position is None:
        return "live again; this topic keeps nothing, so what was published meanwhile is lost"
    return f"{count_lost(lost)}, live again"


def count_lost(lost: Gap) -> str:
    """How much is lost, as far as it is known."""
    if lost.missing is None:
        return "messages lost"
    return f"{lost.missing} message{'' if lost.missing == 1 else 's'} lost"
