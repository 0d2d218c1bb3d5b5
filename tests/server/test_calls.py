"""Calls: what their functions may take, and where that comes from."""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from fastapi import (
    Body,
    Cookie,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    Security,
)
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from typing_extensions import TypedDict

from tests.server.desk import Desk, play
from tidewire.errors import CallError
from tidewire.server.identity import Identity
from tidewire.server.inner import Operation, current_call

bearer = HTTPBearer()


class Order(BaseModel):
    symbol: str
    quantity: int = 1


@dataclass
class Ticket:
    row: int
    seat: int = 1


class Point(TypedDict):
    x: int
    y: int


async def nothing() -> None: ...


def asks_the_operation(op: Operation) -> None: ...


async def place(order: Order) -> Any:
    return [order.symbol, order.quantity]


def place_in_thread(order: Order) -> Any:
    return [order.symbol, order.quantity]


async def maybe_place(order: Order | None = None) -> Any:
    return None if order is None else order.symbol


async def constrained_order(order: Annotated[Order, Field(description="what to buy")]) -> Any:
    return order.symbol


async def sit(ticket: Ticket) -> Any:
    return [ticket.row, ticket.seat]


async def walk(point: Point) -> Any:
    return point


async def store(values: dict[str, int]) -> Any:
    return values


async def either(what: Order | Ticket) -> Any:
    return type(what).__name__


async def by_name(symbol: str, quantity: int = 1) -> Any:
    return [symbol, quantity]


async def one_by_name(symbol: str) -> Any:
    return symbol


async def list_by_name(symbols: list[str]) -> Any:
    return symbols


async def orders_by_name(orders: list[Order]) -> Any:
    return [order.symbol for order in orders]


async def anything_by_name(value: Any) -> Any:
    return value


async def untyped(value, other=2) -> Any:  # type: ignore[no-untyped-def]
    return [value, other]


async def whole(values: Annotated[list[int], Body()]) -> Any:
    return values


async def whole_by_default(value: Any = Body()) -> Any:  # noqa: B008
    return value


async def limited(quantity: Annotated[int, Field(gt=0)]) -> Any:
    return quantity


async def renamed(from_: Annotated[str, Body(alias="from", embed=True)]) -> Any:
    return from_


async def model_and_name(order: Order, note: str = "") -> Any:
    return [order.symbol, note]


@pytest.mark.parametrize(
    ("function", "data", "answer"),
    [
        (place, {"symbol": "ACME", "quantity": 3}, ["ACME", 3]),
        (place, {"symbol": "ACME", "unknown": [1]}, ["ACME", 1]),
        (place_in_thread, {"symbol": "ACME"}, ["ACME", 1]),
        (maybe_place, {"symbol": "ACME"}, "ACME"),
        (maybe_place, None, None),
        (constrained_order, {"symbol": "ACME"}, "ACME"),
        (sit, {"row": 4}, [4, 1]),
        (walk, {"x": 1, "y": 2}, {"x": 1, "y": 2}),
        (store, {"a": 1, "b": 2}, {"a": 1, "b": 2}),
        (either, {"row": 1}, "Ticket"),
        (either, {"symbol": "ACME"}, "Order"),
        (by_name, {"symbol": "ACME", "quantity": 3}, ["ACME", 3]),
        (by_name, {"symbol": "ACME", "unknown": [1]}, ["ACME", 1]),
        (one_by_name, {"symbol": "ACME"}, "ACME"),
        (list_by_name, {"symbols": ["A", "B"]}, ["A", "B"]),
        (orders_by_name, {"orders": [{"symbol": "A"}]}, ["A"]),
        (anything_by_name, {"value": {"a": [None]}}, {"a": [None]}),
        (untyped, {"value": 1}, [1, 2]),
        (whole, [1, 2], [1, 2]),
        (whole_by_default, "text", "text"),
        (limited, {"quantity": 1}, 1),
        (renamed, {"from": "here"}, "here"),
        (model_and_name, {"order": {"symbol": "ACME"}, "note": "soon"}, ["ACME", "soon"]),
        (nothing, {"whatever": 1}, None),
        (nothing, [1, 2], None),
    ],
)
def test_annotations_say_what_is_taken_from_the_data(function: Any, data: Any, answer: Any) -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.declare("a", function)
        assert await desk.ask("a", data) == answer

    play(scenario)


