"""Patterns of topics: ``*`` is one segment, ``**`` the rest; and an index that finds those that match a name."""

from __future__ import annotations

from typing import Generic, TypeVar

from tidewire.errors import BadTopic
from tidewire.protocol.topics import Template, validate_topic

ONE = "*"
REST = "**"
SEGMENTS_MAX = 32
"""Segments of one pattern: what a search in the index may cost."""

T = TypeVar("T")


def is_pattern(name: str) -> bool:
    """Whether ``name`` has a wildcard, and so names no single topic."""
    return "*" in name


def parse_pattern(text: str) -> tuple[str, ...]:
    """The segments of a pattern; raises ``BadTopic``.

    A wildcard is a whole segment, ``**`` only the last one; the rest is as in names. System topics (``$``) are in no
    pattern.
    """
    segments = tuple(text.split("/"))
    if len(segments) > SEGMENTS_MAX:
        raise BadTopic(text, f"a pattern has {SEGMENTS_MAX} segments at most")
    for index, segment in enumerate(segments):
        if segment == REST and index < len(segments) - 1:
            raise BadTopic(text, "** stands at the end of a pattern: it is the rest of a name")
        if "*" in segment and segment not in (ONE, REST):
            raise BadTopic(text, "a wildcard is a whole segment: * for one, ** for the rest")
    validate_topic("/".join("x" if "*" in segment else segment for segment in segments))
    if text.startswith("$"):
        raise BadTopic(text, "the system's topics are in no pattern")
    return segments


def matches(segments: tuple[str, ...], topic: str) -> bool:
    """Whether ``topic`` is one of those that the pattern means. ``**`` is one segment or more."""
    names = topic.split("/")
    if topic.startswith("$"):
        return False
    if segments[-1] == REST:
        names, segments = names[: len(segments) - 1], segments[:-1]
        if len(topic.split("/")) <= len(segments):
            return False
    return len(names) == len(segments) and all(
        wanted in (ONE, name) for wanted, name in zip(segments, names, strict=True)
    )


def cover(template: Template, segments: tuple[str, ...]) -> dict[str, str | None] | None:
    """The parameters of a template where a pattern is asked for; None for those that a wildcard stands for.

    None: the pattern asks for something else, or for more than wildcards in the place of parameters.
    """
    values: dict[str, str | None] = {}
    wanted = template.text.split("/")
    for index, part in enumerate(wanted):
        if index >= len(segments):
            return None
        given = segments[index]
        names = Template(part).fields
        is_whole = len(names) == 1 and part.startswith("{") and part.endswith("}")
        if given == REST or (is_whole and part.endswith(":path}")):
            # whatever follows is the rest: of parameters only, and not told to the function where it is open
            rest = wanted[index:] if given == REST else [part]
            if any(not (one.startswith("{") and one.endswith("}")) for one in rest) or index < len(wanted) - len(rest):
                return None
            told = "/".join(segments[index:]) if given != REST else ""
            open_ended = given == REST or is_pattern(told)
            return values | {name: None if open_ended else told for one in rest for name in Template(one).fields}
        if given == ONE:
            if not is_whole:
                return None
            values[names[0]] = None
        else:
            found = Template(part).match(given)
            if found is None:
                return None
            values |= found
    return values if len(wanted) == len(segments) else None


class _Node(Generic[T]):
    """What follows one beginning of patterns."""

    __slots__ = ("children", "here", "rest")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        # of the pattern that ends here, and of the one that goes on with **
        self.here: T | None = None
        self.rest: T | None = None

    @property
    def is_empty(self) -> bool:
        return not self.children and self.here is None and self.rest is None


class PatternIndex(Generic[T]):
    """One value for each pattern, found by the names that match: a tree of segments, not a list of patterns.

    A search goes down the literal branch and the ``*`` branch of each segment, so it looks at those patterns that
    agree with the name so far and at no others.
    """

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def set(self, segments: tuple[str, ...], value: T) -> None:
        """The value of this pattern, replacing one it has."""
        node, is_rest = self._root, segments[-1] == REST
        for segment in segments[:-1] if is_rest else segments:
            node = node.children.setdefault(segment, _Node())
        self._n += (node.rest if is_rest else node.here) is None
        if is_rest:
            node.rest = value
        else:
            node.here = value

    def remove(self, segments: tuple[str, ...]) -> None:
        """Forget a pattern, and every branch that leads nowhere then. Twice is nothing."""
        is_rest = segments[-1] == REST
        path: list[tuple[_Node[T], str]] = []
        node = self._root
        for segment in segments[:-1] if is_rest else segments:
            child = node.children.get(segment)
            if child is None:
                return
            path.append((node, segment))
            node = child
        self._n -= (node.rest if is_rest else node.here) is not None
        if is_rest:
            node.rest = None
        else:
            node.here = None
        for parent, segment in reversed(path):
            if not parent.children[segment].is_empty:
                break
            del parent.children[segment]

    def find(self, topic: str) -> list[T]:
        """The values of all patterns that match a name."""
        found: list[T] = []
        if topic.startswith("$"):
            return found
        nodes = [self._root]
        for name in topic.split("/"):
            following: list[_Node[T]] = []
            for node in nodes:
                if node.rest is not None:
                    found.append(node.rest)
                following += [child for key in (name, ONE) if (child := node.children.get(key)) is not None]
            if not following:
                return found
            nodes = following
        found += [node.here for node in nodes if node.here is not None]
        return found
