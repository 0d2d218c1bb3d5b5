"""Calls: their names, and what cannot be one."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import (
    Depends,
    File,
    Form,
    Path,
    UploadFile,
    WebSocket,
)
from pydantic import BaseModel, Field

from tests.server.desk import Desk, play
from tidewire.errors import DeclarationError
from tidewire.server.identity import Identity
from tidewire.server.inner import Operation


class Order(BaseModel):
    symbol: str
    quantity: int = 1


async def nothing() -> None: ...


@pytest.mark.parametrize("name", ["a", "order.place", "v1/order:place", "A-b_c", "x" * 255, "tidewire", "."])
def test_a_name_is_letters_digits_and_six_signs(name: str) -> None:
    async def scenario() -> None:
        desk = Desk()
        assert name not in desk.calls
        desk.declare(name, nothing)
        assert name in desk.calls
        assert await desk.ask(name) is None

    play(scenario)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "no name for a call"),
        ("x" * 256, "no name for a call"),
        ("a b", "no name for a call"),
        ("ä", "no name for a call"),
        ("a\n", "no name for a call"),
        ("tidewire.ack", "for Tidewire itself"),
        (nothing, "a call has a name"),
    ],
)
def test_other_names_are_refused(name: Any, sentence: str) -> None:
    with pytest.raises(DeclarationError, match=sentence):
        Desk().declare(name, nothing)


def test_a_name_is_declared_once() -> None:
    desk = Desk()
    desk.declare("a", nothing)
    with pytest.raises(DeclarationError, match="declared twice"):
        desk.declare("a", nothing)


def takes_websocket(websocket: WebSocket) -> None: ...


def yields() -> Iterator[int]:
    yield 1


def asks_the_operation(op: Operation) -> None: ...


def means_nothing(a: NoSuchType) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def depends_on(dependency: Callable[..., Any]) -> Callable[..., Any]:
    async def function(value: Any = Depends(dependency)) -> None: ...  # noqa: B008

    return function


async def takes_stars(*symbols: str) -> None: ...
async def takes_any_name(**fields: str) -> None: ...
async def takes_by_position(symbol: str, /) -> None: ...
async def takes_form(symbol: Annotated[str, Form()]) -> None: ...
async def takes_file(file: Annotated[bytes, File()]) -> None: ...
async def takes_upload(file: UploadFile) -> None: ...
async def takes_uploads(files: list[UploadFile]) -> None: ...
async def takes_path(symbol: Annotated[str, Path()]) -> None: ...
async def takes_lock(lock: threading.Lock) -> None: ...
async def takes_identity(who: Identity) -> None: ...
async def may_take_identity(order: Order, who: Identity | None = None) -> None: ...
async def may_take_operation(op: Operation | None = None) -> None: ...
async def takes_field(symbol: str = Field(min_length=1)) -> None: ...


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (takes_websocket, "takes a WebSocket"),
        (depends_on(takes_websocket), "takes a WebSocket"),
        (yields, "write async def"),
        (means_nothing, "means nothing"),
        (takes_stars, "name each parameter"),
        (takes_any_name, "name each parameter"),
        (takes_by_position, "by position only"),
        (takes_form, "from a form"),
        (takes_file, "from a form"),
        (takes_upload, "from a form"),
        (takes_uploads, "from a form"),
        (takes_path, "from a path"),
        (takes_lock, "valid Pydantic field type"),
        (takes_field, "symbol"),
        (takes_identity, r"Depends\(live.identity\)"),
        (may_take_identity, r"Depends\(live.identity\)"),
        (depends_on(takes_identity), r"Depends\(live.identity\)"),
        (may_take_operation, "op: Operation"),
        (depends_on(asks_the_operation), "op: Operation"),
        (Order, "is none: wrap it in a def"),
        (functools.partial(nothing), "is none: wrap it in a def"),
        (len, "is none: wrap it in a def"),
        (None, "is none: wrap it in a def"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_declared_and_leaves_nothing(function: Any, sentence: str) -> None:
    async def scenario() -> None:
        desk = Desk()
        with pytest.raises(DeclarationError, match=sentence):
            desk.declare("a", function)
        assert "a" not in desk.calls
        desk.declare("a", nothing)
        assert await desk.ask("a") is None

    play(scenario)


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan"), True, "1"])
def test_a_deadline_is_a_number(timeout_s: Any) -> None:
    with pytest.raises(DeclarationError, match="timeout_s is a number"):
        Desk().declare("a", nothing, timeout_s=timeout_s)