@pytest.mark.parametrize(
    ("function", "data", "sentence"),
    [
        (place, {"quantity": "many"}, "symbol: Field required; quantity: Input should be a valid integer"),
        (place, [], "the data: Input should be a valid dictionary or object"),
        (place, None, "the data: Field required"),
        (by_name, None, "symbol: Field required"),
        (by_name, [1], "symbol: Field required"),
        (by_name, "ACME", "symbol: Field required"),
        (by_name, {"symbol": "A", "quantity": "x"}, "quantity: Input should be a valid integer"),
        (one_by_name, "ACME", "symbol: Field required"),
        (limited, {"quantity": 0}, "quantity: Input should be greater than 0"),
        (orders_by_name, {"orders": [{"symbol": "A"}, {}]}, "orders.1.symbol: Field required"),
        (model_and_name, {"order": {}}, "order.symbol: Field required"),
        (whole, {"a": 1}, "the data: Input should be a valid list"),
    ],
)
def test_what_does_not_fit_is_a_bad_request_that_names_the_field(function: Any, data: Any, sentence: str) -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.declare("order.place", function)
        code, message, temporary = await desk.fail("order.place", data)
        assert (code, temporary) == (107, False)
        assert message.startswith(f"the call 'order.place' does not take this: {sentence}")

    play(scenario)


def test_of_many_problems_a_few_are_told() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.declare("a", orders_by_name)
        _, message, _ = await desk.fail("a", {"orders": [{}] * 1000})
        assert message.endswith("orders.2.symbol: Field required; and 997 more")
        desk.declare("b", whole)
        assert len((await desk.fail("b", {"x" * 5000: 1}))[1]) <= 300
        desk.declare("c", store)
        assert len((await desk.fail("c", {"x" * 5000: "y"}))[1]) == 300

    play(scenario)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"{", "the data of a call is JSON: not JSON"),
        (b'{"symbol": "A"} x', "the data of a call is JSON: not JSON"),
        (b"\xff", "the data of a call is JSON: the JSON is not UTF-8"),
        (b"NaN", "the data of a call is JSON: not JSON"),
        (b'{"symbol": "\\ud800"}', "the data of a call is JSON: not JSON"),
        (b"[" * 100_000, "the data of a call is JSON: the JSON is nested too deeply"),
        (b'{"symbol": 1e999}', "symbol: Input should be a valid string"),
        (b'{"symbol": ' + b"1" * 5000 + b"}", "a number that is too long"),
    ],
)
def test_data_that_is_no_json_is_a_bad_request(data: bytes, sentence: str) -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.declare("a", by_name)
        with pytest.raises(CallError, match=sentence) as caught:
            await desk.invoke("a", data)
        assert (caught.value.code, caught.value.temporary) == (107, False)

    play(scenario)


def test_null_and_nothing_are_no_data() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.declare("maybe", maybe_place)
        assert await desk.invoke("maybe", b"null") == b"null"
        assert await desk.invoke("maybe", b"") == b"null"

    play(scenario)


def test_nothing_in_the_url_of_the_handshake_fills_a_parameter() -> None:
    """FastAPI takes plain parameters from the query, and the query is that of the URL the socket was opened with."""

    async def scenario() -> None:
        desk = Desk()
        desk.declare("by_name", by_name)
        desk.declare("untyped", untyped)
        desk.declare("maybe", maybe_place)
        query = "symbol=EVIL&quantity=99&value=7&other=8&order=9"
        assert await desk.ask("by_name", {"symbol": "ACME"}, query=query) == ["ACME", 1]
        assert await desk.ask("untyped", {"value": 1}, query=query) == [1, 2]
        assert await desk.ask("maybe", None, query=query) is None
        assert (await desk.fail("by_name", {}, query=query))[0] == 107

    play(scenario)


