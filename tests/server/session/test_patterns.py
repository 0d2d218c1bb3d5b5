"""Patterns of topics: who is asked, what they reach, and that nothing of a denied topic ever leaves."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, Query

from tests.server.session.fakes import Caller, SessionHouse, opens, passes
from tests.server.session.test_commands import enter
from tidewire import DeclarationError, Deny, Latest, Log, Operation, Signal
from tidewire.protocol.patterns import matches, parse_pattern
from tidewire.protocol.topics import Template


async def anybody(symbol: str | None = None) -> None: ...


async def house_with_quotes(policy: Any = None, function: Callable[..., Any] = anybody) -> SessionHouse:
    house = SessionHouse()
    house.declare("quotes/secret")
    house.declare("quotes/{symbol}", function, policy=policy or Log(), patterns=True, publish=True)
    house.declare("plain/{symbol}")
    return await house.start()


def heard(caller: Caller, pattern: str) -> list[tuple[str, Any]]:
    """Topic and data of each publication of a pattern."""
    return [
        (push.pub.channel, json.loads(bytes(push.pub.data)))
        for push in caller.pushes
        if push.channel == pattern and push.pub is not None
    ]


@pytest.mark.parametrize("codec", ["json", "protobuf"])
@pytest.mark.parametrize("pattern", ["quotes/*", "quotes/**"])
@opens
async def test_messages_say_their_topic(codec: str, pattern: str) -> None:
    house = await house_with_quotes()
    caller = await enter(house, codec=codec)
    result = await caller.ask(subscribe={"channel": pattern})
    assert "recoverable" not in result
    assert "epoch" not in result
    await house.publish_json("quotes/A", 1)
    await house.publish_json("quotes/B", 2)
    await house.publish_json("quotes/secret", "no")
    await house.publish_json("plain/A", "no")
    await passes()
    assert heard(caller, pattern) == [("quotes/A", 1), ("quotes/B", 2)]
    assert all(push.pub.offset == 0 for push in caller.pushes if push.pub is not None)
    assert [push.pub.tags["topic"] for push in caller.pushes if push.pub is not None] == ["quotes/A", "quotes/B"]
    assert await caller.ask(unsubscribe={"channel": pattern}) == {}
    await house.publish_json("quotes/A", 3)
    await passes()
    assert len(heard(caller, pattern)) == 2
    assert house.hub.topics == 0
    assert len(house.hub._patterns) == 0
    assert len(house.broker._patterns) == 0  # type: ignore[attr-defined]


@opens
async def test_a_pattern_and_its_topic_may_be_followed_side_by_side() -> None:
    house = await house_with_quotes()
    one, two = await enter(house), await enter(house)
    await one.ask(subscribe={"channel": "quotes/*"})
    await one.ask(subscribe={"channel": "quotes/A"})
    await two.ask(subscribe={"channel": "quotes/A"})
    assert (await one.ask(subscribe={"channel": "quotes/*"}))["error"] == 105
    await house.publish_json("quotes/A", 1)
    await passes()
    assert heard(one, "quotes/*") == [("quotes/A", 1)]
    assert one.told("quotes/A") == [1]
    assert two.told("quotes/A") == [1]
    await one.ask(unsubscribe={"channel": "quotes/*"})
    await house.publish_json("quotes/A", 2)
    await passes()
    assert two.told("quotes/A") == [1, 2]


@opens
async def test_latest_values_come_first_and_are_conflated() -> None:
    house = await house_with_quotes(Latest())
    for symbol, value in (("A", 1), ("B", 1), ("A", 2)):
        await house.publish_json(f"quotes/{symbol}", value)
    caller = await enter(house, high_water=1)
    await caller.ask(subscribe={"channel": "quotes/*"})
    await passes()
    assert sorted(heard(caller, "quotes/*")) == [("quotes/A", 2), ("quotes/B", 1)]
    caller.transport.stall()
    for n in range(3, 200):
        await house.publish_json(f"quotes/{'AB'[n % 2]}", n)
        await passes(2)
    caller.transport.unstall()
    await passes(50)
    newest = dict(heard(caller, "quotes/*"))
    assert newest == {"quotes/A": 198, "quotes/B": 199}
    assert len(heard(caller, "quotes/*")) < 60


@opens
async def test_keys_of_different_topics_are_different_values() -> None:
    house = await house_with_quotes(Latest(key="k"))
    for topic in ("quotes/A", "quotes/B"):
        await house.publish_json(topic, {"k": "x", "of": topic})
    caller = await enter(house)
    await caller.ask(subscribe={"channel": "quotes/*"})
    await passes()
    assert sorted(value["of"] for _, value in heard(caller, "quotes/*")) == ["quotes/A", "quotes/B"]


@opens
async def test_too_many_values_to_begin_with_are_refused() -> None:
    house = SessionHouse(pattern_topics_max=3)
    house.declare("quotes/{symbol}", anybody, policy=Latest(), patterns=True)
    await house.start()
    for n in range(4):
        await house.publish_json(f"quotes/{n}", n)
    caller = await enter(house)
    assert (await caller.ask(subscribe={"channel": "quotes/*"}))["error"] == 106
    assert caller.session.subscriptions == {}
    await passes()
    assert house.hub.topics == 0


@opens
async def test_signals_too() -> None:
    house = await house_with_quotes(Signal())
    caller = await enter(house)
    await caller.ask(subscribe={"channel": "quotes/*"})
    await house.publish_json("quotes/A", 1)
    await passes()
    assert heard(caller, "quotes/*") == [("quotes/A", 1)]


# Who may


@opens
async def test_the_function_is_asked_once_and_told_what_is_open() -> None:
    asked: list[Any] = []

    async def two(op: Operation, x: str | None = None, y: int | None = None) -> None:
        asked.append((op.name, op.topic, x, y))
        if x == "closed":
            raise Deny("closed")

    house = SessionHouse()
    house.declare("a/{x}/b/{y}", two, patterns=True)
    await house.start()
    caller = await enter(house)
    for pattern in ("a/1/b/*", "a/*/b/2", "a/*/b/*"):
        assert "error" not in await caller.ask(subscribe={"channel": pattern})
    assert (await caller.ask(subscribe={"channel": "a/closed/b/*"}))["error"] == 103
    assert (await caller.ask(subscribe={"channel": "a/1/*/2"}))["error"] == 102
    assert (await caller.ask(subscribe={"channel": "a/*/b/x"}))["error"] == 107
    await house.publish_json("a/1/b/2", "m")
    await passes()
    assert [len(heard(caller, pattern)) for pattern in ("a/1/b/*", "a/*/b/2", "a/*/b/*")] == [1, 1, 1]
    assert asked == [
        ("subscribe", "a/1/b/*", "1", None),
        ("subscribe", "a/*/b/2", None, 2),
        ("subscribe", "a/*/b/*", None, None),
        ("subscribe", "a/closed/b/*", "closed", None),
    ]


@opens
async def test_the_query_of_the_handshake_fills_no_parameter() -> None:
    asked: list[Any] = []

    async def of_user(user: str | None = None) -> None:
        asked.append(user)
        if user is None:
            raise Deny("everybody's mail is nobody's")

    async def mail(symbol: Annotated[str | None, Query()] = None, who: None = Depends(of_user)) -> None:
        asked.append(symbol)

    house = SessionHouse()
    house.declare("mail/{user}", mail, patterns=True)
    await house.start()
    caller = await enter(house, query="user=me&symbol=kept")
    assert (await caller.ask(subscribe={"channel": "mail/*"}))["error"] == 103
    assert asked == [None]
    assert "epoch" in await caller.ask(subscribe={"channel": "mail/me"})
    assert asked == [None, "me", "kept"], "what is no parameter of the topic is the caller's to say"


@opens
async def test_topics_that_offer_none_say_so() -> None:
    house = await house_with_quotes()
    caller = await enter(house)
    refused = await caller.ask(subscribe={"channel": "plain/*"})
    assert refused["error"] == 107
    assert "does not offer them" in refused["message"]
    for pattern in ("**", "*", "*/A", "quotes/*/x", "nowhere/*"):
        assert (await caller.ask(subscribe={"channel": pattern}))["error"] == 102
    for pattern in ("$quotes/*", "a/**/b", "quotes/A*"):
        assert (await caller.ask(subscribe={"channel": pattern}))["error"] == 107
    for command in ("publish", "history", "presence"):
        refused = await caller.ask(
            **{command: {"channel": "quotes/*", **({"data": 1} if command == "publish" else {})}}
        )
        assert refused["error"] == 107


@opens
async def test_parameters_have_to_default_to_none() -> None:
    house = SessionHouse()

    async def required(symbol: str) -> None: ...

    async def other_default(symbol: str = "A") -> None: ...

    async def hidden(who: None = Depends(required)) -> None: ...

    for function in (required, other_default, hidden):
        with pytest.raises(DeclarationError, match=r"symbol: str \| None = None"):
            house.declare("quotes/{symbol}", function, patterns=True)
    with pytest.raises(DeclarationError, match="wants 1 to 4 parameters"):
        house.declare("fixed", anybody, patterns=True)


# Random rules


TEMPLATES = ("{a}", "{a}/{b}", "x/{a}", "x/{a}/{b}", "x/y/{a}", "{a}/y/{b}", "x/{rest:path}", "y/{a}/x", "x/y/z")
SEGMENTS = ("x", "y", "z")


class Rules:
    """Random declarations, and who may see what, in the simplest words."""

    def __init__(self, rng: random.Random) -> None:
        self.templates = rng.sample(TEMPLATES, rng.randrange(1, 5))
        self.offers = {template: rng.random() < 0.7 for template in self.templates}
        # values of parameters that this caller is refused; None: refused where a wildcard stands
        self.denied = {template: set(rng.sample([None, *SEGMENTS], rng.randrange(3))) for template in self.templates}

    def function(self, template: str) -> Callable[..., Any]:
        denied = self.denied[template]

        async def zero() -> None:
            return

        async def of_a(a: str | None = None) -> None:
            if a in denied:
                raise Deny

        async def of_two(a: str | None = None, b: str | None = None) -> None:
            if a in denied or b in denied:
                raise Deny

        async def of_rest(rest: str | None = None) -> None:
            if rest in denied:
                raise Deny

        return {(): zero, ("a",): of_a, ("a", "b"): of_two, ("rest",): of_rest}[Template(template).fields]

    def owner(self, topic: str) -> str | None:
        return next((one for one in self.templates if Template(one).match(topic) is not None), None)

    def may_reach(self, pattern: str, topic: str) -> bool:
        """What a pattern may bring at most: topics of an offering declaration, where the wildcards are admitted."""
        owner = self.owner(topic)
        if owner is None or not self.offers[owner] or topic.startswith("$"):
            return False
        if not matches(parse_pattern(pattern), topic):
            return False
        # parameters that the pattern leaves open are None to the function, the others are what they are
        values = Template(owner).match(topic) or {}
        at = {name: index for index, name in enumerate(owner.split("/"))}
        for name, value in values.items():
            place = next(index for part, index in at.items() if part.startswith("{" + name))
            segments = pattern.split("/")
            shown = segments[place] if place < len(segments) else "**"
            is_open = "*" in shown or "**" in segments[: place + 1] or (name == "rest" and "*" in pattern)
            if (None if is_open else value) in self.denied[owner]:
                return False
        return True


def test_nothing_of_a_denied_topic_ever_leaves() -> None:
    reached = 0
    for seed in range(150):
        reached += _live_through(random.Random(seed))
    assert reached > 300, "the rules are so strict that nothing is tested"


def _live_through(rng: random.Random) -> int:
    rules = Rules(rng)
    counts: list[int] = []

    @opens
    async def history() -> None:
        house = SessionHouse()
        for template in rules.templates:
            offers = rules.offers[template] and bool(Template(template).fields)
            rules.offers[template] = offers
            policy = rng.choice([Log(), Latest(), Signal()])
            house.declare(template, rules.function(template), policy=policy, patterns=offers)
        await house.start()
        caller = await enter(house)
        patterns = set()
        for _ in range(8):
            length = rng.randrange(1, 4)
            parts = [rng.choice([*SEGMENTS, "*", "*"]) for _ in range(length)]
            if rng.random() < 0.3:
                parts[-1] = "**"
            pattern = "/".join(parts)
            if "*" in pattern:
                patterns.add(pattern)
        granted = [one for one in sorted(patterns) if "error" not in await caller.ask(subscribe={"channel": one})]
        sent = []
        for n in range(20):
            topic = "/".join(rng.choice(SEGMENTS) for _ in range(rng.randrange(1, 4)))
            if rules.owner(topic) is not None:
                await house.publish_json(topic, n)
                sent.append((topic, n))
                await passes(3)
        await passes(20)
        for pattern in patterns:
            got = heard(caller, pattern)
            assert not got or pattern in granted
            for topic, value in got:
                assert rules.may_reach(pattern, topic), (rules.templates, rules.offers, rules.denied, pattern, topic)
                assert (topic, value) in sent
        counts.append(sum(len(heard(caller, pattern)) for pattern in patterns))

    history()
    return counts[0]
