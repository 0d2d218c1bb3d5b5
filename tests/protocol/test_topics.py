"""Names and templates: what may name a topic, and what a declaration matches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewire.errors import BadTopic, DeclarationError
from tidewire.protocol.topics import NAME_BYTES_MAX, Template, validate_topic

GOOD = ["a", "quotes/AAPL", "a.b:c@d=e,f+g~h#i$j", "x" * NAME_BYTES_MAX, "a/-/b", "-a", "$sys/x", "a..b", "0"]
BAD = {
    "": "empty",
    "a//b": "empty",
    "/a": "empty",
    "a/": "empty",
    "a/../b": "..",
    ".": ".",
    "..": "..",
    "-": "own URLs",
    "-/files": "own URLs",
    "a b": "allowed",
    "a\nb": "allowed",
    "a\x00": "allowed",
    "a\n": "allowed",
    "é": "allowed",
    "a%2fb": "allowed",
    "a\\b": "allowed",
    "a{b}": "allowed",
    "a?b": "allowed",
    "a/*": "wildcard",
    "a/**": "wildcard",
    "x" * (NAME_BYTES_MAX + 1): "256",
}


@pytest.mark.parametrize("name", GOOD)
def test_good_names(name: str) -> None:
    assert validate_topic(name) == name


@pytest.mark.parametrize(("name", "why"), BAD.items())
def test_bad_names_say_why(name: str, why: str) -> None:
    with pytest.raises(BadTopic, match=r"is not a topic name") as caught:
        validate_topic(name)
    assert why in str(caught.value)


@given(st.text(max_size=300))
def test_no_text_passes_that_breaks_a_rule(name: str) -> None:
    try:
        validate_topic(name)
    except BadTopic:
        return
    assert name.isascii()
    assert 1 <= len(name) <= NAME_BYTES_MAX
    assert all(segment not in {"", ".", ".."} for segment in name.split("/"))
    assert not set(name) & set("*{}?%\\ \r\n\x00")


def test_a_template_matches_whole_names_by_segment() -> None:
    quotes = Template("quotes/{symbol}")
    assert quotes.match("quotes/AAPL") == {"symbol": "AAPL"}
    assert quotes.match("quotes/AAPL/x") is None
    assert quotes.match("xquotes/AAPL") is None
    assert quotes.match("quotes/") is None


def test_a_path_parameter_takes_the_rest() -> None:
    files = Template("files/{path:path}")
    assert files.match("files/a/b") == {"path": "a/b"}
    assert files.format(path="a/b") == "files/a/b"


def test_a_dot_in_a_template_is_a_dot() -> None:
    assert Template("a.b").match("axb") is None


def test_system_topics_match_only_templates_that_say_so() -> None:
    assert Template("{name:path}").match("$sys/x") is None
    assert Template("$sys/{name}").match("$sys/x") == {"name": "x"}


def test_format_wants_exactly_the_parameters() -> None:
    quotes = Template("quotes/{symbol}")
    assert quotes.format(symbol="AAPL") == "quotes/AAPL"
    with pytest.raises(DeclarationError, match="takes symbol="):
        quotes.format()
    with pytest.raises(DeclarationError):
        quotes.format(symbol="A", other="B")


@pytest.mark.parametrize("value", ["a/b", "", "..", "a b"])
def test_format_refuses_values_that_change_the_name(value: str) -> None:
    with pytest.raises(BadTopic):
        Template("quotes/{symbol}").format(symbol=value)


@pytest.mark.parametrize("text", ["", "a//b", "{a", "a}", "{1x}", "{a}/{a}", "{a:uuid}", "-/x", "a b", "*", "{a}/*"])
def test_declarations_that_match_nothing_are_refused(text: str) -> None:
    with pytest.raises(DeclarationError):
        Template(text)