def test_what_says_that_it_is_of_the_url_is_and_so_are_dependencies() -> None:
    async def scenario() -> None:
        desk = Desk()

        def user(token: str = "") -> str:
            return f"user of {token}"

        async def function(
            version: Annotated[int, Query()], symbol: str, page: int = Query(1), who: str = Depends(user)
        ) -> Any:
            return [version, symbol, page, who]

        desk.declare("a", function)
        query = "version=7&page=2&token=t1&symbol=EVIL"
        assert await desk.ask("a", {"symbol": "ACME"}, query=query) == [7, "ACME", 2, "user of t1"]
        assert await desk.fail("a", {"symbol": "ACME"}) == (
            107,
            "the call 'a' does not take this: version (query of the connection): Field required",
            False,
        )

    play(scenario)


def test_dependencies_of_all_kinds_mean_what_they_mean() -> None:
    async def scenario() -> None:
        app = FastAPI()
        app.state.db = "the application's"
        desk = Desk(app)

        def scopes_of(scopes: SecurityScopes) -> list[str]:
            return scopes.scopes

        def identity() -> Identity | None:
            call = current_call()
            assert call is not None
            return call.identity

        async def function(
            request: Request,
            connection: HTTPConnection,
            response: Response,
            token: Annotated[HTTPAuthorizationCredentials, Security(bearer)],
            user_agent: Annotated[str, Header()],
            session: Annotated[str, Cookie()],
            op: Operation,
            quantity: int,
            scopes: list[str] = Security(scopes_of, scopes=["trade"]),  # noqa: B008
            who: Identity = Depends(identity),  # noqa: B008
        ) -> Any:
            body = await request.json()
            assert isinstance(response, Response)
            return [
                *(token.credentials, user_agent, session, request.app.state.db, connection.client.host),  # type: ignore[union-attr]
                *(op.name, op.topic, op.data, quantity, scopes, who.user, body),
            ]

        desk.declare("order.place", function)
        headers = {"authorization": "Bearer abc", "user-agent": "test", "cookie": "session=s1"}
        data = {"quantity": 2, "more": [1]}
        answer = await desk.ask("order.place", data, identity=Identity(user="ann"), headers=headers)
        told = ["abc", "test", "s1", "the application's", "10.0.0.1"]
        assert answer == [*told, "call", "order.place", data, 2, ["trade"], "ann", data]
        assert (await desk.fail("order.place", data))[:2] == (101, "Not authenticated")
        code, sentence, _ = await desk.fail("order.place", data, headers={"authorization": "Bearer abc"})
        assert code == 107
        assert "user-agent (header of the connection): Field required" in sentence
        assert "session (cookie of the connection): Field required" in sentence

    play(scenario)


def test_a_function_without_an_operation_is_called_without_data_too() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.declare("a", asks_the_operation)
        assert await desk.invoke("a", b"") == b"null"

    play(scenario)


def test_overrides_of_the_application_hold() -> None:
    async def scenario() -> None:
        def current_user() -> str:
            raise HTTPException(401, "who are you")

        async def function(user: str = Depends(current_user)) -> str:
            return user

        app = FastAPI()
        desk = Desk(app)
        desk.declare("a", function)
        assert await desk.fail("a") == (101, "who are you", False)
        app.dependency_overrides[current_user] = lambda: "a test"
        assert await desk.ask("a") == "a test"
        plain = Desk(Starlette())
        plain.declare("a", function)
        assert await plain.fail("a") == (101, "who are you", False)

    play(scenario)


def test_calls_at_once_know_each_their_own() -> None:
    async def scenario() -> None:
        desk = Desk()
        together = asyncio.Barrier(20)
        who = contextvars.ContextVar[int]("who")

        async def function(n: int) -> Any:
            await together.wait()
            call = current_call()
            assert call is not None
            assert call.identity is not None
            return [n, call.identity.user, who.get()]

        desk.declare("a", function)

        async def ask(n: int) -> Any:
            who.set(n)
            return await desk.ask("a", {"n": n}, identity=Identity(user=str(n)))

        assert await asyncio.gather(*(ask(n) for n in range(20))) == [[n, str(n), n] for n in range(20)]

    play(scenario)


def test_methods_of_objects_are_functions() -> None:
    async def scenario() -> None:
        class Exchange:
            name = "here"

            async def place(self, order: Order) -> Any:
                return [self.name, order.symbol]

        desk = Desk()
        desk.declare("a", Exchange().place)
        assert await desk.ask("a", {"symbol": "ACME"}) == ["here", "ACME"]

    play(scenario)
