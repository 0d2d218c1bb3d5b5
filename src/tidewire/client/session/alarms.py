"""What comes due when. Pure: somebody else has the clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable
from itertools import count

Action = Callable[[], None]


class Alarms:
    """Actions by name, each at most once; as many as there are names."""

    def __init__(self) -> None:
        # name -> (when, number, what)
        self._set: dict[Hashable, tuple[float, int, Action]] = {}
        # what was replaced or cleared stays here until it comes up, or until it is too much
        self._heap: list[tuple[float, int, Hashable]] = []
        self._numbers = count()

    def set(self, name: Hashable, at_s: float, action: Action) -> None:
        """Do ``action`` at ``at_s``, instead of what was set under ``name``."""
        number = next(self._numbers)
        self._set[name] = (at_s, number, action)
        heapq.heappush(self._heap, (at_s, number, name))
        if len(self._heap) > 2 * len(self._set) + 64:
            self._heap = [(at, number, name) for name, (at, number, _) in self._set.items()]
            heapq.heapify(self._heap)

    def clear(self, name: Hashable) -> None:
        """Forget it; twice is nothing."""
        self._set.pop(name, None)

    def has(self, name: Hashable) -> bool:
        """Whether something is set under ``name``."""
        return name in self._set

    @property
    def next_at(self) -> float | None:
        """When the first comes due; None: nothing is set."""
        while self._heap and not self._is_current(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def run(self, now: float) -> None:
        """Do what is due, in its order. What an action sets is done by the next call, even if it is due already."""
        due = []
        while (at := self.next_at) is not None and at <= now:
            _, number, name = heapq.heappop(self._heap)
            due.append((name, number))
        for name, number in due:
            # an action before it may have cleared or replaced it
            found = self._set.get(name)
            if found is not None and found[1] == number:
                del self._set[name]
                found[2]()

    def _is_current(self, at: float, number: int, name: Hashable) -> bool:
        found = self._set.get(name)
        return found is not None and found[1] == number
