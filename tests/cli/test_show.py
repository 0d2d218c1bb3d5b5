"""How messages are printed: to a pipe, as JSON lines, and for eyes."""

import io
import json
from typing import Any

import pytest
from rich.console import Console

from tidewire.cli.show import JsonLines, Plain, Pretty
from tidewire.client.resume import Gap, Received
from tidewire.protocol.position import Position

P7 = str(Position("a1", 7))


def plain(message: Received) -> tuple[bool, bytes]:
    out = io.BytesIO()
    return Plain(out).show(message), out.getvalue()


def pretty(message: Received, colour: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=colour, width=40, highlight=False, _environ={})
    assert Pretty(console).show(message)
    return out.getvalue()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (Received({"a": [1, 2]}, P7), b'{"a":[1,2]}\n'),
        (Received("quoted", P7), b'"quoted"\n'),
        (Received("grüße", P7, kind="text"), "grüße\n".encode()),
        (Received(b"\x00\xff", P7, kind="bytes"), b"\x00\xff\n"),
        (Received("\x1b[2J", P7, kind="text"), b"\x1b[2J\n"),
    ],
)
def test_pipes_get_the_payload(message: Received, expected: bytes) -> None:
    assert plain(message) == (True, expected)


def test_removed_key_has_no_payload() -> None:
    assert plain(Received(None, P7, key="k", removed=True)) == (False, b"")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (Received({"a": 1}, P7), {"position": P7, "kind": "json", "data": {"a": 1}, "gap": None}),
        (Received("t", None, kind="text"), {"position": None, "kind": "text", "data": "t", "gap": None}),
        (Received(b"\x00\xff", P7, kind="bytes"), {"position": P7, "kind": "bytes", "base64": "AP8=", "gap": None}),
        (
            Received(1, P7, gap=Gap("x", "y"), key="k", snapshot=True),
            {
                "position": P7,
                "kind": "json",
                "data": 1,
                "gap": {"from": "x", "to": "y"},
                "key": "k",
                "snapshot": True,
            },
        ),
        (
            Received(None, P7, key="k", removed=True),
            {"position": P7, "kind": "json", "data": None, "gap": None, "key": "k", "removed": True},
        ),
    ],
)
def test_json_lines(message: Received, expected: dict[str, Any]) -> None:
    out = io.BytesIO()
    assert JsonLines(out).show(message)
    line = out.getvalue()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == expected


def test_eyes_see_number_key_and_payload() -> None:
    assert pretty(Received({"a": 1}, P7, key="k")) == '     7  k  {"a":1}\n'
    assert pretty(Received("hi", kind="text")) == "hi\n"
    assert pretty(Received(b"\x00\xff", P7, kind="bytes")) == "     7  2 bytes: 00 ff\n"
    assert pretty(Received(None, P7, key="k", removed=True)) == "     7  k  removed\n"
    assert "as it stands" in pretty(Received(1, P7, snapshot=True))
    assert "\x1b[" in pretty(Received({"a": 1}, P7), colour=True)


def test_long_bytes_are_shortened() -> None:
    assert pretty(Received(b"\x00" * 1000, kind="bytes")).strip().endswith("and 936 more")


def test_strangers_do_not_move_the_cursor() -> None:
    for message in (
        Received("\x1b[2Jboo", key="\x1b[3Jk", kind="text"),
        Received({"a": "\u202e"}),
        Received("[bold red]markup[/]", kind="text"),
    ):
        shown = pretty(message)
        assert "\x1b" not in shown
        assert "\u202e" not in shown
    assert pretty(Received("[bold]x[/]", kind="text")) == "[bold]x[/]\n"


def test_long_lines_are_not_broken() -> None:
    assert pretty(Received("x" * 100, kind="text")) == "x" * 100 + "\n"
