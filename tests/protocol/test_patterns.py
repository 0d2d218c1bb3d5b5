"""Patterns, and the index that finds them: against a plain comparison with each one."""

from __future__ import annotations

import random

import pytest

from tidewire.errors import BadTopic
from tidewire.protocol.patterns import PatternIndex, cover, is_pattern, matches, parse_pattern
from tidewire.protocol.topics import Template


@pytest.mark.parametrize(
    ("pattern", "topic", "is_match"),
    [
        ("*", "a", True),
        ("*", "a/b", False),
        ("**", "a", True),
        ("**", "a/b/c", True),
        ("a/*", "a/b", True),
        ("a/*", "a", False),
        ("a/*", "a/b/c", False),
        ("a/*", "b/b", False),
        ("a/**", "a", False),
        ("a/**", "a/b", True),
        ("a/**", "a/b/c", True),
        ("a/*/c", "a/b/c", True),
        ("a/*/c", "a/b/d", False),
        ("*/b/**", "a/b/c", True),
        ("*/b/**", "a/b", False),
        # the system's own
        ("*", "$a", False),
        ("**", "$a/b", False),
    ],
)
def test_what_matches(pattern: str, topic: str, is_match: bool) -> None:
    segments = parse_pattern(pattern)
    assert matches(segments, topic) is is_match
    index: PatternIndex[str] = PatternIndex()
    index.set(segments, "here")
    assert index.find(topic) == (["here"] if is_match else [])


@pytest.mark.parametrize(
    "pattern",
    ["", "a*", "*a", "***", "**/a", "a/**/b", "a//*", "$a/*", "$*", "-/*", "../*", "a b/*", "/".join("*" * 33)],
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(BadTopic):
        parse_pattern(pattern)


def test_a_name_is_a_pattern_of_itself() -> None:
    assert not is_pattern("a/b")
    assert is_pattern("a/*")
    assert parse_pattern("a/b") == ("a", "b")


def test_the_index_agrees_with_looking_at_each() -> None:
    rng = random.Random(5)
    names = ["a", "b", "c"]
    for _ in range(300):
        index: PatternIndex[str] = PatternIndex()
        there: dict[str, tuple[str, ...]] = {}
        for _ in range(rng.randrange(30)):
            segments = [rng.choice([*names, "*", "*"]) for _ in range(rng.randrange(1, 5))]
            if rng.random() < 0.3:
                segments[-1] = "**"
            text = "/".join(segments)
            if rng.random() < 0.3 and there:
                gone = rng.choice(list(there))
                index.remove(there.pop(gone))
                index.remove(parse_pattern(gone))
            else:
                there[text] = parse_pattern(text)
                index.set(there[text], text)
            assert len(index) == len(there)
        for _ in range(20):
            topic = "/".join(rng.choice(names) for _ in range(rng.randrange(1, 6)))
            expected = sorted(text for text, parsed in there.items() if matches(parsed, topic))
            assert sorted(index.find(topic)) == expected
        for parsed in there.values():
            index.remove(parsed)
        assert index._root.is_empty
        assert len(index) == 0


def test_a_search_does_not_look_at_patterns_that_disagree() -> None:
    index: PatternIndex[int] = PatternIndex()
    for n in range(10_000):
        index.set(("quotes", str(n), "*"), n)
    looked = 0

    class Counting(dict):  # type: ignore[type-arg]
        def get(self, *given: object) -> object:
            nonlocal looked
            looked += 1
            return super().get(*given)

    quotes = index._root.children["quotes"]
    quotes.children = Counting(quotes.children)
    assert index.find("quotes/77/x") == [77]
    assert looked == 2


@pytest.mark.parametrize(
    ("template", "pattern", "values"),
    [
        ("quotes/{symbol}", "quotes/*", {"symbol": None}),
        ("quotes/{symbol}", "quotes/**", {"symbol": None}),
        ("quotes/{symbol}", "quotes/A", {"symbol": "A"}),
        ("quotes/{symbol}", "*/A", None),
        ("quotes/{symbol}", "**", None),
        ("quotes/{symbol}", "quotes/*/x", None),
        ("quotes/{symbol}", "quotes", None),
        ("a/{x}/b/{y}", "a/1/b/*", {"x": "1", "y": None}),
        ("a/{x}/b/{y}", "a/*/b/2", {"x": None, "y": "2"}),
        ("a/{x}/b/{y}", "a/*/b/*", {"x": None, "y": None}),
        ("a/{x}/b/{y}", "a/**", None),
        ("a/{x}/{y}", "a/**", {"x": None, "y": None}),
        ("a/{x}/{y}", "a/1/**", {"x": "1", "y": None}),
        ("a/{n:int}", "a/x", None),
        ("a/{n:int}", "a/7", {"n": "7"}),
        ("files/{path:path}", "files/**", {"path": None}),
        ("files/{path:path}", "files/a/**", {"path": None}),
        ("files/{path:path}", "files/a/*", {"path": None}),
        ("files/{path:path}", "files/a/b", {"path": "a/b"}),
        ("quote.{symbol}", "*", None),
        ("quote.{symbol}", "quote.A", {"symbol": "A"}),
        ("{any}", "*", {"any": None}),
        ("fixed", "*", None),
        ("fixed", "fixed", {}),
    ],
)
def test_what_a_pattern_asks_of_a_declaration(
    template: str, pattern: str, values: dict[str, str | None] | None
) -> None:
    assert cover(Template(template), parse_pattern(pattern)) == values
